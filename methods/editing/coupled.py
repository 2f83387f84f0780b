"""Editors that sample a target beside its source, and hand it what the network holds of the source.

Source and target take each step in two network calls, so that the source costs no null branch, is
evaluated once for all strengths, and only for as long as targets take something from it.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from jaxtyping import Float
from torch import Tensor

from latentbench.bounds import Guidance, Positive, Steps
from latentbench.data.dataset import Dataset
from latentbench.editor import Editor
from latentbench.errors import BadInput
from latentbench.model import AttentionCall, DiffusionModel
from latentbench.sampling.inversion import ddim_invert, ddim_trajectory
from latentbench.sampling.loop import Intervention, Step, Term, generate, guided
from latentbench.types import Batch, Capability, Edit, Latent, Space
from methods.inversion.own_prompts import prompts_of, text_for


@dataclass(frozen=True)
class Coupling:
    """What targets take from their source.

    Args:
        steps: how many steps, the noisiest, targets take something in.
        source: interventions that listen while the source takes a step.
        target: interventions that act while the targets take the same step.
        blend: (step index, the source's latents at the level that it reaches, the targets') -> what
            the targets go on with.
    """

    steps: int
    source: Sequence[Intervention]
    target: Sequence[Intervention]
    blend: Callable[[int, Tensor, Tensor], Tensor] | None = None


DIRECT = "PnP Inversion: Boosting Diffusion-based Editing with 3 Lines of Code, algorithm 1"


class CoupledEditor(Editor[DiffusionModel], ABC):
    """Samples each target from the source's x_T, beside the source.

    The strength lambda moves the condition c = (1 - lambda) c_source + lambda c_target, and the
    guidance with it from `source_guidance` to `guidance`; at 0 the target is the source.

    Where the source comes from is `source`. "sampled": from x_T by the same steps, so that it
    drifts from the image as far as the inversion is wrong. "stored" is Direct Inversion ("PnP
    Inversion: Boosting Diffusion-based Editing with 3 Lines of Code", algorithm 1): at every level
    it is the latent that the inversion passed through, and a target gets the share 1 - lambda of
    the offset d_i = x*_{i+1} - step(x*_i) from level i on. At strength 1 it gets none, as
    published; at 0 it is the image itself.

    Args:
        steps: sampling steps; default: the model's.
        source: "sampled" or "stored".
        inversion_prompt: prompt of the inversion and the source; default: each image's own caption.
            "" is the empty prompt.
        source_guidance: guidance scale of the source; published pipelines take the target's.
        negative: prompt that guidance leads away from; default: the empty condition.
        guidance: guidance scale of the target at strength 1.
        max_strength: largest lambda of a benchmark's curve.
    """

    requires: ClassVar[Mapping[str, frozenset[Space]]] = {
        "invert": frozenset({Space.NOISE}),
        "edit": frozenset({Space.NOISE, Space.TEXT}),
    }
    needs: ClassVar[Mapping[str, frozenset[Capability]]] = {
        "edit": frozenset({Capability.PROMPTS, Capability.TARGET_PROMPTS})
    }

    def __init__(
        self,
        *,
        steps: Steps | None = None,
        source: Literal["sampled", "stored"] = "sampled",
        inversion_prompt: str | None = None,
        source_guidance: Guidance = 1.0,
        negative: str | None = None,
        guidance: Guidance = 3.0,
        max_strength: Positive = 1.0,
    ) -> None:
        self.steps, self.source = steps, source
        self.inversion_prompt, self.source_guidance = inversion_prompt, source_guidance
        self.negative, self.guidance, self.max_strength = negative, guidance, max_strength

    @classmethod
    def paper_of(cls, config: Mapping[str, Any]) -> str:
        """Return the class's paper, or that of a stored source."""
        return DIRECT if config.get("source") == "stored" else super().paper_of(config)

    @classmethod
    def required(
        cls, verbs: Iterable[str], config: Mapping[str, Any]
    ) -> tuple[frozenset[Space], frozenset[Capability]]:
        """Return the spaces of the class, and text for prompts of the method's own."""
        spaces, needs = super().required(verbs, config)
        return spaces | text_for(config), needs

    @abstractmethod
    def coupled_steps(self, n: int) -> int:
        """Return how many of n steps, the noisiest, targets take something from their source in."""

    @abstractmethod
    def couple(
        self,
        n: int,
        sources: Sequence[str],
        targets: Sequence[str],
        strengths: Float[Tensor, " s"],
    ) -> Coupling:
        """Return how rows (image, strength) of targets are coupled to one source per image."""

    def check(self, data: Dataset, steps: int | None, strengths: Sequence[float]) -> None:
        """Refuse shares that are less than a step, with which this would be DDIM inversion."""
        if steps is not None and not self.coupled_steps(steps):
            raise BadInput(
                f"with these settings the target takes nothing from its source in any of the "
                f"{steps} sampling steps; raise the shares of the steps or method.steps, or choose "
                f"method=ddim_inversion"
            )

    def invert(self, batch: Batch) -> Latent:
        """Return x_T under the inversion's prompt; of a stored source, its clean end z_0 too."""
        levels = self._levels(batch)
        parts = {Space.NOISE: levels[0]}
        if self.source == "stored":
            parts[Space.VAE] = levels[-1]
        return Latent(parts, prompts=prompts_of(batch, self.inversion_prompt))

    def decode(self, latent: Latent) -> Float[Tensor, "b 3 h w"]:
        """Return the source's images."""
        if self.source == "stored":
            return self.model.decode(latent.parts[Space.VAE].to(self.model.device))
        return self.model.sample(
            latent,
            null=self.model.unconditional(len(latent), self.negative),
            guidance=self.source_guidance,
            steps=self.steps,
        )

    def edit(
        self, batch: Batch, edit: Edit, strengths: Float[Tensor, " s"]
    ) -> Float[Tensor, "b s 3 h w"]:
        """Return the targets' images."""
        model, b, s = self.model, len(batch), len(strengths)
        levels, weight = self._levels(batch), strengths.repeat(b)
        sources, targets = prompts_of(batch, self.inversion_prompt), edit.target_prompts
        assert sources is not None and targets is not None
        condition = model.condition(sources, b)
        ours = guided(condition, model.unconditional(b, self.negative), self.source_guidance)
        theirs = guided(
            condition.repeat(s).lerp(model.condition(targets, b).repeat(s), weight),
            model.unconditional(b * s, self.negative),
            self.source_guidance + weight * (self.guidance - self.source_guidance),
        )
        coupling = self.couple(model.grid(self.steps).n, sources, targets, strengths)
        x = levels[0].repeat_interleave(s, 0)
        z0 = self.sample_beside(levels, ours, x, theirs, coupling, 1 - weight)
        return model.decode(z0).unflatten(0, (b, s))

    def sample_beside(
        self,
        levels: Float[Tensor, "l b ..."],
        ours: Sequence[Term],
        x: Float[Tensor, "r ..."],
        theirs: Sequence[Term],
        coupling: Coupling,
        missing: Float[Tensor, " r"],
    ) -> Float[Tensor, "r ..."]:
        """Return the targets' clean latents.

        Args:
            levels: the source's x_T; of a stored source, x at all levels.
            ours: terms of the source.
            x: x_T of the targets, rows (image, target).
            theirs: terms of the targets.
            coupling: what they take from their source.
            missing: share of the offset that each target of a stored source gets.
        """
        model, grid, own = self.model, self.model.grid(self.steps), levels[0]
        times = len(x) // len(own)
        missing = missing.to(x).reshape(-1, *[1] * (x.dim() - 1))
        corrected = self.source == "stored" and bool((missing > 0).any())
        heard = grid.n if corrected else coupling.steps
        for i in range(heard):
            coupled = i < coupling.steps
            listening, acting = (coupling.source, coupling.target) if coupled else ((), ())
            reached = generate(
                model, own, ours, grid=grid, start=i, stop=i + 1, interventions=listening
            )
            own = levels[i + 1] if self.source == "stored" else reached
            x = generate(model, x, theirs, grid=grid, start=i, stop=i + 1, interventions=acting)
            x = x + missing * (own - reached).repeat_interleave(times, 0)
            if coupling.blend is not None:
                x = coupling.blend(i, own, x)
        return generate(model, x, theirs, grid=grid, start=heard)

    def _levels(self, batch: Batch) -> Float[Tensor, "l b ..."]:
        """Return x_T; of a stored source, x at all levels."""
        model, prompts = self.model, prompts_of(batch, self.inversion_prompt)
        told = None if prompts is None else model.condition_of(Latent({}, prompts=prompts))
        if self.source == "sampled":
            return ddim_invert(model, batch, self.cache, steps=self.steps, condition=told)[None]
        found = ddim_trajectory(model, batch, self.cache, steps=self.steps, condition=told)
        return found.transpose(0, 1)


class Memory(Intervention):
    """Keeps the source's queries and keys of each attention layer, in the step at hand.

    Args:
        layers: the layers whose are kept; default: all.
        branch: whose are kept.

    Attributes:
        queries: layer -> the branch's, ``[b, heads, tokens, width]``.
        keys: the same.
    """

    def __init__(self, layers: Sequence[str] | None = None, branch: str = "condition") -> None:
        self.only, self.branch = layers, branch
        self.queries: dict[str, Tensor] = {}
        self.keys: dict[str, Tensor] = {}

    def attention(self, step: Step, call: AttentionCall) -> AttentionCall | None:
        """Keep queries and keys; change nothing."""
        if self.only is not None and call.layer not in self.only:
            return None
        rows = rows_of(step, call, self.branch)
        self.queries[call.layer], self.keys[call.layer] = call.query[rows], call.key[rows]
        return call


def rows_of(step: Step, call: AttentionCall, branch: str) -> slice:
    """Return which rows of an attention layer are a branch's."""
    b, k = len(call.query) // len(step.branches), step.branches.index(branch)
    return slice(k * b, (k + 1) * b)
