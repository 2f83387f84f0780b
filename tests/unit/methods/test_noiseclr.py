"""NoiseCLR: the loss, what it learns, and how a direction is asked for."""

import pytest
import torch

from latentbench.cache import Cache
from latentbench.conformance import toy
from latentbench.errors import BadInput
from latentbench.streams import Streams
from latentbench.types import Edit, Latent, Space
from methods.directions.noiseclr import NoiseCLR, contrast

DATA, STRENGTHS = toy.ToyData(), torch.tensor([0.0, 6.0])
SMALL = {"directions": 4, "compared": 2, "images": 4, "batch": 4, "iterations": 12,
         "learning_rate": 0.02}  # fmt: skip


def attached(model, **settings):
    editor = NoiseCLR(**{**SMALL, **settings})
    editor.attach(model, Streams(0), Cache(None))
    return editor


def fitted(model, **settings):
    editor = attached(model, **settings)
    with torch.enable_grad():
        editor.fit(DATA, [Edit("direction 0", component=0)])
    return editor


@pytest.fixture(scope="module")
def learned(latent):
    return fitted(latent)


def margin(editor):
    """How much more alike one direction's effects are than those of two, on unseen draws."""
    latents, found = editor._encoded(DATA, range(8, 12)), []
    for draw in range(4):
        effects = editor.effects(editor.words_, latents, f"unseen/{draw}")
        k, b, _ = effects.shape
        same = torch.einsum("kbn,kcn->kbc", effects, effects)[:, ~torch.eye(b, dtype=torch.bool)]
        other = torch.einsum("kbn,jbn->kjb", effects, effects)[~torch.eye(k, dtype=torch.bool)]
        found.append(float(same.mean() - other.mean()))
    return sum(found) / len(found)


def test_the_loss_is_that_of_the_equation():
    """Against sums over all pairs, written out."""
    effects = torch.nn.functional.normalize(
        torch.randn(3, 4, 5, generator=torch.Generator().manual_seed(0)), dim=2
    )
    own, tau = effects[0], 0.5
    pairs = [torch.exp(own[n] @ own[m] / tau) for n in range(4) for m in range(n + 1, 4)]
    others = [torch.exp(own[n] @ effects[j, n] / tau) for j in (1, 2) for n in range(4)]
    expected = -(torch.stack(pairs).mean() / torch.stack(others).mean()).log()
    torch.testing.assert_close(contrast(effects, tau), expected)


def test_directions_part_from_each_other_on_unseen_images(latent, learned):
    before, after = margin(fitted(latent, iterations=0)), margin(learned)
    assert after > before + 0.1, (before, after)


def test_a_direction_is_asked_for_by_its_number_and_has_two_sides(learned):
    batch = DATA.batch("test", [0, 1])
    one, two = (learned.edit(batch, Edit("k", component=k), STRENGTHS) for k in (0, 1))
    back = learned.edit(batch, Edit("k", sign=-1, component=0), STRENGTHS)
    assert float((one[:, 1] - two[:, 1]).abs().max()) > 1e-3
    assert float((one[:, 1] - back[:, 1]).abs().max()) > 1e-3
    own = learned.decode(learned.invert(batch))
    for images in (one, two, back):
        torch.testing.assert_close(images[:, 0], own, rtol=1e-4, atol=1e-4)
    for wrong in (Edit("hat+", "hat"), Edit("k", component=4)):
        with pytest.raises(BadInput, match="by number, 0 to 3"):
            learned.edit(batch, wrong, STRENGTHS)


def test_what_names_an_attribute_is_refused_before_it_learns(latent):
    with pytest.raises(BadInput, match="take benchmark=direction_discovery"):
        attached(latent).fit(DATA, [Edit("hat+", "hat")])


def test_what_has_learned_nothing_says_so(latent):
    with pytest.raises(BadInput, match="has learned nothing yet; call fit, or load_state"):
        attached(latent).edit(DATA.batch("test", [0]), Edit("k", component=0), STRENGTHS)


def test_outside_its_window_a_direction_costs_nothing(latent, learned):
    batch, late = DATA.batch("test", [0]), attached(latent, start=0.6)
    late.load_state(learned.state())
    x = late.invert(batch).parts[Space.NOISE]
    before = latent.evaluations.forward
    late.decode(Latent({Space.NOISE: x}))
    alone, before = latent.evaluations.forward - before, latent.evaluations.forward
    late.edit(batch, Edit("k", component=0), STRENGTHS[1:])
    assert latent.evaluations.forward - before == alone + 2 * 2 + alone  # inverts, 2 of 5 steps


def test_it_says_how_many_directions_it_finds():
    assert NoiseCLR.directions({"directions": 7}) == 7 and NoiseCLR.directions({}) == 16
    with pytest.raises(BadInput, match="must be below directions"):
        NoiseCLR(directions=4, compared=4)
