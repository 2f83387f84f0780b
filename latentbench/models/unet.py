"""What pixel and latent diffusion share: a diffusers U-Net, its schedule, and taps into it."""

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from diffusers import DDIMScheduler
from diffusers.models.attention_processor import Attention
from jaxtyping import Float, Int
from torch import Tensor, nn

from latentbench.cache import content_hash
from latentbench.errors import HookNeverFired, Incompatible, MissingWeights
from latentbench.models.base import (
    AttentionCall,
    Condition,
    DiffusionModel,
    Evaluations,
    Taps,
)
from latentbench.parameterization import Grid, variance_preserving_grid
from latentbench.zoo import weights as zoo

DEPTH = {"down_blocks": 0, "mid_block": 1, "up_blocks": 2}


class UNetDiffusion(DiffusionModel):
    """A diffusers U-Net with a DDPM/DDIM schedule.

    Args:
        path: name of an embedded model, a local folder, or a hub id.
        steps: default number of sampling steps.
        guidance: default classifier-free guidance scale.
        dtype: "float32", "float16" or "bfloat16".
        device: where the network runs.
    """

    def __init__(
        self,
        *,
        path: str,
        steps: int,
        guidance: float = 1.0,
        dtype: str = "float32",
        device: str = "cpu",
    ) -> None:
        self.path, self.steps, self.guidance = path, steps, guidance
        self.dtype, self.device = getattr(torch, dtype), torch.device(device)
        self.folder = resolve(path)
        self.scheduler = load_component(DDIMScheduler, self.folder, "scheduler")
        self.prediction_type = self.scheduler.config.prediction_type
        self.evaluations = Evaluations()
        self._processor_calls = 0

    def component(self, cls: Any, subfolder: str) -> Any:
        """Return one frozen network of the checkpoint, in evaluation mode."""
        part = load_component(cls, self.folder, subfolder, torch_dtype=self.dtype)
        return part.to(self.device).eval().requires_grad_(False)

    def grid(self, steps: int | None = None) -> Grid:
        """Return the DDIM levels of the checkpoint's own scheduler config."""
        self.scheduler.set_timesteps(steps or self.steps)
        timesteps = self.scheduler.timesteps.tolist()
        final = float(self.scheduler.final_alpha_cumprod)
        return variance_preserving_grid(self.scheduler.alphas_cumprod, timesteps, final)

    def fingerprint(self) -> str:
        """Return a hash of all weights, the schedule and the settings."""
        settings = (self.version, self.steps, self.guidance, str(self.dtype))
        return content_hash(self._weights_hash, settings)

    @cached_property
    def _weights_hash(self) -> str:
        tensors = {
            key.replace(".base_layer.", "."): value  # adapters are off, so they do not count
            for net in self.networks()
            for key, value in net.state_dict().items()
            if ".lora_" not in key
        }
        config = {k: v for k, v in self.scheduler.config.items() if not k.startswith("_")}
        return content_hash(config, *[p for k in sorted(tensors) for p in (k, tensors[k])])

    def networks(self) -> Sequence[nn.Module]:
        """Return all networks that make an image."""
        return (self.network,)

    @cached_property
    def _attention(self) -> dict[str, Any]:
        found = {n: m for n, m in self.network.named_modules() if isinstance(m, Attention)}
        return dict(sorted(found.items(), key=lambda item: DEPTH.get(item[0].split(".")[0], 3)))

    def attention_layers(self) -> tuple[str, ...]:
        """Return the attention layers' names in the order in which they run."""
        return tuple(self._attention)

    def forward(
        self,
        x: Float[Tensor, "r c h w"],
        timesteps: Int[Tensor, " r"],
        condition: Condition,
        taps: Taps | None = None,
    ) -> Float[Tensor, "r c h w"]:
        """Return the U-Net's output, in float32; see the base class."""
        self.evaluations.forward += len(x)
        tensors = {k: v.to(self.dtype) for k, v in condition.tensors.items()}
        with self._tapped(taps):
            out = self.network(x.to(self.dtype), timesteps, **tensors).sample.float()
        if out.requires_grad:
            out.register_hook(self._count_backward)
        return out

    def _count_backward(self, gradient: Tensor) -> None:
        self.evaluations.backward += len(gradient)

    @contextmanager
    def _tapped(self, taps: Taps | None) -> Iterator[None]:
        with ExitStack() as stack:
            if taps is not None and taps.bottleneck is not None:
                stack.enter_context(self._tap_bottleneck(taps.bottleneck))
            if taps is not None and taps.attend is not None:
                stack.enter_context(self._tap_attention(taps.attend))
            yield

    @contextmanager
    def _tap_bottleneck(self, change: Callable[[Tensor], Tensor]) -> Iterator[None]:
        calls = []

        def hook(module: nn.Module, args: Any, h: Tensor) -> Tensor:
            calls.append(module)
            return change(h)

        block: Any = getattr(self.network, "mid_block", None)
        if block is None:
            raise Incompatible(f"{type(self.network).__name__} has no middle block to tap")
        handle = block.register_forward_hook(hook)
        try:
            yield
        finally:
            handle.remove()
        if not calls:
            raise HookNeverFired(f"{type(self.network).__name__} never called its mid_block")

    @contextmanager
    def _tap_attention(self, attend: Callable[[AttentionCall], Tensor]) -> Iterator[None]:
        before, calls = {n: m.processor for n, m in self._attention.items()}, []
        for name, module in self._attention.items():
            module.set_processor(_Tapped(name, attend, calls))
        try:
            yield
        finally:
            for name, processor in before.items():
                self._attention[name].set_processor(processor)
        if not calls:
            raise HookNeverFired(f"{type(self.network).__name__} called no attention layer")


