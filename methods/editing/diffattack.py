"""DiffAttack: x_t of a low level is moved until a classifier misreads what is sampled from it."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from latentbench.bounds import Count, Name, NotNegative, Positive, Steps, above, at_most
from latentbench.editor import Editor
from latentbench.errors import BadInput
from latentbench.model import AttentionCall, Condition, DiffusionModel
from latentbench.parameterization import whole_steps
from latentbench.sampling.inversion import ddim_trajectory
from latentbench.sampling.loop import Intervention, Step, generate, plain
from latentbench.types import Batch, Capability, Edit, Latent, Space
from methods.editing.alignment import changed_words, places_of
from methods.generation.attention_guidance import TokenMaps

LARGEST = 1024  # places of a self-attention map that is compared


class SelfMaps(Intervention):
    """Keeps the self-attention maps of all layers and steps, or compares them with kept ones.

    Args:
        source: maps to compare with.
    """

    def __init__(self, source: "SelfMaps | None" = None) -> None:
        self.source, self.maps = source, dict[tuple[int, str], Tensor]()
        self.gaps: list[Float[Tensor, " b"]] = []

    def attention(self, step: Step, call: AttentionCall) -> AttentionCall | None:
        """Read a layer's map; change nothing."""
        if call.cross or call.query.shape[2] > LARGEST:
            return None
        maps, key = call.probabilities(), (step.index, call.layer)
        if self.source is None:
            self.maps[key] = maps
        else:
            self.gaps.append((maps - self.source.maps[key]).square().flatten(1).mean(1))
        return call

    def gap(self) -> Float[Tensor, " b"]:
        """Return the mean squared difference, summed over layers and steps."""
        return torch.stack(self.gaps).sum(0)


class LabelMaps(TokenMaps):
    """Keeps how much each place reads each token, in the layers outside the middle block."""

    def attention(self, step: Step, call: AttentionCall) -> AttentionCall | None:
        """Keep a layer's map; change nothing."""
        return None if call.layer.startswith("mid_block") else super().attention(step, call)

    def variance(self, label: Bool[Tensor, "b m"]) -> Float[Tensor, " b"]:
        """Return Var(M) of the label's tokens over places and tokens.

        M is the mean of the coarsest maps over heads, layers and steps.

        Args:
            label: which tokens of each image's caption are the label's.
        """
        mean = torch.cat(self.found[min(self.found)], 1).mean(1)
        return torch.stack([M[:, own].var() for M, own in zip(mean, label, strict=True)])


