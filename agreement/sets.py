"""Distances between sets, on the same features."""

from typing import Any

import numpy as np
import torch
from cleanfid import fid as cleanfid
from torch import nn
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
from torch_fidelity.metric_isc import isc_features_to_metric
from torch_fidelity.metric_kid import kid_features_to_metric
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.inception import InceptionScore
from torchmetrics.image.kid import KernelInceptionDistance

from agreement.cases import Case
from metrics.jackknife import Array
from metrics.sets.frechet import distance
from metrics.sets.inception_score import inception_scores
from metrics.sets.kernel import kernel_distance
from metrics.sets.kernel_subsets import subset_kernel_distance
from metrics.sets.prdc import NAMES, prdc

N, D = 500, 64
ON = f"two sets of {N} features of {D} dimensions"


class _Features(nn.Module):
    """A network of torchmetrics' that takes features for images."""

    num_features = D

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


def features() -> tuple[Array, Array]:
    """Return correlated Gaussian features of two laws."""
    random = np.random.default_rng(0)
    mix = random.normal(size=(D, D)) / np.sqrt(D)
    a, b = random.normal(size=(2, N, D)) @ mix
    return a, 1.2 * b + 0.1


def frechet_cleanfid() -> tuple[Any, Any]:
    """Compare Frechet distances with clean-fid."""
    a, b = features()
    return distance(a, b), cleanfid.fid_from_feats(a, b)


def frechet_torch_fidelity() -> tuple[Any, Any]:
    """Compare Frechet distances with torch-fidelity."""
    a, b = features()
    statistics = [fid_features_to_statistics(torch.from_numpy(x)) for x in (a, b)]
    theirs = fid_statistics_to_metric(*statistics, verbose=False)
    return distance(a, b), theirs["frechet_inception_distance"]


def frechet_torchmetrics() -> tuple[Any, Any]:
    """Compare Frechet distances with torchmetrics."""
    a, b = features()
    theirs = FrechetInceptionDistance(feature=_Features(), normalize=True)
    theirs.set_dtype(torch.float64)
    theirs.update(torch.from_numpy(a), real=False)
    theirs.update(torch.from_numpy(b), real=True)
    return distance(a, b), theirs.compute()


def _kernel(a: Array, b: Array) -> float:
    names = [[f"{side}{k}" for k in range(N)] for side in "ab"]
    return kernel_distance(a, names[0], b, names[1])


def kernel_cleanfid() -> tuple[Any, Any]:
    """Compare kernel distances with clean-fid's, whose one subset is the whole set."""
    a, b = features()
    return _kernel(a, b), cleanfid.kernel_distance(a, b, 1, N)


def kernel_torch_fidelity() -> tuple[Any, Any]:
    """Compare kernel distances with torch-fidelity's, whose one subset is the whole set."""
    a, b = features()
    sets = [torch.from_numpy(x) for x in (a, b)]
    theirs = kid_features_to_metric(*sets, kid_subsets=1, kid_subset_size=N, verbose=False)
    return _kernel(a, b), theirs["kernel_inception_distance_mean"]


def kernel_torchmetrics() -> tuple[Any, Any]:
    """Compare kernel distances with torchmetrics', whose one subset is the whole set."""
    a, b = features()
    theirs = KernelInceptionDistance(feature=_Features(), subsets=1, subset_size=N, normalize=True)
    theirs.update(torch.from_numpy(a), real=False)
    theirs.update(torch.from_numpy(b), real=True)
    return _kernel(a, b), theirs.compute()[0]


def subsets_cleanfid() -> tuple[Any, Any]:
    """Compare the mean over random subsets with clean-fid's after the same seed."""
    a, b = features()
    np.random.seed(3)
    theirs = cleanfid.kernel_distance(a, b, 10, 200)
    return subset_kernel_distance(a, b, 10, 200, seed=3), theirs


def manifolds() -> tuple[Any, Any]:
    """Compare precision, recall, density and coverage with their authors' package."""
    from prdc import compute_prdc  # pyright: ignore[reportMissingImports]

    a, b = features()
    ours, theirs = prdc(a, b), compute_prdc(b, a, nearest_k=5)
    return [ours[name] for name in NAMES], [theirs[name] for name in NAMES]


def score_torch_fidelity() -> tuple[Any, Any]:
    """Compare Inception scores with torch-fidelity."""
    logits = 2 * features()[0]
    theirs = isc_features_to_metric(torch.from_numpy(logits))
    ours = inception_scores(logits)
    return (ours.mean(), ours.std()), tuple(theirs.values())


def score_torchmetrics() -> tuple[Any, Any]:
    """Compare Inception scores with torchmetrics', one split, since it shuffles otherwise."""
    logits = 2 * features()[0]
    theirs = InceptionScore(feature=_Features(), splits=1)
    theirs.set_dtype(torch.float64)
    theirs.update(torch.from_numpy(logits))
    return inception_scores(logits, splits=1)[0], theirs.compute()[0]


CASES = [
    Case("fd", "fid_from_feats", "clean-fid", ON, 1e-6, frechet_cleanfid, relative=True),
    Case(
        "fd", "fid_statistics_to_metric", "torch-fidelity", ON, 1e-6, frechet_torch_fidelity,
        relative=True,
    ),
    Case(
        "fd", "FrechetInceptionDistance", "torchmetrics", ON, 1e-6, frechet_torchmetrics,
        relative=True,
    ),
    Case("kd", "kernel_distance", "clean-fid", ON, 1e-9, kernel_cleanfid, relative=True),
    Case(
        "kd", "kid_features_to_metric", "torch-fidelity", ON, 1e-9, kernel_torch_fidelity,
        relative=True,
    ),
    Case(
        "kd", "KernelInceptionDistance", "torchmetrics", ON, 1e-5, kernel_torchmetrics,
        relative=True,
    ),
    Case(
        "kid, kd_subsets", "kernel_distance, same seed", "clean-fid", ON, 1e-9, subsets_cleanfid,
        relative=True,
    ),
    Case("precision, recall, density, coverage", "compute_prdc", "prdc", ON, 1e-12, manifolds,
         extra=True),
    Case(
        "inception_score", "isc_features_to_metric", "torch-fidelity", ON, 1e-9,
        score_torch_fidelity,
    ),
    Case("inception_score", "InceptionScore", "torchmetrics", ON, 1e-6, score_torchmetrics),
]  # fmt: skip
