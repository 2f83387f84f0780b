"""Figures on the cards: how good the judges are, and how good the models are by the judges."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from latentbench.data import faces
from latentbench.zoo import degradations
from latentbench.zoo.judges import Judge
from latentbench.zoo.recipes.judges import distort, triplets

BATCH = 64
PRESENT = ("glasses", "hat", "beard")  # factors that are an opacity: there, or not
Figures = dict[str, Any]


# ---------------------------------------------------------------- distances of sets


def _moments(features: Float[Tensor, "n d"]) -> tuple[Float[Tensor, " d"], Float[Tensor, "d d"]]:
    features = features.double()
    return features.mean(0), features.T.cov()


def _root(matrix: Float[Tensor, "d d"]) -> Float[Tensor, "d d"]:
    values, vectors = torch.linalg.eigh(matrix)
    return (vectors * values.clamp_min(0).sqrt()) @ vectors.T


def frechet(a: Float[Tensor, "n d"], b: Float[Tensor, "m d"]) -> float:
    """Squared Frechet distance of two Gaussians fitted to features (float64).

    Example:
        >>> x = torch.randn(50, 4)
        >>> abs(frechet(x, x)) < 1e-6
        True
    """
    (mean_a, cov_a), (mean_b, cov_b) = _moments(a), _moments(b)
    root = _root(cov_a)
    cross = torch.linalg.eigvalsh(root @ cov_b @ root).clamp_min(0).sqrt().sum()
    gap = (mean_a - mean_b).square().sum()
    return float(gap + cov_a.trace() + cov_b.trace() - 2 * cross)


@torch.no_grad()
def in_batches(
    read: Callable[[Tensor], Tensor], images: Float[Tensor, "n 3 h w"], device: torch.device
) -> Float[Tensor, "n d"]:
    """Apply a reading to images in batches; gives it on the CPU."""
    return torch.cat([read(part.to(device)).float().cpu() for part in images.split(BATCH)])


def device_of(judge: Judge) -> torch.device:
    """Where a judge is."""
    return judge.layer_weights.device


def test_faces(
    first: int, n: int, size: int = 64, style: str = "photo"
) -> Float[Tensor, "n 3 h w"]:
    """Faces of the test split."""
    return faces.render(faces.sample_factors("test", torch.arange(first, first + n)), size, style)


def set_distance(
    judge: Judge,
    images: Float[Tensor, "n 3 h w"],
    size: int,
    first: int = 500_000,
    style: str = "photo",
) -> Figures:
    """Frechet distance to as many real faces, and its floor: real against other real faces."""
    return distance_to_real(judge, images, lambda k, n: test_faces(first + k, n, size, style))


def distance_to_real(
    judge: Judge,
    images: Float[Tensor, "n 3 h w"],
    draw: Callable[[int, int], Float[Tensor, "n 3 h w"]],
) -> Figures:
    """Frechet distance to as many real images, and its floor: real against other real images.

    Args:
        judge: Whose features.
        images: Those that are measured.
        draw: ``draw(k, n)`` gives n real images from number k on.
    """
    n, device = len(images), device_of(judge)
    real = in_batches(judge.features, draw(0, n), device)
    other = in_batches(judge.features, draw(n, n), device)
    distance = frechet(real, in_batches(judge.features, images, device))
    floor = frechet(real, other)
    return {
        f"fd_{judge.name}": round(distance, 4), "floor": round(floor, 4), "n": n,
        "ratio": round(distance / floor, 2),
    }  # fmt: skip


# ---------------------------------------------------------------- judges


def r_squared(judge: Judge, size: int, n: int) -> dict[str, float]:
    """Share of each factor's variance that the judge explains on held-out faces."""
    factors = faces.sample_factors("test", torch.arange(n))
    read = in_batches(judge.factors, faces.render(factors, size), device_of(judge))
    left = (read - factors).square().mean(0) / factors.var(0, unbiased=False)
    values = {k: round(1 - v, 4) for k, v in zip(faces.FACTOR_NAMES, left.tolist(), strict=True)}
    return values | {"mean": round(1 - float(left.mean()), 4)}


def error_correlation(
    read: Float[Tensor, "n f"], other: Float[Tensor, "n f"], factors: Float[Tensor, "n f"]
) -> float:
    """Correlation of two judges' errors over images, mean over the factors."""
    errors = torch.stack([read - factors, other - factors])
    errors = errors - errors.mean(1, keepdim=True)
    spread = errors.square().sum(1).prod(0).sqrt()
    return float((errors.prod(0).sum(0) / spread).mean())


