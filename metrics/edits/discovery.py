"""`discovery_<judge>`: how far are a method's directions ahead of noise, on the way to factors?"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from latentbench.content import content_hash
from latentbench.data.faces import FACTOR_NAMES
from latentbench.metric import Figure, Surroundings
from latentbench.statistics import add_note
from latentbench.types import Samples, Score
from metrics.codes.code_metric import Mask, jackknifed
from metrics.codes.dci import completeness, disentanglement
from metrics.jackknife import Array, Rows, groups
from metrics.networks.readings import FactorMetric

LEAST = 0.5  # sd that a direction counts as moving, however little it moves
UNREAD = 2.0  # judge's errors that both sides may lie off the source: as good as on it
CLEAR = 0.5  # of the share that a factor has where it is moved alone: found
CEILING_N = 16  # images on which the factors themselves are moved
CHANGE, ASIDE, NUMBER = "change/", "aside", "number"  # columns of what was seen


class Discovery(FactorMetric):
    """What numbered directions do to all known factors, there and back, against noise.

    The effect of a direction on a factor is half the difference of the judge's readings on the two
    sides, in standard deviations of its readings. `effect_<factor>/<direction>` is its mean over
    images: the re-scoring matrix M.

    The share of factor f in direction k is s M_kf / sum over g of A_kg: A is how far the two sides
    lie from the source, mean over both and over images. It has two parts. The mean absolute effect:
    what a direction does to one image and undoes on the next counts against it. And what both sides
    do alike, which their difference hides: the distance of the source to the nearer side where both
    lie above it, or both below. So the right directions on somebody else's face are worth little. A
    factor at the end of its range, which can move one way alone, counts nothing here, nor do
    twice the judge's errors. What the model's reconstruction loses beyond these does count.

    The sign s, and which factor is looked at, come from one half of the images; M and A from the
    other, and the two halves change places. So what holds on half of the images alone counts for
    nothing.

    * `found`: sum of the shares of factors matched one to one with directions (Hungarian), over
      the smaller number of the two. 1: each direction moves one factor alone, each another one.
    * `discovery`, the main score: (found - found of noise) / (found of the factors - found of
      noise). 0: no better than the method with noise of the same norms for what it learned; 1:
      as if the renderer's own factors were moved, as the judge reads them; below 0: worse than
      noise. `found_factors` reads the factors moved from end to end on 16 other images, and takes
      as many as there are directions, the best-read ones.
    * `direction_selectivity`: share of the main factor, mean over directions; two directions may
      have the same.
    * `direction_coverage`: distinct factors that some direction has found, over the smaller number
      of directions and factors. Found: its main factor by both halves, with at least half of the
      share that the factor has where it is moved alone.
    * `direction_diversity`: 1 - mean |cosine| of the rows of M.
    * `dci_d`, `dci_c`: disentanglement of directions and completeness of factors with |M| as the
      importances; `dci_i`: share of the squared effects on one half that M of the other explains.
    * `transfer`: share of images on which a direction's main factor by the other half moves with
      the other half's sign; chance is 1/2.
    * `stability`: mean |cosine| of the rows of M of two fits, matched one to one; the note gives
      that between the method and noise.

    Source: this suite's own protocol. M is the re-scoring of Shen et al., "Interpreting the Latent
    Space of GANs", section 3.2; D and C are Eastwood and Williams, section 2, see `metrics.codes`.

    Intervals: the jackknife over images; they hold for the directions that were found.

    Args:
        extractor: judge that reads factors; not the one that chose the strengths.

    Example:
        >>> "discovery_zoo1" in Discovery().figures
        True
    """

    version = 3
    source = "this suite's own protocol, docs/benchmarks.md"

    @property
    def figures(self) -> dict[str, Figure]:
        """A column of the matrix per factor, and the figures made of it."""
        by = f"read by {self.extractor}"
        columns = {
            self._column(name): Figure(f"mean effect of a direction on {name}, {by}", "sd")
            for name in FACTOR_NAMES
        }
        return {
            self._named(name): Figure(f"{what}, {by}", "", low, 1, better)
            for name, (what, low, better) in FIGURES.items()
        } | columns

    def prepare(self, surroundings: Surroundings) -> None:
        """Load the judge, and read how factors vary and what moving them alone does."""
        super().prepare(surroundings)
        sharpness = self.sharpness()
        self.std, self.unread = sharpness.std, UNREAD * sharpness.rmse
        self.ceiling = self._ceiling()

    def values(self, samples: Samples) -> dict[str, Tensor]:
        """Return the method's effect on each factor ``[b]``, and what all makers do ``[b, m]``."""
        read = self.reader.factors(samples.outputs).unflatten(1, (-1, 2))
        change = (read[:, :, 1] - read[:, :, 0]) / 2 / self.std
        assert samples.sources is not None
        off = outside(self.reader.factors(samples.sources)[:, None], read)
        aside = {ASIDE: ((off - self.unread).clamp_min(0) / self.std).sum(2)}
        shown = {self._column(name): change[:, 0, k] for k, name in enumerate(FACTOR_NAMES)}
        effects = {CHANGE + name: change[..., k] for k, name in enumerate(FACTOR_NAMES)}
        return shown | effects | aside

    def kept(self, samples: Samples) -> dict[str, Tensor]:
        """Return the number of each row's direction."""
        number = [int(group.removeprefix("direction ")) for group in samples.groups]
        return {NUMBER: torch.tensor(number)}

    def compute(self) -> dict[str, Score]:
        """Return the matrix and the figures."""
        order = self.seen.order()
        values = self.measured()
        change = torch.stack([values[CHANGE + name][order] for name in FACTOR_NAMES], 2).numpy()
        aside = values[ASIDE][order].numpy()
        number, ids = self.seen.column(NUMBER)[order].numpy(), [self.seen.ids[k] for k in order]
        half = groups(ids, 2)

        def statistic(keep: Mask) -> dict[str, float]:
            tables = [
                Effects.of(change[keep, k], number[keep], half[keep], aside[keep, k])
                for k in range(change.shape[1])
            ]
            return {self._named(k): v for k, v in figures(tables, self.ceiling).items()}

        found = jackknifed(statistic, ids) | super().compute()
        name = self._named("stability")
        if name in found:
            tables = [Effects.of(change[:, k], number, half) for k in (0, 1)]
            chance = stability(*(table.mean for table in tables))
            found[name] = add_note(found[name], f"{chance:.3g} between the method and noise")
        return found

    def _ceiling(self) -> Array:
        """Return the share of each factor where the renderer moves it alone ``[f]``."""
        data, f = self.surroundings.dataset, len(FACTOR_NAMES)
        known = data.describe("calibration", range(CEILING_N)).factors
        assert known is not None

        def make() -> Mapping[str, Tensor]:
            moved = known.repeat(f, 2, 1, 1).transpose(1, 2)  # factor, image, side
            for k in range(f):
                moved[k, :, :, k] = torch.tensor([0.0, 1.0])
            images = data.render(moved.reshape(-1, f)).unflatten(0, (f * CEILING_N, 2))
            read = self.reader.factors(images)
            return {"change": (read[:, 1] - read[:, 0]) / 2}

        key = content_hash(self.reader.digest, "moved alone", data.version, known, self._size())
        change = self.surroundings.cache.get_or_make("features", key, make)["change"] / self.std
        half = np.tile(np.arange(CEILING_N) % 2, f)
        moved = Effects.of(change.double().numpy(), np.repeat(np.arange(f), CEILING_N), half)
        return np.mean([np.diag(moved.shares(fit)) for fit in (0, 1)], 0)

    def _size(self) -> int:
        return int(self.surroundings.dataset.batch("calibration", [0]).images.shape[-1])

    def _column(self, factor: str) -> str:
        return self._named(f"effect_{factor}")

    def _named(self, name: str) -> str:
        return f"{name}_{self.extractor}"


