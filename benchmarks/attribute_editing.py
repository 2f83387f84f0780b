"""Does an edit change what was asked and nothing else?"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Annotated, Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from benchmarks.strengths import Point, choose
from latentbench.batching import map_batches, padded_batches
from latentbench.benchmark import Bench, Benchmark, Work
from latentbench.bounds import Count, above, at_most, between, distinct, matches, not_empty
from latentbench.data.dataset import Dataset
from latentbench.errors import BadInput, NoEffect, unknown
from latentbench.types import Batch, Capability, Edit, Samples
from latentbench.zoo.answers import factor_distance
from latentbench.zoo.judges import Judge, JudgeName, load_judge, reliability

SCORER = "zoo1"  # judge of the main score
CHOICE = "calibration"  # split on whose images strengths are chosen
READ = 16  # images a judge sees at once
SUMS = ("distance", "idle", "gain", "scorer_gain", "asked", "moved", "true")

Attribute = Annotated[str, matches(".+[+-]", "such as glasses+ or hat-")]
Attributes = Annotated[Sequence[Attribute], not_empty, distinct]
Matcher = Annotated[JudgeName, matches(f"(?!{SCORER}$).+", f"other than {SCORER}, which scores")]
Scored = Literal["generator", "judge", "test"]
EDITS = (
    "smile+", "age+", "yaw-", "light+", "mouth_open-", "shirt+",
    "glasses+", "glasses-", "hat+", "beard-",
)  # fmt: skip


class AttributeEditing(Benchmark):
    """Edits of one attribute on held-out images: how far are they from the answer?

    The answer of a graded factor is the rendered counterfactual at `gain` of the way; that of a
    thing that is there or not (`Dataset.things`) is the whole counterfactual. The main score is
    the distance of the output to it, as a share of the source's (`metrics.edits.edit_error`), at
    the strength that a judge finds best on other images: native strengths differ by orders of
    magnitude between methods.

    Strengths are chosen per method and edit on `calibration_n` images of the calibration split, by
    a judge that does not score: along the curve, then between. The last but one output of every
    row is that of least error, where the main score counts. The last is that of matched effect,
    where the figures count that explain it: the first upward crossing of `gain`, which for a thing
    is the share of images that show it. It counts as reached where the gain is within `tolerance`
    (of a thing, at least one image) by the judge that matched and by the one that scores, and
    where the image has moved towards the true counterfactual.

    Args:
        n: images per attribute.
        attributes: attribute with its direction: "glasses+" puts glasses on.
        gain: share of the asked change: of a graded answer, and at matched effect.
        strengths: number of native strengths of the curve.
        judge: who chooses the strengths; never the judge of the scores.
        calibration_n: images per attribute on which strengths are chosen.
        tolerance: how far from `gain` an effect counts as matched.
        split: which images are scored.

    Raises:
        BadInput: an attribute that the data set does not have, or a split with fewer images far
            from an edit's goal than are asked for (raised by `check`).
    """

    question = "Does an edit change what was asked and nothing else?"
    version = 3
    verbs = frozenset({"edit"})
    needs = frozenset({Capability.LABELS, Capability.COUNTERFACTUALS})
    gives = frozenset({Capability.TARGET_PROMPTS})
    main_score = f"edit_error_{SCORER}"

    def __init__(
        self,
        *,
        n: Count = 16,
        attributes: Attributes = EDITS,
        gain: Annotated[float, above(0), at_most(1)] = 0.5,
        strengths: Annotated[int, between(1, 1000)] = 3,
        judge: Matcher = "zoo3",
        calibration_n: Count = 12,
        tolerance: Annotated[float, above(0), at_most(1)] = 0.1,
        split: Scored = "test",
    ) -> None:
        self.n, self.attributes, self.gain = n, tuple(attributes), gain
        self.strengths, self.judge, self.split = strengths, judge, split
        self.calibration_n, self.tolerance = calibration_n, tolerance

    def check(self, dataset: Dataset) -> None:
        """Refuse attributes that the data do not have, and too few images far from a goal."""
        super().check(dataset)
        for name in self.attributes:
            attribute = str(_edit(name).attribute)
            if attribute not in dataset.attributes:
                raise unknown("attribute", attribute, dataset.attributes)
            _untouched(dataset, self.split, name, self.n)
            _untouched(dataset, CHOICE, name, self.calibration_n)

    def curve(self, max_strength: float) -> tuple[float, ...]:
        """Return 0 and the native strengths of the curve, evenly spaced."""
        return tuple(torch.linspace(0, max_strength, self.strengths + 1).tolist())

    def edits(self, dataset: Dataset) -> Sequence[Edit]:
        """Return the edits without prompts, for methods that fit."""
        return [_general(dataset, name) for name in self.attributes]

    def groups(self, dataset: Dataset) -> Sequence[str]:
        """Return the edits' names."""
        return self.attributes

    def setup(self, bench: Bench) -> dict[str, Any]:
        """Return, per edit, the curve as the judge reads it, and the two strengths."""
        judges = [load_judge(who, bench.device) for who in (self.judge, SCORER)]
        return {name: self._choose(bench, name, judges) for name in self.attributes}

    def run(self, work: Work, bench: Bench, setup: dict[str, Any]) -> Samples:
        """Return the curve, then the outputs of least error and of matched effect."""
        found = setup[work.group]
        index = self.numbers(bench.dataset, work.group, work.indices)
        batch, edit = self.ask(bench, work.group, self.split, index)
        shown = [*found["strengths"], found["main"], found["matched"]]
        made = sorted({0.0, *shown})  # a strength that is chosen twice is made once
        images = bench.editor.edit(batch, edit, torch.tensor(made)).clamp(-1, 1).cpu()
        assert batch.factors is not None
        wanted = batch.factors.clone()
        wanted[:, _column(bench.dataset, work.group)] = goal_of(work.group)
        answer = self.answer(bench.dataset, work.group, self.split, index)
        return Samples(
            batch.ids,
            images[:, [made.index(strength) for strength in shown]],
            (work.group,) * len(batch),
            sources=batch.images,
            truths=answer[:, None].expand(-1, len(shown), *answer.shape[1:]),
            reconstructions=images[:, 0],
            strengths=torch.tensor(shown).expand(len(batch), -1).contiguous(),
            main=len(shown) - 2,
            effect=len(shown) - 1,
            matched=torch.full((len(batch),), bool(found["reached"])),
            factors=batch.factors,
            wanted=wanted[:, None].repeat(1, len(shown), 1),
            prompts=edit.target_prompts,
            source_prompts=edit.source_prompts,
        )

    def numbers(self, dataset: Dataset, name: str, places: Sequence[int]) -> list[int]:
        """Return the indices in the data set of the images that are scored."""
        found = _untouched(dataset, self.split, name, self.n)
        return [found[k] for k in places]

    def ask(self, bench: Bench, name: str, split: str, index: Sequence[int]) -> tuple[Batch, Edit]:
        """Return these images, and what a method is asked to do with them."""
        batch, edit = bench.dataset.batch(split, index), _edit(name)
        prompts = None
        if batch.prompts is not None:
            goal = torch.full((len(index),), goal_of(name))
            prompts = bench.dataset.edited_prompts(split, index, str(edit.attribute), goal)
        return batch, Edit(name, edit.attribute, edit.sign, batch.prompts, prompts)

    def answer(
        self, dataset: Dataset, name: str, split: str, index: Sequence[int]
    ) -> Float[Tensor, "b 3 h w"]:
        """Return the images that were asked for."""
        attribute, column = name[:-1], _column(dataset, name)
        factors = dataset.describe(split, index).factors
        assert factors is not None
        share = 1.0 if attribute in dataset.things else self.gain
        now = factors[:, column]
        return dataset.counterfactual(split, index, attribute, now + share * (goal_of(name) - now))

    def _choose(self, bench: Bench, name: str, judges: Sequence[Judge]) -> dict[str, Any]:
        curve = self.curve(bench.editor.max_strength)
        trials = _Trials(self, bench, name, judges)
        one_image = 1 / self.calibration_n if trials.is_thing else 0.0
        return choose(trials.read, curve, self.gain, max(self.tolerance, one_image))


