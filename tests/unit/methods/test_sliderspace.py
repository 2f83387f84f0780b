"""SliderSpace: what sliders are trained for, how one is asked for, and draws with several."""

from pathlib import Path

import pytest
import torch

from latentbench.cache import Cache
from latentbench.conformance import toy
from latentbench.errors import BadInput, Incompatible
from latentbench.fitting import Fitting
from latentbench.streams import Streams
from latentbench.types import Edit, Latent, Space
from methods.directions.sliderspace import SliderSpace

DATA, STRENGTHS = toy.ToyData(), torch.tensor([0.0, 1.0, 2.0])
SMALL = {"directions": 3, "samples": 8, "drawn": 3, "batch": 2, "mixed": 2, "iterations": 25,
         "learning_rate": 0.02}  # fmt: skip


def attached(model, folder: Path | None = None, fitting: Fitting | None = None, **settings):
    editor = SliderSpace(**{**SMALL, **settings})
    editor.attach(model, Streams(0), Cache(folder), {"scorer": toy.PatternScorer()}, fitting)
    return editor


def fitted(model, **settings):
    editor = attached(model, **settings)
    with torch.enable_grad():
        editor.fit(DATA, [Edit("direction 0", component=0)])
    return editor


@pytest.fixture(scope="module")
def learned(pixel):
    return fitted(pixel)


def agreement(editor):
    """Cosines of what each slider does to unseen noises with each component."""
    made, v = editor.components()
    own = Latent({space: part[:4] for space, part in made.parts.items()})
    with torch.no_grad():
        moved = [editor.effects(editor.sliders_, range(3), own, f"unseen/{k}") for k in range(4)]
    return torch.einsum("nkbd,jd->nbkj", torch.stack(moved), v).mean((0, 1))


def test_a_slider_moves_features_along_its_own_component(pixel, learned):
    before, after = agreement(fitted(pixel, iterations=0)), agreement(learned)
    assert after.diag().mean() > before.diag().mean() + 0.3, (before, after)
    rest = after[~torch.eye(3, dtype=torch.bool)]
    assert after.diag().mean() > rest.abs().mean() + 0.2, after


def test_components_are_those_of_the_features_and_are_made_once(pixel, tmp_path):
    editor = attached(pixel, tmp_path)
    made, v = editor.components()
    latents = made.parts[Space.VAE]
    phi = toy.PatternScorer().image(pixel.decode(latents))
    spread = [float((phi @ u).var()) for u in v]
    assert spread == sorted(spread, reverse=True)
    torch.testing.assert_close(v @ v.T, torch.eye(3), rtol=1e-4, atol=1e-4)
    before = pixel.evaluations.forward
    again, _ = attached(pixel, tmp_path).components()
    assert again.parts.keys() == {Space.VAE} and torch.equal(again.parts[Space.VAE], latents)
    assert pixel.evaluations.forward == before


@pytest.mark.slow
def test_a_slider_is_asked_for_by_its_number_and_has_two_sides(learned):
    batch = DATA.batch("test", [0, 1])
    one, two = (learned.edit(batch, Edit("k", component=k), STRENGTHS) for k in (0, 1))
    back = learned.edit(batch, Edit("k", sign=-1, component=0), STRENGTHS)
    assert float((one[:, 2] - two[:, 2]).abs().max()) > 1e-3
    assert float((one[:, 2] - back[:, 2]).abs().max()) > 1e-3
    own = learned.decode(learned.invert(batch))
    for images in (one, two, back):
        torch.testing.assert_close(images[:, 0], own, rtol=1e-5, atol=1e-5)
    alone = learned.edit(batch, Edit("k", component=0), STRENGTHS[1:2])
    torch.testing.assert_close(alone[:, 0], one[:, 1], rtol=1e-4, atol=1e-4)
    other = attached(learned.model)
    other.load_state(learned.state())
    assert torch.equal(other.edit(batch, Edit("k", component=0), STRENGTHS), one)
    for wrong in (Edit("hat+", "hat"), Edit("k", component=3)):
        with pytest.raises(BadInput, match="by number, 0 to 2"):
            learned.edit(batch, wrong, STRENGTHS)


