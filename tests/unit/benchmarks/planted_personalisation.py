"""Methods that picture a subject: one knows who it is and obeys, the others cheat."""

import torch
from planted_editors import IDENTITY, SIZE, Blank, seen
from planted_variation import known

from latentbench.data import faces
from latentbench.editor import Editor
from latentbench.model import LatentModel
from latentbench.types import SUBJECT

FREE = ~torch.tensor(IDENTITY)
WORDS = {word: (k, f) for k, f in enumerate(faces.FACTORS) for word in f.words}


class Drawer(Blank):
    """A model that draws a face of the caption, what it leaves open being the noise's."""

    def sample(self, latent, **options):
        return faces.render(obeyed(self.drawn(latent), latent.prompts), SIZE)

    def drawn(self, latent):
        places = latent.parts["noise"].flatten(1)[:, 0].abs() * 1e6
        return known("judge", places.long().tolist())


class Portraits(Editor[LatentModel]):
    """Draws the subject as the prompt asks, what it leaves open as other faces have it."""

    paper = "none"
    families = (LatentModel,)

    def personalise(self, references, ids, prompts):
        rows = [
            self.subject(references, i, p) if SUBJECT in p else self.stranger(references, i, p)
            for i, p in zip(ids, prompts, strict=True)
        ]
        return torch.stack(rows)

    def subject(self, references, name, prompt):
        free = obeyed(self.attributes(name), (self.read(prompt),))
        return faces.render(torch.where(FREE, free, self.who(name)), SIZE)[0].clamp(-1, 1)

    def who(self, name):
        return known("test", [self.person(name)])

    def read(self, prompt):
        return prompt

    def person(self, name):
        return int(name.split("/")[1])

    def attributes(self, name):
        _, person, draw = name.split("/")
        return known("judge", [1000 + 10 * int(person) + int(draw)])

    def stranger(self, references, name, prompt):
        latent = self.model.prior(self.streams, (name,))
        return self.model.sample(type(latent)(latent.parts, 0, (prompt,)))[0].clamp(-1, 1)


class Copies(Portraits):
    """Gives a reference back, another one for each draw."""

    def subject(self, references, name, prompt):
        return seen(references.images[int(name.split("/")[2]) % len(references)]).clamp(-1, 1)


class Deaf(Portraits):
    """Draws the subject and takes no notice of the prompt."""

    def read(self, prompt):
        return ""


class SomebodyElse(Portraits):
    """Obeys the prompt and draws whom it likes."""

    def person(self, name):
        return super().person(name) + 1


class OnePicture(Portraits):
    """Obeys the prompt with one picture of the subject."""

    def attributes(self, name):
        return super().attributes(name.rpartition("/")[0] + "/0")


class OneForAll(OnePicture):
    """Draws one picture of the subject whatever the prompt."""

    def read(self, prompt):
        return ""


class Obsessed(Portraits):
    """Draws the subject where somebody else is asked for."""

    def stranger(self, references, name, prompt):
        own, person, _ = name.split("/")
        return self.subject(references, f"{own}/{person}/0", prompt)


class Remembered(Portraits):
    """Knows whom the model has invented."""

    def who(self, name):
        noise = self.model.prior(self.streams, (f"test/{self.person(name)}/invented",))
        return self.model.drawn(noise)


class ManyPeople(Portraits):
    """Draws somebody else each time."""

    def who(self, name):
        return self.attributes(name)


class OneFace(Portraits):
    """Draws one person for every invented one."""

    def who(self, name):
        return known("test", [77])


def obeyed(factors, captions):
    """Return factors with all that captions name set to what they say."""
    found = factors.clone()
    for row, caption in zip(found, captions, strict=True):
        for word in caption.split():
            if word in WORDS:
                column, factor = WORDS[word]
                row[column] = factor.words.index(word) / (len(factor.words) - 1)
    return found
