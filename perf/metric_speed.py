"""What metrics cost next to the published codes: CPU time of ours and of theirs within one run.

    python -m perf.metric_speed [frechet] [kernel] [neighbours] [features] [lpips]

Both sides get the same features, or the same images and the same network with seeded random
weights, one thread each, in turn; the least CPU time of the repeats is shown. "differs" is how far
the values are apart, relative. Without names all parts run: some minutes, most of them in the
matrix roots of clean-fid.
"""

import argparse
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch_fidelity.feature_extractor_inceptionv3 as fidelity
from cleanfid import fid as cleanfid
from PIL import Image
from torchmetrics.image.kid import KernelInceptionDistance
from torchvision.models import alexnet

from latentbench.cache import Cache
from latentbench.data.faces_dataset import FacesDataset
from latentbench.metric import Surroundings
from latentbench.zoo.judges import load_judge
from metrics.networks.inception import InceptionFeatures
from metrics.pairs.lpips import LPIPSDistance, lpips_with
from metrics.sets.frechet import distance
from metrics.sets.kernel import kernel_distance
from metrics.sets.kernel_subsets import subset_kernel_distance
from metrics.sets.prdc import prdc_scores

D = 2048
IMAGES = 16
CPU = torch.device("cpu")


def measure(calls: Sequence[Callable[[], object]], repeats: int) -> list[tuple[float, object]]:
    """Return the least CPU time and the value of each call; the calls take turns."""
    found: list[tuple[float, object]] = [(float("inf"), None)] * len(calls)
    for _ in range(repeats):
        for k, call in enumerate(calls):
            start = time.process_time()
            value = call()
            found[k] = min(found[k][0], time.process_time() - start), value
    return found


def report(
    name: str, ours: Callable[[], object], theirs: Callable[[], object], repeats: int = 3
) -> None:
    (mine, value), (other, reference) = measure([ours, theirs], repeats)
    value, reference = np.asarray(value), np.asarray(reference)
    apart = np.abs(value - reference).max() / np.abs(reference).max()
    print(f"{name:44} {mine:8.2f} s {other:8.2f} s {other / mine:7.1f}x  differs {apart:.1e}")


def features(n: int, d: int = D, seed: int = 0) -> np.ndarray:
    """Return features whose variances fall as those of an image network do."""
    return np.random.default_rng(seed).normal(size=(n, d)) * (1 + np.arange(d)) ** -0.5


def names(prefix: str, n: int) -> list[str]:
    return [f"{prefix}{k:05d}" for k in range(n)]


def frechet() -> None:
    for n in (500, 5000):
        sets = features(n) + 0.01, features(n, seed=1)
        report(f"Frechet distance, n = {n}, d = {D}: clean-fid",
               partial(distance, *sets), partial(cleanfid.fid_from_feats, *sets), 1)  # fmt: skip


def kernel() -> None:
    n = 5000
    a, b = features(n) + 0.01, features(n, seed=1)
    ids = names("a", n), names("b", n)

    def by_clean_fid() -> float:
        np.random.seed(0)
        return cleanfid.kernel_distance(a, b)

    def by_torchmetrics() -> float:
        metric = KernelInceptionDistance(feature=Given(), normalize=True)
        metric.set_dtype(torch.float64)
        metric.update(torch.from_numpy(a), real=False)
        metric.update(torch.from_numpy(b), real=True)
        return float(metric.compute()[0])

    report("kernel distance, n = 5000, subsets: clean-fid",
           lambda: subset_kernel_distance(a, b), by_clean_fid, 1)  # fmt: skip
    for name, theirs in (("clean-fid", by_clean_fid), ("torchmetrics", by_torchmetrics)):
        report(f"kernel distance, n = 5000, all pairs: {name}",
               lambda: kernel_distance(a, ids[0], b, ids[1]), theirs, 1)  # fmt: skip


