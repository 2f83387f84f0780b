"""``faces_gan``: a small style-based GAN on 32-pixel faces, and an encoder into its w.

The networks' game: the non-saturating loss with a penalty on the gradient at real images (R1,
"Which Training Methods for GANs do actually Converge?", equation 9), taken every 16th step. Both
sides move in the same step, each by its own gradient. The encoder is trained afterwards with the
generator frozen: it must give w back on samples, and images back on samples and faces.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from latentbench.models.convolutions import ImageEncoder
from latentbench.models.gan import MappingNetwork, StyleEncoder, StyleSynthesis
from latentbench.zoo import training
from latentbench.zoo.judges import Judge
from latentbench.zoo.measures import reconstruction_figures, set_distance, test_faces
from latentbench.zoo.recipes.cached_faces import COUNT, FIRST, SIZE, CachedFaces

NAME = "faces_gan"
VERSION = 1
CODE = 64
PLAN = training.Plan(
    name=NAME, steps=4000, batch=32, lr=4e-4, flat=0.6, seed=53, ema=0.998, betas=(0.0, 0.99),
    clip=1e3, weight_decay=0.0, fresh=FIRST,
)  # fmt: skip
ENCODER_PLAN = training.Plan(
    name="faces_gan_encoder", steps=1500, batch=32, lr=1.5e-3, flat=0.1, decay="cosine", seed=54,
    ema=0.998, weight_decay=0.0, fresh=FIRST,
)  # fmt: skip
PENALTY, PENALTY_EVERY = 0.1, 16


class Game(nn.Module):
    """Generator and discriminator."""

    def __init__(self) -> None:
        super().__init__()
        self.mapping = MappingNetwork(code=CODE)
        self.synthesis = StyleSynthesis(channels=(128, 96, 64, 48), code=CODE)
        self.discriminator = ImageEncoder(SIZE, (48, 96, 128), 1, norm=False)

    def fixed_discriminator(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 1"]:
        """Return its scores, with a gradient to the images and none to its weights."""
        weights = {k: v.detach() for k, v in self.discriminator.named_parameters()}
        return torch.func.functional_call(self.discriminator, weights, (images,))


def gradient_penalty(
    discriminator: nn.Module, images: Float[Tensor, "b 3 h w"]
) -> Float[Tensor, ""]:
    """Squared length of the gradient of the scores with respect to real images, averaged."""
    images = images.detach().requires_grad_()
    scores = discriminator(images).sum()
    (gradient,) = torch.autograd.grad(scores, images, create_graph=True)
    return gradient.square().sum((1, 2, 3)).mean()


def _loss(
    game: Game, plan: training.Plan, data: CachedFaces, device: torch.device
) -> training.Loss:
    def loss(step: int, generator: torch.Generator) -> Float[Tensor, ""]:
        real, _ = data.batch(plan, step, device)
        z = torch.randn(plan.batch, CODE, generator=generator).to(device)
        with training.autocast(device):
            made = game.synthesis(game.mapping(z))
            fooled = game.fixed_discriminator(made).float()
            score_made, score_real = (game.discriminator(x).float() for x in (made.detach(), real))
        total = F.softplus(-fooled) + F.softplus(score_made) + F.softplus(-score_real)
        if step % PENALTY_EVERY:
            return total.mean()
        penalty = gradient_penalty(game.discriminator, real)
        return total.mean() + PENALTY_EVERY * PENALTY / 2 * penalty

    return loss


def _encoder_loss(
    encoder: StyleEncoder, game: Game, plan: training.Plan, data: CachedFaces, device: torch.device
) -> training.Loss:
    """Half the batch faces, half samples whose w is known; errors of w in units of its spread."""
    half = plan.batch // 2
    with torch.no_grad():
        z = torch.randn(2048, CODE, generator=training.step_generator(plan.seed, -1)).to(device)
        spread = game.mapping(z).std(0)

    def loss(step: int, generator: torch.Generator) -> Float[Tensor, ""]:
        faces, weight = (x[:half] for x in data.batch(plan, step, device))
        z = torch.randn(half, CODE, generator=generator).to(device)
        with training.autocast(device):
            with torch.no_grad():
                w = game.mapping(z).float()
                made = game.synthesis(w).clamp(-1, 1)
            images = torch.cat([faces, made.float()])
            read = encoder(images)
            decoded = game.synthesis(read).float()
        gap = ((read[half:].float() - w) / spread).square().mean()
        weight = torch.cat([weight, torch.ones_like(weight)])
        return (weight * (decoded - images).square()).mean() + 0.02 * gap

    return loss


def make(
    folder: Path, device: torch.device, root: Path, share: float = 1.0, *, count: int = COUNT
) -> dict[str, object]:
    """Train both stages (or go on training), write the folder; gives the facts for the card."""
    plan, encoder_plan = (training.shortened(p, share) for p in (PLAN, ENCODER_PLAN))
    data = CachedFaces(root, count)
    torch.manual_seed(plan.seed)
    game = Game().to(device)
    weights, seconds = training.train(game, _loss(game, plan, data, device), plan, root=root)
    game.load_state_dict(weights)
    game.eval().requires_grad_(False)
    encoder = StyleEncoder(image_size=SIZE, code=CODE).to(device)
    loss = _encoder_loss(encoder, game, encoder_plan, data, device)
    weights, encoder_seconds = training.train(encoder, loss, encoder_plan, root=root)
    encoder.load_state_dict(weights)
    parts = {"mapping": game.mapping, "synthesis": game.synthesis, "encoder": encoder}
    for name, part in parts.items():
        part.half().save_pretrained(folder / name)
    return {
        "game": training.facts(plan, "generator", seconds, count),
        "encoder": training.facts(encoder_plan, "generator", encoder_seconds, count),
    }


@torch.no_grad()
def measure(folder: Path, judges: Sequence[Judge], device: torch.device, n: int) -> dict:
    """Frechet distance of n samples, whole and truncated; what the encoder keeps of faces."""
    mapping, synthesis, encoder = (
        cls.from_pretrained(folder / name).to(device).eval()
        for name, cls in (
            ("mapping", MappingNetwork), ("synthesis", StyleSynthesis), ("encoder", StyleEncoder),
        )
    )  # fmt: skip
    z = torch.randn(n, CODE, generator=torch.Generator().manual_seed(0)).to(device)
    w = mapping(z)

    def images(codes: Float[Tensor, "n d"]) -> Float[Tensor, "n 3 32 32"]:
        return torch.cat([synthesis(part).clamp(-1, 1).cpu() for part in codes.split(64)])

    originals = test_faces(0, 256, SIZE)
    figures = {
        f"truncation_{psi:g}": [
            set_distance(judge, images(w.mean(0) + psi * (w - w.mean(0))), SIZE) for judge in judges
        ]
        for psi in (1.0, 0.7)
    }
    decoded = images(encoder(originals.to(device)))
    kept = reconstruction_figures(originals, decoded, judges) | {"n": len(originals)}
    return figures | {"encoder": kept}
