"""`strip_error_<judge>`: does a wide picture hold together, of parts that are still their own?"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from latentbench.metric import Figure, Surroundings
from latentbench.types import Samples
from metrics.strips.strip_metric import StripMetric

SMALLEST = 0.02  # of one aim missed altogether: a smaller difference does not matter
FLAT = 1 / 255  # gradient that is added to both sides of a ratio: a grey level


class StripError(StripMetric):
    """How far a strip is from a true one: five ways of missing it, each 1 where it is missed whole.

    Windows with a face in their middle are read by the judge (`StripWindows`). All scales come from
    held-out true strips, so that true strips have about 0, on average, in each part:

    * `strip_incoherence`: spread of the shared factors over the windows of a strip; 1 is that of
      windows of different strips. The spread is the root mean square deviation from the strip's
      mean, the mean over factors, each in units of its spread over strips.
    * `strip_sameness`: 1 - the distance of two windows in the factors that each face has of its
      own, the mean over pairs, up to the distance of two faces of a true strip. 1 is one face
      throughout. Two that take turns are a third of it.
    * `strip_miscaption`: share of the caption's words that a window does not show; 1 is what strips
      of other captions have.
    * `strip_unrealism`: distance of windows to the face that is read in them, drawn; 1 is the
      distance of two strangers. Blur, noise and plain colours are as far from any face.
    * `strip_seam`: how much steeper a picture is where windows side by side would meet (at
      multiples of its height) than elsewhere; 1 is twice as steep, or more.
    * `strip_error`: the sum.

    The first three are earned by windows that show a face: a part e becomes 1 - (1 - e) (1 - u), u
    being the unrealism between 0 and 1. What judges read in noise is much the same everywhere.

    In their own units: `strip_global_std` and `strip_local_std`, the two spreads (of factors in
    [0, 1], the mean over factors), and `strip_seam_ratio`. They have no direction: copies of one
    face and plain pictures have less of each than true strips.

    Parts may be a little below 0 where a strip has less of a fault than the average true strip:
    readings of true strips are no surer than the judge is. But incoherence and seams are not:
    copies of one face are misread in one way, and a picture that happens to be plain where windows
    would meet is not a better one. Neither is a merit.

    Source: this suite; the aims are those of "Merging and Splitting Diffusion Paths for
    Semantically Coherent Panoramas": coherence without uniformity.

    Args:
        extractor: the judge.

    Example:
        >>> list(StripError().figures)[:2]
        ['strip_error_zoo1', 'strip_incoherence_zoo1']
    """

    @property
    def figures(self) -> dict[str, Figure]:
        """The sum, its parts, and spreads in their own units."""
        by = f"read by {self.extractor}"
        errors = {
            "strip_error": f"the sum of the five parts, {by}",
            "strip_incoherence": f"spread of shared factors / that of other strips' windows, {by}",
            "strip_sameness": f"1 - distance of faces of a strip / that in true strips, {by}",
            "strip_miscaption": f"words not shown / those of other captions, {by}",
            "strip_unrealism": f"distance to the face as read / that of strangers, {by}",
            "strip_seam": f"gradient where windows would meet / elsewhere, less 1, {by}",
        }
        spreads = {
            "strip_global_std": f"standard deviation of shared factors in a strip, {by}",
            "strip_local_std": f"standard deviation of own factors in a strip, {by}",
            "strip_seam_ratio": "gradient where windows would meet / elsewhere",
        }
        return {
            self._named(name): Figure(what, higher_is_better=False, smallest=SMALLEST)
            for name, what in errors.items()
        } | {
            self._named(name): Figure(what, low=0.0, smallest=0.005)
            for name, what in spreads.items()
        }

    def prepare(self, surroundings: Surroundings) -> None:
        """Load the judges, and measure what true strips have."""
        super().prepare(surroundings)
        data, true = surroundings.dataset, self.true
        shared, own = (true.factors[..., which].double() for which in (self.shared, self.own))
        self.shared_unit, self.own_unit = (x.flatten(0, 1).std(0) for x in (shared, own))
        told = data.describe("calibration", self.true_index).prompts
        assert told is not None
        captions = list(told)
        mixed = torch.stack([shared[:, k].roll(k, 0) for k in range(shared.shape[1])], 1)
        # of each part: what true strips have, and what it is where the aim is missed altogether
        self.spread_at = (self._spread(shared), self._spread(mixed))
        pairs = _distances(own / self.own_unit)
        self.apart = pairs.mean()
        self.near_at = ((pairs / self.apart).clamp(max=1).mean(1), torch.zeros(1))
        self.wrong_at = (
            self._wrong(shared, captions), self._wrong(shared, captions[1:] + captions[:1])
        )  # fmt: skip
        strangers = self.reader.distance(true.windows, true.windows.roll(1, 0))
        self.unlike_at = (true.unlike.mean(1), strangers.clamp_min(0).sqrt().double().mean(1))
        self.seam_at = seam_ratio(self.true_images).mean()

    def values(self, samples: Samples) -> dict[str, Tensor]:
        """Return every figure of each row ``[b, 1]``."""
        assert samples.prompts is not None
        strips = samples.headline(self.at)[:, 0]
        read = self.read(strips)
        shared, own = (read.factors[..., which].double() for which in (self.shared, self.own))
        near = (_distances(own / self.own_unit) / self.apart).clamp(max=1).mean(1)
        ratio = seam_ratio(strips)
        unreal = _share(read.unlike.mean(1), self.unlike_at)
        parts = {
            "strip_incoherence": _share(self._spread(shared), self.spread_at).clamp_min(0),
            "strip_sameness": _share(near, self.near_at),
            "strip_miscaption": _share(self._wrong(shared, samples.prompts), self.wrong_at),
        }
        real = 1 - unreal.clamp(0, 1)
        parts = {name: 1 - (1 - missed) * real for name, missed in parts.items()} | {
            "strip_unrealism": unreal,
            "strip_seam": (ratio / self.seam_at - 1).clamp(0, 1),
        }
        found = {"strip_error": torch.stack([*parts.values()]).sum(0), **parts}
        found["strip_global_std"] = shared.std(1).mean(1)
        found["strip_local_std"] = own.std(1).mean(1)
        found["strip_seam_ratio"] = ratio
        return {self._named(name): value[:, None] for name, value in found.items()}

    def _spread(self, shared: Float[Tensor, "n k g"]) -> Float[Tensor, " n"]:
        return (shared / self.shared_unit).std(1).mean(1)

    def _wrong(self, shared: Float[Tensor, "n k g"], prompts: Sequence[str]) -> Float[Tensor, " n"]:
        """Return the share of a caption's words that windows do not show, by strip."""
        read = self.surroundings.dataset.shared_captions(shared.flatten(0, 1).float())
        k = shared.shape[1]
        wrong = [
            [a != b for a, b in zip(read[row].split(), prompts[row // k].split(), strict=True)]
            for row in range(len(read))
        ]
        return torch.tensor(wrong, dtype=torch.float64).mean(1).unflatten(0, (-1, k)).mean(1)


def _share(value: Float[Tensor, " n"], at: tuple[Tensor, Tensor]) -> Float[Tensor, " n"]:
    """Return how far values are on the way from what is true to what is missed altogether."""
    true, missed = (float(x.mean()) for x in at)
    return (value - true) / (missed - true)


def _distances(factors: Float[Tensor, "n k f"]) -> Float[Tensor, "n p"]:
    """Return the root mean square difference of each two windows of a strip."""
    one, other = torch.triu_indices(factors.shape[1], factors.shape[1], 1)
    return (factors[:, one] - factors[:, other]).square().mean(2).sqrt()


def seam_ratio(strips: Float[Tensor, "n 3 h w"]) -> Float[Tensor, " n"]:
    """Return the mean step between columns at multiples of the height / that of other columns.

    Example:
        >>> halves = torch.cat([torch.zeros(1, 3, 4, 4), torch.ones(1, 3, 4, 4)], 3)
        >>> bool(seam_ratio(halves) > 100)
        True
    """
    steps = strips.diff(dim=3).abs().mean((1, 2)).double() / 2
    height, width = strips.shape[-2:]
    borders = torch.arange(height, width, height) - 1
    elsewhere = torch.ones(width - 1, dtype=torch.bool)
    elsewhere[borders] = False
    return (steps[:, borders].mean(1) + FLAT) / (steps[:, elsewhere].mean(1) + FLAT)
