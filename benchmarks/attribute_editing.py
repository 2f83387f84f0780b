"""Does an edit change what was asked and nothing else?"""

import itertools
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from latentbench.batching import map_batches, padded_batches
from latentbench.benchmark import Bench, Benchmark, Work
from latentbench.data.dataset import Dataset
from latentbench.errors import NoEffect
from latentbench.types import Batch, Edit, Samples
from latentbench.zoo.judges import load_judge

REFINEMENTS = 2  # times that the matched strength is tried on the calibration split and moved


class AttributeEditing(Benchmark):
    """Edits of one attribute on held-out images, compared at equal effect.

    Native strengths differ by orders of magnitude between methods. On the calibration split, a
    judge that gives no score reads the target factor along the strength curve; the strength that
    reaches `gain` of the asked change (interpolated, tried, interpolated again) makes the last
    output of every row, and headline scores are made of that output alone. An attribute that a
    method cannot move that far counts as not reached. The truth is the rendered counterfactual: at
    `gain` of the way for the last output, at the whole change for the others.

    Args:
        n: images per attribute.
        attributes: attribute with its direction: "glasses+" puts glasses on.
        gain: share of the asked change at which methods are compared.
        strengths: number of native strengths of the curve.
        calibration_n: calibration images per attribute.
        judge: who reads the calibration images; never the judge of the scores.
        split: which images are edited.
    """

    question = "Does an edit change what was asked and nothing else?"
    verbs = frozenset({"edit"})
    needs = frozenset({"labels", "counterfactuals"})
    main_score = "leak_zoo1"

    def __init__(
        self,
        *,
        n: int = 32,
        attributes: Sequence[str] = ("glasses+", "hat+"),
        gain: float = 0.5,
        strengths: int = 4,
        calibration_n: int = 16,
        judge: str = "zoo2",
        split: str = "test",
    ) -> None:
        self.n, self.attributes, self.gain = n, tuple(attributes), gain
        self.strengths, self.calibration_n = strengths, calibration_n
        self.judge, self.split = judge, split

    def edits(self, dataset: Dataset) -> Sequence[Edit]:
        """Return the edits without prompts, for methods that fit."""
        return [_edit(name) for name in self.attributes]

    def groups(self, dataset: Dataset) -> Sequence[str]:
        """Return the edits' names."""
        return self.attributes

    def setup(self, bench: Bench) -> dict[str, Any]:
        """Return, per edit, the curve on the calibration split and the matched strength."""
        return {name: self._calibrate(bench, name) for name in self.attributes}

    def run(self, work: Work, bench: Bench, setup: dict[str, Any]) -> Samples:
        """Return the curve and, last, the output at the matched strength."""
        found = setup[work.group]
        numbers = _untouched(bench.dataset, self.split, work.group, self.n)
        index = [numbers[k] for k in work.indices]
        batch, edit = self._ask(bench, self.split, work.group, index)
        curve = [*found["strengths"], found["matched"]]
        images = bench.editor.edit(batch, edit, torch.tensor([0.0, *curve])).clamp(-1, 1).cpu()
        outputs, reconstructions = images[:, 1:], images[:, 0]
        _check_effect(batch, edit, outputs, reconstructions)
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

    def _ask(self, bench: Bench, split: str, name: str, index: Sequence[int]) -> tuple[Batch, Edit]:
        batch, edit = bench.dataset.batch(split, index), _edit(name)
        prompts = None
        if batch.prompts is not None:
            goal = torch.full((len(index),), _goal(name))
            prompts = bench.dataset.edited_prompts(split, index, str(edit.attribute), goal)
        return batch, Edit(name, edit.attribute, edit.sign, batch.prompts, prompts)

    def _calibrate(self, bench: Bench, name: str) -> dict[str, Any]:
        most = bench.editor.max_strength
        strengths = torch.linspace(0, most, self.strengths + 1)
        reads, asked = self._read(bench, name, strengths)
        gains = ((reads - reads[:, :1]) / asked).mean(0).tolist()
        points = dict(zip(strengths.tolist(), gains, strict=True))
        matched, reached = _strength_at(self.gain, points)
        for _ in range(REFINEMENTS if reached else 0):
            tried, _ = self._read(bench, name, torch.tensor([matched]))
            points[matched] = float(((tried - reads[:, :1]) / asked).mean())
            matched, reached = _strength_at(self.gain, points)
        return {
            "strengths": strengths[1:].tolist(),
            "gains": gains[1:],
            "matched": matched,
            "reached": reached,
        }

    def _read(
        self, bench: Bench, name: str, strengths: Float[Tensor, " s"]
    ) -> tuple[Float[Tensor, "b s"], Float[Tensor, "b 1"]]:
        """Return the judge's reading of the target factor, and the change that was asked."""
        judge, reads, asked = load_judge(self.judge, bench.device), [], []
        column = bench.dataset.factor_names.index(str(_edit(name).attribute))
        numbers = _untouched(bench.dataset, "calibration", name, self.calibration_n)
        for index, kept in padded_batches(self.calibration_n, bench.batch_size):
            batch, edit = self._ask(bench, "calibration", name, [numbers[k] for k in index])
            images = bench.editor.edit(batch, edit, strengths).clamp(-1, 1)
            read = map_batches(judge.factors, images.flatten(0, 1))[:, column].cpu()
            assert batch.factors is not None
            reads.append(read.unflatten(0, images.shape[:2])[:kept])
            asked.append(_goal(name) - batch.factors[:kept, column, None])
        return torch.cat(reads), torch.cat(asked)

    def _truth(
        self, bench: Bench, name: str, index: Sequence[int], batch: Batch, outputs: int
    ) -> tuple[Tensor, Tensor]:
        """Return the factors and the images of a perfect edit, per output."""
        assert batch.factors is not None
        attribute = str(_edit(name).attribute)
        column = bench.dataset.factor_names.index(attribute)
        now, goal = batch.factors[:, column], torch.full((len(index),), _goal(name))
        wanted = batch.factors[:, None].repeat(1, outputs, 1)
        wanted[:, :, column] = goal[:, None]
        render = bench.dataset.counterfactual
        whole = render(self.split, index, attribute, goal)
        part = render(self.split, index, attribute, now + self.gain * (goal - now))
        return wanted, torch.stack([whole] * (outputs - 1) + [part], 1)


