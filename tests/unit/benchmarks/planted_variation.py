"""Methods that draw a person again: one knows the person, the others cheat or know nothing."""

import torch
from planted_editors import IDENTITY, SIZE, blurred, noise, number, seen

from latentbench.data import faces
from latentbench.editor import Editor
from latentbench.model import LatentModel

FREE = ~torch.tensor(IDENTITY)


class Photos(Editor[LatentModel]):
    """Draws the person with the attributes of faces that no truth has."""

    paper = "none"
    families = (LatentModel,)

    def vary(self, batch, draws):
        who = self.people(batch)[:, None].expand(-1, draws, -1)
        factors = torch.where(FREE, self.attributes(batch, draws), who).clamp(0, 1)
        return self.shown(faces.render(factors.flatten(0, 1), SIZE), batch, draws)

    def people(self, batch):
        return known("test", [number(name) for name in batch.ids])

    def attributes(self, batch, draws):
        index = [number(name) * draws + k for name in batch.ids for k in range(draws)]
        return known("judge", index).unflatten(0, (-1, draws))

    def shown(self, images, batch, draws):
        return images.clamp(-1, 1).unflatten(0, (-1, draws))


class Copies(Photos):
    """Gives the image back."""

    def vary(self, batch, draws):
        return batch.images[:, None].expand(-1, draws, -1, -1, -1).contiguous()


class SeenCopies(Copies):
    """Gives the image back, changed by what nobody sees."""

    def vary(self, batch, draws):
        return seen(super().vary(batch, draws))


class NoisyCopies(Copies):
    """Gives the image back under another noise each time."""

    def vary(self, batch, draws):
        added = [
            noise([f"x/{number(i) * draws + k}" for i in batch.ids], 0.1) for k in range(draws)
        ]
        return (super().vary(batch, draws) + torch.stack(added, 1)).clamp(-1, 1)


class FixedPhoto(Photos):
    """Gives one photo of the person again and again."""

    def attributes(self, batch, draws):
        return super().attributes(batch, draws)[:, :1].expand(-1, draws, -1)


class OtherPerson(Photos):
    """Draws photos of somebody else."""

    def people(self, batch):
        return known("test", [number(name) + 1 for name in batch.ids])


class OnePerson(Photos):
    """Draws one photo of one person for everybody."""

    def people(self, batch):
        return known("test", [77]).expand(len(batch), -1)

    def attributes(self, batch, draws):
        return known("judge", [7])[None].expand(len(batch), draws, -1)


class Kin(Photos):
    """Draws photos of somebody who is alike: four factors of the identity are another's."""

    def people(self, batch):
        found = super().people(batch)
        other = known("test", [number(name) + 1 for name in batch.ids])
        return torch.where(torch.arange(found.shape[1]) < 4, other, found)


class Timid(Photos):
    """Goes a quarter of the way from the image to other attributes."""

    def attributes(self, batch, draws):
        return self.people(batch)[:, None].lerp(super().attributes(batch, draws), 0.25)


class BackgroundOnly(Photos):
    """Changes the background alone."""

    def attributes(self, batch, draws):
        own = self.people(batch)[:, None].repeat(1, draws, 1)
        column = faces.factor_index("background")
        own[..., column] = super().attributes(batch, draws)[..., column]
        return own


class Wild(Photos):
    """Takes every attribute to one of its ends."""

    def attributes(self, batch, draws):
        return (super().attributes(batch, draws) > 0.5).float()


class BlurredPhotos(Photos):
    """Draws the person, slightly blurred."""

    def shown(self, images, batch, draws):
        return super().shown(blurred(images, 0.7), batch, draws)


class Ghosts(Photos):
    """Mixes photos of the person with the image."""

    def shown(self, images, batch, draws):
        return super().shown(images, batch, draws).lerp(batch.images[:, None], 0.5)


class NoiseAlone(Photos):
    """Gives noise."""

    def shown(self, images, batch, draws):
        names = [f"x/{number(i) * draws + k}" for i in batch.ids for k in range(draws)]
        return super().shown(noise(names, 0.5), batch, draws)


def known(split, index):
    return faces.sample_factors(split, torch.tensor(index))
