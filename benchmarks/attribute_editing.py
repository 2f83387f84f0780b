"""Does an edit change what was asked and nothing else?"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import Annotated, Any

import torch
from jaxtyping import Float
from torch import Tensor

from latentbench.batching import map_batches, padded_batches
from latentbench.benchmark import Bench, Benchmark, Work
from latentbench.bounds import Count, above, at_most, between, distinct, matches, not_empty
from latentbench.data.dataset import Dataset, Split
from latentbench.errors import BadInput, unknown
from latentbench.types import Batch, Capability, Edit, Samples
from latentbench.zoo.judges import JudgeName, load_judge

TRIALS = 5  # strengths tried after the curve
CLOSE = 0.03  # mean gain this near to the wanted one ends the trials
Attribute = Annotated[str, matches(".+[+-]", "such as glasses+ or hat-")]
Attributes = Annotated[Sequence[Attribute], not_empty, distinct]
MARGIN = 0.15  # a trial stays this share of the bracket away from its ends


class AttributeEditing(Benchmark):
    """Edits of one attribute on held-out images, compared at equal effect.

    Native strengths differ by orders of magnitude between methods, so methods are compared where
    their effect is equal. A judge that gives no score reads the target factor on the images that
    are edited, along the strength curve and then at strengths between; the one whose mean gain
    comes nearest to `gain` makes the last output of every row, and headline scores are made of that
    output alone. It is one number per method and attribute, and it is always one that was tried:
    factors such as a hat appear all at once, so that a strength read off a coarse curve can miss
    the gain by .4, and one that was matched on other images misses it by their difference. An
    attribute that a method cannot move that far counts as not reached. The truth is the rendered
    counterfactual: at `gain` of the way for the last output, at the whole change for the others.

    Args:
        n: images per attribute.
        attributes: attribute with its direction: "glasses+" puts glasses on.
        gain: share of the asked change at which methods are compared.
        strengths: number of native strengths of the curve.
        judge: who reads the gain that is matched; never the judge of the scores.
        split: which images are edited.

    Raises:
        BadInput: an attribute that the data set does not have, or a split with fewer than n images
            far from an edit's goal (raised by `check`).
    """

    question = "Does an edit change what was asked and nothing else?"
    version = 2
    verbs = frozenset({"edit"})
    needs = frozenset({Capability.LABELS, Capability.COUNTERFACTUALS})
    gives = frozenset({Capability.TARGET_PROMPTS})
    main_score = "leak_zoo1"

    def __init__(
        self,
        *,
        n: Count = 32,
        attributes: Attributes = ("glasses+", "hat+"),
        gain: Annotated[float, above(0), at_most(1)] = 0.5,
        strengths: Annotated[int, between(1, 1000)] = 4,
        judge: JudgeName = "zoo2",
        split: Split = "test",
    ) -> None:
        self.n, self.attributes, self.gain = n, tuple(attributes), gain
        self.strengths, self.judge, self.split = strengths, judge, split

    def check(self, dataset: Dataset) -> None:
        """Refuse attributes that the data do not have, and too few images far from a goal."""
        super().check(dataset)
        for name in self.attributes:
            attribute = str(_edit(name).attribute)
            if attribute not in dataset.attributes:
                raise unknown("attribute", attribute, dataset.attributes)
            _untouched(dataset, self.split, name, self.n)

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
        """Return, per edit, the curve as the judge reads it, and the matched strength."""
        return {name: self._match(bench, name) for name in self.attributes}

    def run(self, work: Work, bench: Bench, setup: dict[str, Any]) -> Samples:
        """Return the curve and, last, the output at the matched strength."""
        found = setup[work.group]
        numbers = _untouched(bench.dataset, self.split, work.group, self.n)
        index = [numbers[k] for k in work.indices]
        batch, edit = self.ask(bench, work.group, index)
        curve = [*found["strengths"], found["matched"]]
        images = bench.editor.edit(batch, edit, torch.tensor([0.0, *curve])).clamp(-1, 1).cpu()
        outputs, reconstructions = images[:, 1:], images[:, 0]
        wanted, truths = self._truth(bench, work.group, index, batch, len(curve))
        return Samples(
            batch.ids,
            outputs,
            (work.group,) * len(batch),
            sources=batch.images,
            truths=truths,
            reconstructions=reconstructions,
            strengths=torch.tensor(curve).expand(len(batch), -1).contiguous(),
            main=len(curve) - 1,
            matched=torch.full((len(batch),), bool(found["reached"])),
            factors=batch.factors,
            wanted=wanted,
            prompts=edit.target_prompts,
            source_prompts=edit.source_prompts,
        )

    def ask(self, bench: Bench, name: str, index: Sequence[int]) -> tuple[Batch, Edit]:
        """Return these images, and what a method is asked to do with them."""
        batch, edit = bench.dataset.batch(self.split, index), _edit(name)
        prompts = None
        if batch.prompts is not None:
            goal = torch.full((len(index),), goal_of(name))
            prompts = bench.dataset.edited_prompts(self.split, index, str(edit.attribute), goal)
        return batch, Edit(name, edit.attribute, edit.sign, batch.prompts, prompts)

    def _match(self, bench: Bench, name: str) -> dict[str, Any]:
        """Return the curve, and the strength whose mean gain comes nearest to the wanted one."""
        curve = torch.tensor(self.curve(bench.editor.max_strength))
        start, asked = self._read(bench, name, curve[:1])

        def gains(strengths: Tensor) -> dict[float, float]:
            reads, _ = self._read(bench, name, strengths)
            means = ((reads - start) / asked).mean(0)
            return dict(zip(strengths.tolist(), means.tolist(), strict=True))

        points = found = gains(curve[1:])
        for _ in range(TRIALS):
            trial = _next_trial(self.gain, {0.0: 0.0} | points)
            if trial is None:
                break
            points = points | gains(torch.tensor([trial]))
        matched = min(points, key=lambda strength: abs(points[strength] - self.gain))
        return {
            "strengths": list(found),
            "gains": list(found.values()),
            "matched": matched,
            "matched_gain": points[matched],
            "reached": max(points.values()) >= self.gain - CLOSE,
        }

    def _read(
        self, bench: Bench, name: str, strengths: Float[Tensor, " s"]
    ) -> tuple[Float[Tensor, "b s"], Float[Tensor, "b 1"]]:
        """Return the judge's reading of the target factor, and the change that was asked."""
        judge, reads, asked = load_judge(self.judge, bench.device), [], []
        column = bench.dataset.factor_names.index(str(_edit(name).attribute))
        numbers = _untouched(bench.dataset, self.split, name, self.n)
        for index, kept in padded_batches(self.n, bench.batch_size):
            batch, edit = self.ask(bench, name, [numbers[k] for k in index])
            images = bench.editor.edit(batch, edit, strengths).clamp(-1, 1)
            read = map_batches(judge.factors, images.flatten(0, 1))[:, column].cpu()
            assert batch.factors is not None
            reads.append(read.unflatten(0, images.shape[:2])[:kept])
            asked.append(goal_of(name) - batch.factors[:kept, column, None])
        return torch.cat(reads), torch.cat(asked)

    def _truth(
        self, bench: Bench, name: str, index: Sequence[int], batch: Batch, outputs: int
    ) -> tuple[Tensor, Tensor]:
        """Return the factors and the images of a perfect edit, per output."""
        assert batch.factors is not None
        attribute = str(_edit(name).attribute)
        column = bench.dataset.factor_names.index(attribute)
        now, goal = batch.factors[:, column], torch.full((len(index),), goal_of(name))
        wanted = batch.factors[:, None].repeat(1, outputs, 1)
        wanted[:, :, column] = goal[:, None]
        render = bench.dataset.counterfactual
        whole = render(self.split, index, attribute, goal)
        part = render(self.split, index, attribute, now + self.gain * (goal - now))
        return wanted, torch.stack([whole] * (outputs - 1) + [part], 1)


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
    column, found, start = dataset.factor_names.index(name[:-1]), [], 0
    while len(found) < n and start < dataset.size(split):
        index = range(start, min(start + 64, dataset.size(split)))
        factors = dataset.describe(split, index).factors
        assert factors is not None
        far = (factors[:, column] - goal_of(name)).abs() > 0.75
        found += [i for i, take in zip(index, far.tolist(), strict=True) if take]
        start += 64
    if len(found) < n:
        raise BadInput(
            f"attribute_editing asks for {n} images far from {name!r}, the split {split!r} has "
            f"{len(found)} among its {dataset.size(split)}; lower benchmark.n or take another split"
        )
    return tuple(found[:n])


def _next_trial(gain: float, points: Mapping[float, float]) -> float | None:
    """Return a strength within the first bracket of the gain, or None where none is wanted.

    Linear between the bracket's ends, but never so near to one that a steep curve is not narrowed.

    Args:
        gain: what to reach.
        points: strength -> gain of all that was tried, 0 included.

    Example:
        >>> _next_trial(0.5, {0.0: 0.0, 1.0: 1.0, 2.0: 1.0})
        0.5
    """
    if any(abs(found - gain) <= CLOSE for found in points.values()):
        return None
    for left, right in itertools.pairwise(sorted(points)):
        low, high = points[left], points[right]
        if low < gain <= high:
            share = min(max((gain - low) / (high - low), MARGIN), 1 - MARGIN)
            return left + share * (right - left)
    return None