def test_each_draw_has_sliders_of_its_own(pixel, learned):
    ids = ("a", "b", "c")
    images = learned.generate(ids, None)
    again = learned.generate(("c",), None)
    torch.testing.assert_close(images[2:], again, rtol=1e-4, atol=1e-4)
    x = pixel.prior(learned.streams, ids).parts[Space.NOISE]
    assert torch.equal(learned.generate(ids, None, x), images)
    bare = pixel.sample(pixel.prior(learned.streams, ids))
    assert float((images - bare).flatten(1).abs().amax(1).min()) > 1e-3


def test_an_image_keeps_its_own_code(diffae):
    """Found under it, decoded, changed and trained on under it; a drawn one likewise."""
    editor, batch = attached(diffae, samples=6), DATA.batch("test", [0, 1])
    editor.sliders_ = {name: value.to(diffae.device) for name, value in editor._first().items()}
    latent = editor.invert(batch)
    own = editor.decode(latent)
    assert torch.equal(own, diffae.sample(diffae.invert(batch, Cache(None)), guidance=1.0))
    images = editor.edit(batch, Edit("k", component=0), torch.zeros(1))
    torch.testing.assert_close(images[:, 0], own, rtol=1e-5, atol=1e-5)
    none = {name: 0 * value for name, value in editor.sliders_.items()}
    editor.sliders_, first = none, editor.sliders_
    plain = diffae.sample(diffae.prior(editor.streams, ("a", "b")))
    torch.testing.assert_close(editor.generate(("a", "b"), None), plain, rtol=1e-4, atol=1e-4)
    editor.sliders_ = first
    made, _ = editor.components()
    drawn = diffae.prior(editor.streams, [f"sample/{k}" for k in range(6)])
    code = made.parts[Space.SEMANTIC]
    torch.testing.assert_close(code, drawn.parts[Space.SEMANTIC], rtol=1e-4, atol=1e-4)
    clean = diffae.encode(diffae.sample(drawn).clamp(-1, 1))
    torch.testing.assert_close(made.parts[Space.VAE].clamp(-1, 1), clean, rtol=1e-3, atol=1e-3)
    told = []
    asked = diffae.forward
    diffae.forward = lambda x, t, c, taps=None: told.append(c) or asked(x, t, c, taps)
    try:
        editor.effects(editor.sliders_, [0, 2], made, "draw")
    finally:
        del diffae.forward
    plain_call, moved = (c.tensors["semantic"] for c in told)
    assert torch.equal(plain_call, code) and torch.equal(moved, code.repeat(2, 1))


def test_a_killed_fit_goes_on_where_it_stopped(pixel, tmp_path):
    class Killed(Exception):
        pass

    def kill(step: int, count: int) -> None:
        if step == 4:
            raise Killed

    settings = {"iterations": 6}
    whole = fitted(pixel, **settings).state()
    first = attached(pixel, tmp_path, Fitting(tmp_path, 0.0, kill), **settings)
    with torch.enable_grad(), pytest.raises(Killed):
        first.fit(DATA, [])
    second = attached(pixel, tmp_path, Fitting(tmp_path, 0.0), **settings)
    before = pixel.evaluations.backward
    with torch.enable_grad():
        second.fit(DATA, [])
    assert pixel.evaluations.backward - before <= 3 * 3 * 2  # steps, sliders, images
    for name, value in second.state().items():
        torch.testing.assert_close(value, whole[name])


def test_layers_of_the_prompt_alone_need_a_model_that_reads_one(latent, pixel):
    spaces, _ = SliderSpace.required(["edit"], {"layers": "cross_kv"})
    assert {Space.TEXT, Space.ATTENTION} <= spaces
    editor = fitted(latent, layers="cross_kv", iterations=1)
    assert {n.rsplit(".", 1)[1] for n in editor.state()} == {"to_k", "to_v"}
    with pytest.raises(Incompatible, match="no linear layer"):
        fitted(pixel, layers="cross_kv")


def test_what_does_not_go_together_is_refused(pixel):
    for wrong in ({"samples": 3}, {"drawn": 4}, {"mixed": 4}, {"batch": 9}):
        with pytest.raises(BadInput):
            SliderSpace(**{**SMALL, **wrong})
    made = pixel.evaluations.forward
    with pytest.raises(BadInput, match="3 dimensions"):
        fitted(pixel, directions=4)
    assert pixel.evaluations.forward == made  # before anything is sampled
    with pytest.raises(BadInput, match="call fit, or load_state"):
        attached(pixel).generate(("a",), None)
    with pytest.raises(BadInput, match="take benchmark=direction_discovery"):
        attached(pixel).fit(DATA, [Edit("hat+", "hat")])
