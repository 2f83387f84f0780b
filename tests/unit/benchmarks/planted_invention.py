"""Methods that invent people: one holds to them and obeys, the others cheat."""

import torch
from planted_editors import SIZE, number
from planted_personalisation import FREE, obeyed
from planted_variation import known

from latentbench.data import faces
from latentbench.editor import Editor
from latentbench.model import LatentModel


class Cast(Editor[LatentModel]):
    """Gives each name a person, and draws that person as the prompt asks."""

    paper = "none"
    families = (LatentModel,)

    def invent(self, characters, ids, prompts):
        rows = [self.picture(c, i, p) for c, i, p in zip(characters, ids, prompts, strict=True)]
        return torch.cat(rows).clamp(-1, 1)

    def picture(self, character, name, prompt):
        free = obeyed(self.face(name), (self.heard(prompt),))
        return faces.render(torch.where(FREE, free, self.who(character, name)), SIZE)

    def who(self, character, name):
        return self.face(f"of {character}")

    def heard(self, prompt):
        return prompt

    def face(self, name):
        draw = self.streams.generator("planted", name)
        return known("judge", [int(torch.randint(2**20, (), generator=draw))])


class Crowd(Cast):
    """Draws somebody else in each picture."""

    def who(self, character, name):
        return self.face(f"of {name}")


class OneFace(Cast):
    """Draws one person for all characters."""

    def who(self, character, name):
        return self.face("of one")


class TwoFaces(Cast):
    """Draws two people in turn, as different as people can be."""

    def who(self, character, name):
        return torch.full_like(self.face(name), float(number(character) % 2))


class Deaf(Cast):
    """Draws the person and takes no notice of the prompt."""

    def heard(self, prompt):
        return ""


class Frozen(Deaf):
    """Draws one picture of each person."""

    def face(self, name):
        return super().face(name if name.startswith("of") else "all")


class Kin(Cast):
    """Draws people who are half alike."""

    def who(self, character, name):
        return (super().who(character, name) + known("judge", [7])) / 2


class Unsure(Cast):
    """Draws people who are half somebody else in each picture."""

    def who(self, character, name):
        return (super().who(character, name) + self.face(f"of {name}")) / 2
