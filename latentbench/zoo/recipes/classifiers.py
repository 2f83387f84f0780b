"""``attr1``: the embedded classifier, trained on the known factors as soft labels."""

from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from latentbench.data import faces
from latentbench.zoo import training
from latentbench.zoo.classifiers import ARCHITECTURES, EmbeddedClassifier, FactorNetwork
from latentbench.zoo.degradations import degraded
from latentbench.zoo.measures import in_batches
from latentbench.zoo.recipes.judges import mixed_resolution

VERSION = 1
SPLIT = "generator"
DEGRADED = 0.1  # probability of each degradation, for each image
PLAN = training.Plan(
    name="attr1", steps=600, batch=48, lr=2e-3, flat=0.1, decay="cosine", seed=51, ema=0.99,
    fresh=90_000_000,
)  # fmt: skip


def config() -> dict[str, object]:
    """What ``config.json`` holds."""
    return {"architecture": "FactorNetwork", "channels": [24, 40, 64, 96]}


def build() -> FactorNetwork:
    """An untrained classifier."""
    settings = config()
    return ARCHITECTURES[str(settings.pop("architecture"))](**settings)


def _loss(network: FactorNetwork, plan: training.Plan, device: torch.device) -> training.Loss:
    """Binary cross-entropy with each factor's value as the label."""

    def loss(step: int, generator: torch.Generator) -> Float[Tensor, ""]:
        factors = training.batch_factors(plan, SPLIT, step, device)
        images = mixed_resolution(faces.render(factors), generator)
        images = degraded(images, DEGRADED, generator)
        with training.autocast(device):
            found = network(images).float()
        return F.binary_cross_entropy_with_logits(found, factors)

    return loss


def make(
    name: str, folder: Path, device: torch.device, root: Path, share: float = 1.0
) -> dict[str, object]:
    """Train it (or go on training) and write its folder; gives the facts for the card."""
    plan = training.shortened(PLAN, share)
    torch.manual_seed(plan.seed)
    network = build().to(device)
    seconds = training.train(network, _loss(network, plan, device), plan, root=root)
    training.save_network(folder, network, config())
    return {name: training.facts(plan, SPLIT, seconds) | {"degraded": DEGRADED}}


def measure(name: str, device: torch.device, n: int) -> dict[str, object]:
    """Share of faces whose every factor is read on its own side of the middle, at 64 and 32 px."""
    classifier = EmbeddedClassifier(path=name, device=str(device))
    factors = faces.sample_factors("test", torch.arange(n))
    figures: dict[str, object] = {"n": n}
    for size in (64, 32):
        read = in_batches(classifier.probabilities, faces.render(factors, size), device)
        right = ((read > 0.5) == (factors > 0.5)).float().mean(0).tolist()
        found = {f.name: round(share, 4) for f, share in zip(faces.FACTORS, right, strict=True)}
        mean = round(sum(found.values()) / len(found), 4)
        figures[f"{size}px"] = {"accuracy": found | {"mean": mean}}
    return figures