class _Tapped:
    """An attention processor that hands queries, keys and values to `attend`.

    Does what diffusers' AttnProcessor2_0 does around it: group norm, projections, residual.
    """

    def __init__(
        self, layer: str, attend: Callable[[AttentionCall], Tensor], calls: list[str]
    ) -> None:
        self.layer, self.attend, self.calls = layer, attend, calls

    def __call__(
        self,
        attn: Any,  # diffusers' Attention
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
    ) -> Tensor:
        if attention_mask is not None:
            raise Incompatible(f"attention layer {self.layer} got a mask; taps take none")
        self.calls.append(self.layer)
        residual, shape = hidden_states, hidden_states.shape
        if attn.spatial_norm is not None:
            hidden_states = attn.spatial_norm(hidden_states, temb)
        if hidden_states.dim() == 4:
            hidden_states = hidden_states.flatten(2).transpose(1, 2)
        if attn.group_norm is not None:
            hidden_states = attn.group_norm(hidden_states.transpose(1, 2)).transpose(1, 2)
        context = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        if encoder_hidden_states is not None and attn.norm_cross:
            context = attn.norm_encoder_hidden_states(context)
        out = self.attend(self._call(attn, hidden_states, context, context is not hidden_states))
        out = attn.to_out[1](attn.to_out[0](out.transpose(1, 2).flatten(2)))
        if len(shape) == 4:
            out = out.transpose(1, 2).reshape(shape)
        if attn.residual_connection:
            out = out + residual
        return out / attn.rescale_output_factor

    def _call(self, attn: Any, hidden: Tensor, context: Tensor, cross: bool) -> AttentionCall:
        def heads(rows: Tensor) -> Tensor:
            return rows.unflatten(2, (attn.heads, -1)).transpose(1, 2)

        def project(rows: Tensor) -> tuple[Tensor, Tensor]:
            key, value = heads(attn.to_k(rows)), heads(attn.to_v(rows))
            return (key if attn.norm_k is None else attn.norm_k(key)), value

        query = heads(attn.to_q(hidden))
        query = query if attn.norm_q is None else attn.norm_q(query)
        key, value = project(context)
        return AttentionCall(self.layer, cross, query, key, value, attn.scale, project, context)


def resolve(path: str) -> str:
    """Return the folder of an embedded model (verified), a local folder, or the hub id as it is."""
    if path in zoo.names():
        zoo.verify(path)
        return str(zoo.folder(path))
    return path


def load_component(cls: Any, folder: str, subfolder: str, **options: Any) -> Any:
    """Load one component by `from_pretrained`, from its subfolder or, in old checkpoints, the root.

    Raises:
        MissingWeights: it is not on disk and cannot be fetched; says what to run.
    """
    local = Path(folder)
    if local.is_dir() and not (local / subfolder).is_dir():
        subfolder = ""
    if "use_safetensors" in inspect.signature(cls.from_pretrained).parameters or options:
        options["use_safetensors"] = True
    try:
        return cls.from_pretrained(folder, subfolder=subfolder, **options)
    except (OSError, ValueError) as error:
        raise MissingWeights(
            f"cannot load {cls.__name__} of {folder!r}: {str(error).splitlines()[0]} "
            f"Give a local folder (model.path=/data/model), or fetch it on a machine with network: "
            f"hf download {folder}"
        ) from error
