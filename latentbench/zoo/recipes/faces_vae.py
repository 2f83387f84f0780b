"""``faces_vae``: a variational autoencoder with one vector per image, on 32-pixel faces."""

from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from latentbench.models.vae import VectorAutoencoder
from latentbench.zoo import training
from latentbench.zoo.judges import Judge
from latentbench.zoo.measures import reconstruction_figures, set_distance, test_faces
from latentbench.zoo.recipes.cached_faces import COUNT, FIRST, SIZE, CachedFaces

NAME = "faces_vae"
VERSION = 1
PLAN = training.Plan(
    name=NAME, steps=3000, batch=32, lr=2e-3, flat=0.1, decay="cosine", seed=51, ema=0.998,
    weight_decay=0.0, fresh=FIRST,
)  # fmt: skip
VARIANCE = 0.1  # of p(x | z), per pixel


def network() -> VectorAutoencoder:
    """64 numbers per face."""
    return VectorAutoencoder(image_size=SIZE, channels=(32, 64, 96), code=64)


def kl_divergence(
    mean: Float[Tensor, "b d"], log_variance: Float[Tensor, "b d"]
) -> Float[Tensor, " b"]:
    """Nats from q(z | x) to N(0, I), per image."""
    return 0.5 * (mean.square() + log_variance.exp() - log_variance - 1).sum(1)


def _loss(vae: VectorAutoencoder, plan: training.Plan, data: CachedFaces) -> training.Loss:
    """Negative evidence lower bound ("Auto-Encoding Variational Bayes", equation 10), weighted."""

    def loss(step: int, generator: torch.Generator) -> Float[Tensor, ""]:
        images, weight = data.batch(plan, step)
        with training.autocast(images.device):
            mean, log_variance = vae.posterior(images)
            noise = torch.randn(mean.shape, generator=generator).to(images.device)
            decoded = vae.decode(mean + torch.exp(0.5 * log_variance) * noise)
        error = (weight * (decoded.float() - images).square()).sum((1, 2, 3)) / (2 * VARIANCE)
        nats = error + kl_divergence(mean.float(), log_variance.float())
        return nats.mean() / images[0].numel()

    return loss


def make(
    folder: Path, device: torch.device, root: Path, share: float = 1.0, *, count: int = COUNT
) -> dict[str, object]:
    """Train (or go on training) and write the folder; gives the facts for the card."""
    data = CachedFaces(root, count, device)
    vae, facts = training.fit(
        network, _loss, PLAN, data, device=device, root=root, share=share, count=count
    )
    training.save_half(folder, vae=vae)
    return {"vae": facts}


@torch.no_grad()
def measure(folder: Path, judges: Sequence[Judge], device: torch.device, n: int) -> dict:
    """Reconstruction from the posterior's mean; Frechet distance of n draws of the prior."""
    vae = VectorAutoencoder.from_pretrained(folder / "vae").to(device).eval()
    originals = test_faces(0, 256, SIZE)
    mean, log_variance = vae.posterior(originals.to(device))
    noise = torch.randn(n, mean.shape[1], generator=torch.Generator().manual_seed(0))
    images = torch.cat([vae.decode(part).clamp(-1, 1).cpu() for part in noise.to(device).split(64)])
    return {
        "reconstruction": reconstruction_figures(
            originals, vae.decode(mean).clamp(-1, 1).cpu(), judges
        ) | {"n": len(originals)},
        "nats_per_image": round(float(kl_divergence(mean, log_variance).mean()), 1),
        "active_dimensions": int((mean.var(0) > 0.01).sum()),
        "sets": [set_distance(judge, images, SIZE) for judge in judges],
    }  # fmt: skip
