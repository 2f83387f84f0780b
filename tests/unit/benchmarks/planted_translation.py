"""Methods that translate photos to drawings: one knows the drawing, the others cheat or guess."""

from typing import ClassVar

import torch
from planted_editors import SIZE, blurred, noise, number, seen

from latentbench.data import faces
from latentbench.editor import Editor
from latentbench.model import LatentModel
from latentbench.types import Capability


class TrueDrawing(Editor[LatentModel]):
    """Draws the same face."""

    paper = "none"
    families = (LatentModel,)
    needs: ClassVar = {"edit": frozenset({Capability.SECOND_MODEL})}
    others: ClassVar = {"target_model": "model"}
    style = "lines"

    def __init__(self, *, target_model: str = "faces_ddpm") -> None:
        self.target_model = target_model

    def edit(self, batch, edit, strengths):
        frames = [self.translated(batch) if s > 0 else batch.images for s in strengths]
        return torch.stack(frames, 1).clamp(-1, 1)

    def translated(self, batch):
        return faces.render(self.factors(batch), SIZE, self.style)

    def factors(self, batch):
        return known([number(name) for name in batch.ids])


class Source(TrueDrawing):
    """Gives the photo back."""

    def translated(self, batch):
        return batch.images


class SeenSource(TrueDrawing):
    """Gives the photo back, changed by what nobody sees."""

    def translated(self, batch):
        return seen(batch.images)


class OtherDrawing(TrueDrawing):
    """Draws another face."""

    def factors(self, batch):
        return known([number(name) + 1 for name in batch.ids])


class OtherPhoto(OtherDrawing):
    """Gives a photo of another face."""

    style = "photo"


class OneDrawing(TrueDrawing):
    """Draws one face, whatever the photo."""

    def factors(self, batch):
        return known([77]).expand(len(batch), -1)


class OtherIdentity(TrueDrawing):
    """Draws another person with the attributes of the photo."""

    def factors(self, batch):
        other = known([number(name) + 1 for name in batch.ids])
        return torch.where(WHO, other, super().factors(batch))


class OtherAttributes(TrueDrawing):
    """Draws the person with attributes of another face."""

    def factors(self, batch):
        other = known([number(name) + 1 for name in batch.ids])
        return torch.where(WHO, super().factors(batch), other)


class MeanDrawing(TrueDrawing):
    """Gives the mean of many drawings."""

    def translated(self, batch):
        many = faces.sample_factors("generator", torch.arange(64))
        return faces.render(many, SIZE, self.style).mean(0).expand_as(batch.images)


class Blurred(TrueDrawing):
    """Draws the same face, blurred."""

    def translated(self, batch):
        return blurred(super().translated(batch), 0.7)


class Noisy(TrueDrawing):
    """Draws the same face under noise."""

    def translated(self, batch):
        return super().translated(batch) + noise(batch.ids, 0.1)


class Ghost(TrueDrawing):
    """Mixes the drawing with the photo."""

    def translated(self, batch):
        return super().translated(batch).lerp(batch.images, 0.5)


class Grey(TrueDrawing):
    """Takes the colours out of the photo."""

    def translated(self, batch):
        return batch.images.mean(1, keepdim=True).expand_as(batch.images)


class Paper(TrueDrawing):
    """Gives an empty page."""

    def translated(self, batch):
        return torch.full_like(batch.images, 0.9)


class NoiseAlone(TrueDrawing):
    """Gives noise."""

    def translated(self, batch):
        return noise(batch.ids, 0.5)


WHO = torch.tensor([name in faces.IDENTITY for name in faces.FACTOR_NAMES])


def known(index):
    return faces.sample_factors("test", torch.tensor(index))
