"""Asyrp as a sketch: a small network learns how to shift h_t so that a caption fits better."""

from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar

import pytest
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from latentbench.cache import Cache
from latentbench.conformance import toy
from latentbench.data.dataset import Dataset
from latentbench.editor import Editor
from latentbench.errors import unknown
from latentbench.model import DiffusionModel
from latentbench.sampling.loop import Intervention, Recorder, Step, denoise, generate, plain
from latentbench.streams import Streams
from latentbench.types import Batch, Capability, Edit, Latent, Space

TIME = 8  # numbers that a timestep is told in


class Shift(nn.Module):
    """f(h_t, t): two 1x1 convolutions, the time added between them."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.into, self.time = nn.Conv2d(channels, channels, 1), nn.Linear(TIME, channels)
        self.norm, self.out = (
            nn.GroupNorm(8, channels, affine=False),
            nn.Conv2d(channels, channels, 1),
        )

    def forward(self, h: Float[Tensor, "r c h w"], timestep: float) -> Float[Tensor, "r c h w"]:
        """Return the shift of strength 1."""
        waves = timestep / 1000 * 2.0 ** torch.arange(TIME // 2)
        time = self.time(torch.cat([waves.sin(), waves.cos()]).to(h))
        return self.out(F.silu(self.norm(F.silu(self.into(h) + time[:, None, None]))))

    def start(self, streams: Streams, name: str) -> None:
        """Fill it from the cell's streams: normal weights, no biases."""
        for key, p in self.named_parameters():
            normal = streams.normal(f"asyrp/{name}", (key,), p.shape)[0]
            p.data = normal * p.shape[1] ** -0.5 if p.dim() > 1 else torch.zeros(p.shape)


class AddShift(Intervention):
    """h_t + g f(h_t, t), in the predicted x0 alone."""

    asymmetric = True

    def __init__(self, shift: Shift, strength: Float[Tensor, " b"], stop: float) -> None:
        self.shift, self.strength, self.window = shift, strength, (0.0, stop)

    def bottleneck(self, step: Step, h: Float[Tensor, "k b c h w"]) -> Float[Tensor, "k b c h w"]:
        """Return h_t, shifted."""
        change = self.shift(h.flatten(0, 1), step.timestep).unflatten(0, h.shape[:2])
        return h + self.strength.to(h).reshape(1, -1, 1, 1, 1) * change


class Asyrp(Editor[DiffusionModel]):
    """An implicit direction of h-space per edit, learned by a directional loss of a scorer.

    Source: "Diffusion Models already have a Semantic Latent Space", sections 3 and 4. Here without
    the quality boost of the last steps, and with a fixed end of the editing interval.
    """

    paper = "Diffusion Models already have a Semantic Latent Space, sections 3 and 4"
    scope = "global"
    others: ClassVar[Mapping[str, str]] = {"scorer": "scorer"}
    requires: ClassVar[Mapping[str, frozenset[Space]]] = {
        "invert": frozenset({Space.NOISE}),
        "edit": frozenset({Space.NOISE, Space.BOTTLENECK}),
    }
    needs: ClassVar[Mapping[str, frozenset[Capability]]] = {"edit": frozenset({Capability.SCORER})}

    def __init__(
        self,
        *,
        scorer: str = "clip1",
        passes: int = 4,
        images: int = 4,
        learning_rate: float = 0.02,
        keep: float = 0.3,
        stop: float = 0.8,
    ) -> None:
        self.scorer, self.passes, self.images = scorer, passes, images
        self.learning_rate, self.keep, self.stop = learning_rate, keep, stop
        self.shifts_: dict[str, Shift] = {}

    def fit(self, data: Dataset, edits: Sequence[Edit]) -> None:
        """Learn a shift for each edit that is described in words."""
        self.shifts_ = {e.name: self._learn(data, e.name, e.words) for e in edits if e.words}

    def state(self) -> dict[str, Tensor]:
        """Return the weights of all shifts."""
        return {
            f"{name}/{key}": weight
            for name, shift in self.shifts_.items()
            for key, weight in shift.state_dict().items()
        }

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Take the weights back."""
        for name in dict.fromkeys(key.partition("/")[0] for key in state):
            own = {k.partition("/")[2]: v for k, v in state.items() if k.startswith(f"{name}/")}
            self.shifts_[name] = self._empty(len(own["into.bias"]))
            self.shifts_[name].load_state_dict(own)

    def invert(self, batch: Batch) -> Latent:
        """Return x_T."""
        return self.model.invert(batch, self.cache)

    def decode(self, latent: Latent) -> Float[Tensor, "b 3 h w"]:
        """Return the images of x_T."""
        return self.model.sample(latent, guidance=1.0)

    def edit(
        self, batch: Batch, edit: Edit, strengths: Float[Tensor, " s"]
    ) -> Float[Tensor, "b s 3 h w"]:
        """Return the images with the edit's shift at each strength."""
        if edit.name not in self.shifts_:
            raise unknown("edit", edit.name, self.shifts_)
        x = self.invert(batch).parts[Space.NOISE].repeat_interleave(len(strengths), 0)
        change = AddShift(self.shifts_[edit.name], strengths.repeat(len(batch)), self.stop)
        images = self.model.sample(Latent({Space.NOISE: x}), guidance=1.0, interventions=[change])
        return images.unflatten(0, (len(batch), len(strengths)))

    def _learn(self, data: Dataset, name: str, words: tuple[str, str]) -> Shift:
        shift = self._empty(self._channels())
        shift.start(self.streams, name)
        adam = torch.optim.Adam(shift.parameters(), self.learning_rate)
        tensors = dict(shift.named_parameters())
        for number in self.fitting.steps(f"asyrp-{name}", self.passes, tensors, adam):
            chosen = self.streams.choice(
                f"asyrp/{name}/{number}", data.size("generator"), self.images
            )
            for loss in self.losses(shift, data.batch("generator", chosen), words):
                adam.zero_grad()
                loss.backward()
                adam.step()
        return shift.requires_grad_(False)

    def losses(self, shift: Shift, batch: Batch, words: tuple[str, str]) -> Iterator[Tensor]:
        """Yield the loss of each step of the editing interval; no gradient runs through time."""
        model, scorer, grid = self.model, self.parts["scorer"], self.model.grid()
        source, target = scorer.text(words)
        before = scorer.image(batch.images)
        x = kept = self.invert(batch).parts[Space.NOISE]
        terms, one = plain(model.unconditional(len(batch))), torch.ones(len(batch))
        for i in range(round(self.stop * grid.n)):
            edited, original = Recorder(predictions=True), Recorder(predictions=True)
            changes = [AddShift(shift, one, self.stop), edited]
            reach = {"grid": grid, "start": i, "stop": i + 1}
            x = generate(model, x, terms, **reach, interventions=changes).detach()
            kept = generate(model, kept, terms, **reach, interventions=[original]).detach()
            image, x0 = model.decode(edited.x0[i]), model.decode(original.x0[i])
            cosine = F.cosine_similarity(scorer.image(image) - before, target - source)
            yield (-((1 + cosine) / 2).log() + self.keep * (image - x0).abs().mean()).mean()

    def _empty(self, channels: int) -> Shift:
        with torch.device("meta"):
            shift = Shift(channels)
        return shift.to_empty(device=self.model.device)

    def _channels(self) -> int:
        recorder, model = Recorder(bottleneck=True), self.model
        x, terms = torch.zeros(1, *model.latent_shape), plain(model.unconditional(1))
        with torch.no_grad():
            denoise(
                model,
                x.to(model.device),
                terms,
                grid=model.grid(),
                level=0,
                interventions=[recorder],
            )
        return recorder.h[0].shape[1]


