"""Plug-and-Play: a target prompt's image under the features and self-attention of the source's."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import ClassVar, Literal, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from latentbench.bounds import Guidance, Name, Positive, Share, Steps
from latentbench.errors import BadInput, Incompatible, unknown
from latentbench.model import AttentionCall
from latentbench.parameterization import whole_steps
from latentbench.sampling.loop import Intervention, Step
from latentbench.types import Space
from methods.editing.coupled import CoupledEditor, Coupling, Memory

Kept = TypeVar("Kept")


class FeatureMemory(Intervention):
    """Keeps the source's map of one layer, in the step at hand.

    Args:
        layer: the feature layer.

    Attributes:
        maps: branch -> its map.
    """

    def __init__(self, layer: str) -> None:
        self.layers = (layer,)
        self.maps: dict[str, Float[Tensor, "b c h w"]] = {}

    def features(
        self, step: Step, layer: str, h: Float[Tensor, "k b c h w"]
    ) -> Float[Tensor, "k b c h w"]:
        """Keep the map of each branch; change nothing."""
        # 1. f of the source
        self.maps = dict(zip(step.branches, h.unbind(0), strict=True))
        return h


class InjectedFeatures(Intervention):
    """Gives the targets the source's map of one layer, branch by branch.

    A branch that the source does not have, as the null branch at a guidance of 1, gets that of the
    source's condition.

    Args:
        memory: the source's map of the layer.
        steps: how many steps, the noisiest, it acts in.
    """

    def __init__(self, memory: FeatureMemory, steps: int) -> None:
        self.memory, self.layers, self.steps = memory, memory.layers, steps

    def active(self, step: Step) -> bool:
        """Return whether the step is one of the first."""
        return step.index < self.steps

    def features(
        self, step: Step, layer: str, h: Float[Tensor, "k r c h w"]
    ) -> Float[Tensor, "k r c h w"]:
        """Return the source's map for every target."""
        # 2. f' = f
        source = torch.stack([_of(self.memory.maps, branch) for branch in step.branches])
        return source.repeat_interleave(h.shape[1] // source.shape[1], 1)


class InjectedAttention(Intervention):
    """Gives the targets the source's queries and keys of self-attention, branch by branch.

    A branch that the source does not have gets those of the source's condition.

    Args:
        memories: branch of the source -> its queries and keys of the layers.
        steps: how many steps, the noisiest, it acts in.
    """

    def __init__(self, memories: Mapping[str, Memory], steps: int) -> None:
        self.memories, self.steps = memories, steps

    def active(self, step: Step) -> bool:
        """Return whether the step is one of the first."""
        return step.index < self.steps

    def attention(self, step: Step, call: AttentionCall) -> Tensor | None:
        """Return attention with the source's queries and keys, in the layers that are kept."""
        theirs = [_of(self.memories, branch) for branch in step.branches]
        if call.layer not in theirs[0].queries:
            return None
        # 3. the source's q and k over the target's own values
        q = torch.cat([memory.queries[call.layer] for memory in theirs])
        k = torch.cat([memory.keys[call.layer] for memory in theirs])
        times = len(call.query) // len(q)
        return call.attend(q.repeat_interleave(times, 0), k.repeat_interleave(times, 0))


class PlugAndPlay(CoupledEditor):
    """Samples the target under the source's decoder features and self-attention.

    Source: "Plug-and-Play Diffusion Features for Text-Driven Image-to-Image Translation", section
    4 and algorithm 1. x is the source, x' the target, both from one x_T; in step i of n:

        1. eps, f, q, k = network(x_t; c_source),                x_{t-1}  = step(x_t, eps)
        2. f' = f                                                while i < tau_f n
        3. A' = softmax(q k^T / sqrt(d)), attention = A' v'      while i < tau_A n
        4. eps' = network(x'_t; c_target) with f' and A',        x'_{t-1} = step(x'_t, eps')

    f is what a residual layer of the decoder adds to its shortcut; q and k are those of the
    decoder's self-attention from that layer on, and v' is the target's own. eps' is guided. In
    Stable Diffusion that layer is the second of the second block on the way up ("layer 4"); in a
    U-Net of fewer levels it is the first residual layer of the coarsest block with attention.

    Deviations: inversion and sampling share one grid (the paper inverts in 1,000 steps); inversion
    and source are under the caption (the authors' "" is an option); a negative prompt takes the
    empty one's place for good, where the authors fade it in. With `source="stored"` features come
    from the inversion's own latents, as in the authors' code for diffusers; "sampled" is the
    paper's. A source under guidance hands over its null branch as well, so that strength 0 is its
    own sample; one without has its condition's in both branches of the target, as published. See
    `CoupledEditor` for the strength.

    Args:
        steps: sampling steps; default: the model's.
        source: "sampled" from x_T, or "stored": at every level the inversion's own latent (Direct
            Inversion).
        tau_f: share of the steps with the source's features.
        tau_attention: share of the steps with the source's queries and keys.
        feature_layer: the residual layer, in the network's words ("up_blocks.1.resnets.1");
            default: see above.
        inversion_prompt: prompt of the inversion and the source; default: each image's own caption.
        source_guidance: guidance scale of the source.
        negative: prompt that guidance leads away from; default: the empty condition.
        guidance: guidance scale of the target at strength 1.
        max_strength: largest lambda of a benchmark's curve.

    Raises:
        BadInput: the network has no such layer, or no self-attention from it on.
        Incompatible: the decoder has no self-attention.

    Example:
        >>> editor = PlugAndPlay(tau_f=0.8)  # editor.edit(batch, edit, torch.ones(1))
    """

    paper = "Plug-and-Play Diffusion Features for Text-Driven Image-to-Image Translation, section 4"
    version = 2
    requires: ClassVar[Mapping[str, frozenset[Space]]] = {
        "invert": frozenset({Space.NOISE}),
        "edit": frozenset({Space.NOISE, Space.TEXT, Space.ATTENTION}),
    }

    def __init__(
        self,
        *,
        steps: Steps | None = None,
        source: Literal["sampled", "stored"] = "sampled",
        tau_f: Share = 0.8,
        tau_attention: Share = 0.5,
        feature_layer: Name | None = None,
        inversion_prompt: str | None = None,
        source_guidance: Guidance = 1.0,
        negative: str | None = None,
        guidance: Guidance = 3.0,
        max_strength: Positive = 1.0,
    ) -> None:
        super().__init__(
            steps=steps, source=source, inversion_prompt=inversion_prompt,
            source_guidance=source_guidance, negative=negative, guidance=guidance,
            max_strength=max_strength,
        )  # fmt: skip
        self.tau_f, self.tau_attention, self.feature_layer = tau_f, tau_attention, feature_layer

    def coupled_steps(self, n: int) -> int:
        """Return the larger share."""
        return whole_steps(max(self.tau_f, self.tau_attention), n)

    def couple(
        self,
        n: int,
        sources: Sequence[str],
        targets: Sequence[str],
        strengths: Float[Tensor, " s"],
    ) -> Coupling:
        """Return the injection of features and of queries and keys."""
        feature, attention = self.layers()
        maps = FeatureMemory(feature)
        features = InjectedFeatures(maps, whole_steps(self.tau_f, n))
        coupling = Coupling(self.coupled_steps(n), [maps], [features])
        if not (steps := whole_steps(self.tau_attention, n)):
            return coupling
        if not attention:
            raise BadInput(
                f"method.feature_layer={self.feature_layer} lies behind all self-attention of "
                f"{type(self.model.network).__name__}, so that method.tau_attention="
                f"{self.tau_attention} has no layer to act on; choose an earlier layer, or "
                f"method.tau_attention=0"
            )
        branches = ("condition",) if self.source_guidance == 1 else ("null", "condition")
        memories = {branch: Memory(attention, branch) for branch in branches}
        queries = InjectedAttention(memories, steps)
        return replace(coupling, source=[maps, *memories.values()], target=[features, queries])

    def layers(self) -> tuple[str, list[str]]:
        """Return the feature layer, and the self-attention layers from it on."""
        points = self.model.feature_layers()
        known = [p.partition(":")[0] for p in points
                 if p.startswith("up_blocks") and p.endswith(":residual")]  # fmt: skip
        own = [a for a in self.model.attention_layers()
               if a.startswith("up_blocks") and a.endswith("attn1")]  # fmt: skip
        if not own or not known:
            raise Incompatible(
                f"{type(self.model.network).__name__} has no self-attention on its way up; "
                f"plug_and_play takes its structure from there"
            )
        chosen = self.feature_layer or self._default(known, own)
        if chosen not in known:
            raise unknown("method.feature_layer", chosen, known)
        return f"{chosen}:residual", [a for a in own if _place(a) >= _place(chosen)]

    def _default(self, known: Sequence[str], attention: Sequence[str]) -> str:
        """Return the published layer where the decoder begins as Stable Diffusion's does."""
        coarsest = f"up_blocks.{_place(attention[0])[0]}"
        published = "up_blocks.1.resnets.1"
        return (
            published
            if coarsest == "up_blocks.1" and published in known
            else f"{coarsest}.resnets.0"
        )


def _of(kept: Mapping[str, Kept], branch: str) -> Kept:
    """Return what is kept of a branch, or of the condition where the source has no such branch."""
    return kept.get(branch, kept["condition"])


def _place(layer: str) -> tuple[int, int]:
    """Return a layer's numbers (block, layer within it)."""
    _, block, _, number = layer.split(".")[:4]
    return int(block), int(number)
