"""Methods whose directions are known: the factors themselves, mixtures of them, noise, nothing."""

import torch
from planted_editors import IDENTITY, SIZE, number, seen

from latentbench.data import faces
from latentbench.editor import Editor
from latentbench.model import LatentModel

NAMES = ("glasses", "smile", "age", "shirt", "hat", "background")  # what perfect directions move


class Factors(Editor[LatentModel]):
    """Direction k moves one factor from end to end, each another one; a fit puts them in order."""

    paper = "none"
    families = (LatentModel,)
    scope = "global"

    @classmethod
    def directions(cls, config):
        return len(NAMES)

    def fit(self, data, edits):
        order = self.streams.choice("order", len(NAMES), len(NAMES))
        self.shifts_ = self.learned()[order]

    def learned(self):
        """Return what each direction adds to the factors ``[k, f]``."""
        return torch.eye(len(faces.FACTORS))[[faces.factor_index(name) for name in NAMES]]

    def state(self):
        return {"shifts": self.shifts_}

    def load_state(self, state):
        self.shifts_ = state["shifts"]

    def edit(self, batch, edit, strengths):
        frames = [self.moved(batch, edit, float(s)) if s else batch.images for s in strengths]
        return torch.stack(frames, 1)

    def moved(self, batch, edit, strength):
        shift = edit.sign * strength * self.shifts_[edit.component]
        return seen(faces.render((self.held(batch, edit) + shift).clamp(0, 1), SIZE)).clamp(-1, 1)

    def held(self, batch, edit):
        """Return the factors that are moved."""
        return batch.factors


class Idle(Factors):
    """Gives the source back."""

    def moved(self, batch, edit, strength):
        return batch.images


class Unseen(Factors):
    """Changes what no one can see."""

    def moved(self, batch, edit, strength):
        return seen(batch.images).clamp(-1, 1)


class Repeated(Factors):
    """One right direction, again and again."""

    def learned(self):
        return super().learned()[:1].expand(len(NAMES), -1).clone()


class Noise(Factors):
    """Directions of the same length that no one has chosen."""

    def learned(self):
        rows = [str(k) for k in range(len(NAMES))]
        drawn = self.streams.normal("drawn", rows, (len(faces.FACTORS),))
        return torch.nn.functional.normalize(drawn, dim=1)


class Mixed(Factors):
    """All of what `Factors` moves, in every direction: a rotation of the right ones."""

    def learned(self):
        k = torch.arange(len(NAMES)) + 0.5  # of a cosine transform
        turn = torch.cos(torch.pi * k[:, None] * k / len(NAMES))
        return torch.nn.functional.normalize(turn @ super().learned(), dim=1)


class Stranger(Factors):
    """The right directions, each side of them on another person."""

    def held(self, batch, edit):
        others = [number(name) + 7 * (edit.component + 1) * edit.sign for name in batch.ids]
        other = faces.sample_factors("test", torch.tensor(others) % 1000)
        return torch.where(torch.tensor(IDENTITY), other, batch.factors)


class OneFace(Factors):
    """The right directions, on one person with one face, whoever is given."""

    def held(self, batch, edit):
        return faces.sample_factors("test", torch.tensor([77])).expand(len(batch), -1)


class OtherPerson(Factors):
    """The right directions, both sides of them on one other person."""

    def held(self, batch, edit):
        others = torch.tensor([number(name) + 7 for name in batch.ids])
        return torch.where(
            torch.tensor(IDENTITY), faces.sample_factors("test", others), batch.factors
        )