FIGURES = {
    "discovery": ("0: as noise of the same norms; 1: as the factors themselves", None, True),
    "found": ("share of matched factors in what directions do", -1, True),
    "found_noise": ("the same of noise in the place of what was learned", -1, None),
    "found_factors": ("the same of the factors themselves", -1, None),
    "direction_selectivity": ("share of the main factor in what a direction does", -1, True),
    "direction_coverage": ("distinct main factors / as many as there could be", 0, True),
    "direction_diversity": ("1 - |cosine| of what two directions do", 0, True),
    "dci_d": ("disentanglement of directions", 0, True),
    "dci_c": ("completeness of factors", 0, True),
    "dci_i": ("share of effects that the mean on other images explains", None, True),
    "transfer": ("share of images on which the main factor moves as on others", 0, True),
    "stability": ("|cosine| of what matched directions of two fits do", 0, True),
}


@dataclass(frozen=True)
class Effects:
    """What directions do to factors, on all images and on either half of them.

    Args:
        rows: effects ``[n, f]``.
        number: direction of each row ``[n]``.
        half: half that each row's image belongs to ``[n]``, 0 or 1.
        mean: over all images ``[k, f]``.
        means: over the images of each half ``[2, k, f]``.
        sizes: sum over factors of mean absolute effects, of each half ``[2, k]``, and of what both
            sides do alike.
    """

    rows: Array
    number: Rows
    half: Rows
    mean: Array
    means: Array
    sizes: Array

    @classmethod
    def of(cls, rows: Array, number: Rows, half: Rows, aside: Array | None = None) -> "Effects":
        """Return the means of the rows.

        Args:
            rows: effects ``[n, f]``.
            number: direction of each row ``[n]``.
            half: half that each row's image belongs to ``[n]``, 0 or 1.
            aside: what both sides do alike, sum over factors ``[n]``; None counts nothing.
        """
        numbers = np.unique(number)

        def over(values: Array, halves: Sequence[int]) -> Array:
            inside = np.isin(half, halves)
            return np.stack([values[inside & (number == k)].mean(0) for k in numbers])

        means = np.stack([over(rows, [h]) for h in (0, 1)])
        sizes = np.stack([over(np.abs(rows), [h]).sum(1) for h in (0, 1)])
        if aside is not None:
            sizes += np.stack([over(aside, [h]) for h in (0, 1)])
        return cls(rows, np.searchsorted(numbers, number), half, over(rows, [0, 1]), means, sizes)

    def shares(self, fit: int) -> Array:
        """Return the share of each factor in each direction, signed by half `fit` ``[k, f]``."""
        other = 1 - fit
        return np.sign(self.means[fit]) * self.means[other] / self._whole(other)

    def matched(self) -> float:
        """Return the sum of the shares of matched factors over the number of matches there can be.

        Factors are matched by one half of the images and their shares are taken of the other.
        """
        found = []
        for fit in (0, 1):
            looked_at = np.abs(self.means[fit]) / self._whole(fit)
            chosen = linear_sum_assignment(looked_at, maximize=True)
            found.append(self.shares(fit)[chosen].mean())
        return float(np.mean(found))

    def main(self, fit: int) -> Rows:
        """Return the factor that each direction moves most, by one half."""
        return np.abs(self.means[fit]).argmax(1)

    def _whole(self, half: int) -> Array:
        return np.maximum(self.sizes[half], LEAST)[:, None]