@torch.no_grad()
def error_figures(judge: Judge, others: Sequence[Judge], n: int, first: int = 600_000) -> Figures:
    """How a judge errs on held-out faces, and how far its errors are also those of other judges.

    Args:
        judge: The judge.
        others: Judges whose errors are compared with its own.
        n: Number of faces of the test split.
        first: The first of them.

    Returns:
        ``rmse``: of each factor on clean renders, in units of its range. Then, for clean renders,
        for such as are blurred by 2 pixels, and for such as have .4 of their contrast: the
        correlation of errors with each other judge, and the share of glasses, hats and beards that
        are missed, and that are seen where there are none (opacity read above or below .5).
    """
    device, factors = device_of(judge), faces.sample_factors("test", torch.arange(first, first + n))
    images, full = faces.render(factors), torch.ones(n, 1, 1, 1)
    views = {
        "clean": images,
        "blurred": degradations.blur(images, full),
        "low_contrast": degradations.contrast(images, full),
    }
    figures: Figures = {}
    for view, shown in views.items():
        read = in_batches(judge.factors, shown, device)
        if view == "clean":
            left = (read - factors).square().mean(0).sqrt().tolist()
            figures["rmse"] = {
                k: round(v, 4) for k, v in zip(faces.FACTOR_NAMES, left, strict=True)
            }
        columns = [faces.factor_index(name) for name in PRESENT]
        there, seen = factors[:, columns] > 0.5, read[:, columns] > 0.5
        missed = (there & ~seen).sum(0) / there.sum(0)
        invented = (~there & seen).sum(0) / (~there).sum(0)
        figures[view] = {
            "correlation": {
                other.name: round(
                    error_correlation(read, in_batches(other.factors, shown, device), factors), 4
                )
                for other in others
            },
            "missed": {k: round(v, 4) for k, v in zip(PRESENT, missed.tolist(), strict=True)},
            "invented": {k: round(v, 4) for k, v in zip(PRESENT, invented.tolist(), strict=True)},
        }
    return figures


def verification(genuine: Float[Tensor, " n"], impostor: Float[Tensor, " m"]) -> dict[str, float]:
    """Area under the ROC curve and equal error rate of cosine scores."""
    genuine, impostor = genuine.contiguous(), impostor.contiguous()
    thresholds = torch.cat([genuine, impostor]).sort().values
    missed = torch.searchsorted(genuine.sort().values, thresholds) / len(genuine)
    accepted = 1 - torch.searchsorted(impostor.sort().values, thresholds) / len(impostor)
    best = (missed - accepted).abs().argmin()
    larger = torch.searchsorted(impostor.sort().values, genuine) / len(impostor)
    return {
        "auc": round(float(larger.mean()), 4),
        "eer": round(float(missed[best] + accepted[best]) / 2, 4),
        "cosine_same": round(float(genuine.mean()), 4),
        "cosine_other": round(float(impostor.mean()), 4),
    }


def identity_figures(
    judge: Judge, people: int, size: int = 64, change: str | None = None
) -> dict[str, float]:
    """Verification of held-out people, two photos each with all attributes drawn again.

    Args:
        judge: The judge.
        people: Number of people of the test split.
        size: Pixels per side.
        change: An attribute that is 0 in the first photo and 1 in the second.
    """
    photos = faces.identity_variants("test", torch.arange(people), 2)
    if change is not None:
        photos[:, :, faces.factor_index(change)] = torch.tensor([0.0, 1.0])
    images = faces.render(photos.flatten(0, 1), size)
    embeddings = in_batches(judge.identity, images, device_of(judge)).unflatten(0, (people, 2))
    scores = embeddings[:, 0] @ embeddings[:, 1].T
    others = ~torch.eye(people, dtype=torch.bool)
    return verification(scores.diagonal(), scores[others])


@torch.no_grad()
def two_alternative_accuracy(judge: Judge, count: int, first: int = 700_000) -> Figures:
    """Share of held-out triplets whose known order the perceptual distance gets right."""
    device, right = device_of(judge), []
    for image, nearer, further in triplets("test", first, count, seed=1):
        image = image.to(device)
        near = judge.distance(image, nearer.to(device))
        right.append((near < judge.distance(image, further.to(device))).float().mean().item())
    kinds = {"distortions": right[:15], "factor_edits": right[15::2], "two_edits": right[16::2]}
    figures = {kind: round(sum(v) / len(v), 4) for kind, v in kinds.items()}
    return figures | {"all": round(sum(right) / len(right), 4), "triplets": count * len(right)}


