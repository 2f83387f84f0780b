"""NoiseCLR as a sketch: words without a meaning learn one each, by contrast of their effects."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import pytest
import torch
from jaxtyping import Float
from torch import Tensor

from latentbench.cache import Cache
from latentbench.conformance import toy
from latentbench.data.dataset import Dataset
from latentbench.editor import Editor
from latentbench.errors import BadInput
from latentbench.model import Condition, DiffusionModel
from latentbench.sampling.loop import Intervention, Step, Term, noise_to_level, plain, predict
from latentbench.streams import Streams
from latentbench.types import Batch, Capability, Edit, Latent, Space

WORD = "<direction>"


class Steer(Intervention):
    """Adds g (eps(x_t, c_d) - eps(x_t, c_empty)) in a window of the steps."""

    def __init__(
        self,
        word: Condition,
        empty: Condition,
        strength: Float[Tensor, " b"],
        window: tuple[float, float],
    ) -> None:
        self.word, self.empty, self.strength, self.window = word, empty, strength, window

    def terms(self, step: Step) -> Sequence[Term]:
        """Return both terms, whose weights add up to zero."""
        return (
            Term("direction", self.word, self.strength),
            Term("without", self.empty, -self.strength),
        )


class NoiseCLR(Editor[DiffusionModel]):
    """K word embeddings: alike in what one does to all images, unlike what the others do.

    Source: "NoiseCLR: A Contrastive Learning Approach for Unsupervised Discovery of Interpretable
    Directions in Diffusion Models", section 3. A direction is asked for by number.
    """

    paper = "NoiseCLR: A Contrastive Learning Approach for Unsupervised Discovery, section 3"
    scope = "global"
    requires: ClassVar[Mapping[str, frozenset[Space]]] = {
        "invert": frozenset({Space.NOISE}),
        "edit": frozenset({Space.NOISE, Space.TEXT}),
    }
    needs: ClassVar[Mapping[str, frozenset[Capability]]] = {"edit": frozenset({Capability.WORDS})}

    def __init__(
        self,
        *,
        directions: int = 4,
        compared: int = 2,
        iterations: int = 12,
        images: int = 4,
        learning_rate: float = 0.02,
        temperature: float = 0.5,
        window: tuple[float, float] = (0.0, 1.0),
        max_strength: float = 6.0,
    ) -> None:
        self.directions, self.compared, self.iterations = directions, compared, iterations
        self.images, self.learning_rate, self.temperature = images, learning_rate, temperature
        self.window, self.max_strength = window, max_strength

    def fit(self, data: Dataset, edits: Sequence[Edit]) -> None:
        """Learn all directions at once; what will be asked for decides nothing."""
        table = self.model.vocabulary()
        names = [str(k) for k in range(self.directions)]
        start = self.streams.normal("noiseclr/words", names, table.shape[1:], table.device)
        words = (table.std() * start).requires_grad_()
        adam = torch.optim.AdamW([words], self.learning_rate, weight_decay=0)
        for step in self.fitting.steps("noiseclr", self.iterations, {"words": words}, adam):
            adam.zero_grad()
            self._loss(words, data, step).backward()
            adam.step()
        self.words_ = words.detach()

    def state(self) -> dict[str, Tensor]:
        """Return the words."""
        return {"words": self.words_}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Take the words back."""
        self.words_ = state["words"].to(self.model.device)

    def invert(self, batch: Batch) -> Latent:
        """Return x_T under the empty prompt."""
        return self.model.invert(batch, self.cache)

    def decode(self, latent: Latent) -> Float[Tensor, "b 3 h w"]:
        """Return the images of x_T under the empty prompt."""
        return self.model.sample(latent, guidance=1.0)

    def edit(
        self, batch: Batch, edit: Edit, strengths: Float[Tensor, " s"]
    ) -> Float[Tensor, "b s 3 h w"]:
        """Return the images with the direction of the edit's number at each strength."""
        if edit.component is None or not 0 <= edit.component < len(self.words_):
            raise BadInput(
                f"direction {edit.component} of edit {edit.name!r} does not exist; directions are "
                f"asked for by number, 0 to {len(self.words_) - 1}"
            )
        x = self.invert(batch).parts[Space.NOISE].repeat_interleave(len(strengths), 0)
        word = self._condition(self.words_[edit.component], len(x))
        empty = self.model.unconditional(len(x))
        change = Steer(word, empty, strengths.to(x).repeat(len(batch)), self.window)
        images = self.model.sample(Latent({Space.NOISE: x}), guidance=1.0, interventions=[change])
        return images.unflatten(0, (len(batch), len(strengths)))

    def effects(
        self, words: Float[Tensor, "k d"], data: Dataset, draw: str
    ) -> Float[Tensor, "k b n"]:
        """Return eps(x_t, c_k) - eps(x_t, c_empty) of images at one level, unit vectors."""
        model, grid = self.model, self.model.grid()
        batch = data.batch(
            "generator", self.streams.choice(draw, data.size("generator"), self.images)
        )
        level = int(torch.randint(grid.n, (), generator=self.streams.generator(draw, "level")))
        z0 = model.encode(batch.images)
        noise = self.streams.normal(draw, batch.ids, z0.shape[1:], z0.device)
        x = noise_to_level(grid, z0, noise, level)

        def eps(condition: Condition) -> Tensor:
            return predict(model, x, grid, level, plain(condition))[1].flatten(1)

        base = eps(model.unconditional(len(x)))
        moves = torch.stack([eps(self._condition(word, len(x))) - base for word in words])
        return torch.nn.functional.normalize(moves, dim=2)

    def _loss(self, words: Float[Tensor, "k d"], data: Dataset, step: int) -> Float[Tensor, ""]:
        """Return -log(pos / neg) of one direction against others, at one level."""
        one, *others = self.streams.choice(f"noiseclr/k/{step}", len(words), 1 + self.compared)
        effects = self.effects(words[[one, *others]], data, f"noiseclr/{step}")
        same = effects[0] @ effects[0].T
        pairs = torch.triu_indices(*same.shape, offset=1)
        other = (effects[:1] * effects[1:]).sum(2)
        positive, negative = (
            (likeness / self.temperature).exp().mean() for likeness in (same[*pairs], other)
        )
        return (negative / positive).log()

    def _condition(self, word: Float[Tensor, " d"], rows: int) -> Condition:
        told = self.model.condition_with_words([WORD], {WORD: word})
        return told.map(lambda row: row.expand(rows, *row.shape[1:]))


