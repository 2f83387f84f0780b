"""`bg_psnr`, `bg_mse`, `bg_ssim`: is everything outside the mask kept?"""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import avg_pool2d
from torchmetrics.functional.image import structural_similarity_index_measure

from latentbench.errors import BadInput
from latentbench.metric import Figure, SampleMetric
from latentbench.types import Samples
from metrics.masks import lacks_background
from metrics.pairwise import unit_range
from metrics.psnr import MOST
from metrics.ssim import SMALLEST as WINDOW


class Background(SampleMetric):
    """Error of the outputs to the sources outside the mask, on images in [0, 1].

    * `bg_mse`: mean squared error over the background's pixels.
    * `bg_psnr`: -10 log10 of it per image, dB; ends at 100.
    * `bg_ssim`: mean of the SSIM map where a whole window of 11 pixels is background.

    With `whole_image` the masked area is black in both images and all pixels count, as in
    PIE-Bench's code: `bg_mse_pie` and its companions mix how good the background is with how large
    the mask is, and serve the comparison with published tables only. A mask that covers the whole
    image has no background: such rows are left out, and the note counts them.

    Source: Ju et al., "PnP Inversion: Boosting Diffusion-based Editing with 3 Lines of Code",
    its evaluation code; SSIM by torchmetrics.

    Args:
        whole_image: as PIE-Bench computes it.

    Raises:
        BadInput: images smaller than one SSIM window.

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
            "bg_psnr": Figure(f"PSNR to the source {where}", "dB", 0.0, MOST, True),
            "bg_mse": Figure(f"squared error to the source {where}", "", 0.0, 1.0, False),
            "bg_ssim": Figure(f"SSIM to the source {where}", "", -1.0, 1.0, True),
        }
        return {name + "_pie" * self.whole_image: figure for name, figure in found.items()}

    def values(self, samples: Samples) -> dict[str, Tensor]:
        """Return the figures of each output; NaN where there is no background."""
        assert samples.sources is not None and samples.masks is not None
        if min(samples.outputs.shape[-2:]) < WINDOW:
            raise BadInput(
                f"Background needs images of at least {WINDOW} pixels per side, got "
                f"{tuple(samples.outputs.shape[-2:])}; leave the metric out"
            )
        outside = (samples.masks == 0).double()[:, None, None]
        outputs = unit_range(samples.outputs) * outside
        sources = (unit_range(samples.sources)[:, None] * outside).expand_as(outputs)
        counts = torch.ones_like(outside) if self.whole_image else outside
        mse = ((outputs - sources).square().mean(2) * counts[:, 0]).sum((2, 3))
        mse = mse / counts[:, 0].sum((2, 3))
        found = (
            -10 * mse.clamp_min(10 ** (-MOST / 10)).log10(),
            mse,
            self._ssim(outputs, sources, counts[:, 0, 0]),
        )
        absent = lacks_background(samples.masks)[:, None]
        return {
            name: value.masked_fill(absent, torch.nan)
            for name, value in zip(self.figures, found, strict=True)
        }

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
