"""CharacterFactory: a GAN over pairs of words that are names of people."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Annotated, Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from latentbench.bounds import Count, Guidance, NotNegative, Positive, Steps, between
from latentbench.content import content_hash
from latentbench.data.dataset import Dataset
from latentbench.editor import Editor
from latentbench.errors import BadInput
from latentbench.model import Condition, DiffusionModel
from latentbench.parameterization import prediction_error
from latentbench.sampling.loop import generate, guided, plain, predict
from latentbench.types import SUBJECT, Batch, Capability, Edit, Space
from methods.directions.fit_images import refuse_too_few
from methods.personalisation.learned_subject import place_of_subject

SLOW = 0.1  # how much slower the generator's weights move (their learning rate multiplier)
LEAK = 0.2  # slope of the leaky rectifier
HIDDEN = (512, 256)  # widths of the discriminator
DROPPED = 0.2  # share of its units that dropout takes
CLIP = 1.0  # norm of gradients
CLEAR = 0.2  # distance to its end within which a photo's attribute is named

Learned = Mapping[str, Tensor]


class CharacterFactory(Editor[DiffusionModel]):
    """Draws z ~ N(0, I) and makes it two words, a first and a last name, that mean one person.

    Source: "CharacterFactory: Sampling Consistent Characters with GANs for Diffusion Models",
    section 3, and the authors' code. Real names are pairs of token embeddings w; m and s are their
    mean and deviation. G(z) = m + s LN(MLP(z)); a step draws one z and captions that put G(z) in
    different places:

    1. D learns 1/2 ((D(G(z)) - 0)^2 + (D(w + noise) - 1)^2).
    2. G learns (D(G(z)) - 1)^2 + lambda L_con, L_con the mean squared difference of what the text
       encoder makes of the two words in two of the captions.

    Deviations: captions of faces hold no names, so the real ones are learned first, by textual
    inversion of one photo each under the words for its attributes, all together; noise on real
    names is normal, a share of s, where the published is uniform and shifts their mean; D learns
    from all names of a batch (`reads`); Adam; no people are drawn by sex. The text encoder reads
    from left to right, so captions put words before the name as well: without any, L_con is 0.

    Args:
        people: real names, one for each of so many photos of the generators' split.
        name_iterations: steps of Adam that learn them.
        name_learning_rate: of that.
        z: numbers of a latent.
        iterations: steps of the GAN.
        learning_rate: of its Adam.
        batch: names and captions of each step.
        context: lambda.
        real_noise: noise on real names, as a share of s.
        reads: "batch", or "first": D sees the first name of a batch alone, as published.
        characters: "generator"; or controls, "normal": N(m, s^2) without the GAN, and "names": the
            real names.
        steps: sampling steps; default: the model's.
        guidance: guidance scale; default: the model's.

    Raises:
        BadInput: a batch of more names than there are.

    Example:
        >>> method = CharacterFactory(people=100)
        >>> # method.fit(data, []); method.invent(("one",), ("a",), (f"{SUBJECT} smiling",))
    """

    paper = "CharacterFactory: Sampling Consistent Characters with GANs, section 3"
    version = 2
    scope = "global"
    small: ClassVar[Mapping[str, Any]] = {
        "people": 4, "name_iterations": 2, "iterations": 2, "batch": 2, "z": 4,
    }  # fmt: skip
    requires: ClassVar[Mapping[str, frozenset[Space]]] = {
        "invent": frozenset({Space.NOISE, Space.TEXT})
    }
    needs: ClassVar[Mapping[str, frozenset[Capability]]] = {
        "invent": frozenset({Capability.WORDS, Capability.LABELS})
    }

    def __init__(
        self,
        *,
        people: Annotated[Count, between(2, 100_000)] = 48,
        name_iterations: Count = 100,
        name_learning_rate: Positive = 0.02,
        z: Count = 16,
        iterations: Count = 1000,
        learning_rate: Positive = 2e-4,
        batch: Annotated[Count, between(2, 10_000)] = 8,
        context: NotNegative = 8.0,
        real_noise: NotNegative = 0.05,
        reads: Literal["batch", "first"] = "batch",
        characters: Literal["generator", "normal", "names"] = "generator",
        steps: Steps | None = None,
        guidance: Guidance | None = None,
    ) -> None:
        if batch > people:
            raise BadInput(f"a batch of {batch} is more than the {people} people")
        self.people, self.name_iterations = people, name_iterations
        self.name_learning_rate, self.z, self.iterations = name_learning_rate, z, iterations
        self.learning_rate, self.batch, self.context = learning_rate, batch, context
        self.real_noise, self.reads, self.characters = real_noise, reads, characters
        self.steps, self.guidance = steps, guidance
        self.learned_: dict[str, Tensor] = {}

    def check(self, data: Dataset, steps: int | None, strengths: Sequence[float]) -> None:
        """Refuse more people than there are images."""
        refuse_too_few(self.people, data, "people")

    def fit(self, data: Dataset, edits: Sequence[Edit]) -> None:
        """Learn real names, which other settings of the GAN share, then the GAN over them."""
        model = self.model
        chosen = self.streams.choice("fit/images", data.size("generator"), self.people)
        photos = data.batch("generator", chosen)
        captions = [f"{SUBJECT} {words}".strip() for words in clear_words(photos, data)]
        settings = (self.name_iterations, self.name_learning_rate, self.streams.seed)
        key = content_hash(
            "names", self.version, model.fingerprint(), photos.images, *captions, *settings
        )
        found = self.cache.get_or_make(
            "word", key, lambda: {"names": self._names(photos.images, captions)}
        )
        names = found["names"].to(model.device)
        made = self._gan(names, vocabulary(data)) if self.characters == "generator" else {}
        self.learned_ = {"names": names, **made}

    def state(self) -> dict[str, Tensor]:
        """Return the real names, and the generator."""
        return self.learned_

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Take them back."""
        self.learned_ = {k: v.to(self.model.device) for k, v in state.items()}

    def invent(
        self, characters: Sequence[str], ids: Sequence[str], prompts: Sequence[str]
    ) -> Float[Tensor, "b 3 h w"]:
        """Return one image per id of the character, from the noise of that id.

        Raises:
            BadInput: nothing is fitted.
        """
        if not self.learned_:
            raise BadInput("character_factory has learned no names; call fit first")
        model, words = self.model, self._words(characters)
        told, null = named(model, prompts, words), model.condition(None, len(prompts))
        scale = model.guidance if self.guidance is None else self.guidance
        x = model.prior(self.streams, ids).parts[Space.NOISE]
        return model.decode(
            generate(model, x, guided(told, null, scale), grid=model.grid(self.steps))
        )

    def _words(self, characters: Sequence[str]) -> Float[Tensor, "b 2 d"]:
        """Return two words for each character."""
        names, stream = self.learned_["names"], "character_factory/z"
        if self.characters == "generator":
            z = self.streams.normal(stream, characters, (self.z,), names.device)
            found = generated(self.learned_, names, z)
        elif self.characters == "normal":
            z = self.streams.normal(stream, characters, names.shape[1:], names.device)
            found = names.mean(0) + names.std(0) * z
        else:
            draws = [self.streams.generator(stream, name) for name in characters]
            found = names[[int(torch.randint(len(names), (), generator=g)) for g in draws]]
        return found.unflatten(1, (2, -1))

    # ------------------------------------------------------------ real names

    def _names(
        self, photos: Float[Tensor, "n 3 h w"], captions: Sequence[str]
    ) -> Float[Tensor, "n e"]:
        """Return the two words, side by side, that denoise each photo best."""
        model, grid = self.model, self.model.grid()
        table, rows = model.vocabulary(), [str(k) for k in range(len(photos))]
        drawn = self.streams.normal("character_factory/names", rows, (2, table.shape[1]))
        names = (table.mean(0) + table.std() * drawn.to(table)).flatten(1).requires_grad_()
        adam = torch.optim.Adam([names], self.name_learning_rate)
        with torch.no_grad():
            z0 = model.encode(photos.to(model.device))
        for step in self.fitting.steps("names", self.name_iterations, {"names": names}, adam):
            draws = [self.streams.generator(f"character_factory/names/{step}", k) for k in rows]
            level = torch.stack([torch.randint(grid.n, (), generator=g) for g in draws])
            eps = torch.stack([torch.randn(*z0.shape[1:], generator=g) for g in draws]).to(z0)
            alpha, sigma = grid.levels(level, z0)
            told = plain(named(model, captions, names.unflatten(1, (2, -1))))
            found = predict(model, alpha * z0 + sigma * eps, grid, level, told)
            error = prediction_error(model.prediction_type, found, (z0, eps), alpha, sigma)
            adam.zero_grad()
            error.square().flatten(1).mean(1).sum().backward()  # each name its own photo
            adam.step()
        return names.detach()

    # ------------------------------------------------------------ the GAN

    def _gan(self, names: Float[Tensor, "n e"], words: Sequence[str]) -> dict[str, Tensor]:
        """Return the generator."""
        g, d = self._generator(names.shape[1]), self._discriminator(names.shape[1])
        every = {k: v.to(names.device).requires_grad_() for k, v in (g | d).items()}
        adam = torch.optim.Adam(every.values(), self.learning_rate, betas=(0.5, 0.99))
        g, d = ({k: every[k] for k in part} for part in (g, d))
        s = names.std(0)
        for step in self.fitting.steps("gan", self.iterations, every, adam):
            stream = f"character_factory/gan/{step}"
            z = self.streams.normal(stream, ("z",), (self.z,), names.device)
            masks = self._masks(stream)
            real = names[self.streams.choice(f"{stream}/names", len(names), self.batch)]
            rows = [str(k) for k in range(len(real))]
            noise = self.streams.normal(f"{stream}/noise", rows, s.shape, s.device)
            real = (real + self.real_noise * s * noise)[: 1 if self.reads == "first" else None]
            w = generated(g, names, z)
            fake, true = judged(d, w.detach(), masks), judged(d, real, masks)
            loss = 0.5 * (fake.square().mean() + (true - 1).square().mean())  # 1.
            _descend(adam, d, loss)
            loss = (judged(d, w, masks) - 1).square().mean()  # 2.
            if self.context > 0:
                captions = self._captions(stream, words)
                loss = loss + self.context * self._inconsistency(w.unflatten(1, (2, -1)), captions)
            _descend(adam, g, loss)
        return {k: v.detach() for k, v in g.items()}

    def _inconsistency(self, w: Float[Tensor, "1 2 d"], captions: Sequence[str]) -> Tensor:
        """Return L_con: how far apart the two words are in the captions' encodings."""
        told = named(self.model, captions, w.expand(len(captions), -1, -1))
        c = told.tensors["encoder_hidden_states"]
        at = [place_of_subject(self.model, caption) for caption in captions]
        said = torch.stack([row[k : k + 2].flatten() for row, k in zip(c, at, strict=True)])
        one, other = torch.combinations(torch.arange(len(said))).unbind(1)
        return (said[one] - said[other]).square().mean()

    def _captions(self, stream: str, words: Sequence[str]) -> list[str]:
        """Return captions of up to three words, with the subject in any place among them."""
        found = []
        for k in range(self.batch):
            draw = self.streams.generator(f"{stream}/caption", str(k))
            count = int(torch.randint(min(3, len(words)) + 1, (), generator=draw))
            order: list[int] = torch.randperm(len(words), generator=draw)[:count].tolist()
            said = [words[j] for j in order]
            place = int(torch.randint(count + 1, (), generator=draw))
            found.append(" ".join([*said[:place], SUBJECT, *said[place:]]))
        return found

    def _generator(self, e: int) -> dict[str, Tensor]:
        return {
            "A": self._drawn("A", e, self.z) / SLOW, "a": torch.zeros(e),
            "n": torch.ones(e), "o": torch.zeros(e),
            "B": self._drawn("B", e, e) / SLOW, "b": torch.zeros(e),
        }  # fmt: skip

    def _discriminator(self, e: int) -> dict[str, Tensor]:
        found, widths = {}, (e, *HIDDEN, 1)
        for k, (read, made) in enumerate(pairwise(widths)):
            found[f"D{k}"] = self._drawn(f"D{k}", made, read) / read**0.5
            found[f"d{k}"] = torch.zeros(made)
        return found

    def _drawn(self, name: str, *shape: int) -> Tensor:
        return self.streams.normal("character_factory/start", (name,), shape)[0]

    def _masks(self, stream: str) -> list[Tensor]:
        """Return dropout of the discriminator's hidden layers, the same for real and fake."""
        draw, kept = self.streams.generator(f"{stream}/dropout"), 1 - DROPPED
        return [(torch.rand(n, generator=draw) < kept) / kept for n in HIDDEN]


