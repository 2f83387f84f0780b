"""Do all concepts that are asked for show at once, none that is negated, and is the rest kept?"""

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Annotated, Any, ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from benchmarks.attributes import asked_of
from latentbench.benchmark import Bench, Benchmark, Work
from latentbench.bounds import Count, Positive, distinct, matches, not_empty
from latentbench.data.dataset import Dataset, Split
from latentbench.errors import BadInput, unknown
from latentbench.prompt_tokens import lasting_words, new_words
from latentbench.types import Capability, Concept, Samples

FAR = 0.75  # distance from its goal at which a factor is on the other side

Asked = Annotated[
    str,
    matches(
        r"[^ !+|-]+[+-](?: (?:![^ !+|-]+|[^ !+|-]+[+-]))+"
        r"|(?:[^ !+|-]+[+-](?: (?:![^ !+|-]+|[^ !+|-]+[+-]))* )?[^ !+|-]+[+-](?:\|[^ !+|-]+[+-])+",
        "such as 'glasses+ hat+', 'hat+ !beard' or 'beard+ glasses+|hat+'",
    ),
]
Compositions = Annotated[Sequence[Asked], not_empty, distinct]


class Composition(Benchmark):
    """Several concepts at once, judged by the distance to the rendered answer.

    A composition names attributes: "glasses+ hat+" asks for both, "smile+ !beard" for a smile and
    no beard, and "beard+ glasses+|hat+" for a beard and one of the other two: a mixture, in which
    each alternative is as frequent as the others. It is asked of faces that lack all of it. The
    concepts are the face's caption without its words for these attributes, and one word for each of
    them: the one that is wanted, or, with a negative weight, the one that is not. The answer is the
    face with every attribute as asked, rendered; a mixture has an answer for each alternative. The
    main score is the distance of the output to the nearest answer over all factors, as a share of
    that of the face as it was (`metrics.edits.edit_error`). What a caption does not fix is left to
    the noise, so even a perfect sampler of captions does not reach 0: compare methods, and read
    `all_asked` beside it, and of mixtures `rarest_alternative`: one answer for all is not one.

    Args:
        n: images per composition.
        compositions: attributes with their directions, a negated one with "!".
        negative: weight of a negated concept, of which the others have 1.
        split: which faces are asked of.
        alone: whether each concept is made by itself as well, from the same noise, for
            `metrics.edits.interference`; null: no.

    A model that takes no captions can be asked as well, by a method that needs none of it.

    Raises:
        BadInput: concepts alone of a mixture, which asks for no two of its alternatives at once;
            data without captions, an attribute that they do not have, or a split with fewer than n
            faces that lack all of a composition (both raised by `check`).
    """

    question = "Do all asked concepts show at once, none that is negated, and is the rest kept?"
    verbs = frozenset({"compose"})
    needs = frozenset({Capability.LABELS, Capability.COUNTERFACTUALS})
    main_score = "edit_error_zoo1"
    neutral: ClassVar[Mapping[str, Any]] = {"alone": None}

    def __init__(
        self,
        *,
        n: Count = 24,
        compositions: Compositions = (
            "glasses+ hat+", "smile+ beard+", "hat+ !beard", "shirt+ !glasses",
        ),
        negative: Positive = 1.0,
        split: Split = "test",
        alone: Literal[True] | None = None,
    ) -> None:  # fmt: skip
        self.n, self.compositions, self.negative = n, tuple(compositions), negative
        self.split, self.alone = split, alone
        mixtures = [name for name in self.compositions if alternatives(name)]
        if alone and mixtures:
            raise BadInput(
                f"benchmark.alone=true asks how much concepts get in each other's way, but of "
                f"{mixtures[0]!r} only one alternative should show; leave it out"
            )
        named = {"mixture" if alternatives(name) else "compose" for name in self.compositions}
        self.verbs = frozenset(named)

    def check(self, dataset: Dataset) -> None:
        """Refuse data without captions or attributes, and too few faces that lack these."""
        super().check(dataset)
        if Capability.PROMPTS not in dataset.gives:
            raise BadInput(
                f"composition makes its concepts of captions, {type(dataset).__name__} has none; "
                f"take data with captions, such as dataset=faces"
            )
        refuse_same(self.compositions)
        for name in self.compositions:
            for attribute in goals(name):
                if attribute not in dataset.attributes:
                    raise unknown("attribute", attribute, dataset.attributes)
            _lacking(dataset, self.split, name, self.n)

    def groups(self, dataset: Dataset) -> Sequence[str]:
        """Return the compositions."""
        return self.compositions

    def run(self, work: Work, bench: Bench, setup: dict[str, Any]) -> Samples:
        """Return one image per face."""
        data, asked = bench.dataset, goals(work.group)
        numbers = _lacking(data, self.split, work.group, self.n)
        index = [numbers[k] for k in work.indices]
        batch = data.batch(self.split, index)
        assert batch.factors is not None and batch.prompts is not None
        rest, concepts = self._concepts(data, work.group, index)
        either = alternatives(work.group)
        always = {name: goal for name, goal in asked.items() if name not in either}
        together = [rest, *(concepts[name] for name in always)]
        if either:
            parts = [concepts[name] for name in either]
            images = bench.editor.mixture(batch.ids, together, parts)
        else:
            images = bench.editor.compose(batch.ids, together)
        answers = [always | {name: asked[name]} for name in either] or [asked]
        wanted = [self._wanted(data, index, answer) for answer in answers]
        truths = [data.render(factors) for factors in wanted]
        named = [asked_of(data, list(answer), len(batch)) for answer in answers]
        alone = None
        if self.alone:
            order = sorted(asked, key=data.factor_names.index)
            each = [bench.editor.compose(batch.ids, [rest, concepts[name]]) for name in order]
            alone = torch.stack(each, 1).clamp(-1, 1).cpu()
        return Samples(
            batch.ids,
            images.clamp(-1, 1).cpu()[:, None],
            (work.group,) * len(batch),
            sources=batch.images,
            truths=truths[0][:, None],
            factors=batch.factors,
            wanted=wanted[0][:, None],
            asked=named[0],
            other_truths=torch.stack(truths[1:], 1) if either else None,
            other_wanted=torch.stack(wanted[1:], 1) if either else None,
            other_asked=torch.stack(named[1:], 1) if either else None,
            alone=alone,
        )

    def _wanted(
        self, data: Dataset, index: Sequence[int], answer: Mapping[str, float]
    ) -> Float[Tensor, "b f"]:
        ends = {name: torch.full((len(index),), goal) for name, goal in answer.items()}
        return data.with_factors(self.split, index, ends)

    def _concepts(
        self, data: Dataset, name: str, index: Sequence[int]
    ) -> tuple[Concept, dict[str, Concept]]:
        """Return the rest of the captions, and the concept of each attribute."""
        own = data.describe(self.split, index).prompts
        assert own is not None
        rest, found = own, dict[str, Concept]()
        for attribute, goal in goals(name).items():
            wanted, other = (
                self._captions(data, index, attribute, value) for value in (goal, 1 - goal)
            )
            negated = f"!{attribute}" in name.split()
            shown, absent = (other, wanted) if negated else (wanted, other)
            words = [new_words(a, b) for a, b in zip(shown, absent, strict=True)]
            found[attribute] = Concept(tuple(words), -self.negative if negated else 1.0)
            rest = tuple(lasting_words(*three) for three in zip(rest, wanted, other, strict=True))
        return Concept(rest), found

    def _captions(
        self, data: Dataset, index: Sequence[int], attribute: str, value: float
    ) -> tuple[str, ...]:
        ends = torch.full((len(index),), value)
        return data.edited_prompts(self.split, index, attribute, ends)


