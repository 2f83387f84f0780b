"""Stable Diffusion XL: two text encoders, and conditions on pooled text and on sizes."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from latentbench.bounds import Dtype, Guidance, Name, Steps, TimeNodes
from latentbench.errors import Incompatible
from latentbench.model import Condition
from latentbench.models.components import load_component
from latentbench.models.latent_diffusion import LatentDiffusion
from latentbench.prompt_tokens import token_ids
from latentbench.types import Capability


class StableDiffusionXL(LatentDiffusion):
    """A latent model in the folder layout of `StableDiffusionXLPipeline`, without refiner.

    Source: "SDXL: Improving Latent Diffusion Models for High-Resolution Image Synthesis",
    section 2. Token embeddings are the last layer but one of both encoders, side by side; the
    second encoder's pooled output and the sizes (original, crop, target: the native size, no crop)
    are further tensors of the condition. The empty condition is zeros where the checkpoint says
    so (`force_zeros_for_empty_prompt`), else the prompt "".

    Args:
        path: a local folder or a hub id.
        steps: default number of sampling steps.
        guidance: default classifier-free guidance scale.
        time_nodes: of blocks of early times; see `CheckpointDiffusion`.
        dtype: "float32", "float16" or "bfloat16"; an autoencoder that overflows in float16 (its
            config says `force_upcast`) stays in float32.
        vae_tiling: decode in overlapping tiles, for GPUs with little memory; seams are blended,
            so it changes images and is a setting of the model.
        device: where the networks run.

    Example:
        ``StableDiffusionXL(path="/data/sdxl", dtype="float16")``
    """

    gives: ClassVar[frozenset[Capability]] = frozenset({Capability.PROMPTS})  # no words: two tables

    def __init__(
        self,
        *,
        path: Name,
        steps: Steps = 50,
        guidance: Guidance = 5.0,
        time_nodes: TimeNodes | None = None,
        dtype: Dtype = "float32",
        vae_tiling: bool = False,
        device: str = "cpu",
    ) -> None:
        super().__init__(
            path=path, steps=steps, guidance=guidance, time_nodes=time_nodes, dtype=dtype,
            device=device,
        )  # fmt: skip
        self.text_encoder_2: Any = self.component(
            "transformers.CLIPTextModelWithProjection", "text_encoder_2"
        )
        self.tokenizer_2 = load_component("transformers.CLIPTokenizer", self.folder, "tokenizer_2")
        self._zeros_for_empty = _zeros_for_empty(self.folder)
        self.vae_tiling = vae_tiling
        if vae_tiling:
            self.vae.enable_tiling()

    def networks(self) -> Sequence[nn.Module]:
        """Return U-Net, autoencoder and both text encoders."""
        return (*super().networks(), self.text_encoder_2)

    def settings(self) -> tuple[Any, ...]:
        """Return what changes an image besides the weights."""
        return (*super().settings(), self.vae_tiling, self._zeros_for_empty)

    def row(self, prompt: str | None) -> dict[str, Tensor]:
        """Return one row of the condition; None is the empty one."""
        states, pooled = self._encode(prompt or "")
        if prompt is None and self._zeros_for_empty:
            states, pooled = torch.zeros_like(states), torch.zeros_like(pooled)
        size = float(self.image_size)
        sizes = torch.tensor([size, size, 0.0, 0.0, size, size], device=self.device)
        return {"encoder_hidden_states": states, "text_embeds": pooled, "time_ids": sizes}

    def embed(self, prompt: str) -> Float[Tensor, "m d"]:
        """Return one prompt's token embeddings, both encoders' side by side."""
        return self._encode(prompt)[0]

    @torch.no_grad()
    def _encode(self, prompt: str) -> tuple[Float[Tensor, "m d"], Float[Tensor, " e"]]:
        """Return a prompt's token embeddings and its pooled embedding."""
        states, pooled = [], torch.empty(0)
        for tokenizer, encoder in (
            (self.tokenizer, self.text_encoder),
            (self.tokenizer_2, self.text_encoder_2),
        ):
            ids = torch.tensor([token_ids(tokenizer, prompt)], device=self.device)
            out = encoder(ids, output_hidden_states=True)
            states.append(out.hidden_states[-2][0].float())
            pooled = out[0][0].float()
        return torch.cat(states, -1), pooled

    def embed_words(
        self, prompt: str, words: Mapping[str, Float[Tensor, " d"]]
    ) -> Float[Tensor, "m d"]:
        """Refuse: a made-up word would need a vector in each encoder, and a pooled embedding."""
        raise Incompatible(
            f"{type(self).__name__} reads a prompt with two text encoders; methods that learn "
            f"words run on models with one, such as model=sd15"
        )

    def call(
        self, x: Float[Tensor, "r c h w"], timesteps: Tensor, condition: Condition
    ) -> Float[Tensor, "r c h w"]:
        """Return the U-Net's output."""
        own = dict(condition.tensors)
        states = own.pop("encoder_hidden_states")
        return self.network(
            x, timesteps, encoder_hidden_states=states, added_cond_kwargs=own
        ).sample


def _zeros_for_empty(folder: str) -> bool:
    """Return whether the checkpoint's empty condition is zeros, as its model_index.json says."""
    from diffusers import DiffusionPipeline  # late: takes seconds to import

    index: Any = DiffusionPipeline.load_config(folder)
    return bool(index.get("force_zeros_for_empty_prompt", True))
