"""Attacks that know their judge, and changes that are no attack: where must they come out?"""

import torch
from planted_editors import SIZE, Perfect

from latentbench.data import faces
from latentbench.types import Capability
from latentbench.zoo.judges import load_judge, to_input_size

STEP, MOVES = 0.01, 12


def attacked(images, edit, judge):
    """Return images moved by the sign of the gradient until the judge misreads them."""
    column, x = faces.factor_index(edit.attribute), images
    for _ in range(MOVES):
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            read = load_judge(judge, x.device).read(to_input_size(x))[0][:, column]
            (slope,) = torch.autograd.grad(read.sum(), x)
        wrong = edit.sign * (read - 0.5) > 0.05
        x = torch.where(wrong[:, None, None, None], x, x + edit.sign * STEP * slope.sign())
    return x.detach().clamp(-1, 1)


class Adversarial(Perfect):
    """Moves the pixels until a judge is fooled, and knows which judge scores."""

    needs = {"edit": frozenset({Capability.CLASSIFIER})}  # noqa: RUF012
    others = {"classifier": "classifier"}  # noqa: RUF012
    judge = "zoo1"

    def __init__(self, *, classifier: str = "attr1") -> None:
        self.classifier = classifier

    def edited(self, batch, edit, strength):
        return attacked(batch.images, edit, self.judge)


class AimedElsewhere(Adversarial):
    """Fools another judge than the one that scores."""

    judge = "zoo2"


class Idle(Adversarial):
    """Changes one grey level."""

    def edited(self, batch, edit, strength):
        return (batch.images + 2 / 255).clamp(-1, 1)


class Honest(Adversarial):
    """Changes the face, so that the classifier rightly reads something else."""

    def edited(self, batch, edit, strength):
        return Perfect.edited(self, batch, edit, 1.0)


class AlmostHonest(Honest):
    """Cross-fades most of the way to the honest edit."""

    def edited(self, batch, edit, strength):
        return batch.images.lerp(super().edited(batch, edit, strength), 0.7)


class AlmostHalf(Honest):
    """Cross-fades less than half of the way to the honest edit, nearer to the source."""

    def edited(self, batch, edit, strength):
        return batch.images.lerp(super().edited(batch, edit, strength), 0.45)


class NoiseOfTheSameNorm(Adversarial):
    """Moves every pixel as far as the attack does, by chance."""

    def edited(self, batch, edit, strength):
        change = super().edited(batch, edit, strength) - batch.images
        drawn = torch.randn(change.shape, generator=torch.Generator().manual_seed(0))
        length = change.flatten(1).norm(dim=1) / drawn.flatten(1).norm(dim=1)
        return batch.images + length[:, None, None, None] * drawn


class NoiseAlone(Adversarial):
    """Answers with noise."""

    def edited(self, batch, edit, strength):
        drawn = torch.randn(3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
        return drawn.clamp(-1, 1).expand_as(batch.images)
