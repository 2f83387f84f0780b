"""`robustness_<judge>` and companions: does a model keep to its condition under shifted noise?"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from latentbench.intervals import jackknife_units
from latentbench.metric import Figure
from latentbench.types import Samples, Score
from metrics.jackknife import Array
from metrics.networks.readings import FactorMetric

ASKED, SHIFTED, PLAIN = "asked", "shifted", "unshifted"  # columns: sides, -1 or 1
ROUNDING = 1e-9  # a smaller share is none
CLEAR = 0.25  # distance from 1/2 at which a caption's attribute has a clear side
BROKEN = 0.9  # share of the unshifted samples' success below which a condition counts as lost


class Retention(FactorMetric):
    """How well the attributes of the caption are still read on samples of shifted noise.

    An attribute of the caption counts where its value is at least 1/4 from 1/2, and is kept
    where the judge reads it on the same side. Figures of a case (shift and strength):

    * `cond_share`: share of the caption's attributes that are kept, mean over samples.
    * `cond_margin`: mean distance of the reading from 1/2 towards the asked side, minus that of
      the unshifted sample.
    * `cond_keep`: (`cond_share` - the same by the captions of all other seeds) / that difference of
      the unshifted samples. 1 is a condition kept as without shift; 0 is a picture that fits
      another seed's caption as well as its own: noise, or one picture for all.

    Figures of a shift, from the falling curve (isotonic) of `cond_keep` over the relative shift
    |S(z) - z| / |z|, which starts at (0, 1):

    * `area`: area under the curve / the largest relative shift; what lies below 0 counts as 0.
    * `break_shift`: relative shift at which it first falls below 0.9.

    `robustness` is the mean area over all shifts of the cell. Where the unshifted samples do not
    follow their own captions better than those of others, there is nothing to lose and none of
    these figures. Intervals are the jackknife over seeds, all shifts of a seed left out together.

    Source: this suite's own design, for the question of "Synthetic Shifts to Initial Seed Vector
    Exposes the Brittle Nature of Latent-Based Diffusion Models".

    Args:
        extractor: judge that reads factors; never the network that conditions the model.

    Example:
        >>> list(Retention().figures)[0]
        'robustness_zoo1'
    """

    version = 2
    needs = frozenset({"sources", "wanted", "strengths"})
    source = "this suite; question of Synthetic Shifts to Initial Seed Vector (abstract)"

    @property
    def figures(self) -> dict[str, Figure]:
        """The index, figures per shift, and figures per case."""
        by = f"read by {self.extractor}"
        figures = {
            "robustness": Figure(f"mean area over shifts, {by}", "", 0.0, 1.0, True),
            "area": Figure(f"area under a shift's cond_keep, {by}", "", 0.0, 1.0, True),
            "break_shift": Figure(
                f"relative shift where cond_keep < 0.9, {by}", "", 0.0, None, True
            ),
            "cond_keep": Figure(
                f"cond_share above others' captions / unshifted, {by}", "", None, None, True
            ),
            "cond_share": Figure(f"share of the caption's attributes kept, {by}", "", 0, 1, True),
            "cond_margin": Figure(
                f"change of the asked attributes' reading, {by}", "", -1, 1, True
            ),
        }
        return {f"{name}_{self.extractor}": figure for name, figure in figures.items()}

    def values(self, samples: Samples) -> dict[str, Tensor]:
        """Return share and margin of each output, and the sides that are asked for and read."""
        assert samples.sources is not None and samples.wanted is not None
        data = self.surroundings.dataset
        columns = [data.factor_names.index(name) for name in data.attributes]
        wanted = samples.wanted[..., columns] - 0.5
        shifted = self.reader.factors(samples.outputs)[..., columns] - 0.5
        plain = self.reader.factors(samples.sources)[:, None][..., columns] - 0.5
        clear = wanted.abs() >= CLEAR
        margins = [_mean(read * wanted.sign(), clear) for read in (shifted, plain)]
        return {
            f"cond_share_{self.extractor}": _mean((shifted * wanted > 0).float(), clear),
            f"cond_margin_{self.extractor}": margins[0] - margins[1],
            ASKED: torch.where(clear, wanted.sign(), 0.0)[:, 0],
            SHIFTED: shifted.sign()[:, 0],
            PLAIN: plain.sign()[:, 0],
        }

    def kept(self, samples: Samples) -> dict[str, Tensor]:
        """Return the relative shift of each row."""
        assert samples.strengths is not None
        return {"where": samples.strengths.double().mean(1)}

    def compute(self) -> dict[str, Score]:
        """Return all scores: those of a case as "figure/case", of a shift as "figure/shift"."""
        cases = sorted(set(self.seen.groups))
        asked, sides, where, n = self._by_seed(cases)
        if n == 0:
            return super().compute()
        kept, plain = (np.stack([above(asked, x) for x in sides[k]], 1) for k in (SHIFTED, PLAIN))
        own = np.nanmean(agreement(asked, sides[PLAIN][0]).diagonal())
        note = f"unshifted: {own:.2f} of the caption, {own - plain[0, 0]:.2f} of others'"
        if not follows(plain[:, 0]):
            few = Score(None, n, note=f"no condition to lose; {note}")
            shifts = {case.partition(" ")[0] for case in cases}
            names = ["robustness", *(f"cond_keep/{c}" for c in cases)]
            names += [f"{f}/{s}" for f in ("area", "break_shift") for s in sorted(shifts)]
            return {self._name(name): few for name in names} | super().compute()
        curves = Curves(cases, where, kept, plain)
        found = {f"cond_keep/{case}": curves.keep[:, k] for k, case in enumerate(cases)}
        found |= {f"area/{shift}": curve.area for shift, curve in curves.by_shift.items()}
        breaks = {f"break_shift/{s}": curve.breaks for s, curve in curves.by_shift.items()}
        found["robustness"] = np.mean([c.area for c in curves.by_shift.values()], axis=0)
        scores = {self._name(k): _score(v, n, note) for k, v in (found | breaks).items()}
        return scores | super().compute()

    def _name(self, text: str) -> str:
        figure, slash, case = text.partition("/")
        return f"{figure}_{self.extractor}{slash}{case}"

    def _by_seed(self, cases: Sequence[str]) -> tuple[Array, dict[str, list[Array]], Array, int]:
        """Return what captions ask ``[n, f]``, what is read in each case, mean shifts, and n.

        Only seeds that every case has, and whose captions ask for something, count.
        """
        seen, columns = self.seen, self.measured()
        place = {key: k for k, key in enumerate(zip(seen.ids, seen.groups, strict=True))}
        asks = columns[ASKED].any(1).tolist()
        ids = [
            i
            for i in sorted(set(seen.ids))
            if all((i, c) in place and asks[place[i, c]] for c in cases)
        ]
        rows = [[place[i, case] for i in ids] for case in cases]
        shift = seen.column("where")
        sides = {
            name: [columns[name][r].double().numpy() for r in rows] for name in (SHIFTED, PLAIN)
        }
        where = np.array([float(shift[r].mean()) if r else 0.0 for r in rows])
        return columns[ASKED][rows[0]].double().numpy(), sides, where, len(ids)


def agreement(asked: Array, read: Array) -> Array:
    """Return the share of each caption's attributes that each picture has ``[n, n]``.

    Args:
        asked: side of each attribute that a caption asks for, -1 or 1, 0 where it asks for none
            ``[n, f]``; none is empty.
        read: side that a picture has ``[n, f]``.

    Example:
        >>> agreement(np.array([[1.0, 0.0], [-1.0, 1.0]]), np.ones((2, 2))).tolist()
        [[1.0, 0.5], [1.0, 0.5]]
    """
    return (1 + read @ asked.T / np.abs(asked).sum(1)) / 2


def above(asked: Array, read: Array) -> Array:
    """Return how much better pictures fit their own captions than others', then without each seed.

    Args:
        asked: see `agreement`.
        read: the same.

    Returns:
        ``[1 + n]``; NaN where no other caption is left.

    Example:
        >>> sides = np.array([[1.0], [-1.0], [1.0], [-1.0]])
        >>> above(sides, sides)[0].round(3), above(sides, np.ones((4, 1)))[0]
        (np.float64(0.667), np.float64(0.0))
    """
    fits, n = agreement(asked, read), len(asked)
    own, crossed = fits.diagonal(), fits.sum(0) + fits.sum(1) - 2 * fits.diagonal()
    without = np.array([0, *own]), np.array([0, *crossed])
    left = np.array([n, *[n - 1] * n])
    pairs = left * (left - 1)
    others = np.divide(
        crossed.sum() / 2 - without[1], pairs, out=np.full(n + 1, np.nan), where=pairs > 0
    )
    return (own.sum() - without[0]) / np.maximum(left, 1) - others


def follows(found: Array) -> bool:
    """Return whether pictures fit their own captions better than others' beyond chance.

    Args:
        found: see `above`.
    """
    value, without = float(found[0]), found[1:]
    if not value > ROUNDING:
        return False
    units = jackknife_units(value, without)
    return bool(units.why_no_interval() or units.interval()[0] > 0)


class Curves:
    """`cond_keep` of every case, and its curve for every shift, of the data and without each seed.

    Args:
        cases: names, "SHIFT STRENGTH".
        where: relative shift of each case.
        kept: success above chance under shift ``[1 + n, cases]``; the first row is the data itself.
        plain: the same without shift.
    """

    def __init__(self, cases: Sequence[str], where: Array, kept: Array, plain: Array) -> None:
        self.keep = kept / np.where(plain > 0, plain, np.nan)
        shifts = [case.partition(" ")[0] for case in cases]
        self.by_shift: dict[str, Curve] = {}
        for shift in sorted(set(shifts)):
            own = np.array([k for k, name in enumerate(shifts) if name == shift])
            own = own[np.argsort(where[own], kind="stable")]
            self.by_shift[shift] = Curve(where[own], self.keep[:, own])


class Curve:
    """A falling curve from (0, 1) through the cases of one shift.

    Args:
        where: rising relative shifts ``[k]``.
        keep: `cond_keep` there ``[1 + n, k]``.

    Attributes:
        area: area under the curve / the largest relative shift ``[1 + n]``.
        breaks: relative shift where it first falls below 0.9 ``[1 + n]``; infinite if it does not.
    """

    def __init__(self, where: Array, keep: Array) -> None:
        x = np.concatenate([[0.0], where])
        y = np.concatenate([np.ones((len(keep), 1)), falling(np.minimum(keep, 1.0))], 1)
        kept = y.clip(0)
        self.area = np.trapezoid(kept, x, axis=1) / x[-1] if x[-1] > 0 else kept[:, -1]
        self.breaks = np.array([_crossing(x, row) for row in y])


def falling(values: Array) -> Array:
    """Return the falling curve nearest to each row in squares: isotonic regression.

    By the min-max formula: the i-th value is the minimum over a <= i of the maximum over b >= i
    of the mean of a..b.

    Example:
        >>> falling(np.array([[1.0, 0.4, 0.6, 0.1]])).round(6).tolist()
        [[1.0, 0.5, 0.5, 0.1]]
    """
    k = values.shape[1]
    sums = np.concatenate([np.zeros((len(values), 1)), np.cumsum(values, 1)], 1)
    fitted = np.full_like(values, np.inf)
    for i in range(k):
        for a in range(i + 1):
            means = [(sums[:, b + 1] - sums[:, a]) / (b + 1 - a) for b in range(i, k)]
            fitted[:, i] = np.minimum(fitted[:, i], np.max(means, axis=0))
    return fitted


def _crossing(x: Array, y: Array) -> float:
    """Return where a falling line first goes below 0.9."""
    below = np.flatnonzero(y < BROKEN)
    if not len(below):
        return np.inf
    k = below[0]
    return float(x[k - 1] + (y[k - 1] - BROKEN) / (y[k - 1] - y[k]) * (x[k] - x[k - 1]))


def _score(found: Array, n: int, note: str) -> Score:
    """Return a score of the data (first) and of the data without each seed."""
    value, without = float(found[0]), found[1:]
    if not np.isfinite(value):
        return Score(None, n, note=f"kept at every shift of the grid; {note}")
    if not np.isfinite(without).all():
        return Score(value, n, note=f"no interval: not broken without some of the seeds; {note}")
    units = jackknife_units(value, without)
    if why_not := units.why_no_interval():
        return Score(value, n, note=f"no interval: {why_not}; {note}")
    return Score(value, n, *units.interval(), note)


def _mean(values: Tensor, where: Tensor) -> Tensor:
    """Return the mean over the last axis where the mask is true; NaN where it nowhere is."""
    return torch.where(where, values, torch.nan).nanmean(-1)
