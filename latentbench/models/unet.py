"""What pixel and latent diffusion share: a diffusers U-Net, its schedule, and taps into it."""

from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor

from latentbench.bounds import Dtype, Guidance, Name, Steps, TimeNodes
from latentbench.errors import Incompatible
from latentbench.model import AttentionCall
from latentbench.models.checkpoint import Attend, CheckpointDiffusion
from latentbench.models.feature_points import FeaturePoint, all_but_last, last
from latentbench.parameterization import Grid, scheduled_grid

DEPTH = {"down_blocks": 0, "mid_block": 1, "up_blocks": 2}


class TappedAttention:
    """An attention processor that hands queries, keys and values to `attend`.

    Does what diffusers' AttnProcessor2_0 does around it: group norm, projections, residual.
    """

    def __init__(self, layer: str, attend: Attend, calls: list[str]) -> None:
        self.layer, self.attend, self.calls = layer, attend, calls

    def __call__(
        self,
        attn: Any,  # diffusers' Attention
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
    ) -> Tensor:
        """Return the layer's output."""
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
        text = context.shape[1] if cross else 0
        return AttentionCall(
            self.layer, cross, query, key, value, attn.scale, project, context, text
        )


class UNetDiffusion(CheckpointDiffusion):
    """A diffusers U-Net with a DDPM/DDIM schedule.

    Args:
        path: name of an embedded model, a local folder, or a hub id.
        steps: default number of sampling steps.
        guidance: default classifier-free guidance scale.
        time_nodes: of blocks of early times; see `CheckpointDiffusion`.
        dtype: "float32", "float16" or "bfloat16".
        device: where the network runs.
    """

    processor = TappedAttention
    schedule = "diffusers.DDIMScheduler"

    def __init__(
        self,
        *,
        path: Name,
        steps: Steps,
        guidance: Guidance = 1.0,
        time_nodes: TimeNodes | None = None,
        dtype: Dtype = "float32",
        device: str = "cpu",
    ) -> None:
        super().__init__(
            path=path, steps=steps, guidance=guidance, time_nodes=time_nodes, dtype=dtype,
            device=device,
        )  # fmt: skip
        self.prediction_type = self.scheduler.config.prediction_type

    @classmethod
    def levels(cls, scheduler: Any, steps: int) -> Grid:
        """Return the DDIM levels of the checkpoint's own scheduler config."""
        return ddim_grid(scheduler, steps)

    def grid(self, steps: int | None = None) -> Grid:
        """Return the DDIM levels of the checkpoint's own scheduler config."""
        return self.levels(self.scheduler, steps or self.steps)

    def attention_modules(self) -> dict[str, Any]:
        """Return the attention layers by name, in the order in which they run."""
        found = super().attention_modules()
        return dict(sorted(found.items(), key=lambda item: DEPTH.get(item[0].split(".")[0], 3)))

    def middle_layer(self) -> str | None:
        """Return the U-Net's middle block."""
        return "mid_block" if getattr(self.network, "mid_block", None) is not None else None

    def feature_points(self) -> Mapping[str, FeaturePoint]:
        """Return the places of every block, in the order in which they run; see `unet_points`."""
        return dict(unet_points(self.network))


def unet_points(network: Any) -> Iterator[tuple[str, FeaturePoint]]:
    """Yield the feature layers of a diffusers U-Net by name, in the order in which they run.

    ``conv_in`` is the first layer. ``up_blocks.1`` and the like are whole blocks, sampling
    included, ``up_blocks.1.resnets.0`` and ``up_blocks.1.attentions.0`` their layers. Of a residual
    layer ``:residual`` is what it adds to its shortcut; in the way up, ``:backbone`` and ``:skip``
    are the two maps that it reads, the one from the layer before and the one from the way down.
    ``mid_block:input`` is what the middle block reads.
    """
    skips = iter(reversed(_skip_widths(network)))
    down, up = len(network.down_blocks), len(network.up_blocks)
    middle = ["mid_block"] if getattr(network, "mid_block", None) is not None else []
    names = [f"down_blocks.{k}" for k in range(down)]
    yield "conv_in", FeaturePoint("conv_in")
    for name in [*names, *middle, *(f"up_blocks.{k}" for k in range(up))]:
        if name == "mid_block":
            yield f"{name}:input", FeaturePoint(name, before=True)
        block = network.get_submodule(name)
        attentions = list(getattr(block, "attentions", None) or ())
        for k in range(len(block.resnets)):
            layer = f"{name}.resnets.{k}"
            if name.startswith("up_blocks"):
                width = next(skips)
                yield f"{layer}:backbone", FeaturePoint(layer, all_but_last(width), before=True)
                yield f"{layer}:skip", FeaturePoint(layer, last(width), before=True)
            yield f"{layer}:residual", FeaturePoint(f"{layer}.conv2")
            yield layer, FeaturePoint(layer)
            if k < len(attentions) and attentions[k] is not None:
                yield f"{name}.attentions.{k}", FeaturePoint(f"{name}.attentions.{k}")
        yield name, FeaturePoint(name)


def _skip_widths(network: Any) -> list[int]:
    """Return the channels of the maps that the way down hands to the way up, as they are made."""
    widths = [network.conv_in.out_channels]
    for block in network.down_blocks:
        widths += [layer.out_channels for layer in block.resnets]
        if block.downsamplers is not None:
            widths.append(widths[-1])
    return widths


def ddim_grid(scheduler: Any, steps: int) -> Grid:
    """Return the levels of DDIM with this many steps, as a `DDIMScheduler` spaces them."""
    return scheduled_grid(scheduler, steps, float(scheduler.final_alpha_cumprod))