def figures(tables: Sequence[Effects], ceiling: Array) -> dict[str, float]:
    """Return all figures of the method, of noise, and of the method's other fits.

    Args:
        tables: of the method, of noise, and of each other fit.
        ceiling: share of each factor where it is moved alone ``[f]``.
    """
    own, noise, *refits = tables
    most = min(own.mean.shape)
    best = float(np.sort(ceiling)[-most:].mean())
    found, found_noise = own.matched(), noise.matched()
    scores = {
        "discovery": (found - found_noise) / (best - found_noise),
        "found": found,
        "found_noise": found_noise,
        "found_factors": best,
        "direction_selectivity": _both(
            lambda fit: float(_taken(own.shares(fit), own.main(fit)).mean())
        ),
        "direction_coverage": len(_found(own, ceiling)) / most,
        "dci_i": _both(lambda fit: _explained(own, fit)),
        "transfer": _both(lambda fit: _transfer(own, fit)),
    }
    if len(own.mean) > 1:
        scores |= {
            "direction_diversity": diversity(own.mean),
            "dci_d": disentanglement(np.abs(own.mean)),
            "dci_c": completeness(np.abs(own.mean)),
        }
    if refits:
        scores["stability"] = float(np.mean([stability(own.mean, fit.mean) for fit in refits]))
    return scores


