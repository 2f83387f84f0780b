"""Methods that combine two images: one knows both faces, the others cheat or know nothing."""

import torch
from planted_editors import SIZE, blurred, noise, number, seen

from latentbench.data import faces
from latentbench.editor import Editor
from latentbench.model import LatentModel


class Truth(Editor[LatentModel]):
    """Draws the first face with what is taken of the second."""

    paper = "none"
    families = (LatentModel,)

    def combine(self, a, b, edit):
        factors = self.factors(known(a), known(b), columns(*edit.factors))
        return self.shown(faces.render(factors, SIZE), a, b)

    def factors(self, a, b, taken):
        return torch.where(taken, b, a)

    def shown(self, images, a, b):
        return images.clamp(-1, 1)


class Blurred(Truth):
    """The same, slightly blurred."""

    def shown(self, images, a, b):
        return blurred(images, 0.4).clamp(-1, 1)


class Half(Truth):
    """Takes the first of the named factors and leaves the second."""

    def factors(self, a, b, taken):
        return torch.where(taken & (taken.cumsum(0) == 1), b, a)


class Swapped(Truth):
    """Takes the second face for the first: b with what is asked of a."""

    def factors(self, a, b, taken):
        return torch.where(taken, a, b)


class Greedy(Truth):
    """Takes the other operator's factors as well."""

    def factors(self, a, b, taken):
        return torch.where(taken | columns("glasses", "hat", "yaw", "light"), b, a)


class OtherPerson(Truth):
    """Draws what was asked on somebody else, who is as the first face in all that edits change."""

    def factors(self, a, b, taken):
        return torch.where(columns(*faces.IDENTITY), a.roll(1, 0), torch.where(taken, b, a))


class Opposite(Truth):
    """Turns what was asked into its opposite, whatever the second image shows."""

    def factors(self, a, b, taken):
        return torch.where(taken, (a < 0.5).float(), a)


class MeanFace(Truth):
    """Draws one face for everybody, all of whose factors are in the middle."""

    def factors(self, a, b, taken):
        return torch.full_like(a, 0.5)


class First(Truth):
    """Gives the first image back, changed by what nobody sees."""

    def shown(self, images, a, b):
        return seen(a.images)


class Second(Truth):
    """Gives the second image back."""

    def shown(self, images, a, b):
        return b.images


class PixelMean(Truth):
    """Mixes the two images."""

    def shown(self, images, a, b):
        return (a.images + b.images) / 2


class HalfMix(Truth):
    """Mixes the first image and the answer."""

    def shown(self, images, a, b):
        return (a.images + images.clamp(-1, 1)) / 2


class Noise(Truth):
    """Gives noise."""

    def shown(self, images, a, b):
        return noise(a.ids, 0.5).clamp(-1, 1)


def known(batch):
    return faces.sample_factors("test", torch.tensor([number(name) for name in batch.ids]))


def columns(*names):
    return torch.tensor([name in names for name in faces.FACTOR_NAMES])
