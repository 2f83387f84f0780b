"""What a judge reads on edits, and how well it reads."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from latentbench.data.dataset import Dataset
from latentbench.data.faces import FACTOR_NAMES
from latentbench.data.faults import shortened
from latentbench.errors import BadInput, NotMeasurable
from latentbench.metric import SampleMetric, Surroundings
from latentbench.types import Samples
from latentbench.zoo.answers import without_ghosts
from latentbench.zoo.judges import JudgeName
from metrics.networks.reader import Reader, read_split

CALIBRATION_N = 512  # images on which a judge's own error is measured
UNCHANGED = 1e-6  # in units of a factor's range


@dataclass(frozen=True)
class Readings:
    """Factors of an edit, as a judge reads them, in [0, 1].

    Args:
        change: reading of each output minus that of the source.
        asked: factors that a perfect edit would have, minus those of the source.
        target: factors that the edit asks to change.
    """

    change: Float[Tensor, "b s f"]
    asked: Float[Tensor, "b s f"]
    target: Bool[Tensor, "b 1 f"]

    def gain(self) -> Float[Tensor, "b s"]:
        """Return the share of the asked change that is read, mean over the asked factors."""
        share = self.change / torch.where(self.target, self.asked, torch.nan)
        return share.nanmean(-1)

    def leak(self, blur: Float[Tensor, " f"], weights: Float[Tensor, " f"]) -> Float[Tensor, "b s"]:
        """Return the weighted mean absolute change of the others; up to `blur` counts as none."""
        moved = self.change.abs()
        others = torch.where(self.target, 0.0, weights)
        moved = torch.where(moved > blur, moved, 0.0)
        return (others * moved).sum(-1) / others.sum(-1)


@dataclass(frozen=True)
class Sharpness:
    """How well a judge reads faces that no judge was trained on, and how faces vary.

    Args:
        rmse: root mean squared error per factor.
        std: standard deviation of the readings per factor.
    """

    rmse: Float[Tensor, " f"]
    std: Float[Tensor, " f"]


def targets(samples: Samples, asker: str) -> Bool[Tensor, "b 1 f"]:
    """Return the factors that each row's edit asks to change.

    Args:
        samples: with `factors` and `wanted`; those of `asked` where an edit names them.
        asker: name of the metric that asks, for the error.

    Raises:
        BadInput: an edit that asks for no change.
    """
    assert samples.factors is not None and samples.wanted is not None
    change = (samples.wanted - samples.factors[:, None]).abs()
    target = (change > UNCHANGED).any(1, keepdim=True)
    if samples.asked is not None:
        target &= samples.asked[:, None]
    if not bool(target.any(-1).all()):
        row = int((~target.any(-1)).flatten().nonzero()[0])
        raise BadInput(
            f"{asker}: Samples.wanted of {samples.ids[row]} equals its factors; ask for images "
            f"that lack what the edit adds"
        )
    return target


def read_answers(reader: Reader, answers: Float[Tensor, "b s 3 h w"]) -> Float[Tensor, "b s f"]:
    """Return the factors of the answers, read once where all outputs of a row have the same."""
    one = answers[:, :1]
    same = bool((answers == one).all())
    return reader.factors(one if same else answers).expand(-1, answers.shape[1], -1)


def things(target: Bool[Tensor, "b 1 f"], dataset: Dataset) -> Bool[Tensor, "b 1 f"]:
    """Return those of the asked factors that say whether a thing is there."""
    return target & torch.tensor([name in dataset.things for name in dataset.factor_names])


class FactorMetric(SampleMetric):
    """Base of metrics that read factors with a judge.

    Args:
        extractor: the judge.
    """

    def __init__(self, *, extractor: JudgeName = "zoo1") -> None:
        super().__init__()
        self.extractor = extractor

    def unfed(self, dataset: Dataset) -> str | None:
        """Return why the data set cannot feed it: its factors are not those that judges read."""
        known = tuple(dataset.factor_names)
        if known != FACTOR_NAMES:
            has = shortened(known, 5) or "none"
            return f"reads the factors of faces, {type(dataset).__name__} has {has}"
        return super().unfed(dataset)

    def prepare(self, surroundings: Surroundings) -> None:
        """Load the judge.

        Raises:
            NotMeasurable: see `unfed`.
        """
        super().prepare(surroundings)
        why = self.unfed(surroundings.dataset)
        if why is not None:
            raise NotMeasurable(f"{type(self).__name__} {why}; leave the metric out")
        self.reader = Reader(self.extractor, surroundings)

    def read_edit(self, samples: Samples) -> Readings:
        """Return the readings of each output.

        Raises:
            BadInput: an edit that asks for no change.
        """
        assert samples.factors is not None and samples.wanted is not None
        if samples.sources is None:
            raise BadInput(
                f"{type(self).__name__} needs Samples.sources, got None; take a benchmark of edits"
            )
        asked, target = (
            samples.wanted - samples.factors[:, None],
            targets(samples, type(self).__name__),
        )
        change = (
            self.reader.factors(samples.outputs) - self.reader.factors(samples.sources)[:, None]
        )
        return Readings(change, asked, target)

    def far_from_asked(self, samples: Samples) -> Float[Tensor, " b"]:
        """Return the distance of the draws to what was asked / that of the source, by row.

        Root mean square over the asked factors, to the mean reading of the truths; half of a thing
        that is there or not counts as nothing.

        Raises:
            BadInput: an edit that asks for no change.
        """
        assert samples.truths is not None and samples.sources is not None
        asked = targets(samples, type(self).__name__)
        answer = read_answers(self.reader, samples.truths).mean(1, keepdim=True)
        whole = (self.reader.factors(samples.sources)[:, None] - answer).abs()
        gap = (self.reader.factors(samples.outputs) - answer).abs()
        thing = things(asked, self.surroundings.dataset)
        gap = torch.where(thing, without_ghosts(gap, whole.expand_as(gap)), gap)
        far, all_of_it = (
            torch.where(asked, square, 0).sum(-1).sqrt() for square in (gap**2, whole**2)
        )
        return (far / all_of_it).mean(1).double()

    def sharpness(self) -> Sharpness:
        """Return the judge's own error, on the last images of the calibration split."""
        data = self.surroundings.dataset
        size = data.size("calibration")
        index = range(max(0, size - CALIBRATION_N), size)
        read = read_split(self.surroundings, self.reader, "factors", "calibration", index)
        known = data.describe("calibration", index).factors
        if known is None:
            raise BadInput(f"{type(self).__name__} needs known factors, the data set has none")
        return Sharpness((read - known).square().mean(0).sqrt(), read.std(0))
