"""Methods that know the answer, or cheat, at reconstructing faces and at drawing new ones."""

import torch
from planted_editors import SIZE, Inverting, blurred, compressed, moved, number
from planted_paths import mean_face

from latentbench.data import faces
from latentbench.editor import Editor
from latentbench.model import LatentModel


class SameFace(Inverting):
    """Gives every image back."""


class BlurredFace(Inverting):
    """Gives it back blurred."""

    def reconstruction(self, batch):
        return blurred(batch.images, 0.7)


class OtherGlasses(Inverting):
    """Gives it back with the glasses put on or taken off."""

    def reconstruction(self, batch):
        column = faces.factor_index("glasses")
        away = (batch.factors[:, column : column + 1] < 0.5).float()
        changed = batch.factors.clone()
        changed[:, column : column + 1] = away
        return faces.render(changed, SIZE)


class Mirrored(Inverting):
    """Gives it back with left and right exchanged."""

    def reconstruction(self, batch):
        return batch.images.flip(-1)


class OnePixelOff(Inverting):
    """Gives it back one pixel to the right."""

    def reconstruction(self, batch):
        return batch.images.roll(1, -1)


class LowContrast(Inverting):
    """Gives it back with 0.8 of its contrast."""

    def reconstruction(self, batch):
        return batch.images.mean((1, 2, 3), keepdim=True).lerp(batch.images, 0.8)


class MeanFace(Inverting):
    """Gives the mean of many faces back, whatever it got."""

    def reconstruction(self, batch):
        return mean_face().expand_as(batch.images)


class NextFace(Inverting):
    """Gives another face back."""

    def reconstruction(self, batch):
        return drawn("test", [number(name) + 1 for name in batch.ids])


class Grey(Inverting):
    """Gives a grey image back, whatever it got."""

    def reconstruction(self, batch):
        return torch.zeros_like(batch.images)


class NewFaces(Editor[LatentModel]):
    """Draws faces that no one has seen."""

    paper = "none"
    families = (LatentModel,)
    split = "judge"

    def generate(self, ids, prompts, noise=None):
        return drawn(self.split, [number(name) for name in ids])


class Compressed(NewFaces):
    """The same, as JPEG files have them."""

    def generate(self, ids, prompts, noise=None):
        return compressed(super().generate(ids, prompts), 40)


class BlurredFaces(NewFaces):
    """The same, blurred."""

    def generate(self, ids, prompts, noise=None):
        return blurred(super().generate(ids, prompts), 0.7)


class OneFace(NewFaces):
    """One face, again and again."""

    def generate(self, ids, prompts, noise=None):
        return drawn(self.split, [7] * len(ids))


class Smilers(NewFaces):
    """Faces that all smile, wear glasses and no hat: half of the modes are missing."""

    def generate(self, ids, prompts, noise=None):
        found = faces.sample_factors(self.split, torch.tensor([number(name) for name in ids]))
        for name, goal in (("smile", 1.0), ("glasses", 1.0), ("hat", 0.0)):
            found = moved(found, name, goal, 1.0)
        return faces.render(found, SIZE)


class TenFaces(NewFaces):
    """Ten of the images that generators are trained on."""

    def generate(self, ids, prompts, noise=None):
        return drawn("generator", [number(name) % 10 for name in ids])


class Ghosts(NewFaces):
    """Two faces at once, each half visible."""

    def generate(self, ids, prompts, noise=None):
        pairs = [[number(name) + start for name in ids] for start in (0, 5000)]
        return torch.stack([drawn(self.split, index) for index in pairs]).mean(0)


class Middling(NewFaces):
    """Faces whose factors are half as far from the middle."""

    def generate(self, ids, prompts, noise=None):
        found = faces.sample_factors(self.split, torch.tensor([number(name) for name in ids]))
        return faces.render(0.25 + found / 2, SIZE)


class Copies(NewFaces):
    """The images that generators are trained on."""

    split = "generator"


def drawn(split, index):
    return faces.render(faces.sample_factors(split, torch.tensor(index)), SIZE)