class DiffAttack(Editor[DiffusionModel]):
    """Moves x_t so that a classifier misreads the image, while its structure stays.

    Source: "Diffusion Models for Imperceptible and Transferable Adversarial Attack", section 3.
    x_t is the inversion of the image at a low level. `iterations` Adam steps on x_t descend

        attack log p(y | x') + transfer Var(M')
        + structure sum over layers and steps of mean (S' - S)^2,

    x' being the image sampled from x_t, y the attribute as it is, p a classifier's probability, S
    and S' the self-attention maps of the source's chain and of the moved one. M' is the moved
    chain's cross-attention map of the label's words, the mean over heads, layers and steps; its
    variance over places and tokens is a second surrogate, as a map without variance sees no object.
    Nothing bounds the change of the image: the low level and the maps keep it near.

    The strength is the share of the move of x_t: 0 is the reconstruction, 1 the published attack.

    Deviations: the chain runs under the caption without guidance, as the inversion does, so that it
    needs no null-text fit (published: an unconditional inversion, and guidance 2.5 towards the
    label's word); the second surrogate is off by default (published: a weight of 10,000), so that
    models without cross-attention take part, and its weight is not adapted to the encoder: the
    variance grows as a caption has fewer tokens; the label's words are those of the caption that
    the wanted caption lacks (published: a caption that is the label); M' is made of the coarsest
    maps outside the middle block, as those of the published size are; y is one attribute against
    its absence; a graded attribute is read at its middle; by default the first moved x_t that is
    misread counts, `keep` = "last" is the published end.

    Args:
        steps: sampling steps; default: the model's; 20 as published.
        depth: share of the steps that are made again; a quarter as published.
        classifier: a yaml of conf/classifier, which it attacks; never a judge.
        iterations: Adam steps.
        rate: of Adam.
        attack: weight of the classifier's loss.
        structure: weight of the self-attention's; 0 asks for no maps.
        transfer: weight of the cross-attention's variance; 0 asks for no maps.
        keep: "first" that is misread, or the "last" of all.
        max_strength: largest strength of a benchmark's curve.

    Raises:
        BadInput: an edit without an attribute, or, with `transfer`, without a word of the caption
            that the wanted caption lacks.

    Example:
        >>> method = DiffAttack(depth=0.25)  # method.edit(batch, edit, torch.ones(1))
    """

    paper = "Diffusion Models for Imperceptible and Transferable Adversarial Attack, section 3"
    small: ClassVar[Mapping[str, Any]] = {"iterations": 3, "keep": "last", "rate": 0.05}
    others: ClassVar[Mapping[str, str]] = {"classifier": "classifier"}
    requires: ClassVar[Mapping[str, frozenset[Space]]] = {
        "invert": frozenset({Space.NOISE}),
        "edit": frozenset({Space.NOISE}),
    }
    needs: ClassVar[Mapping[str, frozenset[Capability]]] = {
        "edit": frozenset({Capability.CLASSIFIER})
    }

    def __init__(
        self,
        *,
        steps: Steps | None = None,
        depth: Annotated[float, above(0), at_most(1)] = 0.25,
        classifier: Name = "attr1",
        iterations: Count = 30,
        rate: Positive = 0.01,
        attack: NotNegative = 10.0,
        structure: NotNegative = 100.0,
        transfer: NotNegative = 0.0,
        keep: Literal["first", "last"] = "first",
        max_strength: Positive = 1.0,
    ) -> None:
        self.steps, self.depth, self.classifier = steps, depth, classifier
        self.iterations, self.rate, self.keep = iterations, rate, keep
        self.attack, self.structure, self.transfer = attack, structure, transfer
        self.max_strength = max_strength

    @classmethod
    def required(
        cls, verbs: Iterable[str], config: Mapping[str, Any]
    ) -> tuple[frozenset[Space], frozenset[Capability]]:
        """Return those of the class, and what the losses on attention maps read."""
        asked = frozenset(verbs)
        spaces, needs = super().required(asked, config)
        if "edit" in asked and config.get("structure", 1):
            spaces |= {Space.ATTENTION}
        if "edit" in asked and config.get("transfer"):
            spaces |= {Space.TEXT, Space.TOKEN_MAPS}
            needs |= {Capability.PROMPTS, Capability.TARGET_PROMPTS}
        return spaces, needs

    def invert(self, batch: Batch) -> Latent:
        """Return x_t of each image."""
        prompts = batch.prompts if Capability.PROMPTS in self.model.gives else None
        condition = self.model.condition(prompts, len(batch))
        levels = ddim_trajectory(
            self.model, batch, self.cache, steps=self.steps, condition=condition
        )
        return Latent({Space.NOISE: levels[:, self.start]}, self.start, prompts)

    def decode(self, latent: Latent) -> Float[Tensor, "b 3 h w"]:
        """Return the images sampled from x_t."""
        return self.image(latent.parts[Space.NOISE], self.model.condition_of(latent))

    def edit(
        self, batch: Batch, edit: Edit, strengths: Float[Tensor, " s"]
    ) -> Float[Tensor, "b s 3 h w"]:
        """Return the images of x_t moved by shares of the attack."""
        if edit.attribute is None:
            raise BadInput(
                f"edit {edit.name!r} names no attribute to misread; choose benchmark=attack"
            )
        label = self.label(batch.prompts, edit) if self.transfer else None
        latent, s = self.invert(batch), len(strengths)
        condition, x_t = self.model.condition_of(latent), latent.parts[Space.NOISE]
        move = self.attacked(x_t, condition, edit, label) - x_t
        weight = strengths.repeat(len(batch)).to(x_t).reshape(-1, *[1] * (x_t.dim() - 1))
        moved = x_t.repeat_interleave(s, 0) + weight * move.repeat_interleave(s, 0)
        return self.image(moved, condition.repeat(s)).unflatten(0, (len(batch), s))

    @property
    def start(self) -> int:
        """The level from which steps are made again."""
        n = self.model.grid(self.steps).n
        return n - max(whole_steps(self.depth, n), 1)

    def label(self, prompts: Sequence[str] | None, edit: Edit) -> Bool[Tensor, "b m"]:
        """Return which tokens of the captions are of words that the wanted captions lack."""
        rows = []
        for source, target in zip(prompts or (), edit.target_prompts or (), strict=True):
            words = changed_words(source, target)
            if not words:
                raise BadInput(
                    f"the caption {source!r} has no word that {target!r} lacks, so there is no "
                    f"cross-attention of {edit.attribute!r} to spread; set method.transfer=0, or "
                    f"ask for edits that replace a word or take one out"
                )
            rows.append(places_of(self.model.prompt_tokens(source), words) > 0)
        return torch.stack(rows).to(self.model.device)

    def attacked(
        self,
        x_t: Float[Tensor, "b ..."],
        condition: Condition,
        edit: Edit,
        label: Bool[Tensor, "b m"] | None = None,
    ) -> Float[Tensor, "b ..."]:
        """Return x_t after the attack: the first that is misread, or the last.

        Args:
            x_t: the level from which steps are made again.
            condition: of the captions.
            edit: names the attribute.
            label: which tokens' cross-attention is spread; None: no such loss.
        """
        source, classifier = SelfMaps(), self.parts["classifier"]
        column = classifier.column(str(edit.attribute))
        if self.structure:
            with torch.no_grad():
                self.image(x_t, condition, source)
        x = x_t.detach().clone().requires_grad_()
        adam = torch.optim.Adam([x], lr=self.rate)
        found = torch.zeros(len(x), dtype=torch.bool, device=x.device)
        best = x_t
        for k in range(self.iterations + 1):
            maps, read = SelfMaps(source), LabelMaps()
            kept = [maps] * (self.structure > 0) + [read] * (label is not None)
            with torch.set_grad_enabled(k < self.iterations):
                image = self.image(x, condition, *kept)
                odds = edit.sign * classifier.log_odds(image.clamp(-1, 1))[:, column]
                losses = self.attack * F.logsigmoid(-odds)  # log p(y)
                if self.structure:
                    losses = losses + self.structure * maps.gap()
                if label is not None:
                    losses = losses + self.transfer * read.variance(label)
            best = torch.where(_column(found, x), best, x.detach())
            found = found | ((odds.detach() > 0) & (k > 0 and self.keep == "first"))
            if k == self.iterations or bool(found.all()):
                break
            (x.grad,) = torch.autograd.grad(losses, x, torch.ones_like(losses))
            adam.step()
        return best

    def image(
        self, x_t: Float[Tensor, "b ..."], condition: Condition, *maps: Intervention
    ) -> Float[Tensor, "b 3 h w"]:
        """Return the images sampled from x_t."""
        clean = generate(
            self.model, x_t, plain(condition), grid=self.model.grid(self.steps), start=self.start,
            interventions=maps,
        )  # fmt: skip
        return self.model.decode(clean)


def _column(rows: Tensor, like: Tensor) -> Tensor:
    return rows.reshape(-1, *[1] * (like.dim() - 1))
