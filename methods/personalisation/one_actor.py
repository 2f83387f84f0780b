"""OneActor: guidance towards the cluster of one character, away from that of all others."""

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from latentbench.bounds import Count, Guidance, NotNegative, Positive, Share, Steps
from latentbench.errors import BadInput
from latentbench.model import Condition
from latentbench.parameterization import prediction_error
from latentbench.sampling.loop import (
    Intervention,
    Recorder,
    Term,
    denoise,
    generate,
    guided,
    noise_to_level,
    plain,
)
from latentbench.types import SUBJECT, Batch, Space
from methods.personalisation.learned_subject import (
    LearnedSubject,
    captions_of,
    place_of_subject,
)

WIDTH = 32  # channels of the projector
GROUPS = 8  # of its group norms

Learned = Mapping[str, Tensor]


class OneActor(LearnedSubject):
    """Learns to read off h, the middle block's output, an offset of the subject's word.

    Source: "OneActor: Consistent Character Generation via Cluster-Conditioned Guidance", sections
    3.2 (equation of cluster guidance) and 3.3 (tuning), and the authors' code for the projector.
    c is the text encoder's output; S(phi, h) adds the offset phi(h) to it at the subject's place.

    1. Auxiliaries: other people, drawn with the references' first caption from other noises.
    2. h of every image, at the sampler's last level.
    3. phi learns L = L_target + lambda1 mean_k L_k + lambda2 L_average: the squared errors of
       what the network predicts (eps in the paper) of the references with their own offsets, of
       drawn auxiliaries with theirs, and of the references, under the same noise, with the
       auxiliaries' mean offset.
    4. eps = eps(0) + eta1 (eps(c + v phi(h_target)) - eps(0)) - eta2 (eps(c + v mean_k phi(h_k))
       - eps(0)) in the first share of the steps, and guidance with the bare c after it.

    Deviations: the base word is the mean of the vocabulary, since captions of faces have no word
    for a person; h is that of an image noised to the last level, not of the run that drew it, as
    references are images; several references are several targets, and their mean offset draws;
    group norm, not batch norm, so that no image depends on its neighbours; offsets have the mean
    norm of c's tokens; Adam without weight decay; no flips; the last phi, not the luckiest.

    Args:
        iterations: steps of Adam.
        learning_rate: of Adam.
        auxiliaries: other people that are drawn.
        together: auxiliaries in each step.
        auxiliary_weight: lambda1.
        average_weight: lambda2.
        offset: v, the share of the offset when images are drawn; 0 is the bare prompt.
        exclusion: eta2; above 0 a third evaluation in each guided step.
        until: share of the steps that are guided by clusters.
        steps: sampling steps; default: the model's.
        guidance: eta1; default: the model's.

    Raises:
        BadInput: more auxiliaries in each step than there are.

    Example:
        >>> method = OneActor(iterations=200, exclusion=0.5)
        >>> # method.personalise(references, ("a",), (f"{SUBJECT} smiling",))
    """

    paper = "OneActor: Consistent Character Generation via Cluster-Conditioned Guidance, section 3"
    version = 2
    requires: ClassVar[Mapping[str, frozenset[Space]]] = {
        "personalise": frozenset({Space.NOISE, Space.TEXT, Space.BOTTLENECK})
    }

    def __init__(
        self,
        *,
        iterations: Count = 200,
        learning_rate: Positive = 5e-4,
        auxiliaries: Count = 10,
        together: Count = 3,
        auxiliary_weight: NotNegative = 0.5,
        average_weight: NotNegative = 0.2,
        offset: NotNegative = 0.8,
        exclusion: NotNegative = 0.0,
        until: Share = 0.67,
        steps: Steps | None = None,
        guidance: Guidance | None = None,
    ) -> None:
        if together > auxiliaries:
            raise BadInput(f"together must be at most auxiliaries, {auxiliaries}, got {together}")
        self.iterations, self.learning_rate = iterations, learning_rate
        self.auxiliaries, self.together = auxiliaries, together
        self.auxiliary_weight, self.average_weight = auxiliary_weight, average_weight
        self.offset, self.exclusion, self.until = offset, exclusion, until
        self.steps, self.guidance = steps, guidance

    def settings(self) -> tuple[object, ...]:
        """Return what decides what is learned; offset, exclusion and share do not."""
        counts = (self.auxiliaries, self.together, self.steps, self.scale)
        return (*super().settings(), *counts, self.auxiliary_weight, self.average_weight)

    def start(self, references: Batch) -> dict[str, Tensor]:
        """Return targets' and auxiliaries' h, the latents of the latter, and the first phi."""
        caption = captions_of(references)[0]
        with torch.no_grad():
            z = self._auxiliaries(caption)  # 1.
            found = {
                "z": z,
                "h_target": self._features(self.model.encode(references.images), caption),  # 2.
                "h_others": self._features(z, caption),
            }
        channels, d = found["h_others"].shape[1], self.model.vocabulary().shape[1]
        learned = {
            "A": self._drawn("A", (WIDTH, channels, 3, 3)), "a": torch.zeros(WIDTH),
            "B": self._drawn("B", (WIDTH, WIDTH, 3, 3)), "b": torch.zeros(WIDTH),
            "U": self._drawn("U", (d, WIDTH)), "u": torch.zeros(d),
        }  # fmt: skip
        learned = {k: v.to(self.model.device).requires_grad_() for k, v in learned.items()}
        return {**found, **learned}

    def told(
        self, prompts: Sequence[str], learned: Learned
    ) -> tuple[Condition, Sequence[Intervention]]:
        """Return the prompts' condition in the target's cluster."""
        offsets = projected(learned, learned["h_target"]).mean(0)
        return self._shifted(prompts, self.offset * offsets.expand(len(prompts), -1)), ()

    def terms(
        self, prompts: Sequence[str], learned: Learned
    ) -> tuple[Sequence[Term], Sequence[Intervention]]:
        """Return guidance by clusters, then guidance with the bare prompts."""
        condition, _ = self.told(prompts, learned)
        null, bare = self.model.condition(None, len(prompts)), self._shifted(prompts, None)
        first, rest = (0.0, self.until), (self.until, 1.0)
        eta1, eta2 = self.scale, self.exclusion
        found = [
            Term("null", null, 1 - eta1 + eta2, first), Term("condition", condition, eta1, first),
            Term("null", null, 1 - eta1, rest), Term("condition", bare, eta1, rest),
        ]  # fmt: skip
        if eta2 > 0:  # 4.
            others = projected(learned, learned["h_others"]).mean(0)
            away = self._shifted(prompts, self.offset * others.expand(len(prompts), -1))
            found.append(Term("others", away, -eta2, first))
        return found, ()

    def loss(
        self,
        learned: Learned,
        z0: Float[Tensor, "b ..."],
        captions: Sequence[str],
        ids: Sequence[str],
        step: int,
    ) -> Float[Tensor, ""]:
        """Return L at one level of the sampler's grid."""
        model, grid, b = self.model, self.model.grid(), len(z0)
        drawn = self.streams.generator("one_actor", f"{step}/drawn")
        level = int(torch.randint(grid.n, (), generator=drawn))
        chosen = torch.randperm(self.auxiliaries, generator=drawn)[: self.together]
        names = [f"{step}/{name}" for name in (*ids, *(f"other {k}" for k in chosen.tolist()))]
        eps = self.streams.normal("one_actor", names, z0.shape[1:], z0.device).to(z0)
        own = projected(learned, learned["h_target"])
        others = projected(learned, learned["h_others"][chosen.to(z0.device)])
        offsets = torch.cat([own, others, others.mean(0).expand(b, -1)])
        eps = torch.cat([eps, eps[:b]])  # the copies share the targets' noise
        clean = torch.cat([z0, learned["z"][chosen.to(z0.device)], z0])
        told = [*captions, *(captions[0],) * self.together, *captions]
        x = noise_to_level(grid, clean, eps, level)
        terms = plain(self._shifted(told, offsets))
        found, levels = denoise(model, x, terms, grid=grid, level=level), grid.levels(level, x)
        error = prediction_error(model.prediction_type, found, (clean, eps), *levels)
        errors = error.square().flatten(1).mean(1)
        target, auxiliary, average = errors.split([b, self.together, b])
        return (  # 3.
            target.mean()
            + self.auxiliary_weight * auxiliary.mean()
            + self.average_weight * average.mean()
        )

    def _auxiliaries(self, caption: str) -> Float[Tensor, "n ..."]:
        model, names = self.model, [f"other {k}" for k in range(self.auxiliaries)]
        told = model.condition_with_words([caption] * len(names), {SUBJECT: self._base()})
        x = model.prior(self.streams, names).parts[Space.NOISE]
        terms = guided(told, model.condition(None, len(names)), self.scale)
        return generate(model, x, terms, grid=model.grid(self.steps))

    def _features(self, z0: Float[Tensor, "b ..."], caption: str) -> Float[Tensor, "b c h w"]:
        model, grid, names = self.model, self.model.grid(), [f"h {k}" for k in range(len(z0))]
        last, kept = grid.n - 1, Recorder(bottleneck=True)
        eps = self.streams.normal("one_actor", names, z0.shape[1:], z0.device).to(z0)
        x = noise_to_level(grid, z0, eps, last)
        terms = plain(model.condition_with_words([caption] * len(z0), {SUBJECT: self._base()}))
        denoise(model, x, terms, grid=grid, level=last, interventions=[kept])
        return kept.h[last]

    def _base(self) -> Float[Tensor, " d"]:
        return self.model.vocabulary().mean(0)

    def _shifted(self, prompts: Sequence[str], offsets: Float[Tensor, "b d"] | None) -> Condition:
        """Return the prompts' condition, moved at the subject's place where it is named."""
        told = self.model.condition_with_words(prompts, {SUBJECT: self._base()})
        if offsets is None:
            return told
        c = told.tensors["encoder_hidden_states"]
        places = torch.tensor([place_of_subject(self.model, p) for p in prompts])
        at = (torch.arange(c.shape[1]) == places[:, None])[..., None].to(c)
        size = c.norm(dim=-1, keepdim=True).mean(1, keepdim=True).detach()
        moved = c + at * size * offsets[:, None]
        return Condition({**told.tensors, "encoder_hidden_states": moved})

    def _drawn(self, name: str, shape: tuple[int, ...]) -> Tensor:
        values = self.streams.normal("one_actor/start", (name,), shape)[0]
        return values / (values.numel() / shape[0]) ** 0.5


def projected(learned: Learned, h: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d"]:
    """Return phi(h), of unit length."""
    for name in ("A", "B"):
        h = F.conv2d(h, learned[name], learned[name.lower()], padding=1)
        h = F.silu(F.group_norm(h, GROUPS))
    return F.normalize(F.linear(h.mean((2, 3)), learned["U"], learned["u"]), dim=1)
