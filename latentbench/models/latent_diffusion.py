"""Text-conditional latent diffusion, from the components of a Stable Diffusion checkpoint."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from latentbench.bounds import Dtype, Guidance, Name, Steps, TimeNodes
from latentbench.errors import BadInput
from latentbench.model import Condition
from latentbench.models.autoencoder import AutoencodedDiffusion
from latentbench.models.components import load_component
from latentbench.models.unet import UNetDiffusion
from latentbench.prompt_tokens import Tokens, read_tokens, token_ids
from latentbench.types import Capability, Space


class LatentDiffusion(UNetDiffusion, AutoencodedDiffusion):
    """A latent diffusion model with prompts, in the folder layout of `StableDiffusionPipeline`.

    Source: "High-Resolution Image Synthesis with Latent Diffusion Models". The empty
    condition is the prompt "".

    Example:
        >>> LatentDiffusion(path="faces_ldm", steps=50, guidance=3.0).latent_shape
        (4, 16, 16)
    """

    spaces: ClassVar[frozenset[Space]] = frozenset(
        {
            Space.NOISE,
            Space.NOISE_MAPS,
            Space.BOTTLENECK,
            Space.ATTENTION,
            Space.TOKEN_MAPS,
            Space.WEIGHTS,
            Space.VAE,
            Space.TEXT,
        }
    )
    gives: ClassVar[frozenset[Capability]] = frozenset({Capability.PROMPTS, Capability.WORDS})

    def __init__(
        self,
        *,
        path: Name,
        steps: Steps = 50,
        guidance: Guidance = 3.0,
        time_nodes: TimeNodes | None = None,
        dtype: Dtype = "float32",
        device: str = "cpu",
    ) -> None:
        super().__init__(
            path=path, steps=steps, guidance=guidance, time_nodes=time_nodes, dtype=dtype,
            device=device,
        )  # fmt: skip
        self.network = self.component("diffusers.UNet2DConditionModel", "unet")
        self.load_autoencoder()
        self.text_encoder: Any = self.component("transformers.CLIPTextModel", "text_encoder")
        self.tokenizer = load_component("transformers.CLIPTokenizer", self.folder, "tokenizer")
        side = int(self.network.config.sample_size)
        self.latent_shape = (int(self.network.config.in_channels), side, side)
        self.image_size = self.image_size_of(side)
        self._rows: dict[str | None, Mapping[str, Tensor]] = {}

    def networks(self) -> Sequence[nn.Module]:
        """Return U-Net, autoencoder and text encoder."""
        return (self.network, self.vae, self.text_encoder)

    def condition(self, prompts: Sequence[str] | None, rows: int) -> Condition:
        """Return the prompts' embeddings; None means the empty condition in every row."""
        texts = [None] * rows if prompts is None else list(prompts)
        if len(texts) != rows:
            raise BadInput(f"got {len(texts)} prompts for {rows} images; give one per image")
        for text in set(texts) - self._rows.keys():
            self._rows[text] = self.row(text)
        found = [self._rows[text] for text in texts]
        return Condition({name: torch.stack([row[name] for row in found]) for name in found[0]})

    def row(self, prompt: str | None) -> dict[str, Tensor]:
        """Return one row of the condition; None is the empty one, here the prompt ""."""
        return {"encoder_hidden_states": self.embed(prompt or "")}

    def embed(self, prompt: str) -> Float[Tensor, "m d"]:
        """Return one prompt's token embeddings, refusing prompts that would be cut."""
        ids = torch.tensor([token_ids(self.tokenizer, prompt)], device=self.device)
        with torch.no_grad():
            return self.text_encoder(ids)[0][0].float()

    def prompt_tokens(self, prompt: str) -> tuple[Tokens, ...]:
        """Return the tokenizer's tokens; a second tokenizer's stand side by side with them."""
        return (read_tokens(self.tokenizer, prompt),)

    def condition_with_words(
        self, prompts: Sequence[str], words: Mapping[str, Float[Tensor, " d"]]
    ) -> Condition:
        """Return the condition of captions with learned words in them; see the base class."""
        rows = {prompt: self.embed_words(prompt, words) for prompt in dict.fromkeys(prompts)}
        told = self.unconditional(len(prompts)).tensors
        return Condition({**told, "encoder_hidden_states": torch.stack([rows[p] for p in prompts])})

    def vocabulary(self) -> Float[Tensor, "v d"]:
        """Return the text encoder's token embeddings."""
        return self.text_encoder.get_input_embeddings().weight.detach().float()

    def embed_words(
        self, prompt: str, words: Mapping[str, Float[Tensor, " d"]]
    ) -> Float[Tensor, "m d"]:
        """Return a prompt's embeddings with own vectors for made-up words, differentiable in them.

        Args:
            prompt: words apart by spaces, some of them keys of `words`.
            words: token embedding of each made-up word ("<smile>").
        """
        ids, vectors = [self.tokenizer.bos_token_id], {}
        for word in prompt.split():
            if word in words:
                vectors[len(ids)] = words[word]
                ids.append(self.tokenizer.eos_token_id)
            else:
                ids += self.tokenizer(word, add_special_tokens=False).input_ids
        limit = self.tokenizer.model_max_length
        if len(ids) >= limit:
            raise BadInput(f"prompt of {len(ids) + 1} tokens, at most {limit}: {prompt!r}")
        ids += [self.tokenizer.eos_token_id] + [self.tokenizer.pad_token_id] * (
            limit - len(ids) - 1
        )

        def splice(module: nn.Module, args: Any, rows: Float[Tensor, "1 m d"]) -> Tensor:
            own = [vectors.get(k, rows[0, k]) for k in range(limit)]
            return torch.stack([v.to(rows) for v in own])[None]

        handle = self.text_encoder.get_input_embeddings().register_forward_hook(splice)
        try:
            return self.text_encoder(torch.tensor([ids], device=self.device))[0][0].float()
        finally:
            handle.remove()