def _edit(name: str) -> Edit:
    return Edit(name, name[:-1], 1 if name.endswith("+") else -1)


def _goal(name: str) -> float:
    return 1.0 if name.endswith("+") else 0.0


@cache
def _untouched(dataset: Dataset, split: str, name: str, n: int) -> tuple[int, ...]:
    """Return the first n indices whose attribute is on the other side of where the edit goes."""
    column, found, start = dataset.factor_names.index(name[:-1]), [], 0
    while len(found) < n and start < dataset.size(split):
        index = range(start, min(start + 64, dataset.size(split)))
        factors = dataset.batch(split, index).factors
        assert factors is not None
        far = (factors[:, column] - _goal(name)).abs() > 0.75
        found += [i for i, take in zip(index, far.tolist(), strict=True) if take]
        start += 64
    return tuple(found[:n])


def _check_effect(batch: Batch, edit: Edit, outputs: Tensor, reconstructions: Tensor) -> None:
    same = (outputs == reconstructions[:, None]).flatten(2).all(2)
    if bool(same.any()):
        row, column = same.nonzero()[0].tolist()
        raise NoEffect(
            f"edit {edit.name} changed nothing on image {batch.ids[row]} at output {column}; "
            f"check that the method's direction is not zero and that its hooks fire"
        )


def _strength_at(gain: float, points: Mapping[float, float]) -> tuple[float, bool]:
    """Return where a curve first reaches the gain (linear between points), and whether it does.

    Args:
        gain: what to reach.
        points: strength -> gain; a curve that stays below gives its largest strength and False.
    """
    strengths = sorted(points)
    for left, right in itertools.pairwise(strengths):
        low, high = points[left], points[right]
        if high >= gain:
            return left + (gain - low) / (high - low) * (right - left), True
    return strengths[-1], False
