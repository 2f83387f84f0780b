"""Class-conditional diffusion transformers, from the components of a DiT checkpoint."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from huggingface_hub import hf_hub_download
from jaxtyping import Float
from torch import Tensor, nn

from latentbench.bounds import Dtype, Guidance, Name, Steps, TimeNodes
from latentbench.errors import BadInput, MissingWeights, unknown
from latentbench.model import Condition
from latentbench.models.transformer import TransformerDiffusion
from latentbench.models.unet import TappedAttention, ddim_grid
from latentbench.parameterization import Grid
from latentbench.types import Capability, Space


class DiT(TransformerDiffusion):
    """A diffusion transformer conditioned on classes, in the folder layout of `DiTPipeline`.

    Source: "Scalable Diffusion Models with Transformers". The network's second half of channels,
    the learned variance, is split off: the suite's sampler has its own variance. A condition is a
    row of weights over the classes and the null class, one-hot for one class, so that paths between
    classes exist. A prompt means the class whose name's words it holds; of several, for the
    longest. Prompts that name no class are refused.

    Args:
        path: name of an embedded model, a local folder, or a hub id.
        vae: where the autoencoder is, when the checkpoint has none of its own.
        steps: default number of sampling steps.
        guidance: default classifier-free guidance scale.
        time_nodes: of blocks of early times; see `CheckpointDiffusion`.
        dtype: "float32", "float16" or "bfloat16".
        device: where the network runs.

    Example:
        >>> model = DiT(path="faces_dit", vae="faces_ldm")
        >>> model.condition(("old glasses hat bearded",), 1).tensors["class_labels"].shape
        torch.Size([1, 17])
    """

    spaces: ClassVar[frozenset[Space]] = frozenset(
        {
            Space.NOISE,
            Space.NOISE_MAPS,
            Space.BOTTLENECK,
            Space.ATTENTION,
            Space.WEIGHTS,
            Space.VAE,
        }
    )
    gives: ClassVar[frozenset[Capability]] = frozenset({Capability.PROMPTS, Capability.CLASSES})
    processor = TappedAttention
    schedule = "diffusers.DDIMScheduler"

    def __init__(
        self,
        *,
        path: Name,
        vae: Name | None = None,
        steps: Steps = 50,
        guidance: Guidance = 4.0,
        time_nodes: TimeNodes | None = None,
        dtype: Dtype = "float32",
        device: str = "cpu",
    ) -> None:
        super().__init__(
            path=path, steps=steps, guidance=guidance, time_nodes=time_nodes, dtype=dtype,
            device=device,
        )  # fmt: skip
        self.prediction_type = self.scheduler.config.prediction_type
        self.network = self.component("diffusers.DiTTransformer2DModel", "transformer")
        _weigh_classes(self.network)
        self.load_autoencoder(vae)
        side = int(self.network.config.sample_size)
        self.latent_shape = (int(self.network.config.in_channels), side, side)
        self.image_size = self.image_size_of(side)
        self.classes = class_names(self.folder)

    def networks(self) -> Sequence[nn.Module]:
        """Return transformer and autoencoder."""
        return (self.network, self.vae)

    @classmethod
    def levels(cls, scheduler: Any, steps: int) -> Grid:
        """Return the DDIM levels of the checkpoint's own scheduler config."""
        return ddim_grid(scheduler, steps)

    def grid(self, steps: int | None = None) -> Grid:
        """Return the DDIM levels of the checkpoint's own scheduler config."""
        return self.levels(self.scheduler, steps or self.steps)

    def condition(self, prompts: Sequence[str] | None, rows: int) -> Condition:
        """Return the classes of prompts; None means the null class in every row."""
        if prompts is not None and len(prompts) != rows:
            raise BadInput(f"got {len(prompts)} prompts for {rows} images; give one per image")
        null = int(self.network.config.num_embeds_ada_norm)
        labels = [null] * rows if prompts is None else [self.class_of(p) for p in prompts]
        weights = nn.functional.one_hot(torch.tensor(labels), null + 1)
        return Condition({"class_labels": weights.float().to(self.device)})

    def class_of(self, prompt: str) -> int:
        """Return the class that a prompt names.

        Raises:
            BadInput: no class, or several with names of the same length.
        """
        words = set(prompt.lower().split())
        found = [name for name in self.classes if set(name.lower().split()) <= words]
        longest = max((len(name.split()) for name in found), default=0)
        named = {self.classes[name] for name in found if len(name.split()) == longest}
        if not named:
            raise unknown("class in the prompt", prompt, self.classes)
        if len(named) > 1:
            raise BadInput(f"prompt {prompt!r} names several classes: {', '.join(sorted(found))}")
        return named.pop()

    def call(
        self, x: Float[Tensor, "r c h w"], timesteps: Tensor, condition: Condition
    ) -> Float[Tensor, "r c h w"]:
        """Return the network's prediction without the learned variance."""
        return super().call(x, timesteps, condition)[:, : x.shape[1]]


class _WeighedClasses(nn.Embedding):
    """An embedding that takes weights over its rows as well as row numbers."""

    def forward(self, labels: Tensor) -> Tensor:
        """Return ``weights @ table``, or the rows of integer labels."""
        if labels.is_floating_point():
            return labels.to(self.weight.dtype) @ self.weight
        return super().forward(labels)


def _weigh_classes(network: nn.Module) -> None:
    """Let each block's class embedding take weights: same parameters, same names."""
    blocks: Any = network.transformer_blocks
    for block in blocks:
        block.norm1.emb.class_embedder.embedding_table.__class__ = _WeighedClasses


def class_names(folder: str) -> Mapping[str, int]:
    """Return class numbers by name, synonyms apart, from `id2label` of the pipeline's index."""
    index = Path(folder) / "model_index.json"
    try:
        if not Path(folder).is_dir():
            index = Path(hf_hub_download(folder, index.name))
        labels = json.loads(index.read_text(encoding="utf-8"))["id2label"]
    except (OSError, KeyError) as error:
        raise MissingWeights(
            f"cannot read the names of the classes: {index} is absent or has no id2label; "
            f"fetch the whole checkpoint: hf download {folder}"
        ) from error
    pairs = [(part.strip(), int(k)) for k, names in labels.items() for part in names.split(",")]
    return dict(sorted(pairs))
