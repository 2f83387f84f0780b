"""Asyrp: what it learns, where it acts, and that it learns from the scorer that it was given."""

import pytest
import torch

from latentbench.cache import Cache
from latentbench.conformance import toy
from latentbench.errors import BadInput
from latentbench.sampling.loop import Recorder, generate, plain
from latentbench.streams import Streams
from latentbench.types import Edit, Space
from methods.directions.asyrp import Asyrp, Shift

WORDS = ("face", "face hat")
DATA, HAT = toy.ToyData(), Edit("hat+", "hat", words=WORDS)


def attached(model, **settings):
    editor = Asyrp(**{"images": 4, "batch": 4, "learning_rate": 0.02, **settings})
    editor.attach(model, Streams(0), Cache(None), {"scorer": toy.PatternScorer()})
    return editor


def fitted(model, **settings):
    editor = attached(model, **settings)
    with torch.enable_grad():
        editor.fit(DATA, [HAT])
    return editor


@pytest.fixture(scope="module")
def learned(pixel):
    return fitted(pixel, w_l1=0.3)


def total(editor):
    losses = editor.losses(editor.shifts_["hat+"], DATA.batch("test", range(4)), WORDS)
    return float(sum(losses))


def test_the_loss_falls_on_images_that_it_did_not_learn_from(pixel, learned):
    untaught = attached(pixel, w_l1=0.3)
    shift = Shift(len(learned.shifts_["hat+"].into.bias))
    shift.start(Streams(0), "hat+")
    untaught.shifts_ = {"hat+": shift}
    assert total(learned) < 0.9 * total(untaught)


def test_the_shift_changes_x0_and_nothing_of_the_direction_to_x_t(pixel, learned):
    x = learned.invert(DATA.batch("test", [0])).parts[Space.NOISE]
    one, terms = torch.ones(1), plain(pixel.condition(None, 1))
    kept, moved = Recorder(predictions=True), Recorder(predictions=True)
    generate(pixel, x, terms, stop=1, interventions=[kept])
    change = learned._change(learned.shifts_["hat+"], one)
    generate(pixel, x, terms, stop=1, interventions=[change, moved])
    assert float((moved.x0[0] - kept.x0[0]).abs().max()) > 0.01
    assert torch.equal(moved.eps[0], kept.eps[0])


def test_it_acts_down_to_t_edit_and_the_last_steps_are_stochastic(pixel, learned):
    assert learned._edited() == 2 and learned._boosted() == 4  # of 5 steps
    batch = DATA.batch("test", [0, 1])
    latent = learned.invert(batch)
    assert latent.parts[Space.NOISE_MAPS].shape[:2] == (2, 1)
    alone = learned.invert(DATA.batch("test", [1])).parts[Space.NOISE_MAPS]
    assert torch.equal(latent.parts[Space.NOISE_MAPS][1:], alone)
    before = pixel.evaluations.forward
    learned.decode(latent)
    plain_cost, before = pixel.evaluations.forward - before, pixel.evaluations.forward
    learned.edit(batch, HAT, torch.ones(1))
    assert pixel.evaluations.forward - before == plain_cost + plain_cost + 2 * 2  # inverts, edits


def test_strength_0_is_the_reconstruction_and_a_state_gives_equal_edits(pixel, learned):
    batch, strengths = DATA.batch("test", [0, 1]), torch.tensor([0.0, 1.0])
    images = learned.edit(batch, HAT, strengths)
    own = learned.decode(learned.invert(batch))
    torch.testing.assert_close(images[:, 0], own, rtol=1e-4, atol=1e-5)
    assert float((images[:, 1] - images[:, 0]).abs().max()) > 0.01
    other = attached(pixel)
    other.load_state(learned.state())
    assert torch.equal(other.edit(batch, HAT, strengths), images)


def test_without_a_boost_nothing_is_drawn(pixel):
    latent = attached(pixel, t_boost=0.0).invert(DATA.batch("test", [0]))
    assert latent.parts[Space.NOISE_MAPS].numel() == 0


def test_what_cannot_be_learned_is_refused(pixel):
    with pytest.raises(BadInput, match="no words for before and after"):
        attached(pixel).fit(DATA, [Edit("hat+", "hat")])
    with pytest.raises(BadInput, match="unknown edit 'beard'"):
        attached(pixel).edit(DATA.batch("test", [0]), Edit("beard"), torch.ones(1))
    with pytest.raises(BadInput, match="the boost comes last"):
        Asyrp(t_edit=0.2, t_boost=0.5)
    with pytest.raises(BadInput, match="no whole number of batches"):
        Asyrp(images=5, batch=2)
