"""What judges read on edits of one attribute: the trials among which strengths are chosen."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from benchmarks.attributes import CHOICE, column_of, far_images, goal_of
from benchmarks.strengths import Point
from latentbench.batching import even_batches
from latentbench.benchmark import Bench
from latentbench.content import content_hash
from latentbench.data.dataset import Dataset
from latentbench.errors import NoEffect
from latentbench.types import Batch, Edit
from latentbench.zoo.answers import factor_distance, read_factors
from latentbench.zoo.judges import Judge, reliability


@runtime_checkable
class Question(Protocol):
    """What trials need of a protocol."""

    judge: str
    calibration_n: int

    def ask(self, bench: Bench, name: str, split: str, index: Sequence[int]) -> tuple[Batch, Edit]:
        """Return images, and what a method is asked to do with them."""
        ...

    def answer(
        self, dataset: Dataset, name: str, split: str, index: Sequence[int]
    ) -> Float[Tensor, "b 3 h w"]:
        """Return the images that were asked for."""
        ...


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


class Trials:
    """What the judges read on edits of one attribute, on the calibration images.

    Args:
        protocol: its settings.
        bench: what it works with.
        name: the edit.
        judges: the one that matches, and the one that scores.
    """

    def __init__(
        self, protocol: Question, bench: Bench, name: str, judges: Sequence[Judge]
    ) -> None:
        self.protocol, self.bench, self.name, self.judges = protocol, bench, name, judges
        self.reliability = reliability(protocol.judge).to(bench.device)
        self.column = column_of(bench.dataset, name)
        self.is_thing = name[:-1] in bench.dataset.things
        numbers = far_images(bench.dataset, CHOICE, name, protocol.calibration_n)
        self.asked = [
            self._ask([numbers[k] for k in places], kept)
            for places, kept in even_batches(len(numbers), bench.batch_size)
        ]
        self.start: list[Tensor] = []

    def read(self, strengths: Sequence[float]) -> Mapping[float, Point]:
        """Return what is read at each strength, over all images; strength 0 is of the first call.

        Raises:
            NoEffect: an image at a strength tried alone is that at strength 0; those of the whole
                curve are the runner's to judge.
        """
        found = [self._kept(asked, strengths) for asked in self.asked]
        digests = [one["digests"] for one in found]
        if 0.0 in strengths:
            self.start = [of[:, strengths.index(0.0)] for of in digests]
        elif any(
            (of[:, 0] == at_0).all(1).any() for of, at_0 in zip(digests, self.start, strict=True)
        ):
            raise NoEffect(f"{self.name} at strength {strengths[0]:g} changed no pixel of an image")
        sums = torch.stack([one["sums"] for one in found]).sum(0)
        distance, idle, gain, scorer_gain, whole, moved, true = sums
        columns = (distance / idle, gain / whole, scorer_gain / whole, moved / true)
        table = torch.stack(columns, 1).tolist()
        return {s: Point(*row) for s, row in zip(strengths, table, strict=True)}

    def _kept(self, asked: _Asked, strengths: Sequence[float]) -> dict[str, Tensor]:
        """Return a batch's sums and a digest of each image; what was made before a kill is kept."""

        def make() -> dict[str, Tensor]:
            images = self.bench.editor.edit(asked.batch, asked.edit, torch.tensor(strengths))
            images = images.clamp(-1, 1)
            sums = self._sums(asked, images.to(self.bench.device))
            return {"sums": sums, "digests": _digests(images)}

        key = content_hash(self.name, asked.batch.ids, asked.kept, strengths)
        return self.bench.kept.get_or_make("trial", key, make)

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
            tuple(read_factors(sources, (judge,)) for judge in self.judges),
            read_factors(answer.to(device)[:, None], self.judges[:1]),
            whole.to(device)[:, None] - sources,
            (goal - batch.factors[:, self.column]).abs()[:, None],
        )

    def _sums(self, asked: _Asked, images: Float[Tensor, "b s 3 h w"]) -> Float[Tensor, "7 s"]:
        """Return, summed over the images that count, what `SUMS` names."""
        read, second = (read_factors(images, (judge,)) for judge in self.judges)
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


def _digests(images: Float[Tensor, "b s 3 h w"]) -> UInt8[Tensor, "b s 32"]:
    """Return a sha256 of each image, by which two are told to be the same."""
    rows = images.flatten(0, 1)
    found = [
        torch.tensor(list(bytes.fromhex(content_hash(row))), dtype=torch.uint8) for row in rows
    ]
    return torch.stack(found).unflatten(0, images.shape[:2])
