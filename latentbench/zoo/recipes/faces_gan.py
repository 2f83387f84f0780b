"""``faces_gan``: a small style-based GAN on 32-pixel faces, with an encoder into its w.

A game from nothing collapsed onto one face within the budget of two CPU cores (tried: 2,400 steps),
so w is given a meaning first. The encoder is that of ``faces_vae``, its means standardised; the
synthesis learns to draw a face from its code, and the mapping network to pass z on. Then the game:
the discriminator judges pairs of an image and its w ("Adversarial Feature Learning", equation 3,
with the encoder held), non-saturating, with a penalty on its gradient at real pairs every 16th step
(R1, "Which Training Methods for GANs do actually Converge?", equation 9). Both sides move in the
same step, each by its own gradient; the error of the decoded faces stays in the generator's loss.
"""

from collections.abc import Sequence
from functools import partial
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
from latentbench.zoo.recipes.shipped import shipped_means

NAME = "faces_gan"
VERSION = 2
CODE = 64
START_PLAN = training.Plan(
    name="faces_gan_start", steps=1200, batch=32, lr=2e-3, flat=0.1, decay="cosine", seed=53,
    ema=0.99, weight_decay=0.0, fresh=FIRST,
)  # fmt: skip
PLAN = training.Plan(
    name="faces_gan_game", steps=2400, batch=32, lr=5e-4, flat=0.6, seed=54, ema=0.998,
    betas=(0.0, 0.99), clip=1e3, weight_decay=0.0, fresh=FIRST,
)  # fmt: skip
PENALTY, PENALTY_EVERY = 0.5, 16
RECONSTRUCTION = 50.0  # weight of the squared error of decoded faces


class Generator(nn.Module):
    """Mapping network and synthesis."""

    def __init__(self) -> None:
        super().__init__()
        self.mapping = MappingNetwork(code=CODE)
        self.synthesis = StyleSynthesis(channels=(128, 96, 64, 48), code=CODE)


class Discriminator(nn.Module):
    """Image and w -> score: high for a face with its own code."""

    def __init__(self, features: int = 128, width: int = 192) -> None:
        super().__init__()
        self.trunk = ImageEncoder(SIZE, (48, 96, 128), features, norm=False)
        self.head = nn.Sequential(
            nn.Linear(features + CODE, width), nn.LeakyReLU(0.2),
            nn.Linear(width, width), nn.LeakyReLU(0.2),
            nn.Linear(width, 1),
        )  # fmt: skip

    def forward(
        self, images: Float[Tensor, "b 3 h w"], w: Float[Tensor, "b d"]
    ) -> Float[Tensor, "b 1"]:
        """Return the scores."""
        return self.head(torch.cat([F.leaky_relu(self.trunk(images), 0.2), w], 1))

    def held(
        self, images: Float[Tensor, "b 3 h w"], w: Float[Tensor, "b d"]
    ) -> Float[Tensor, "b 1"]:
        """Return the scores, with a gradient to the pairs and none to the weights."""
        weights = {k: v.detach() for k, v in self.named_parameters()}
        return torch.func.functional_call(self, weights, (images, w))


class Game(nn.Module):
    """Generator and discriminator."""

    def __init__(self, generator: Generator) -> None:
        super().__init__()
        self.generator, self.discriminator = generator, Discriminator()


@torch.no_grad()
def standardised_encoder(data: CachedFaces) -> tuple[StyleEncoder, Tensor]:
    """Return the means of ``faces_vae`` as an encoder with mean 0 and spread 1, and all codes."""
    encoder = StyleEncoder(image_size=SIZE, code=CODE).to(data.device)
    encoder.encoder.load_state_dict(shipped_means())
    codes = data.read(encoder)
    mean, spread = codes.mean(0), codes.std(0)
    head = encoder.encoder.head
    head.weight.div_(spread[:, None])
    head.bias.sub_(mean).div_(spread)
    return encoder.requires_grad_(False), (codes - mean) / spread


def gradient_penalty(
    discriminator: nn.Module, images: Float[Tensor, "b 3 h w"], w: Float[Tensor, "b d"]
) -> Float[Tensor, ""]:
    """Squared length of the gradient of the scores with respect to real pairs, averaged."""
    pair = [x.detach().requires_grad_() for x in (images, w)]
    scores = discriminator(*pair).sum()
    gradients = torch.autograd.grad(scores, pair, create_graph=True)
    return torch.cat([g.flatten(1) for g in gradients], 1).square().sum(1).mean()


def _start_loss(
    generator: Generator, plan: training.Plan, data: CachedFaces, codes: Float[Tensor, "n d"]
) -> training.Loss:
    def loss(step: int, rng: torch.Generator) -> Float[Tensor, ""]:
        images, weight = data.batch(plan, step)
        w = codes[data.rows(plan.batch, step, plan.seed)]
        z = torch.randn(256, CODE, generator=rng).to(codes.device)
        with training.autocast(codes.device):
            decoded = generator.synthesis(w)
        passed = (generator.mapping(z) - F.normalize(z, dim=1) * CODE**0.5).square().mean()
        return (weight * (decoded.float() - images).square()).mean() + 0.05 * passed

    return loss


def _loss(
    game: Game, plan: training.Plan, data: CachedFaces, codes: Float[Tensor, "n d"]
) -> training.Loss:
    generator, discriminator = game.generator, game.discriminator

    def loss(step: int, rng: torch.Generator) -> Float[Tensor, ""]:
        real, weight = data.batch(plan, step)
        read = codes[data.rows(plan.batch, step, plan.seed)]
        z = torch.randn(plan.batch, CODE, generator=rng).to(codes.device)
        with training.autocast(codes.device):
            w = generator.mapping(z).float()
            made, decoded = generator.synthesis(torch.cat([w, read])).chunk(2)
            fooled = discriminator.held(made, w).float()
            score_made = discriminator(made.detach(), w.detach()).float()
            score_real = discriminator(real, read).float()
        game_loss = F.softplus(-fooled) + F.softplus(score_made) + F.softplus(-score_real)
        error = (weight * (decoded.float() - real).square()).mean()
        total = game_loss.mean() + RECONSTRUCTION * error
        if step % PENALTY_EVERY:
            return total
        penalty = gradient_penalty(discriminator, real, read)
        return total + PENALTY_EVERY * PENALTY / 2 * penalty

    return loss


def make(
    folder: Path, device: torch.device, root: Path, share: float = 1.0, *, count: int = COUNT
) -> dict[str, object]:
    """Train both stages (or go on training), write the folder; gives the facts for the card."""
    data = CachedFaces(root, count, device)
    encoder, codes = standardised_encoder(data)
    generator, start_facts = training.fit(
        Generator, partial(_start_loss, codes=codes), START_PLAN, data,
        device=device, root=root, share=share, count=count,
    )  # fmt: skip
    game, facts = training.fit(
        lambda: Game(generator), partial(_loss, codes=codes), PLAN, data,
        device=device, root=root, share=share, count=count,
    )  # fmt: skip
    parts = {"mapping": game.generator.mapping, "synthesis": game.generator.synthesis}
    training.save_half(folder, **parts, encoder=encoder)
    return {"start": start_facts, "game": facts}


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
