"""Do new pictures show the subject of a few references, as the prompt asks, and nothing lost?"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any

import torch
from jaxtyping import Float
from torch import Tensor

from benchmarks.composition import goals, refuse_same
from latentbench.benchmark import Bench, Benchmark, Work
from latentbench.bounds import Count, SetSize, distinct, matches, not_empty
from latentbench.data.dataset import Dataset, Split
from latentbench.errors import BadInput, unknown
from latentbench.types import SUBJECT, Batch, Capability, Samples

OTHERS = "calibration"  # split whose faces give photos their attributes

Asked = Annotated[
    str, matches(r"[^ !+-]+[+-](?: [^ !+-]+[+-])*", "such as 'glasses+' or 'smile+ hat+'")
]
Prompts = Annotated[Sequence[Asked], not_empty, distinct]


@dataclass(frozen=True)
class Subjects:
    """Who is to be shown.

    Args:
        ids: one name per subject.
        factors: those of the first reference.
        references: photos of each in [-1, 1].
    """

    ids: tuple[str, ...]
    factors: Float[Tensor, "b f"]
    references: Float[Tensor, "b r 3 h w"]


class Personalisation(Benchmark):
    """A few photos of one person in, new pictures of that person under prompts out.

    A subject is the identity of a face: its factors that no edit asks for. The references are
    photos of it, rendered, with the attributes of other faces; but what any prompt asks for they
    lack, all of them, so that a copy of a reference obeys no prompt. Their captions are the word
    `SUBJECT` and the words for what they have instead. "smile+ hat+" is asked for as the caption
    "<subject> smiling hat", several times. The truth is as many photos of the subject that have
    what was asked, their free attributes those of further faces.

    The main score (`metrics.pairs.personalisation_error`) adds up how far the draws are from the
    subject, from the prompt, and from the variety of the true photos: 0 is true photos, 1 is one of
    the three missed altogether.

    What was forgotten (`metrics.pairs.forgetting`): under the whole caption of another face, which
    does not name the subject, the model draws one image before it has learned the subject, at its
    own steps and guidance, and the method one from the same noise afterwards. A model that takes no
    captions, for which the method reads them, draws none: then these figures are absent.

    Args:
        n: subjects.
        references: photos of each that a method learns from.
        prompts: attributes with their directions.
        draws: pictures of each subject under each prompt.
        split: whose identities the subjects have.

    Raises:
        BadInput: data without captions, an attribute that they do not have or that prompts ask for
            in both directions, or fewer faces to take attributes from than photos (raised by
            `check`).
    """

    question = "Do new pictures show the subject of a few references, as the prompt asks?"
    verbs = frozenset({"personalise"})
    needs = frozenset({Capability.LABELS, Capability.COUNTERFACTUALS})
    gives = frozenset({Capability.REFERENCES})
    main_score = "personalisation_error_zoo1"

    def __init__(
        self,
        *,
        n: Count = 8,
        references: Count = 4,
        prompts: Prompts = ("glasses+", "smile+ hat+", "age+ beard+", "yaw+ shirt+"),
        draws: SetSize = 4,
        split: Split = "test",
    ) -> None:
        self.n, self.references, self.prompts = n, references, tuple(prompts)
        self.draws, self.split = draws, split

    def check(self, dataset: Dataset) -> None:
        """Refuse attributes that the data do not have, and too few faces to take them from."""
        super().check(dataset)
        if Capability.PROMPTS not in dataset.gives:
            raise BadInput(
                f"benchmark.prompts are asked for in the captions' words, and "
                f"{type(dataset).__name__} has none; take dataset=faces"
            )
        refuse_same(self.prompts)
        asked = [(a, goal) for name in self.prompts for a, goal in goals(name).items()]
        for attribute, goal in asked:
            if attribute not in dataset.attributes:
                raise unknown("attribute", attribute, dataset.attributes)
            if (attribute, 1 - goal) in asked:
                raise BadInput(
                    f"benchmark.prompts ask for {attribute} in both directions, so that references "
                    f"cannot lack it; leave one of them out"
                )
        wanted = self.n * (self.references + len(self.prompts) * (self.draws + 1))
        if wanted > dataset.size(OTHERS):
            raise BadInput(
                f"benchmark.n={self.n} subjects with {self.references} references and "
                f"{self.draws} draws under {len(self.prompts)} prompts need {wanted} faces of the "
                f"split {OTHERS!r}, which has {dataset.size(OTHERS)}; lower one of them"
            )

    def groups(self, dataset: Dataset) -> Sequence[str]:
        """Return the prompts."""
        return self.prompts

    def run(self, work: Work, bench: Bench, setup: dict[str, Any]) -> Samples:
        """Return the draws of each subject under the prompt, and as many true photos."""
        data, asked, places = bench.dataset, goals(work.group), work.indices
        lacking = {a: 1 - goal for name in self.prompts for a, goal in goals(name).items()}
        subjects = self.subjects(places, bench, lacking)
        first = self.references + self.prompts.index(work.group) * (self.draws + 1)
        wanted = self._photos(data, subjects.factors, places, first, self.draws, asked)
        captions = self._captions(data, places, first + self.draws)
        prompted = Capability.PROMPTS in bench.model.gives
        prompt, shown = (f"{SUBJECT} {words_of(data, ends)}" for ends in (asked, lacking))
        draws, pairs = [], []
        for one, photos, caption in zip(subjects.ids, subjects.references, captions, strict=True):
            names = tuple(f"{one}/reference {k}" for k in range(len(photos)))
            references = Batch(names, photos, (shown,) * len(photos))
            if prompted:
                pairs.append(self._before_and_after(bench, references, f"{one}/other", caption))
            ids = tuple(f"{one}/{k}" for k in range(self.draws))
            draws.append(bench.editor.personalise(references, ids, (prompt,) * self.draws))
        return Samples(
            subjects.ids,
            torch.stack(draws).clamp(-1, 1).cpu(),
            (work.group,) * len(places),
            sources=subjects.references[:, 0],
            truths=data.render(wanted.flatten(0, 1)).unflatten(0, (-1, self.draws)),
            factors=subjects.factors,
            wanted=with_ends(data, subjects.factors[:, None], asked).expand(-1, self.draws, -1),
            before_after=torch.stack(pairs).clamp(-1, 1).cpu() if prompted else None,
        )

    def subjects(
        self, places: Sequence[int], bench: Bench, lacking: Mapping[str, float]
    ) -> Subjects:
        """Return the subjects and their references.

        Args:
            places: numbers of the subjects.
            bench: what the protocol works with.
            lacking: attributes with the ends that all references show.
        """
        data = bench.dataset
        known = data.describe(self.split, places)
        assert known.factors is not None
        seen = self._photos(data, known.factors, places, 0, self.references, lacking)
        images = data.render(seen.flatten(0, 1)).unflatten(0, (-1, self.references))
        return Subjects(known.ids, seen[:, 0], images)

    def _photos(
        self,
        data: Dataset,
        people: Float[Tensor, "b f"],
        places: Sequence[int],
        first: int,
        count: int,
        ends: Mapping[str, float],
    ) -> Float[Tensor, "b c f"]:
        """Return factors of photos: the people's identity, others' attributes, these ends."""
        others = [self._other(k, first + j) for k in places for j in range(count)]
        free = data.describe(OTHERS, others).factors
        assert free is not None
        is_free = torch.tensor([name in data.attributes for name in data.factor_names])
        photos = torch.where(is_free, free.unflatten(0, (-1, count)), people[:, None])
        return with_ends(data, photos, ends)

    def _captions(self, data: Dataset, places: Sequence[int], number: int) -> Sequence[str]:
        """Return whole captions of other faces."""
        captions = data.describe(OTHERS, [self._other(k, number) for k in places]).prompts
        assert captions is not None
        return captions

    def _other(self, subject: int, number: int) -> int:
        """Return the face that gives the subject's photo of this number its attributes."""
        return subject * (self.references + len(self.prompts) * (self.draws + 1)) + number

    def _before_and_after(
        self, bench: Bench, references: Batch, name: str, caption: str
    ) -> Float[Tensor, "2 3 h w"]:
        """Return an image of somebody else: the model's, and the method's, from one noise."""
        start = replace(bench.model.prior(bench.streams, (name,)), prompts=(caption,))
        before = bench.model.sample(start)
        return torch.cat([before, bench.editor.personalise(references, (name,), (caption,))])


def with_ends(
    data: Dataset, factors: Float[Tensor, "*n f"], ends: Mapping[str, float]
) -> Float[Tensor, "*n f"]:
    """Return factors with these attributes at these ends."""
    found = factors.clone()
    for attribute, end in ends.items():
        found[..., data.factor_names.index(attribute)] = end
    return found


def words_of(data: Dataset, ends: Mapping[str, float]) -> str:
    """Return the captions' words for attributes at their ends, in the captions' order."""
    found = []
    for attribute in sorted(ends, key=data.factor_names.index):
        words = data.words(attribute)
        assert words is not None
        found.append(words[int(ends[attribute])])
    return " ".join(found)