# ---------------------------------------------------------------- what must hold


DATA, STRENGTHS = toy.ToyData(), torch.tensor([0.0, 6.0])


def attached(model, **settings: Any) -> NoiseCLR:
    editor = NoiseCLR(**settings)
    editor.attach(model, Streams(0), Cache(None))
    return editor


def fitted(model, **settings: Any) -> NoiseCLR:
    editor = attached(model, **settings)
    with torch.enable_grad():
        editor.fit(DATA, [])
    return editor


@pytest.fixture(scope="module")
def learned(latent):
    return fitted(latent)


def margin(editor: NoiseCLR) -> float:
    """How much more alike one direction's effects are than those of two, on unseen draws."""
    found = []
    for draw in range(4):
        effects = editor.effects(editor.words_, DATA, f"unseen/{draw}")
        k, b, _ = effects.shape
        same = torch.einsum("kbn,kcn->kbc", effects, effects)[:, ~torch.eye(b, dtype=torch.bool)]
        other = torch.einsum("kbn,jbn->kjb", effects, effects)[~torch.eye(k, dtype=torch.bool)]
        found.append(float(same.mean() - other.mean()))
    return sum(found) / len(found)


def test_directions_part_from_each_other_on_unseen_images(latent, learned):
    before, after = margin(fitted(latent, iterations=0)), margin(learned)
    assert after > before + 0.1, (before, after)


def test_a_direction_is_asked_for_by_its_number(learned):
    batch = DATA.batch("test", [0, 1])
    one, two = (learned.edit(batch, Edit("k", component=k), STRENGTHS) for k in (0, 1))
    assert float((one[:, 1] - two[:, 1]).abs().max()) > 1e-3
    torch.testing.assert_close(one[:, 0], two[:, 0], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(
        one[:, 0], learned.decode(learned.invert(batch)), rtol=1e-4, atol=1e-5
    )
    for wrong in (Edit("hat+", "hat"), Edit("k", component=4)):
        with pytest.raises(BadInput, match="by number, 0 to 3"):
            learned.edit(batch, wrong, STRENGTHS)


def test_outside_its_window_a_direction_does_nothing(latent, learned):
    batch, late = DATA.batch("test", [0]), attached(latent, window=(0.6, 1.0))
    late.load_state(learned.state())
    x, edit = late.invert(batch).parts[Space.NOISE], Edit("k", component=0)
    whole, part = (e.edit(batch, edit, STRENGTHS)[:, 1] for e in (learned, late))
    assert float((whole - part).abs().max()) > 1e-3
    before = latent.evaluations.forward
    late.decode(Latent({Space.NOISE: x}))
    alone, before = latent.evaluations.forward - before, latent.evaluations.forward
    late.edit(batch, edit, STRENGTHS[1:])
    assert latent.evaluations.forward - before == alone + 2 * 2 + alone  # inversion, 2 of 5 steps


def test_a_fit_leaves_model_and_random_state_as_they_were(latent):
    weights, state = latent.fingerprint(), torch.get_rng_state()
    fitted(latent, iterations=1)
    assert latent.fingerprint() == weights and torch.equal(torch.get_rng_state(), state)
