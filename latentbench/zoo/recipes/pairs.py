"""``clip1`` and ``clip2``: text-image pairs, trained on the contrast and on the known factors.

The contrast alone learns the large words only: 4 % of 1,000 captions were found after 150 seconds.
Reading the factors from both embeddings at the same time is what makes small parts count.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from latentbench.data import faces
from latentbench.zoo import training
from latentbench.zoo.measures import in_batches
from latentbench.zoo.recipes.judges import mixed_resolution
from latentbench.zoo.text_image import ARCHITECTURES, EMBEDDING, TextImagePair, load_pair

VERSION = 1
PLANS = {
    "clip1": training.Plan(
        name="clip1", steps=900, batch=64, lr=2e-3, flat=0.1, decay="cosine", seed=41, ema=0.995,
        fresh=80_000_000,
    ),
    "clip2": training.Plan(
        name="clip2", steps=900, batch=64, lr=2e-3, flat=0.1, decay="cosine", seed=42, ema=0.995,
        fresh=80_000_000,
    ),
}  # fmt: skip
SPLITS = {"clip1": "generator", "clip2": "judge"}
CONFIGS: dict[str, dict[str, object]] = {
    "clip1": {"architecture": "ConvolutionalPair", "channels": [24, 40, 64, 96], "width": 64},
    "clip2": {"architecture": "MixerPair", "channels": [40, 80, 112], "width": 128},
}


def config(name: str) -> dict[str, object]:
    """What ``config.json`` holds."""
    return CONFIGS[name] | {"name": name, "words": list(faces.vocabulary())}


def build(name: str) -> TextImagePair:
    """An untrained pair."""
    settings = config(name)
    return ARCHITECTURES[str(settings.pop("architecture"))](**settings)


class _WithReadings(nn.Module):
    """The pair with its temperature and linear readings of the factors, used in training only."""

    def __init__(self, pair: TextImagePair) -> None:
        super().__init__()
        self.pair = pair
        self.log_scale = nn.Parameter(torch.tensor(10.0).log())
        self.from_image = nn.Linear(EMBEDDING, len(faces.FACTORS))
        self.from_text = nn.Linear(EMBEDDING, len(faces.FACTORS))


def shortened_captions(ids: Int[Tensor, "b t"], generator: torch.Generator) -> Int[Tensor, "b t"]:
    """Captions of which a random share of the words is left, from none to all."""
    kept = torch.rand(len(ids), 1, generator=generator)
    left = torch.rand(ids.shape, generator=generator) < kept
    return torch.where(left.to(ids.device), ids, 0)


def _loss(
    model: _WithReadings, plan: training.Plan, split: str, device: torch.device
) -> training.Loss:
    """Symmetric cross-entropy of whole captions; short ones move to their images, no contrast.

    A short caption fits many images of a batch, so the others are not negatives for it.
    """
    pair = model.pair

    def loss(step: int, generator: torch.Generator) -> Float[Tensor, ""]:
        factors = training.batch_factors(plan, split, step, device)
        images = mixed_resolution(faces.render(factors), generator)
        ids = pair.tokens(faces.caption(factors))
        with training.autocast(device):
            seen = pair.read_image(images).float()
            whole = pair.read_text(ids).float()
            short = pair.read_text(shortened_captions(ids, generator)).float()
        logits = F.normalize(seen) @ F.normalize(whole).T * model.log_scale.exp().clamp_max(50)
        own = torch.arange(len(ids), device=device)
        contrast = (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2
        apart = 1 - F.cosine_similarity(short, seen.detach()).mean()
        read = (model.from_image(seen) - factors).square().mean()
        told = (model.from_text(whole) - factors).square().mean()
        return contrast + apart + 20 * read + 20 * told

    return loss


def make(
    name: str, folder: Path, device: torch.device, root: Path, share: float = 1.0
) -> dict[str, object]:
    """Train a pair (or go on training) and write its folder; gives the facts for the card."""
    plan = training.shortened(PLANS[name], share)
    torch.manual_seed(plan.seed)
    model = _WithReadings(build(name)).to(device)
    loss = _loss(model, plan, SPLITS[name], device)
    seconds = training.train(model, loss, plan, root=root)
    model.pair.inverse_temperature.copy_(model.log_scale.detach().exp().clamp_max(50))
    training.save_network(folder, model.pair, config(name))
    return {"pair": training.facts(plan, SPLITS[name], seconds)}


# ---------------------------------------------------------------- figures


def recall_at_1(images: Float[Tensor, "n d"], texts: Float[Tensor, "n d"]) -> tuple[float, float]:
    """Share of images whose own caption is nearest, and of captions whose own image is."""
    scores, own = images @ texts.T, torch.arange(len(images))
    return (
        float((scores.argmax(1) == own).float().mean()),
        float((scores.argmax(0) == own).float().mean()),
    )


def word_accuracy(
    embed: Callable[[Sequence[str]], Tensor], images: Float[Tensor, "n d"], captions: Sequence[str]
) -> dict[str, float]:
    """Per factor: how often an image's own caption beats those with another word of the factor."""
    rows = [caption.split() for caption in captions]
    found = {}
    for column, factor in enumerate(faces.FACTORS):
        scores = [
            (images * embed([" ".join([*r[:column], word, *r[column + 1 :]]) for r in rows])).sum(1)
            for word in factor.words
        ]
        own = torch.tensor([factor.words.index(r[column]) for r in rows])
        found[factor.name] = round(float((torch.stack(scores).argmax(0) == own).float().mean()), 4)
    return found | {"mean": round(sum(found.values()) / len(found), 4)}


def measure(name: str, device: torch.device, n: int) -> dict[str, object]:
    """Recall among 1,000 held-out pairs, and the accuracy of single words, at 64 and 32 px."""
    pair, count = load_pair(name, device), min(n, 1000)
    factors = faces.sample_factors("test", torch.arange(count))
    captions = faces.caption(factors)
    with torch.no_grad():
        texts = pair.text(captions).cpu()
    figures: dict[str, object] = {"n": count}
    for size in (64, 32):
        seen = in_batches(pair.image, faces.render(factors, size), device)
        to_text, to_image = recall_at_1(seen, texts)
        figures[f"{size}px"] = {
            "recall_at_1_image_to_text": round(to_text, 4),
            "recall_at_1_text_to_image": round(to_image, 4),
            "word_accuracy": word_accuracy(lambda rows: pair.text(rows).cpu(), seen, captions),
        }
    return figures
