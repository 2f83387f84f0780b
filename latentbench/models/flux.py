"""FLUX: flow transformers of double and single streams, from the components of FluxPipeline."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Annotated, Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from latentbench.bounds import Dtype, Guidance, Name, Steps, between
from latentbench.errors import BadInput
from latentbench.model import Condition
from latentbench.models.components import load_component
from latentbench.models.feature_points import (
    FeaturePoint,
    first_tokens,
    last_tokens,
    second_tokens,
)
from latentbench.models.joint_attention import TappedFluxAttention
from latentbench.models.joint_flow import JointFlow
from latentbench.parameterization import Grid, flow_grid
from latentbench.prompt_tokens import Tokens, read_tokens


class Flux(JointFlow):
    """A flow-matching transformer in the folder layout of `FluxPipeline`: FLUX.1 dev and schnell.

    Source: the reference code, github.com/black-forest-labs/flux, as diffusers has it. The network
    reads latents in patches of 2 x 2, each with its place; the suite sees the latents themselves.
    A prompt's tokens are T5's, its pooled vector is CLIP's. Levels go evenly from 1 to 1 / n
    before the shift, which dev takes from the number of image tokens.

    Dev was distilled from its own classifier-free guidance and receives the scale; its network has
    an input for it. `guidance` comes on top of that, with a second evaluation, and is off at 1.

    Args:
        path: a local folder or a hub id.
        image_size: pixels per side, a multiple of 16; the checkpoint does not say.
        t5_tokens: how many tokens of T5 the network sees: 512 for dev, 256 for schnell.
        steps: default number of sampling steps.
        guidance: default classifier-free guidance scale.
        embedded_guidance: the scale that a network with a guidance embedding receives; None for
            one without.
        dtype: "float32", "float16" or "bfloat16".
        device: where the network runs.

    Raises:
        BadInput: a size that patches do not fill, or guidance given to a network without an input
            for it, or not given to one with.

    Example:
        ``Flux(path="/data/flux1_dev", dtype="bfloat16")``
    """

    def __init__(
        self,
        *,
        path: Name,
        image_size: Annotated[int, between(16, 8192)] = 1024,
        t5_tokens: Annotated[int, between(1, 4096)] = 512,
        steps: Steps = 28,
        guidance: Guidance = 1.0,
        embedded_guidance: Guidance | None = 3.5,
        dtype: Dtype = "float32",
        device: str = "cpu",
    ) -> None:
        super().__init__(path=path, steps=steps, guidance=guidance, dtype=dtype, device=device)
        self.network = self.component("diffusers.FluxTransformer2DModel", "transformer")
        self.embedded_guidance = embedded_guidance
        self._check_guidance()
        self.load_autoencoder()
        self.clip = self.component("transformers.CLIPTextModel", "text_encoder")
        self.t5 = self.component("transformers.T5EncoderModel", "text_encoder_2")
        self.clip_tokenizer = load_component("transformers.CLIPTokenizer", self.folder, "tokenizer")
        self.t5_tokenizer = load_component("transformers.AutoTokenizer", self.folder, "tokenizer_2")
        self.image_size, self.t5_tokens = image_size, t5_tokens
        side, rest = divmod(image_size, self.image_size_of(1))
        if rest or side % 2:
            unit = self.image_size_of(2)
            raise BadInput(f"image_size must be a multiple of {unit} pixels, got {image_size}")
        self.latent_shape = (int(self.network.config.in_channels) // 4, side, side)
        self.processor = partial(TappedFluxAttention, (side // 2) ** 2)

    def _check_guidance(self) -> None:
        takes, told = bool(self.network.config.guidance_embeds), self.embedded_guidance
        if takes != (told is not None):
            what = "a number, such as 3.5" if takes else "null"
            raise BadInput(
                f"the network of {self.path} has {'an' if takes else 'no'} input for guidance, got "
                f"embedded_guidance {told}; set model.embedded_guidance to {what}"
            )

    def networks(self) -> Sequence[nn.Module]:
        """Return transformer, autoencoder and text encoders."""
        return (self.network, self.vae, self.clip, self.t5)

    def settings(self) -> tuple[Any, ...]:
        """Return what changes an image besides weights and schedule."""
        return (*super().settings(), self.image_size, self.t5_tokens, self.embedded_guidance)

    def grid(self, steps: int | None = None) -> Grid:
        """Return even levels, shifted as the checkpoint's scheduler says."""
        n, tokens = steps or self.steps, (self.latent_shape[1] // 2) ** 2
        return flow_grid(self.scheduler, n, tokens, [1 - k / n for k in range(n)])

    def middle_layer(self) -> str:
        """Return the block in the middle of both stacks, counted through."""
        double = len(self.network.transformer_blocks)
        k = (double + len(self.network.single_transformer_blocks)) // 2
        return (
            f"transformer_blocks.{k}" if k < double else f"single_transformer_blocks.{k - double}"
        )

    def feature_points(self) -> Mapping[str, FeaturePoint]:
        """Return the places of every block; one of a single stream has one residual branch."""
        found = dict(super().feature_points())
        image = last_tokens((self.latent_shape[1] // 2) ** 2)
        for k in range(len(self.network.single_transformer_blocks)):
            block = f"single_transformer_blocks.{k}"
            found[f"{block}:input"] = FeaturePoint(block, first_tokens, before=True)
            found[f"{block}:residual"] = FeaturePoint(f"{block}.proj_out", image)
            found[block] = FeaturePoint(block, second_tokens)
        return found

    def attention_modules(self) -> dict[str, Any]:
        """Return the attention layers by name, double-stream blocks first, as they run."""
        from diffusers.models.transformers.transformer_flux import FluxAttention  # late: slow

        return {n: m for n, m in self.network.named_modules() if isinstance(m, FluxAttention)}

    def prompt_tokens(self, prompt: str) -> tuple[Tokens, ...]:
        """Return the tokens of T5; CLIP gives a pooled vector only."""
        return (read_tokens(self.t5_tokenizer, prompt, self.t5_tokens),)

    def embed(self, prompt: str) -> Condition:
        """Return one prompt's condition, of one row; prompts that would be cut are refused."""
        pooled = self.clip(self.ids(self.clip_tokenizer, prompt)).pooler_output.float()
        tokens = self.t5(self.ids(self.t5_tokenizer, prompt, self.t5_tokens))[0].float()
        return Condition({"encoder_hidden_states": tokens, "pooled_projections": pooled})

    def call(
        self, x: Float[Tensor, "r c h w"], timesteps: Tensor, condition: Condition
    ) -> Float[Tensor, "r c h w"]:
        """Return the network's velocity, eps - x_0."""
        told, side = self.embedded_guidance, x.shape[-1] // 2
        out = self.network(
            pack(x),
            timestep=timesteps.to(x.dtype) / 1000,
            guidance=None if told is None else x.new_full((len(x),), told),
            img_ids=places(side).to(x.device),
            txt_ids=torch.zeros(condition.tensors["encoder_hidden_states"].shape[1], 3).to(x),
            **condition.tensors,
        ).sample
        return unpack(out, side)


def pack(x: Float[Tensor, "r c h w"]) -> Float[Tensor, "r tokens width"]:
    """Return one token per 2 x 2 patch, row by row; its entries run over (c, 2, 2)."""
    return nn.functional.pixel_unshuffle(x, 2).flatten(2).transpose(1, 2)


def unpack(tokens: Float[Tensor, "r tokens width"], side: int) -> Float[Tensor, "r c h w"]:
    """Return the latents of `side` x `side` patches."""
    return nn.functional.pixel_shuffle(tokens.transpose(1, 2).unflatten(2, (side, side)), 2)


def places(side: int) -> Float[Tensor, "tokens 3"]:
    """Return each patch's (0, row, column)."""
    row, column = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    return torch.stack([torch.zeros_like(row), row, column], -1).flatten(0, 1).float()