def generated(
    g: Learned, names: Float[Tensor, "n e"], z: Float[Tensor, "b z"]
) -> Float[Tensor, "b e"]:
    """Return G(z) = m + s LN(MLP(z))."""
    h = F.leaky_relu(F.linear(z, SLOW * g["A"] / z.shape[1] ** 0.5, SLOW * g["a"]), LEAK)
    h = F.layer_norm(h, h.shape[1:], g["n"], g["o"])
    h = F.leaky_relu(F.linear(h, SLOW * g["B"] / h.shape[1] ** 0.5, SLOW * g["b"]), LEAK)
    return names.mean(0) + names.std(0) * F.layer_norm(h, h.shape[1:])


def judged(
    d: Learned, w: Float[Tensor, "b e"], masks: Sequence[Float[Tensor, " _"]]
) -> Float[Tensor, "b 1"]:
    """Return D(w)."""
    h = w
    for k, mask in enumerate(masks):
        h = F.leaky_relu(F.linear(h, d[f"D{k}"], d[f"d{k}"]), LEAK) * mask.to(h)
    return F.linear(h, d[f"D{len(masks)}"], d[f"d{len(masks)}"])


def named(
    model: DiffusionModel, prompts: Sequence[str], words: Float[Tensor, "b 2 d"]
) -> Condition:
    """Return the condition of prompts with each row's two words where the subject stands."""
    own = [(f"<first-{k}>", f"<last-{k}>") for k in range(len(prompts))]
    told = [p.replace(SUBJECT, " ".join(pair)) for p, pair in zip(prompts, own, strict=True)]
    known = dict(zip((name for pair in own for name in pair), words.flatten(0, 1), strict=True))
    return model.condition_with_words(told, known)


def vocabulary(data: Dataset) -> list[str]:
    """Return the words for both ends of every attribute that has any."""
    found = [data.words(attribute) for attribute in data.attributes]
    return [word for words in found if words is not None for word in words]


def clear_words(photos: Batch, data: Dataset) -> Iterator[str]:
    """Yield, for each photo, the words for those of its attributes that are near an end."""
    assert photos.factors is not None
    for row in photos.factors.tolist():
        known = dict(zip(data.factor_names, row, strict=True))
        said = [(data.words(a), known[a]) for a in data.attributes]
        yield " ".join(
            words[round(value)]
            for words, value in said
            if words is not None and min(value, 1 - value) <= CLEAR
        )


def _descend(adam: torch.optim.Adam, part: Learned, loss: Float[Tensor, ""]) -> None:
    """Take one step of these parameters alone, which Adam tells by their having gradients."""
    adam.zero_grad()
    inputs = list(part.values())
    for parameter, gradient in zip(inputs, torch.autograd.grad(loss, inputs), strict=True):
        parameter.grad = gradient
    torch.nn.utils.clip_grad_norm_(inputs, CLIP)
    adam.step()