@dataclass(frozen=True)
class _Asked:
    """One batch of calibration images with what the judges read on their sources and answers.

    Args:
        batch: the images.
        edit: what is asked of them.
        kept: how many of them count; the rest pads the batch.
        source: factors read on the sources, by both judges.
        answer: factors read on the answers, by the judge that matches.
        true: the true change of the image, all of it.
        change: the asked change of the factor.
    """

    batch: Batch
    edit: Edit
    kept: int
    source: tuple[Float[Tensor, "b 1 f"], ...]
    answer: Float[Tensor, "b 1 f"]
    true: Float[Tensor, "b 1 3 h w"]
    change: Float[Tensor, "b 1"]


class _Trials:
    """What the judges read on edits of one attribute, on the calibration images.

    Args:
        protocol: its settings.
        bench: what it works with.
        name: the edit.
        judges: the one that matches, and the one that scores.
    """

    def __init__(
        self, protocol: AttributeEditing, bench: Bench, name: str, judges: Sequence[Judge]
    ) -> None:
        self.protocol, self.bench, self.name, self.judges = protocol, bench, name, judges
        self.reliability = reliability(protocol.judge).to(bench.device)
        self.column = _column(bench.dataset, name)
        self.is_thing = name[:-1] in bench.dataset.things
        numbers = _untouched(bench.dataset, CHOICE, name, protocol.calibration_n)
        self.start: dict[tuple[str, ...], Tensor] = {}
        self.asked = [
            self._ask([numbers[k] for k in places], kept)
            for places, kept in padded_batches(len(numbers), bench.batch_size)
        ]

    def read(self, strengths: Sequence[float]) -> Mapping[float, Point]:
        """Return what is read at each strength, over all images."""
        sums = torch.zeros(len(SUMS), len(strengths), dtype=torch.float64)
        for asked in self.asked:
            images = self.bench.editor.edit(asked.batch, asked.edit, torch.tensor(strengths))
            images = images.clamp(-1, 1).to(self.bench.device)
            self._check_effect(asked, images, strengths)
            sums += self._sums(asked, images)
        distance, idle, gain, scorer_gain, whole, moved, true = sums
        columns = (distance / idle, gain / whole, scorer_gain / whole, moved / true)
        table = torch.stack(columns, 1).tolist()
        return {s: Point(*row) for s, row in zip(strengths, table, strict=True)}

    def _check_effect(
        self, asked: _Asked, images: Float[Tensor, "b s 3 h w"], strengths: Sequence[float]
    ) -> None:
        """Refuse a trial that changes nothing; the curve itself is the runner's to judge.

        Raises:
            NoEffect: an image at the only strength is the reconstruction.
        """
        if 0.0 in strengths:
            self.start[asked.batch.ids] = images[:, strengths.index(0.0)]
        elif bool((images[:, 0] == self.start[asked.batch.ids]).flatten(1).all(1).any()):
            raise NoEffect(f"{self.name} at strength {strengths[0]:g} changed no pixel of an image")

    def _ask(self, index: Sequence[int], kept: int) -> _Asked:
        data, device = self.bench.dataset, self.bench.device
        batch, edit = self.protocol.ask(self.bench, self.name, CHOICE, index)
        goal = torch.full((len(index),), goal_of(self.name))
        whole = data.counterfactual(CHOICE, index, self.name[:-1], goal)
        answer = self.protocol.answer(data, self.name, CHOICE, index)
        sources = batch.images.to(device)[:, None]
        assert batch.factors is not None
        return _Asked(
            batch,
            edit,
            kept,
            tuple(_factors(judge, sources) for judge in self.judges),
            _factors(self.judges[0], answer.to(device)[:, None]),
            whole.to(device)[:, None] - sources,
            (goal - batch.factors[:, self.column]).abs()[:, None],
        )

    def _sums(self, asked: _Asked, images: Float[Tensor, "b s 3 h w"]) -> Float[Tensor, "7 s"]:
        """Return, summed over the images that count, what `SUMS` names."""
        read, second = (_factors(judge, images) for judge in self.judges)
        source, second_source = asked.source
        things = torch.zeros_like(source, dtype=torch.bool)
        things[..., self.column] = self.is_thing
        answer = asked.answer.expand_as(read)
        to_answer = (source, self.reliability, things)
        change = images - asked.batch.images.to(images.device)[:, None]
        parts = (
            factor_distance(read, answer, *to_answer),
            factor_distance(source, asked.answer, *to_answer),
            self._gain(read, source),
            self._gain(second, second_source),
            torch.ones_like(asked.change) if self.is_thing else asked.change,
            (change * asked.true).sum((2, 3, 4)),
            asked.true.square().sum((2, 3, 4)),
        )
        s = images.shape[1]
        return torch.stack([x[: asked.kept].double().cpu().expand(-1, s).sum(0) for x in parts])

    def _gain(
        self, read: Float[Tensor, "b s f"], source: Float[Tensor, "b 1 f"]
    ) -> Float[Tensor, "b s"]:
        """Return each image's part of the gain; that of a thing is 1 where it shows as asked."""
        sign = 1 if goal_of(self.name) else -1
        now, before = read[..., self.column], source[..., self.column]
        if self.is_thing:
            return (sign * (now - 0.5) > 0).float()
        return sign * (now - before)