def response(judge: Judge, n: int, strengths: Sequence[float] = (0.1, 0.2, 0.4, 0.8)) -> Figures:
    """Frechet distance under growing blur and noise, and a growing share of faces with hats."""
    device, generator = device_of(judge), torch.Generator().manual_seed(0)
    real = in_batches(judge.features, test_faces(800_000, n), device)
    factors = faces.sample_factors("test", torch.arange(800_000 + n, 800_000 + 2 * n))
    images = faces.render(factors)
    curves: Figures = {"strengths": [0.0, *strengths]}
    start = frechet(real, in_batches(judge.features, images, device))
    for kind in ("blur", "noise"):
        worse = [distort(images, kind, s, generator) for s in strengths]
        rows = [frechet(real, in_batches(judge.features, w, device)) for w in worse]
        curves[kind] = [round(v, 4) for v in (start, *rows)]
    hats = faces.render(faces.with_factor(factors, "hat", 1.0))
    mixed = [torch.cat([hats[: round(s * n)], images[round(s * n) :]]) for s in strengths]
    rows = [frechet(real, in_batches(judge.features, m, device)) for m in mixed]
    curves["hats"] = [round(v, 4) for v in (start, *rows)]
    return curves


def floors(judge: Judge, sizes: Sequence[int] = (500, 2000)) -> dict[str, float]:
    """Frechet distance of real faces to other real faces."""
    device = device_of(judge)
    largest = max(sizes)
    a = in_batches(judge.features, test_faces(900_000, largest), device)
    b = in_batches(judge.features, test_faces(900_000 + largest, largest), device)
    return {str(n): round(frechet(a[:n], b[:n]), 4) for n in sizes}


def judge_figures(judge: Judge, others: Sequence[Judge], effort: float = 1.0) -> Figures:
    """All figures of a judge's card; `effort` scales the numbers of faces.

    `others` are the judges whose errors are compared with its own.
    """
    n, people = max(64, round(2000 * effort)), max(32, round(500 * effort))
    changes = ("glasses", "yaw", "hat", "beard", "age", "light")
    identity: Figures = {
        "all_64px": identity_figures(judge, people),
        "all_32px": identity_figures(judge, people, size=32),
    }
    identity |= {f"across_{c}": identity_figures(judge, people, change=c) for c in changes}
    return {
        "r2_64px": r_squared(judge, 64, n),
        "r2_32px": r_squared(judge, 32, n),
        "errors": error_figures(judge, others, n // 2),
        "identity": identity,
        "two_alternative_accuracy": two_alternative_accuracy(judge, max(2, round(32 * effort))),
        "frechet_response": response(judge, n // 2) | {"n": n // 2},
        "frechet_floor": floors(judge, (n // 4, n)),
    }


# ---------------------------------------------------------------- generators


def reconstruction_figures(
    originals: Float[Tensor, "n 3 h w"], decoded: Float[Tensor, "n 3 h w"], judges: Sequence[Judge]
) -> Figures:
    """PSNR (peak 2, mean over images) and what the judges still see."""
    error = (originals - decoded).square().mean((1, 2, 3))
    figures: Figures = {"psnr_db": round(float((10 * (4 / error).log10()).mean()), 2)}
    for judge in judges:
        device = device_of(judge)
        a, b = (in_batches(judge.identity, x, device) for x in (originals, decoded))
        figures[f"id_{judge.name}"] = round(float((a * b).sum(1).mean()), 4)
        a, b = (in_batches(judge.factors, x, device) for x in (originals, decoded))
        gap = (a - b).abs().mean(0).tolist()
        figures[f"factor_change_{judge.name}"] = {
            k: round(v, 4) for k, v in zip(faces.FACTOR_NAMES, gap, strict=True)
        }
    return figures


def caption_accuracy(
    judge: Judge, images: Float[Tensor, "n 3 h w"], captions: Sequence[str]
) -> dict[str, float]:
    """Share of images whose factor, read by the judge, falls in the slice of the caption's word."""
    read = in_batches(judge.factors, images, device_of(judge)).tolist()
    asked = [text.split() for text in captions]
    accuracy = {}
    for column, factor in enumerate(faces.FACTORS):
        right = [
            factor.word(row[column]) == words[column]
            for row, words in zip(read, asked, strict=True)
        ]
        accuracy[factor.name] = round(sum(right) / len(right), 4)
    return accuracy | {"mean": round(sum(accuracy.values()) / len(accuracy), 4)}
