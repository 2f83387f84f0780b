"""`kd_inner_real_<judge>` and `kd_inner_ends_<judge>`: do the inner frames of a path look right?"""

from jaxtyping import Float
from torch import Tensor

from latentbench.metric import Figure
from latentbench.statistics import add_note
from latentbench.types import Samples, Score
from metrics.features import FeatureSets
from metrics.kernel import kernel_score

FEWEST = 3  # frames of a path


class InnerKernelDistance(FeatureSets):
    """Kernel distance of the inner frames of paths to real images, and to the paths' own ends.

    `kd_inner_real` is the realism of inner frames; `kd_inner_ends` is AID's fidelity with an
    unbiased distance for FID: how far interpolation leaves the model's own output distribution.
    A cross-fade wins every smoothness figure and loses these. Pairs of one path are left out.

    Source: He et al., "AID: Attention Interpolation of Text-to-Image Diffusion", section 4
    (fidelity); Binkowski et al., "Demystifying MMD GANs", section 4.

    Args:
        extractor: judge that gives the features.
        reference_split: split of the real images.
        reference_n: number of real images.

    Example:
        >>> list(InnerKernelDistance().figures)
        ['kd_inner_real_zoo1', 'kd_inner_ends_zoo1']
    """

    prefix = "kd_inner_real"
    source = "AID, section 4: fidelity; Demystifying MMD GANs, section 4"

    @property
    def figures(self) -> dict[str, Figure]:
        """Distances to real images and to the ends."""
        what = f"kernel distance of inner frames, features of {self.extractor}"
        return {
            self.column: Figure(f"{what}, to real images", higher_is_better=False),
            self._ends: Figure(f"{what}, to the paths' ends", higher_is_better=False),
        }

    def images(self, samples: Samples) -> Float[Tensor, "b t 3 h w"]:
        """Return all frames."""
        return samples.outputs

    def compute(self) -> dict[str, Score]:
        """Return both distances; None below two paths or three frames."""
        features, ids = self.collected()
        frames = len(ids) // max(1, len(self.seen))
        n = len(set(ids))
        if n < 2 or frames < FEWEST:
            short = Score(None, n, note=f"{n} paths of {frames} frames; needs 2 of {FEWEST}")
            return dict.fromkeys(self.figures, short)
        ends = [k for k in range(len(ids)) if k % frames in (0, frames - 1)]
        inner = [k for k in range(len(ids)) if k % frames not in (0, frames - 1)]
        parts = [(features[rows], [ids[k] for k in rows]) for rows in (inner, ends)]
        found = (kernel_score(parts[0], self.reference()), kernel_score(parts[0], parts[1]))
        return {
            name: add_note(score, self.remark())
            for name, score in zip(self.figures, found, strict=True)
        }

    @property
    def _ends(self) -> str:
        return f"kd_inner_ends_{self.extractor}"
