"""The most probable triangle of true noise, sample and inverted noise."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Float

from latentbench.metric import Figure
from latentbench.types import Score
from metrics.codes.code_metric import CodeMetric
from metrics.codes.noise_triangle import angle
from metrics.jackknife import Array

CORNERS = {"noise": "true noise", "sample": "sample", "latent": "inverted noise"}
DEGREES = 180  # of a triangle's angles together


class ProbableTriangle(CodeMetric):
    """The triangle whose three angles are the most frequent ones together.

    Of the angles at each corner (`noise_triangle`), rounded to whole degrees, the histograms over
    samples p_z, p_x, p_z^; the triangle is the one that maximises p_z(A) p_x(B) p_z^(C) among
    those of A + B + C = 180. It has no interval: a mode jumps.

    Source: Staniszewski et al., "There and Back Again: On the relation between Noise and Image
    Inversions in Diffusion Models", most probable triangle of the published code. Deviation:
    degrees are rounded, there cut off, by which the angles of a true triangle rarely add up to 180.

    Example:
        >>> list(ProbableTriangle().figures)[0]
        'probable_angle_noise'
    """

    needs = frozenset({"noise", "codes", "other_codes"})
    source = "There and Back Again, most probable triangle"
    fewest = 8

    @property
    def figures(self) -> dict[str, Figure]:
        """The angle at each corner."""
        return {
            f"probable_angle_{corner}": Figure(f"most probable angle at the {words}", "degrees",
                                               0.0, 180.0)
            for corner, words in CORNERS.items()
        }  # fmt: skip

    def scores(self, rows: Mapping[str, Array], ids: Sequence[str]) -> dict[str, Score]:
        """Return the three angles; None where no triangle has three angles that occur."""
        z, x0, found = (torch.from_numpy(rows[k]) for k in ("codes", "other_codes", "noise"))
        corners = angle(z, x0, found), angle(x0, z, found), angle(found, z, x0)
        angles, n = most_probable(*(corner.numpy() for corner in corners)), len(set(ids))
        if angles is None:
            none = Score(None, n, note="no three angles that occur add up to 180 degrees")
            return dict.fromkeys(self.figures, none)
        note = "no interval: the mode of a histogram jumps"
        each = zip(self.figures, angles, strict=True)
        return {name: Score(float(value), n, note=note) for name, value in each}


def most_probable(*corners: Float[np.ndarray, " n"]) -> tuple[int, int, int] | None:
    """Return whole degrees A + B + C = 180 of the largest product of frequencies, or None.

    Args:
        corners: angles at each of three corners, in degrees; NaN is left out.

    Example:
        >>> most_probable(*(np.array([a, a, b]) for a, b in ((60.2, 20), (59.9, 30), (60.0, 130))))
        (60, 60, 60)
    """
    one, two, three = (
        np.bincount(np.rint(a[np.isfinite(a)]).astype(int), minlength=DEGREES + 1) for a in corners
    )
    A, B = np.indices((DEGREES + 1, DEGREES + 1))
    C = DEGREES - A - B
    joint = np.where(C >= 0, one[A] * two[B] * three[np.maximum(C, 0)], 0)
    best = int(joint.argmax())
    if joint.flat[best] == 0:
        return None
    return int(A.flat[best]), int(B.flat[best]), int(C.flat[best])
