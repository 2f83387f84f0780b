"""What all denoisers from a diffusers checkpoint share: loading, hashing, calling, tapping."""

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from functools import cached_property, partial
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from latentbench.bounds import Dtype, Guidance, Name, Steps, TimeNodes
from latentbench.content import content_hash
from latentbench.errors import HookNeverFired, Incompatible, unknown
from latentbench.model import AttentionCall, Condition, Evaluations, LowRank, Taps
from latentbench.models.components import load_component, load_network, read_scheduler, resolve
from latentbench.models.denoiser import Denoiser
from latentbench.models.feature_points import Change, FeaturePoint
from latentbench.models.time_nodes import left_ends, refuse_nodes, refuse_unseen
from latentbench.parameterization import Grid

Attend = Callable[[AttentionCall], Tensor]
BASE, ADAPTER = ".base_layer", ".lora_"  # in the names of layers that peft has wrapped


class CheckpointDiffusion(Denoiser):
    """A denoiser and its noise schedule, loaded from a folder of diffusers components.

    A family says where its network is tapped (`feature_points`, `middle_layer`, `attention_modules`
    and `processor`) and, where it is not called as diffusers' networks are, how (`call`).

    Args:
        path: name of an embedded model, a local folder, or a hub id.
        steps: default number of sampling steps.
        guidance: default classifier-free guidance scale.
        dtype: "float32", "float16" or "bfloat16".
        device: where the network runs.
        time_nodes: of blocks of early times, of which the network is told each block's left end
            (`latentbench.models.time_nodes`); default: it is told every time as it is.
    """

    processor: Callable[[str, Attend, list[str]], Any]  # of a tapped attention layer
    schedule: ClassVar[str]  # full name of the class of its scheduler

    def __init__(
        self,
        *,
        path: Name,
        steps: Steps,
        guidance: Guidance,
        dtype: Dtype,
        device: str,
        time_nodes: TimeNodes | None = None,
    ) -> None:
        if time_nodes is not None:
            refuse_nodes(time_nodes)
        self.path, self.steps, self.guidance = path, steps, guidance
        self.time_nodes = time_nodes
        self.dtype, self.device = getattr(torch, dtype), torch.device(device)
        self.folder = resolve(path)
        self.scheduler = load_component(self.schedule, self.folder, "scheduler")
        self.evaluations = Evaluations()
        self.compiled = False

    @classmethod
    def check(cls, settings: Mapping[str, Any], steps: int | None) -> None:
        """Refuse, before a weight is read, what its schedule has no room for.

        Raises:
            BadInput: more sampling steps than that; nodes that are none, or that change nothing.
        """
        nodes, own = settings.get("time_nodes"), settings["steps"]
        if nodes is not None:
            refuse_nodes(nodes)
        scheduler = read_scheduler(cls.schedule, str(settings["path"]))
        if scheduler is None:
            return
        grids = {n: cls.levels(scheduler, n) for n in (own, steps or own)}
        grid = grids[steps or own]
        if nodes is not None and grid is not None:
            refuse_unseen(grid, nodes)

    @classmethod
    def levels(cls, scheduler: Any, steps: int) -> Grid | None:
        """Return the levels of a sampler, as far as the scheduler alone decides; else None.

        Raises:
            BadInput: the schedule has no room for so many steps.
        """
        del scheduler, steps
        return None

    def component(self, cls: Any, subfolder: str, folder: str | None = None) -> Any:
        """Return one frozen network of the checkpoint (or another folder), in evaluation mode."""
        part = load_network(cls, folder or self.folder, subfolder, self.dtype)
        return part.to(self.device).eval().requires_grad_(False)

    def networks(self) -> Sequence[nn.Module]:
        """Return all networks that make an image."""
        return (self.network,)

    def tunable(self) -> Mapping[str, nn.Module]:
        """Return the denoiser."""
        return {"network": self.network}

    def fingerprint(self) -> str:
        """Return a hash of all weights, the schedule and the settings."""
        weights = self._hash_weights() if self._lent else self._weights_hash
        return content_hash(weights, self.settings())

    def settings(self) -> tuple[Any, ...]:
        """Return what changes an image besides weights and schedule."""
        told = () if self.time_nodes is None else (tuple(self.time_nodes),)
        return (self.version, self.steps, self.guidance, str(self.dtype), *told)

    @cached_property
    def _weights_hash(self) -> str:
        return self._hash_weights()

    def _hash_weights(self) -> str:
        tensors = {
            f"{number}.{key}".replace(f"{BASE}.", "."): value  # adapters are off: not counted
            for number, net in enumerate(self.networks())
            for key, value in net.state_dict().items()
            if ADAPTER not in key
        }
        config = {k: v for k, v in self.scheduler.config.items() if not k.startswith("_")}
        return content_hash(config, tensors)

    # ------------------------------------------------------------ one call of the network

    def call(
        self, x: Float[Tensor, "r ..."], timesteps: Tensor, condition: Condition
    ) -> Float[Tensor, "r ..."]:
        """Return the network's output; x is of the network's dtype."""
        return self.network(x, timestep=timesteps, **condition.tensors).sample

    def forward(
        self,
        x: Float[Tensor, "r ..."],
        timesteps: Tensor,
        condition: Condition,
        taps: Taps | None = None,
    ) -> Float[Tensor, "r ..."]:
        """Return the network's output, in float32; see the base class."""
        self.evaluations.forward += len(x)
        if self.time_nodes is not None:
            timesteps = left_ends(timesteps, self.time_nodes)
        own = condition.map(lambda v: v.to(self.dtype) if v.is_floating_point() else v)
        x, own = _of_this_call(x.to(self.dtype)), own.map(_of_this_call)
        with self._tapped(taps), self._stance(taps):
            out = self.call(x, timesteps, own).float()
        passed = [v for v in (out, x, *own.tensors.values()) if v.requires_grad]
        if passed:  # a loss on inner maps reaches the inputs, but not by way of the output
            count = lambda _: self._count_backward(len(x))  # noqa: E731
            torch.autograd.graph.register_multi_grad_hook(passed, count, mode="any")
        return out

    def _stance(self, taps: Taps | None) -> AbstractContextManager[Any]:
        """Let a compiled network run as it was written where it is tapped or differentiated."""
        if not self.compiled:
            return nullcontext()
        inside = taps is not None and (
            taps.bottleneck or taps.attend or taps.layers or taps.low_rank
        )
        if inside or torch.is_grad_enabled():
            return torch.compiler.set_stance("force_eager")
        return nullcontext()

    def _count_backward(self, rows: int) -> None:
        self.evaluations.backward += rows

    # ------------------------------------------------------------ taps

    @abstractmethod
    def feature_points(self) -> Mapping[str, FeaturePoint]:
        """Return where the feature layers lie, by name, in the order in which they run."""

    @cached_property
    def _points(self) -> Mapping[str, FeaturePoint]:
        return self.feature_points()

    def feature_layers(self) -> tuple[str, ...]:
        """Return the feature layers' names in the order in which they run."""
        return tuple(self._points)

    @cached_property
    def _linear(self) -> Mapping[str, tuple[int, int]]:
        found = {n: m for n, m in self.network.named_modules() if type(m) is nn.Linear}
        return {
            name.removesuffix(BASE): (layer.in_features, layer.out_features)
            for name, layer in found.items()
            if ADAPTER not in name
        }

    def linear_layers(self) -> Mapping[str, tuple[int, int]]:
        """Return the network's linear layers: name -> numbers (in, out)."""
        return self._linear

    def attention_modules(self) -> dict[str, Any]:
        """Return the attention layers by name, in the order in which they run."""
        from diffusers.models.attention_processor import Attention  # late: takes a second to import

        return {n: m for n, m in self.network.named_modules() if isinstance(m, Attention)}

    @cached_property
    def _attention(self) -> dict[str, Any]:
        return self.attention_modules()

    def attention_layers(self) -> tuple[str, ...]:
        """Return the attention layers' names in the order in which they run."""
        return tuple(self._attention)

    @contextmanager
    def _tapped(self, taps: Taps | None) -> Iterator[None]:
        with ExitStack() as stack:
            if taps is not None and taps.bottleneck is not None:
                stack.enter_context(self._tap_bottleneck(taps.bottleneck))
            if taps is not None and taps.features is not None:
                for layer in taps.layers:
                    stack.enter_context(self._tap(layer, partial(taps.features, layer)))
            if taps is not None and taps.attend is not None:
                stack.enter_context(self._tap_attention(taps.attend))
            for layer, changes in {} if taps is None else taps.low_rank.items():
                stack.enter_context(self._change_weights(layer, changes))
            yield

    def _tap_bottleneck(self, change: Change) -> AbstractContextManager[None]:
        layer = self.middle_layer()
        if layer is None:
            raise Incompatible(f"{type(self.network).__name__} has no middle block to tap")
        return self._tap(layer, change)

    def _tap(self, layer: str, change: Change) -> AbstractContextManager[None]:
        """Change the map of a feature layer for as long as the context lasts."""
        calls = []

        def changed(value: Tensor) -> Tensor:
            calls.append(layer)
            return change(value)

        return self._hooked(layer, self._points[layer].hook(self.network, changed), calls)

    def _change_weights(
        self, layer: str, changes: Sequence[LowRank]
    ) -> AbstractContextManager[None]:
        """Add low-rank changes to a linear layer for as long as the context lasts."""
        if layer not in self._linear:
            raise unknown(f"linear layer of {type(self.network).__name__}", layer, self._linear)
        calls = []

        def changed(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
            calls.append(layer)
            for change in changes:
                output = output + change(inputs[0])
            return output

        handle = self.network.get_submodule(layer).register_forward_hook(changed)
        return self._hooked(layer, handle, calls)

    @contextmanager
    def _hooked(self, layer: str, handle: RemovableHandle, calls: Sequence[str]) -> Iterator[None]:
        """Remove a layer's hook at the end of the context, and raise where it was never called."""
        try:
            yield
        finally:
            handle.remove()
        if not calls:
            raise HookNeverFired(f"{type(self.network).__name__} never called its {layer}")

    @contextmanager
    def _tap_attention(self, attend: Attend) -> Iterator[None]:
        before, calls = {n: m.processor for n, m in self._attention.items()}, []
        for name, module in self._attention.items():
            module.set_processor(self.processor(name, attend, calls))
        try:
            yield
        finally:
            for name, processor in before.items():
                self._attention[name].set_processor(processor)
        if not calls:
            raise HookNeverFired(f"{type(self.network).__name__} called no attention layer")


def _of_this_call(v: Tensor) -> Tensor:
    """Return a view of its own of what takes a gradient, so that hooks end with the call."""
    return v.view_as(v) if v.requires_grad else v
