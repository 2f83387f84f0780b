"""Figures of image pairs, on the same images and the same network weights."""

from functools import cache
from typing import Any, cast
from unittest import mock

import numpy as np
import torch
import torchmetrics.functional.image as functional
import torchvision
from lpips import LPIPS
from scipy.signal import convolve2d
from torch import Tensor, nn
from torchmetrics.functional.image.dists import DISTSNetwork
from torchmetrics.functional.image.lpips import _LPIPS
from torchmetrics.functional.image.perceptual_path_length import perceptual_path_length
from torchmetrics.image import PeakSignalNoiseRatio, StructuralSimilarityIndexMeasure
from torchmetrics.regression import MeanSquaredError

from agreement.cases import Case, Measure
from latentbench.types import Samples
from metrics.pairs.background import Background
from metrics.pairs.dists import StructureAndTexture
from metrics.pairs.lpips import Net, lpips_with
from metrics.pairs.ms_ssim import MultiScaleSSIM
from metrics.pairs.psnr import PSNR
from metrics.pairs.ssim import SSIM
from metrics.paths.path_length import inner
from metrics.paths.ppl import resized

TRUNKS = {
    "alex": torchvision.models.alexnet,
    "vgg": torchvision.models.vgg16,
    "squeeze": torchvision.models.squeezenet1_1,
}


@cache
def trunk(net: Net) -> dict[str, Tensor]:
    """Return random weights of torchvision's network."""
    torch.manual_seed(0)
    network = TRUNKS[net](weights=None)
    return {k: v for k, v in network.state_dict().items() if k.startswith("features")}


def images(size: int = 64, n: int = 4) -> tuple[Tensor, Tensor]:
    """Return smooth images in [-1, 1] and noisy copies."""
    random = torch.Generator().manual_seed(0)
    coarse = torch.rand(n, 3, 8, 8, generator=random) * 2 - 1
    a = nn.functional.interpolate(coarse, size, mode="bicubic").clamp(-1, 1)
    noise = 0.2 * torch.randn(a.shape, generator=random)
    return a, (a + noise).clamp(-1, 1)


def unit(images: Tensor) -> Tensor:
    """Return images of [-1, 1] in [0, 1]."""
    return (images.double() + 1) / 2


def psnr() -> tuple[Any, Any]:
    """Compare with torchmetrics."""
    a, b = images()
    theirs = [
        functional.peak_signal_noise_ratio(unit(x), unit(y), data_range=1.0)
        for x, y in zip(a, b, strict=True)
    ]
    return PSNR().compare(a, b), torch.stack(theirs)


def ssim() -> tuple[Any, Any]:
    """Compare with the definition, window by window, images reflected at their borders."""
    a, b = images()
    return SSIM().compare(a, b), [_ssim(*pair) for pair in zip(unit(a), unit(b), strict=True)]


def _ssim(a: Tensor, b: Tensor) -> float:
    axis = np.exp(-(np.arange(-5, 6) ** 2) / (2 * 1.5**2))
    window = np.outer(axis, axis) / axis.sum() ** 2

    def mean(x: np.ndarray) -> np.ndarray:
        return convolve2d(np.pad(x, 5, mode="reflect"), window, mode="valid")

    found = []
    for x, y in zip(a.numpy(), b.numpy(), strict=True):
        mx, my = mean(x), mean(y)
        vx, vy, cov = mean(x * x) - mx**2, mean(y * y) - my**2, mean(x * y) - mx * my
        top = (2 * mx * my + 0.01**2) * (2 * cov + 0.03**2)
        found.append((top / ((mx**2 + my**2 + 0.01**2) * (vx + vy + 0.03**2))).mean())
    return float(np.mean(found))


def ms_ssim() -> tuple[Any, Any]:
    """Compare with torchmetrics, image by image."""
    a, b = images(176, 2)
    theirs = [
        functional.multiscale_structural_similarity_index_measure(x[None], y[None], data_range=1.0)
        for x, y in zip(unit(a), unit(b), strict=True)
    ]
    return MultiScaleSSIM().compare(a, b), theirs


def lpips_package(net: Net) -> Measure:
    """Compare with the lpips package, its trunk filled in by the order of its layers."""

    def measure() -> tuple[Any, Any]:
        a, b = images()
        theirs = _filled(LPIPS(net=net, pnet_rand=True, verbose=False), net)
        return lpips_with(net, trunk(net))(a, b).flatten(), theirs(a, b).flatten()

    return measure


def lpips_torchmetrics(net: Net) -> Measure:
    """Compare with torchmetrics."""

    def measure() -> tuple[Any, Any]:
        a, b = images()
        theirs = _filled(_LPIPS(net=net, pnet_rand=True), net)
        return lpips_with(net, trunk(net))(a, b).flatten(), theirs(a, b).flatten()

    return measure


def _filled(theirs: Any, net: Net) -> Any:
    """Return a reference network whose trunk has our random weights, by the order of its layers."""
    for own, given in zip(theirs.net.parameters(), trunk(net).values(), strict=False):
        own.data = given
    return theirs.eval()


def _vgg(**_: Any) -> nn.Module:
    network = TRUNKS["vgg"]()
    network.load_state_dict(trunk("vgg"), strict=False)
    return network


