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

CLEAR = 0.25  # distance from 1/2 at which a caption's attribute has a clear side
BROKEN = 0.9  # share of the unshifted samples' success below which a condition counts as lost


class Retention(FactorMetric):
    """How well the attributes of the caption are still read on samples of shifted noise.

    An attribute of the caption counts where its value is at least 1/4 from 1/2, and is kept
    where the judge reads it on the same side. Figures of a case (shift and strength):

    * `cond_share`: share of the caption's attributes that are kept, mean over samples.
    * `cond_margin`: mean distance of the reading from 1/2 towards the asked side, minus that of
      the unshifted sample.
    * `cond_keep`: `cond_share` / that of the unshifted samples. It does not fall to 0: attributes
      are above 1/2 as often as below, so noise keeps half of them; the note gives that chance.

    Figures of a shift, from the falling curve (isotonic) of `cond_keep` over the relative shift
    |S(z) - z| / |z|, which starts at (0, 1):

    * `area`: area under the curve / the largest relative shift.
    * `break_shift`: relative shift at which it first falls below 0.9.

    `robustness` is the mean area over all shifts of the cell. Intervals are the jackknife over
    seeds, all shifts of a seed left out together.

    Source: this suite's own design, for the question of "Synthetic Shifts to Initial Seed Vector
    Exposes the Brittle Nature of Latent-Based Diffusion Models".

    Args:
        extractor: judge that reads factors; never the network that conditions the model.

    Example:
        >>> list(Retention().figures)[0]
        'robustness_zoo1'
    """

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
            "cond_keep": Figure(f"cond_share / that of unshifted samples, {by}", "", 0, None, True),
            "cond_share": Figure(f"share of the caption's attributes kept, {by}", "", 0, 1, True),
            "cond_margin": Figure(
                f"change of the asked attributes' reading, {by}", "", -1, 1, True
            ),
        }
        return {f"{name}_{self.extractor}": figure for name, figure in figures.items()}

    def values(self, samples: Samples) -> dict[str, Tensor]:
        """Return share and margin of each output, and what the curves are made of."""
        assert samples.sources is not None and samples.wanted is not None
        data = self.surroundings.dataset
        columns = [data.factor_names.index(name) for name in data.attributes]
        wanted = samples.wanted[..., columns] - 0.5
        shifted = self.reader.factors(samples.outputs)[..., columns] - 0.5
        plain = self.reader.factors(samples.sources)[:, None][..., columns] - 0.5
        clear = wanted.abs() >= CLEAR
        margins = [_mean(read * wanted.sign(), clear) for read in (shifted, plain)]
        kept = _mean((shifted * wanted > 0).float(), clear)
        return {
            f"cond_share_{self.extractor}": kept,
            f"cond_margin_{self.extractor}": margins[0] - margins[1],
            "unshifted": _mean((plain * wanted > 0).float(), clear),
        }

    def kept(self, samples: Samples) -> dict[str, Tensor]:
        """Return the relative shift of each row."""
        assert samples.strengths is not None
        return {"where": samples.strengths.double().mean(1)}

    def compute(self) -> dict[str, Score]:
        """Return all scores: those of a case as "figure/case", of a shift as "figure/shift"."""
        cases = sorted(set(self.seen.groups))
        kept, plain, where, n = self._by_seed(cases)
        if n == 0:
            return super().compute()
        curves = Curves(cases, where, _without_each(kept), _without_each(plain))
        note = f"chance is about {0.5 / max(float(plain.mean()), 1e-9):.2f}"
        found = {f"cond_keep/{case}": curves.keep[:, k] for k, case in enumerate(cases)}
        found |= {f"area/{shift}": curve.area for shift, curve in curves.by_shift.items()}
        breaks = {f"break_shift/{s}": curve.breaks for s, curve in curves.by_shift.items()}
        found["robustness"] = np.mean([c.area for c in curves.by_shift.values()], axis=0)
        scores = {self._name(k): _score(v, n, note) for k, v in (found | breaks).items()}
        return scores | super().compute()

    def _name(self, text: str) -> str:
        figure, slash, case = text.partition("/")
        return f"{figure}_{self.extractor}{slash}{case}"

    def _by_seed(self, cases: Sequence[str]) -> tuple[Array, Array, Array, int]:
        """Return success with and without shift ``[n, cases]``, the cases' mean shifts, and n.

        Only seeds that every case has count.
        """
        values, seen = self.measured(), self.seen
        share, plain = (values[k] for k in (f"cond_share_{self.extractor}", "unshifted"))
        columns = (share, plain, seen.column("where"))
        numbers = torch.stack([c.flatten() for c in columns], 1).tolist()
        found = dict(zip(zip(seen.ids, seen.groups, strict=True), numbers, strict=True))
        ids = [i for i in sorted(set(seen.ids)) if all((i, c) in found for c in cases)]
        table = np.array([[found[i, case] for case in cases] for i in ids]).reshape(
            -1, len(cases), 3
        )
        known = np.isfinite(table).all((1, 2))
        table = table[known]
        return table[..., 0], table[..., 1], table[..., 2].mean(0), len(table)


class Curves:
    """`cond_keep` of every case, and its curve for every shift, of the data and without each seed.

    Args:
        cases: names, "SHIFT STRENGTH".
        where: relative shift of each case.
        kept: mean success under shift ``[1 + n, cases]``; the first row is the data itself.
        plain: mean success without.
    """

    def __init__(self, cases: Sequence[str], where: Array, kept: Array, plain: Array) -> None:
        self.keep = kept / np.maximum(plain, 1e-9)
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
        self.area = np.trapezoid(y, x, axis=1) / x[-1] if x[-1] > 0 else y[:, -1]
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


def _without_each(table: Array) -> Array:
    """Return the column means of a table, then those without each of its rows in turn."""
    sums, n = table.sum(0, keepdims=True), len(table)
    return np.concatenate([sums / n, (sums - table) / max(1, n - 1)])


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