# ---------------------------------------------------------------- what must hold


DATA, WORDS = toy.ToyData(), ("face", "face hat")
HAT = Edit("hat+", "hat", words=WORDS)
STRENGTHS = torch.tensor([0.0, 1.0])


def attached(model, **settings) -> Asyrp:
    editor = Asyrp(**settings)
    editor.attach(model, Streams(0), Cache(None), {"scorer": toy.PatternScorer()})
    return editor


def fitted(model, **settings) -> Asyrp:
    editor = attached(model, **settings)
    with torch.enable_grad():
        editor.fit(DATA, [HAT])
    return editor


@pytest.fixture(scope="module")
def learned(pixel):
    return fitted(pixel)


def total(editor: Asyrp) -> float:
    losses = editor.losses(editor.shifts_["hat+"], DATA.batch("test", range(4)), WORDS)
    return float(sum(losses))


def test_the_loss_falls_on_images_that_it_did_not_learn_from(pixel, learned):
    assert total(learned) < 0.8 * total(fitted(pixel, passes=0))


def test_the_shift_changes_x0_and_nothing_of_the_direction_to_x_t(pixel, learned):
    x, terms = (
        learned.invert(DATA.batch("test", [0])).parts[Space.NOISE],
        plain(pixel.condition(None, 1)),
    )
    plain_step, shifted = Recorder(predictions=True), Recorder(predictions=True)
    change = AddShift(learned.shifts_["hat+"], torch.ones(1), 1.0)
    a = generate(pixel, x, terms, stop=1, interventions=[plain_step])
    b = generate(pixel, x, terms, stop=1, interventions=[change, shifted])
    moved = shifted.x0[0] - plain_step.x0[0]
    assert float(moved.abs().max()) > 0.01 and torch.equal(shifted.eps[0], plain_step.eps[0])
    torch.testing.assert_close(b - a, pixel.grid().levels(1, x)[0] * moved, rtol=1e-3, atol=1e-5)


def test_strength_0_is_the_reconstruction_and_1_is_not(learned):
    batch = DATA.batch("test", [0, 1])
    images = learned.edit(batch, HAT, STRENGTHS)
    torch.testing.assert_close(
        images[:, 0], learned.decode(learned.invert(batch)), rtol=1e-4, atol=1e-5
    )
    assert float((images[:, 1] - images[:, 0]).abs().max()) > 0.01


def test_what_was_learned_is_kept_as_tensors(pixel, learned):
    other, batch = attached(pixel), DATA.batch("test", [0])
    other.load_state(learned.state())
    assert torch.equal(other.edit(batch, HAT, STRENGTHS), learned.edit(batch, HAT, STRENGTHS))
    with pytest.raises(Exception, match="unknown edit 'beard'"):
        other.edit(batch, Edit("beard"), STRENGTHS)


def test_model_and_random_state_are_as_they_were(pixel):
    weights, state = pixel.fingerprint(), torch.get_rng_state()
    fitted(pixel, passes=1)
    assert pixel.fingerprint() == weights and torch.equal(torch.get_rng_state(), state)