def dists_torchmetrics() -> tuple[Any, Any]:
    """Compare with torchmetrics, whose download is replaced by random weights."""
    a, b = images()
    with mock.patch("torchmetrics.functional.image.dists.vgg16", _vgg):
        theirs = DISTSNetwork()
    a, b = ((x + 1) / 2 for x in (a, b))
    return StructureAndTexture(trunk("vgg"))(a, b), theirs(a, b)


def dists_authors() -> tuple[Any, Any]:
    """Compare with the authors' package, whose download is replaced by random weights."""
    import DISTS_pytorch  # pyright: ignore[reportMissingImports]

    a, b = ((x + 1) / 2 for x in images())
    with mock.patch("torchvision.models.vgg16", _vgg):
        theirs = DISTS_pytorch.DISTS()
    return StructureAndTexture(trunk("vgg"))(a, b), theirs(a, b)


class _Generator(nn.Module):
    """A smooth map from latents to images in [0, 255]."""

    def __init__(self) -> None:
        super().__init__()
        random = torch.Generator().manual_seed(1)
        self.latents = torch.randn(2, 12, 5, generator=random)
        self.maps = torch.randn(5, 3 * 72 * 72, generator=random)
        self.drawn = iter(self.latents)

    def sample(self, num_samples: int) -> Tensor:
        return next(self.drawn)[:num_samples]

    def forward(self, z: Tensor) -> Tensor:
        return 255 * (z @ self.maps).sigmoid().unflatten(1, (3, 72, 72))


def ppl() -> tuple[Any, Any]:
    """Compare with torchmetrics on the same latents, images larger than 64 pixels, all pairs."""
    epsilon, generator = 1e-2, cast(Any, _Generator())
    theirs = _filled(_LPIPS(net="vgg", pnet_rand=True, resize=64), "vgg")
    mean, _, kept = perceptual_path_length(
        generator, num_samples=12, epsilon=epsilon, sim_net=theirs, lower_discard=None,
        upper_discard=None,
    )  # fmt: skip
    z1, z2 = generator.latents
    a, b = (resized(generator(z) / 127.5 - 1) for z in (z1, torch.lerp(z1, z2, epsilon)))
    found = lpips_with("vgg", trunk("vgg"))(a, b).flatten() / epsilon**2
    return [len(found), found.mean()], [len(kept), mean]


def ppl_trimming() -> tuple[Any, Any]:
    """Compare which pairs are kept with the authors' definition, by NumPy's percentiles."""
    found = np.random.default_rng(0).lognormal(size=317)
    low = np.percentile(found, 1, method="lower")
    high = np.percentile(found, 99, method="higher")
    theirs = np.extract(np.logical_and(low <= found, found <= high), found)
    ours = found[inner(torch.from_numpy(found)).numpy()]
    return [len(ours), ours.mean()], [len(theirs), theirs.mean()]


def background(name: str, reference: Any) -> Measure:
    """Compare with torchmetrics as PIE-Bench's evaluation calls it, one masked pair at a time."""

    def measure() -> tuple[Any, Any]:
        a, b = images()
        masks = torch.zeros(4, 64, 64)
        masks[:, 10:40, 20:50] = 1
        metric, ids = Background(whole_image=True), tuple("abcd")
        metric.update(Samples(ids, b[:, None], ids, sources=a, masks=masks))
        shown = [
            [(z[None] * (1 - masks[0])).contiguous() for z in pair]
            for pair in zip(unit(b), unit(a), strict=True)
        ]
        return metric.table()[name][:, 0], [reference(*pair) for pair in shown]

    return measure


PAIRS = "4 image pairs, 64 px"
RANDOM = "4 image pairs, 64 px, random trunk"
NETS: tuple[Net, ...] = ("alex", "vgg", "squeeze")
CASES = [
    Case("psnr", "peak_signal_noise_ratio", "torchmetrics", PAIRS, 1e-5, psnr),
    Case("ssim", "Wang et al. 2004, section III", "", PAIRS, 1e-9, ssim),
    Case(
        "ms_ssim", "multiscale_structural_similarity_index_measure", "torchmetrics",
        "2 image pairs, 176 px", 1e-9, ms_ssim, quick=False,
    ),
    *(
        Case(f"lpips_{n}", reference, package, RANDOM, 1e-6, measure(n), quick=n == "squeeze")
        for n in NETS
        for reference, package, measure in (
            ("LPIPS", "lpips", lpips_package), ("_LPIPS", "torchmetrics", lpips_torchmetrics),
        )
    ),
    Case("dists", "DISTSNetwork", "torchmetrics", RANDOM, 1e-5, dists_torchmetrics, quick=False),
    Case("dists", "DISTS", "dists-pytorch", RANDOM, 1e-5, dists_authors, extra=True),
    Case(
        "ppl, all pairs", "perceptual_path_length", "torchmetrics",
        "12 latent pairs, 72 px, random trunk", 1e-5, ppl, relative=True, quick=False,
    ),
    Case("ppl, trimming", "Karras et al. 2019, outliers", "", "317 values", 1e-12,
         ppl_trimming),
    *(
        Case(
            name, f"{type(reference).__name__}, as PnPInversion calls it", "torchmetrics",
            "4 masked image pairs, 64 px", tolerance, background(name, reference),
        )
        for name, reference, tolerance in (
            ("bg_psnr_pie", PeakSignalNoiseRatio(data_range=1.0), 1e-4),
            ("bg_mse_pie", MeanSquaredError(), 1e-6),
            ("bg_ssim_pie", StructuralSimilarityIndexMeasure(data_range=1.0), 1e-6),
        )
    ),
]  # fmt: skip
