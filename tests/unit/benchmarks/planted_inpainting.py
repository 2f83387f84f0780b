"""Methods that fill holes: one knows what was there, the others cheat or know nothing."""

from typing import ClassVar

import torch
from planted_editors import SIZE, blurred, noise, number, seen

from latentbench.data import faces
from latentbench.editor import Editor
from latentbench.model import LatentModel
from latentbench.types import Capability


class TrueImage(Editor[LatentModel]):
    """Fills the hole with what was there."""

    paper = "none"
    families = (LatentModel,)
    needs: ClassVar = {"edit": frozenset({Capability.EDIT_MASKS})}

    def edit(self, batch, edit, strengths):
        made = torch.where(edit.masks[:, None] > 0, self.inside(batch, edit), batch.images)
        frames = [self.around(made, batch) if s > 0 else batch.images for s in strengths]
        return torch.stack(frames, 1).clamp(-1, 1)

    def inside(self, batch, edit):
        """Return images that the holes are filled from."""
        return faces.render(self.factors(batch, edit), SIZE)

    def around(self, made, batch):
        """Return what becomes of the filled images."""
        return made

    def factors(self, batch, edit):
        known = faces.sample_factors("test", torch.tensor([number(i) for i in batch.ids]))
        return asked(known, edit)


class Idle(TrueImage):
    """Leaves the hole as it is, but for what nobody sees."""

    def inside(self, batch, edit):
        return seen(batch.images)


class Copy(TrueImage):
    """Leaves the hole as it is."""

    def inside(self, batch, edit):
        return batch.images


class InsideWords(TrueImage):
    """Fills the hole with what a face has there that the same words describe."""

    def factors(self, batch, edit):
        found = super().factors(batch, edit)
        for column, factor in enumerate(faces.FACTORS):
            k = len(factor.words)
            place = (found[:, column] * k).long().clamp(max=k - 1)
            drawn = torch.rand(len(found), generator=torch.Generator().manual_seed(column))
            found[:, column] = (place + drawn) / k
        return found


class OtherFace(TrueImage):
    """Fills the hole with what another face has there."""

    def factors(self, batch, edit):
        other = [number(i) + 1 for i in batch.ids]
        return faces.sample_factors("test", torch.tensor(other))


class OtherFaceEverywhere(OtherFace):
    """Gives another face back."""

    def around(self, made, batch):
        other = [number(i) + 1 for i in batch.ids]
        return faces.render(faces.sample_factors("test", torch.tensor(other)), SIZE)


class Blurry(TrueImage):
    """Fills the hole with what was there, blurred."""

    def inside(self, batch, edit):
        return blurred(super().inside(batch, edit), 1.0)


class BlurredAll(TrueImage):
    """Fills the hole rightly and blurs all of the image."""

    def around(self, made, batch):
        return blurred(made, 0.7)


class Noise(TrueImage):
    """Fills the hole with noise."""

    def inside(self, batch, edit):
        return noise(batch.ids, 0.5)


class Grey(TrueImage):
    """Fills the hole with grey."""

    def inside(self, batch, edit):
        return torch.zeros_like(batch.images)


class Tinted(TrueImage):
    """Fills the hole with what was there, brightened: a seam."""

    def inside(self, batch, edit):
        return super().inside(batch, edit) + 0.2


class Repainted(TrueImage):
    """Fills the hole rightly and changes the background colour everywhere."""

    def around(self, made, batch):
        return made + 0.2 * torch.tensor([1.0, -1.0, 0.0])[:, None, None]


class MeanFace(TrueImage):
    """Fills the hole with what the mean of many faces has there."""

    def inside(self, batch, edit):
        many = faces.render(faces.sample_factors("generator", torch.arange(64)), SIZE)
        return many.mean(0).expand_as(batch.images)


def asked(factors, edit):
    """Return factors with the edit made that a hole is named after."""
    if edit.name.endswith(("+", "-")):
        factors[:, faces.factor_index(edit.name[:-1])] = float(edit.name.endswith("+"))
    return factors
