"""Methods that draw from shifted noise: one keeps to its caption, the others know none."""

import torch
from planted_editors import SIZE
from planted_personalisation import obeyed
from planted_variation import known

from latentbench.data import faces
from latentbench.editor import Editor
from latentbench.model import LatentModel

MEAN = 0.2  # of a noise, above which it counts as shifted


class Obedient(Editor[LatentModel]):
    """Draws a face of the caption, what it leaves open being the noise's."""

    paper = "none"
    families = (LatentModel,)

    def generate(self, ids, prompts, noise=None):
        places = [
            int(i.rpartition("/")[2]) + 1000 * bool(s) for i, s in zip(ids, far(noise), strict=True)
        ]
        return self.drawn(known("judge", places), prompts, noise).clamp(-1, 1)

    def drawn(self, factors, prompts, noise):
        return faces.render(obeyed(factors, prompts), SIZE)


class Brittle(Obedient):
    """Forgets the caption where the noise is shifted."""

    def drawn(self, factors, prompts, noise):
        fresh, kept = (faces.render(x, SIZE) for x in (factors, obeyed(factors, prompts)))
        return torch.where(far(noise)[:, None, None, None], fresh, kept)


class Collapsed(Obedient):
    """Draws one picture where the noise is shifted."""

    def drawn(self, factors, prompts, noise):
        one = faces.render(known("judge", [5]), SIZE)
        return torch.where(
            far(noise)[:, None, None, None], one, super().drawn(factors, prompts, noise)
        )


class Deaf(Obedient):
    """Draws any face."""

    def drawn(self, factors, prompts, noise):
        return faces.render(factors, SIZE)


class OnePicture(Obedient):
    """Draws one picture, a little brighter for shifted noise."""

    def drawn(self, factors, prompts, noise):
        one = faces.render(known("judge", [5]), SIZE).expand(len(factors), -1, -1, -1)
        return one + 0.02 * far(noise)[:, None, None, None]


class Static(Obedient):
    """Gives the noise back."""

    def drawn(self, factors, prompts, noise):
        return noise


def far(noise):
    """Return which noises are shifted."""
    return noise.flatten(1).mean(1) > MEAN