class Given(torch.nn.Module):
    """A network whose features are its input."""

    num_features = D

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the features."""
        return x


def neighbours() -> None:
    n, d = 10_000, 128
    a, b = features(n, d), features(n, d, 1)
    tracemalloc.start()
    start = time.process_time()
    prdc_scores((a, names("a", n)), (b, names("b", n)), 5)
    seconds, peak = time.process_time() - start, tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    what = f"precision ... coverage, {n} x {n}, d = {d}, with intervals"
    print(f"{what:44} {seconds:8.2f} s, peak {peak / 2**30:.2f} GiB besides the features")


class Untrained(fidelity.FeatureExtractorInceptionV3):
    """torch-fidelity's Inception with seeded random weights instead of downloaded ones."""

    def load_state_dict(self, state_dict, strict=True, assign=False):
        """Draw variances; the convolutions keep their first weights."""
        for layer in self.modules():
            if isinstance(layer, torch.nn.BatchNorm2d):
                torch.nn.init.uniform_(layer.get_buffer("running_var"), 0.5, 1.5)


def inception() -> torch.nn.Module:
    """Return it for images in [0, 255] of 299 pixels, giving pooled features only."""
    torch.manual_seed(0)
    fidelity.load_state_dict_from_url = lambda *args, **kwargs: {}
    network = Untrained("inception", ["2048"]).eval()
    layers = [layer for name, layer in network.named_children() if name != "fc"]
    return torch.nn.Sequential(Scaled(), *layers, torch.nn.Flatten())


class Scaled(torch.nn.Module):
    """Brings [0, 255] to the network's range."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return values in [-1, 1]."""
        return (x - 128) / 128


def extraction() -> None:
    generator = torch.Generator().manual_seed(0)
    whole = torch.randint(0, 256, (IMAGES, 3, 64, 64), generator=generator, dtype=torch.uint8)
    images, network = whole.float() / 127.5 - 1, inception()
    ours = InceptionFeatures(network, "", CPU)
    with tempfile.TemporaryDirectory() as folder:
        for k, image in enumerate(whole.permute(0, 2, 3, 1).numpy()):
            Image.fromarray(image).save(Path(folder) / f"{k:03d}.png")
        report(f"Inception features of {IMAGES} images: clean-fid",
               lambda: ours.features(images),
               lambda: cleanfid.get_folder_features(
                   folder, network, num_workers=0, device=CPU, verbose=False), 2)  # fmt: skip
    torch.manual_seed(0)  # the same weights; torch-fidelity resizes otherwise, so values differ
    reference = Untrained("inception", ["2048"]).eval()
    report(f"Inception features of {IMAGES} images: torch-fidelity",
           lambda: ours.features(images), lambda: reference(whole)[0], 2)  # fmt: skip


def perceptual() -> None:
    torch.manual_seed(0)
    metric, generator = LPIPSDistance(), torch.Generator().manual_seed(0)
    metric.surroundings = Surroundings(FacesDataset(), CPU, Cache(None), load_judge)
    metric.network = network = lpips_with("alex", alexnet(weights=None).state_dict())
    a, b = torch.rand(2, IMAGES, 3, 256, 256, generator=generator) * 2 - 1
    pairs = list(zip(a, b, strict=True))
    report(f"LPIPS (AlexNet) of {IMAGES} pairs: lpips, one by one",
           lambda: metric.compare(a, b),
           lambda: [float(network(x[None], y[None])) for x, y in pairs])  # fmt: skip


PARTS = {
    "frechet": frechet,
    "kernel": kernel,
    "neighbours": neighbours,
    "features": extraction,
    "lpips": perceptual,
}


def main() -> None:
    parser = argparse.ArgumentParser("python -m perf.metric_speed", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="part", help=f"of {', '.join(PARTS)}")
    parts = parser.parse_args().parts
    unknown = [name for name in parts if name not in PARTS]
    if unknown:
        parser.error(f"no part {unknown[0]!r}; known: {', '.join(PARTS)}")
    torch.set_num_threads(1)
    print(f"{'':44} {'ours':>10} {'theirs':>10} {'ratio':>8}")
    with torch.no_grad():
        for name in parts or PARTS:
            PARTS[name]()


if __name__ == "__main__":
    main()
