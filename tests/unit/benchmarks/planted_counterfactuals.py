"""Changes that flip a classifier honestly, and changes that only flip it."""

from dataclasses import replace

import torch
from planted_editors import LEVELS, Perfect, noise

from latentbench.zoo.classifiers import EmbeddedClassifier

STEP, MOVES, MARGIN = LEVELS / 2, 16, 0.5


class Attack(Perfect):
    """Moves the pixels by the sign of attr1's gradient until it answers otherwise."""

    def edit(self, batch, edit, strengths):
        moved, frames = self.attacked(batch, edit), strengths[:, None, None, None] > 0
        return torch.where(frames, moved[:, None], batch.images[:, None])

    def attacked(self, batch, edit):
        classifier, x = EmbeddedClassifier(), batch.images
        column = classifier.column(edit.attribute)
        for _ in range(MOVES):
            with torch.enable_grad():
                x = x.detach().requires_grad_()
                odds = edit.sign * classifier.log_odds(x)[:, column]
                (slope,) = torch.autograd.grad(odds.sum(), x)
            left = (odds < MARGIN)[:, None, None, None]
            x = torch.where(left, (x + STEP * slope.sign()).clamp(-1, 1), x)
        return x.detach()


class FadedAttack(Attack):
    """Fades the edit in by a quarter, which attr1 does not take for it, and attacks the rest."""

    def attacked(self, batch, edit):
        faded = batch.images.lerp(self.edited(batch, edit, 1.0), 0.27)
        return super().attacked(replace(batch, images=faded), edit)


class Whole(Perfect):
    """Goes the whole way at once."""

    def factors(self, batch, edit, strength):
        return super().factors(batch, edit, 1.0)


class Noise(Perfect):
    """Answers with noise."""

    def edited(self, batch, edit, strength):
        return batch.images + noise(batch.ids, strength)
