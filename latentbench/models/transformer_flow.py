"""Text-conditional flow-matching transformers, from the components of Stable Diffusion 3."""

from collections.abc import Sequence
from typing import Annotated, Any

import torch
from torch import nn

from latentbench.bounds import Dtype, Guidance, Name, Steps, between
from latentbench.model import Condition
from latentbench.models.components import load_component
from latentbench.models.joint_attention import TappedJointAttention
from latentbench.models.joint_flow import JointFlow
from latentbench.parameterization import Grid, flow_grid
from latentbench.prompt_tokens import Tokens, read_tokens


class TransformerFlow(JointFlow):
    """A flow-matching transformer, in the folder layout of `StableDiffusion3Pipeline`.

    Source: "Scaling Rectified Flow Transformers for High-Resolution Image Synthesis". A prompt's
    tokens are those of two CLIP towers (their last hidden layer but one) side by side, then those
    of T5; its pooled vector comes from both CLIP towers.

    Args:
        path: name of an embedded model, a local folder, or a hub id.
        vae: where the autoencoder is, when the checkpoint has none of its own.
        t5: load the checkpoint's T5 tower; without it, its tokens are zeros, as in the pipeline.
        t5_tokens: how many tokens of T5 the network sees; 0 for a network trained without.
        steps: default number of sampling steps.
        guidance: default classifier-free guidance scale.
        dtype: "float32", "float16" or "bfloat16".
        device: where the network runs.

    Example:
        >>> TransformerFlow(path="faces_mmdit", vae="faces_ldm").latent_shape
        (4, 16, 16)
    """

    processor = TappedJointAttention

    def __init__(
        self,
        *,
        path: Name,
        vae: Name | None = None,
        t5: bool = False,
        t5_tokens: Annotated[int, between(0, 4096)] = 0,
        steps: Steps = 28,
        guidance: Guidance = 5.0,
        dtype: Dtype = "float32",
        device: str = "cpu",
    ) -> None:
        super().__init__(path=path, steps=steps, guidance=guidance, dtype=dtype, device=device)
        self.network = self.component("diffusers.SD3Transformer2DModel", "transformer")
        self.load_autoencoder(vae)
        self.clip = [
            self.component("transformers.CLIPTextModelWithProjection", name)
            for name in ("text_encoder", "text_encoder_2")
        ]
        self.t5 = self.component("transformers.T5EncoderModel", "text_encoder_3") if t5 else None
        self.tokenizers = [
            load_component("transformers.CLIPTokenizer", self.folder, name)
            for name in ("tokenizer", "tokenizer_2")
        ]
        if t5:
            self.tokenizers.append(
                load_component("transformers.AutoTokenizer", self.folder, "tokenizer_3")
            )
        self.t5_tokens = t5_tokens
        side = int(self.network.config.sample_size)
        self.latent_shape = (int(self.network.config.in_channels), side, side)
        self.image_size = self.image_size_of(side)

    def networks(self) -> Sequence[nn.Module]:
        """Return transformer, autoencoder and text encoders."""
        return (self.network, self.vae, *self.clip, *([] if self.t5 is None else [self.t5]))

    def settings(self) -> tuple[Any, ...]:
        """Return what changes an image besides weights and schedule."""
        return (*super().settings(), self.t5_tokens)

    def grid(self, steps: int | None = None) -> Grid:
        """Return the checkpoint's own levels, shifted as its scheduler says."""
        tokens = (self.latent_shape[1] // self.network.config.patch_size) ** 2
        return flow_grid(self.scheduler, steps or self.steps, tokens)

    def prompt_tokens(self, prompt: str) -> tuple[Tokens, ...]:
        """Return the tokens of the CLIP towers, which are side by side, and those of T5."""
        clip = read_tokens(self.tokenizers[0], prompt)
        if self.t5 is not None:
            return clip, read_tokens(self.tokenizers[2], prompt, self.t5_tokens)
        return clip, Tokens((0,) * self.t5_tokens, (None,) * self.t5_tokens, 0)

    def embed(self, prompt: str) -> Condition:
        """Return one prompt's condition, of one row; prompts that would be cut are refused."""
        ids = [self.ids(self.tokenizers[k], prompt) for k in range(2)]
        found = [
            tower(i, output_hidden_states=True) for tower, i in zip(self.clip, ids, strict=True)
        ]
        tokens = torch.cat([out.hidden_states[-2] for out in found], -1).float()
        width = int(self.network.config.joint_attention_dim)
        tokens = nn.functional.pad(tokens, (0, width - tokens.shape[-1]))
        third = torch.zeros(1, self.t5_tokens, width, device=self.device)
        if self.t5 is not None:
            third = self.t5(self.ids(self.tokenizers[2], prompt, self.t5_tokens))[0].float()
        pooled = torch.cat([out.text_embeds for out in found], -1).float()
        return Condition(
            {"encoder_hidden_states": torch.cat([tokens, third], 1), "pooled_projections": pooled}
        )
