"""`bg_psnr`, `bg_mse`, `bg_ssim`: is everything outside the mask kept?"""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import avg_pool2d
from torchmetrics.functional.image import structural_similarity_index_measure

from latentbench.errors import NotMeasurable
from latentbench.metric import Figure, SampleMetric
from latentbench.statistics import add_note, mean_score
from latentbench.types import Samples, Score
from metrics.pairs.masks import lacks_background
from metrics.pairs.pairwise import unit_range
from metrics.pairs.psnr import MOST, SMALLEST
from metrics.pairs.ssim import SMALLEST as WINDOW

RECONSTRUCTION = "PSNR of the reconstructions"


class Background(SampleMetric):
    """Error of the outputs to the sources outside the mask, on images in [0, 1].

    * `bg_mse`: mean squared error over the background's pixels.
    * `bg_psnr`: -10 log10 of it per image, dB; ends at 100.
    * `bg_ssim`: mean of the SSIM map where a whole window of 11 pixels is background.

    With `whole_image` the masked area is black in both images and all pixels count, as in
    PIE-Bench's code: `bg_mse_pie` and its companions mix how good the background is with how large
    the mask is, and serve the comparison with published tables only. A mask that covers the whole
    image has no background: such rows are left out, and the note counts them. What the method loses
    before it edits anything is in the note of `bg_psnr`: its own reconstruction's.

    Source: Ju et al., "PnP Inversion: Boosting Diffusion-based Editing with 3 Lines of Code",
    its evaluation code; SSIM by torchmetrics.

    Args:
        whole_image: as PIE-Bench computes it.

    Raises:
        NotMeasurable: images smaller than one SSIM window.

    Example:
        >>> list(Background().figures)
        ['bg_psnr', 'bg_mse', 'bg_ssim']
    """

    needs = frozenset({"sources", "masks"})
    source = "PnP Inversion: Boosting Diffusion-based Editing with 3 Lines of Code; PIE-Bench"

    def __init__(self, *, whole_image: bool = False) -> None:
        super().__init__()
        self.whole_image = whole_image

    @property
    def figures(self) -> dict[str, Figure]:
        """The three figures."""
        where = "outside the mask" + (", mask black, all pixels" if self.whole_image else "")
        found = {
            "bg_psnr": Figure(
                f"PSNR to the source {where}", "dB", 0.0, MOST, True, smallest=SMALLEST
            ),
            "bg_mse": Figure(f"squared error to the source {where}", "", 0.0, 1.0, False),
            "bg_ssim": Figure(f"SSIM to the source {where}", "", -1.0, 1.0, True),
        }
        return {name + "_pie" * self.whole_image: figure for name, figure in found.items()}

    def values(self, samples: Samples) -> dict[str, Tensor]:
        """Return the figures of each output; NaN where there is no background."""
        assert samples.sources is not None and samples.masks is not None
        if min(samples.outputs.shape[-2:]) < WINDOW:
            raise NotMeasurable(
                f"Background needs images of at least {WINDOW} pixels per side, got "
                f"{tuple(samples.outputs.shape[-2:])}; leave the metric out"
            )
        outside = (samples.masks == 0).double()[:, None, None]
        counts = torch.ones_like(outside) if self.whole_image else outside
        outputs = unit_range(samples.outputs) * outside
        sources = unit_range(samples.sources)[:, None] * outside
        mse = _mse(outputs, sources, counts)
        ssim = self._ssim(outputs, sources.expand_as(outputs), counts[:, 0, 0])
        found = dict(zip(self.figures, (_psnr(mse), mse, ssim), strict=True))
        if samples.reconstructions is not None:
            own = unit_range(samples.reconstructions)[:, None] * outside
            found[RECONSTRUCTION] = _psnr(_mse(own, sources, counts))
        absent = lacks_background(samples.masks)[:, None]
        return {name: value.masked_fill(absent, torch.nan) for name, value in found.items()}

    def compute(self) -> dict[str, Score]:
        """Return the scores; the note of the PSNR gives the reconstructions'."""
        scores, name = super().compute(), next(iter(self.figures))
        if RECONSTRUCTION in self.measured():
            own = mean_score(self.measured()[RECONSTRUCTION], self.seen.ids).value
            note = "" if own is None else f"the method's reconstructions read {own:.4g}"
            scores[name] = add_note(scores[name], note)
        return scores

    def _ssim(
        self,
        outputs: Float[Tensor, "b s 3 h w"],
        sources: Float[Tensor, "b s 3 h w"],
        counts: Float[Tensor, "b h w"],
    ) -> Float[Tensor, "b s"]:
        a, b = (x.flatten(0, 1) for x in (outputs, sources))
        mean, maps = structural_similarity_index_measure(
            a, b, data_range=1.0, reduction="none", return_full_image=True
        )
        if self.whole_image:
            return mean.unflatten(0, outputs.shape[:2])
        middle = slice(WINDOW // 2, -(WINDOW // 2))
        maps = maps.mean(1).unflatten(0, outputs.shape[:2])[..., middle, middle]
        whole = avg_pool2d(counts[:, None], WINDOW, 1) > 1 - 1e-9  # windows without masked pixels
        return (maps * whole).sum((2, 3)) / whole.sum((2, 3))


def _mse(
    a: Float[Tensor, "b s 3 h w"], b: Float[Tensor, "b 1 3 h w"], counts: Float[Tensor, "b 1 1 h w"]
) -> Float[Tensor, "b s"]:
    """Return the mean squared error over the pixels that count."""
    errors = (a - b).square().mean(2) * counts[:, 0]
    return errors.sum((2, 3)) / counts[:, 0].sum((2, 3))


def _psnr(mse: Float[Tensor, "b s"]) -> Float[Tensor, "b s"]:
    return -10 * mse.clamp_min(10 ** (-MOST / 10)).log10()