def goals(name: str) -> dict[str, float]:
    """Return the value that each attribute of a composition should have.

    Raises:
        BadInput: an attribute is named twice.

    Example:
        >>> goals("glasses+ smile- !hat")
        {'glasses': 1.0, 'smile': 0.0, 'hat': 0.0}
    """
    found: dict[str, float] = {}
    for word in name.replace("|", " ").split():
        attribute = word.strip("!+-")
        if attribute in found:
            raise BadInput(f"{name!r} names {attribute} twice; ask for each attribute once")
        found[attribute] = float(word.endswith("+"))
    return found


def alternatives(name: str) -> list[str]:
    """Return the attributes of a composition of which one should show.

    Example:
        >>> alternatives("beard+ glasses+|hat+"), alternatives("glasses+ hat+")
        (['glasses', 'hat'], [])
    """
    return [w.strip("+-") for word in name.split() if "|" in word for w in word.split("|")]


def refuse_same(names: Sequence[str]) -> None:
    """Refuse entries that name the same attributes in another order: they would count twice.

    Raises:
        BadInput: says which two.

    Example:
        >>> refuse_same(["hat+ beard+", "hat+ !beard"])
    """
    seen: dict[frozenset[str], str] = {}
    for name in names:
        words = frozenset("|".join(sorted(word.split("|"))) for word in name.split())
        if words in seen:
            raise BadInput(
                f"{name!r} asks for what {seen[words]!r} asks for; leave one of them out"
            )
        seen[words] = name


@cache
def _lacking(dataset: Dataset, split: str, name: str, n: int) -> tuple[int, ...]:
    """Return the first n indices whose attributes are all far from where they should be."""
    asked, found, start = goals(name), [], 0
    columns = [dataset.factor_names.index(attribute) for attribute in asked]
    ends = torch.tensor(list(asked.values()))
    while len(found) < n and start < dataset.size(split):
        index = range(start, min(start + 64, dataset.size(split)))
        factors = dataset.describe(split, index).factors
        assert factors is not None
        far = ((factors[:, columns] - ends).abs() > FAR).all(1)
        found += [i for i, take in zip(index, far.tolist(), strict=True) if take]
        start += 64
    if len(found) < n:
        raise BadInput(
            f"composition asks for {n} images that lack all of {name!r}, the split {split!r} has "
            f"{len(found)} among its {dataset.size(split)}; lower benchmark.n"
        )
    return tuple(found[:n])
