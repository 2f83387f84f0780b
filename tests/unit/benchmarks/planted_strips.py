"""Methods that draw strips: one draws true ones, the others cheat, each in its own way."""

from dataclasses import replace

import torch
import torch.nn.functional as F
from planted_editors import Blank, number

from latentbench.data import faces, strips
from latentbench.editor import Editor
from latentbench.model import LatentModel
from latentbench.types import Capability, Space

COLUMNS = [faces.factor_index(name) for name in strips.GLOBALS]
SIDE = 64


class Wide(Blank):
    """A model of images as high as strips, that is never asked for anything."""

    spaces = frozenset({Space.NOISE})
    gives = frozenset({Capability.PROMPTS})

    def __init__(self, *, device: str = "cpu") -> None:
        super().__init__(device=device)
        self.image_size, self.latent_shape = SIDE, (3, SIDE, SIDE)


class Genuine(Editor[LatentModel]):
    """Draws other faces than the data set's, with what the asked strip's faces share."""

    paper = "none"
    families = (LatentModel,)

    def panorama(self, ids, prompts, width):
        index = torch.tensor([number(name) for name in ids])
        return self.changed(self.strips(index, width), index).clamp(-1, 1)

    def strips(self, index, width):
        return strips.draw(self.row(index, width), width)

    def row(self, index, width):
        shown = strips.row("judge", index, width)
        factors = shown.factors.clone()
        factors[..., COLUMNS] = strips.shared_factors("test", self.asked(index))[:, None]
        return replace(shown, factors=self.people(factors))

    def asked(self, index):
        return index

    def people(self, factors):
        return factors

    def changed(self, images, index):
        return images


class Blurred(Genuine):
    """Draws true strips, out of focus."""

    def changed(self, images, index):
        return F.avg_pool2d(F.pad(images, (3, 3, 3, 3), mode="replicate"), 7, 1)


class OneFace(Genuine):
    """Draws one face all along the strip."""

    def people(self, factors):
        found = factors[:, :1].expand_as(factors).clone()
        found[..., COLUMNS] = factors[..., COLUMNS]
        return found


class TwoFaces(Genuine):
    """Draws two faces that take turns."""

    def people(self, factors):
        return factors[:, [k % 2 for k in range(factors.shape[1])]]


class Drifting(Genuine):
    """Lets what all faces share change along the strip, from end to end of its range."""

    def people(self, factors):
        found, line = factors.clone(), torch.linspace(0, 1, factors.shape[1])
        found[..., COLUMNS] = line[:, None].expand(-1, len(COLUMNS))
        return found


class OtherCaption(Genuine):
    """Draws true strips of other captions."""

    def asked(self, index):
        return index + 1000


class Shuffled(Genuine):
    """Puts windows of strips of any caption side by side."""

    def strips(self, index, width):
        parts = [super(Shuffled, self).strips(index + 50 * k, width) for k in range(width // SIDE)]
        return torch.cat([part[..., SIDE * k : SIDE * (k + 1)] for k, part in enumerate(parts)], 3)


class Seamed(Genuine):
    """Puts windows side by side that share all they should, and were drawn apart."""

    def strips(self, index, width):
        rows = [self.row(index + 0, width) for _ in range(width // SIDE)]
        shown = [
            replace(row, middles=row.middles + 17 * k, factors=row.factors.roll(k, 1))
            for k, row in enumerate(rows)
        ]
        parts = [strips.draw(row, width) for row in shown]
        return torch.cat([part[..., SIDE * k : SIDE * (k + 1)] for k, part in enumerate(parts)], 3)


class Flat(Genuine):
    """Draws the background alone."""

    def strips(self, index, width):
        row = self.row(index, width)
        return (faces.backgrounds(row.factors[:, 0]) * 2 - 1).expand(-1, -1, -1, width)


class Noise(Genuine):
    """Draws noise."""

    def changed(self, images, index):
        draw = torch.Generator().manual_seed(0)
        return torch.randn(images.shape, generator=draw)