def _factors(judge: Judge, images: Float[Tensor, "b s 3 h w"]) -> Float[Tensor, "b s f"]:
    rows = images.flatten(0, 1)
    return map_batches(judge.factors, rows, READ).unflatten(0, images.shape[:2])


def _column(dataset: Dataset, name: str) -> int:
    return dataset.factor_names.index(name[:-1])


def _edit(name: str) -> Edit:
    return Edit(name, name[:-1], 1 if name.endswith("+") else -1)


def _general(dataset: Dataset, name: str) -> Edit:
    """Return an edit as a fit receives it: with the words for before and after."""
    edit = _edit(name)
    words = dataset.words(str(edit.attribute))
    if words is None:
        return edit
    return replace(edit, words=words if edit.sign > 0 else words[::-1])


def goal_of(name: str) -> float:
    """Return the value that an edit moves its attribute to."""
    return 1.0 if name.endswith("+") else 0.0


@cache
def _untouched(dataset: Dataset, split: str, name: str, n: int) -> tuple[int, ...]:
    """Return the first n indices whose attribute is on the other side of where the edit goes."""
    column, found, start = _column(dataset, name), [], 0
    while len(found) < n and start < dataset.size(split):
        index = range(start, min(start + 64, dataset.size(split)))
        factors = dataset.describe(split, index).factors
        assert factors is not None
        far = (factors[:, column] - goal_of(name)).abs() > 0.75
        found += [i for i, take in zip(index, far.tolist(), strict=True) if take]
        start += 64
    if len(found) < n:
        setting = "calibration_n" if split == CHOICE else "n"
        raise BadInput(
            f"attribute_editing asks for {n} images far from {name!r}, the split {split!r} has "
            f"{len(found)} among its {dataset.size(split)}; lower benchmark.{setting}"
        )
    return tuple(found[:n])