def outside(
    source: Float[Tensor, "b 1 f"], sides: Float[Tensor, "b m 2 f"]
) -> Float[Tensor, "b m f"]:
    """Return how far the source lies outside its two sides, 0 between them.

    Example:
        >>> sides = torch.tensor([[[[0.1, 0.6, 0.5], [0.9, 0.8, 0.8]]]])
        >>> outside(torch.full((1, 1, 3), 0.5), sides)
        tensor([[[0.0000, 0.1000, 0.0000]]])
    """
    low, high = sides.amin(2), sides.amax(2)
    return (low - source).clamp_min(0) + (source - high).clamp_min(0)


def diversity(effects: Array) -> float:
    """Return 1 - the mean |cosine| of two rows ``[k, f]``.

    Example:
        >>> diversity(np.eye(3)), diversity(np.ones((3, 2)))
        (1.0, 0.0)
    """
    cosines = _cosines(effects, effects)[np.triu_indices(len(effects), 1)]
    return float(round(1 - cosines.mean(), 12))


def stability(a: Array, b: Array) -> float:
    """Return the mean |cosine| of rows matched one to one.

    Example:
        >>> stability(np.eye(3), -np.eye(3)[[2, 0, 1]])
        1.0
    """
    cosines = _cosines(a, b)
    return float(cosines[linear_sum_assignment(cosines, maximize=True)].mean())


def _cosines(a: Array, b: Array) -> Array:
    a, b = (x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12) for x in (a, b))
    return np.abs(a @ b.T)


def _both(figure: Callable[[int], float]) -> float:
    """Return the mean of a figure over which half it is fitted on."""
    return float(np.mean([figure(fit) for fit in (0, 1)]))


def _taken(table: Array, columns: Rows) -> Array:
    return table[np.arange(len(table)), columns]


def _found(own: Effects, ceiling: Array) -> set[int]:
    """Return the factors that a direction moves most by both halves, with a large share."""
    first, second = own.main(0), own.main(1)
    shares = [_taken(own.shares(fit), first) for fit in (0, 1)]
    clear = np.min(shares, 0) >= CLEAR * ceiling[first]
    return set(first[(first == second) & clear].tolist())


def _explained(own: Effects, fit: int) -> float:
    """Return the share of the squared effects on the other half that the means of one explain."""
    inside = own.half != fit
    rows, expected = own.rows[inside], own.means[fit][own.number[inside]]
    whole = np.square(rows).sum()
    return float(1 - np.square(rows - expected).sum() / whole) if whole > 0 else 0.0


def _transfer(own: Effects, fit: int) -> float:
    """Return the share of rows of the other half whose main factor moves as one half says."""
    inside = own.half != fit
    main, number = own.main(fit), own.number[inside]
    moved = _taken(own.rows[inside], main[number])
    signs = np.sign(_taken(own.means[fit], main))[number]
    return float((np.sign(moved) == signs).mean())
