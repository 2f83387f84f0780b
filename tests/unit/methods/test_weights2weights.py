"""weights2weights: adapters trained side by side, their space, codes of images, directions."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from small_flows import noisiest, small_flow

from latentbench.cache import Cache
from latentbench.cells import fits
from latentbench.conformance import toy
from latentbench.errors import BadInput
from latentbench.fitting import Fitting
from latentbench.model import LowRank
from latentbench.sampling.loop import denoise, guided, noise_to_level, plain
from latentbench.streams import Streams
from latentbench.types import SUBJECT, Edit, Space
from methods.directions.adapters import Adapted
from methods.personalisation import weights2weights
from methods.personalisation.weights2weights import Weights2Weights

DATA, HAT = toy.ToyData(), Edit("hat+", "hat")
SMALL = {"people": 8, "batch": 8, "iterations": 12, "learning_rate": 0.02, "components": 5,
         "named": 3, "code_iterations": 8}  # fmt: skip


def attached(model, folder: Path | None = None, fitting: Fitting | None = None, **settings):
    editor = Weights2Weights(**{**SMALL, **settings})
    editor.attach(model, Streams(0), Cache(folder), None, fitting)
    return editor


def fitted(model, edits=(HAT,), **settings):
    editor = attached(model, **settings)
    with torch.enable_grad():
        editor.fit(DATA, list(edits))
    return editor


def trained(editor, chosen):
    with torch.enable_grad():
        return editor._trained(DATA, list(chosen))


@pytest.fixture(scope="module")
def learned(pixel):
    return fitted(pixel)


@pytest.mark.slow
def test_people_side_by_side_are_people_one_at_a_time(pixel):
    """In one call, in calls of three, and without the other people."""
    whole = trained(attached(pixel), [0, 1, 2, 3])
    apart = trained(attached(pixel, batch=3), [0, 1, 2, 3])
    alone = trained(attached(pixel), [2])
    first = attached(pixel)._first()
    moved = (whole - first).abs().amax(1)
    assert float(moved.min()) > 0.05
    torch.testing.assert_close(apart, whole, rtol=0, atol=1e-3)
    torch.testing.assert_close(alone[0], whole[2], rtol=0, atol=1e-3)


@pytest.mark.slow
def test_an_adapter_denoises_its_own_image_better_than_the_plain_model_does(pixel):
    editor = attached(pixel, iterations=40)
    theta = trained(editor, range(4))
    z0 = pixel.encode(DATA.batch("generator", range(4)).images)
    told = pixel.unconditional(4)

    def error(rows):
        with torch.no_grad():
            change = editor._unpacked(rows)
            draws = [editor.losses(z0, "abcd", change, told, f"unseen/{k}") for k in range(4)]
        return torch.stack(draws).mean(0)

    own, plain = error(theta), error(editor._first().expand(4, -1))
    assert bool((own < plain).all()), (own, plain)


@pytest.fixture(scope="module")
def flow(tmp_path_factory):
    return small_flow(tmp_path_factory.mktemp("sd3"))


def test_a_flow_learns_at_its_noisiest_level(flow):
    """There x_t is eps, of which any network's eps is right, and its velocity is not."""
    editor = attached(flow)
    theta, z0 = editor._first()[None].requires_grad_(), torch.randn(1, *flow.latent_shape)
    with torch.enable_grad():
        change, told = editor._unpacked(theta), flow.unconditional(1)
        (loss,) = editor.losses(z0, ("a",), change, told, noisiest(editor))
        loss.backward()
    assert float(flow.grid().alpha[0]) == 0 and float(loss) > 0.1
    assert float(theta.grad.abs().max()) > 1e-5


def test_a_loss_on_eps_is_that_of_eps(pixel):
    editor = attached(pixel)
    theta, z0 = editor._first()[None], torch.randn(1, *pixel.latent_shape)
    told, grid = pixel.unconditional(1), pixel.grid()
    level = int(torch.randint(grid.n, (), generator=Streams(0).generator("draw", "level")))
    eps = Streams(0).normal("draw/noise", ("a",), z0.shape[1:])
    x, change = noise_to_level(grid, z0, eps, level), editor._unpacked(theta)
    at = {"grid": grid, "level": level, "interventions": [Adapted(change)]}
    _, found = denoise(pixel, x, plain(told), **at)
    own = editor.losses(z0, ("a",), change, told, "draw")
    assert torch.equal(own, (found - eps).square().flatten(1).mean(1))


def test_the_word_alone_is_coded_and_drawn_as_people_are_learned(latent, monkeypatch):
    """Under what says nothing, which of some models is no empty prompt."""
    zeros = latent.condition(None, 1).map(torch.zeros_like)
    monkeypatch.setattr(latent, "unconditional", lambda rows: zeros.repeat(rows))
    editor, told = attached(latent, guidance=1.0), []
    d = len(editor._first())
    editor.load_state({"mean": torch.zeros(d), "std": torch.ones(d), "V": torch.zeros(5, d),
                       "spread": torch.ones(5)})  # fmt: skip

    def coded(batch, condition, owner):
        told.append(condition)
        return torch.zeros(1, 5)

    monkeypatch.setattr(editor, "coded", coded)
    monkeypatch.setattr(
        weights2weights, "guided", lambda c, *rest: told.append(c) or guided(c, *rest)
    )
    references = replace(DATA.batch("test", [5, 6]), prompts=(f"{SUBJECT} hat", SUBJECT))
    editor.personalise(references, ("a", "b"), (SUBJECT, f"a {SUBJECT}"))
    for condition, words, silent in zip(told, ("hat", "a"), (1, 0), strict=True):
        found = condition.tensors["encoder_hidden_states"]
        expected = latent.condition((words,), 1).tensors["encoder_hidden_states"][0]
        assert not found[silent].any() and torch.equal(found[1 - silent], expected)


@pytest.mark.slow
def test_the_space_gives_back_the_adapters_that_span_it(pixel):
    """With as many components as people less one, a person's own beta is that person's weights."""
    editor = fitted(pixel, components=7)
    chosen = editor.streams.choice("fit/images", DATA.size("generator"), 8)
    theta, space = trained(editor, chosen), editor.space_
    beta = (theta - space["mean"]) / space["std"] @ space["V"].T
    back = editor.adapters(beta)
    for name, change in editor._unpacked(theta).items():
        torch.testing.assert_close(back[name].down, change.down, rtol=1e-3, atol=1e-3)
        torch.testing.assert_close(back[name].up, change.up, rtol=1e-3, atol=1e-2)
    torch.testing.assert_close(space["spread"], beta.std(0), rtol=1e-3, atol=1e-3)
    n = editor.directions_["hat+"]
    assert float(n[3:].abs().max()) == 0
    largest = (beta @ (n / n.norm())).abs().max()
    torch.testing.assert_close(n.norm(), largest, rtol=1e-3, atol=1e-3)


def test_a_direction_tells_the_people_with_an_attribute_from_those_without(pixel):
    editor = fitted(pixel, named=5, edits=(HAT, Edit("hat-", "hat", sign=-1)))
    chosen = editor.streams.choice("fit/images", DATA.size("generator"), 8)
    space, factors = editor.space_, DATA.describe("generator", chosen).factors
    beta = (trained(editor, chosen) - space["mean"]) / space["std"] @ space["V"].T
    score = beta @ editor.directions_["hat+"]
    hats = factors[:, 1] > 0.5
    assert float(score[hats].mean()) > float(score[~hats].mean())
    torch.testing.assert_close(editor.directions_["hat-"], -editor.directions_["hat+"])


def test_a_weight_that_all_people_share_is_no_part_of_their_space(pixel, monkeypatch):
    """However its mean is rounded."""
    editor, draw = attached(pixel, people=7, batch=7), torch.Generator().manual_seed(0)
    thetas = torch.randn(7, len(editor._first()), generator=draw)
    thetas[:, ::2] = thetas[:1, ::2]
    monkeypatch.setattr(editor, "_trained", lambda data, chosen: thetas)
    editor.fit(DATA, [HAT])
    assert float(editor.space_["V"][:, ::2].abs().max()) < 1e-5
    back = editor.space_["mean"] + editor.space_["std"] * editor.space_["V"][0]
    torch.testing.assert_close(back[::2], thetas[0, ::2])


def test_a_fit_keeps_no_direction_of_the_one_before(pixel):
    editor = fitted(pixel, iterations=2)
    with torch.enable_grad():
        editor.fit(DATA, [Edit("smile+", "smile")])
    assert set(editor.directions_) == {"smile+"}


@pytest.mark.slow
def test_a_code_denoises_its_image_better_than_the_mean_person(pixel):
    editor = fitted(pixel, code_iterations=16)
    batch = DATA.batch("test", range(3))
    told, z0 = pixel.unconditional(3), pixel.encode(batch.images)
    beta = editor.coded(batch, told, torch.arange(3))

    def error(b):
        with torch.no_grad():
            draws = [editor.losses(z0, batch.ids, editor.adapters(b), told, f"unseen/{k}")
                     for k in range(6)]  # fmt: skip
        return float(torch.stack(draws).mean())

    assert error(beta) < error(torch.zeros_like(beta))
    shared = editor.coded(batch, told, torch.zeros(3, dtype=torch.long))
    assert shared.shape == (1, 5)


@pytest.mark.slow
def test_edits_move_along_the_direction_from_the_reconstruction(learned):
    batch, strengths = DATA.batch("test", [0, 1]), torch.tensor([0.0, 0.5, 1.0])
    images = learned.edit(batch, HAT, strengths)
    own = learned.decode(learned.invert(batch))
    torch.testing.assert_close(images[:, 0], own, rtol=1e-5, atol=1e-5)
    gaps = (images - images[:, :1]).flatten(2).norm(dim=2)
    assert bool((gaps[:, 2] > gaps[:, 1]).all()) and float(gaps[:, 1].min()) > 1e-3
    late = attached(learned.model, start=0.6)
    late.load_state(learned.state())
    small = (late.edit(batch, HAT, strengths[2:])[:, 0] - own).flatten(1).norm(dim=1)
    assert bool((small < gaps[:, 2]).all()) and float(small.min()) > 1e-3


def test_an_inversion_is_kept_and_its_code_is_part_of_it(pixel, tmp_path, learned):
    batch, editor = DATA.batch("test", [0]), attached(pixel, tmp_path)
    editor.load_state(learned.state())
    editor.card = {group: {"name": "own"} for group in ("method", "model", "dataset")}
    code = editor.invert(batch)
    assert code.parts[Space.WEIGHTS].shape == (1, 5)
    (kept,) = fits.every(tmp_path)
    assert kept.card["subjects"] == ["test/0"]
    assert torch.equal(kept.tensors["beta"], code.parts[Space.WEIGHTS])
    before = (pixel.evaluations.forward, pixel.evaluations.backward)
    editor.invert(batch)
    assert (pixel.evaluations.forward, pixel.evaluations.backward) == before


@pytest.mark.slow
def test_a_person_is_learned_once_from_all_references(latent, tmp_path):
    editor = attached(latent, tmp_path)
    with torch.enable_grad():
        editor.fit(DATA, [])
    references = DATA.batch("test", [5, 6])
    prompts = [f"a {SUBJECT} with hat", f"{SUBJECT} smile"]
    images = editor.personalise(references, ("a", "b"), prompts)
    before = latent.evaluations.backward
    one = editor.personalise(references, ("b",), prompts[1:])
    assert latent.evaluations.backward == before
    torch.testing.assert_close(one[0], images[1], rtol=1e-3, atol=1e-3)
    other = editor.personalise(DATA.batch("test", [8, 9]), ("a", "b"), prompts)
    assert float((other - images).abs().max()) > 1e-3


def test_a_killed_fit_goes_on_where_it_stopped(pixel, tmp_path):
    class Killed(Exception):
        pass

    def kill(step: int, count: int) -> None:
        if step == 4:
            raise Killed

    whole = fitted(pixel, iterations=6).state()
    first = attached(pixel, None, Fitting(tmp_path, 0.0, kill), iterations=6)
    with torch.enable_grad(), pytest.raises(Killed):
        first.fit(DATA, [HAT])
    second = attached(pixel, None, Fitting(tmp_path, 0.0), iterations=6)
    before = pixel.evaluations.backward
    with torch.enable_grad():
        second.fit(DATA, [HAT])
    assert pixel.evaluations.backward - before <= 3 * 8  # steps, people
    for name, value in second.state().items():
        torch.testing.assert_close(value, whole[name])


def test_factors_are_scaled_as_the_setting_says(pixel):
    theta = torch.ones(1, len(attached(pixel)._first()))
    one, two = (next(iter(attached(pixel, scale=s)._unpacked(theta).values())) for s in (1.0, 2.0))
    assert isinstance(one, LowRank) and torch.equal(two.up, 2 * one.up)
    assert torch.equal(two.down, one.down)


def test_what_does_not_go_together_is_refused(pixel, learned):
    for wrong in ({"components": 8}, {"named": 6}):
        with pytest.raises(BadInput):
            Weights2Weights(**{**SMALL, **wrong})
    with pytest.raises(BadInput, match="take benchmark=attribute_editing"):
        attached(pixel).fit(DATA, [Edit("direction 0", component=0)])
    known = DATA.describe("generator", range(9)).factors[:, 1]
    bare = [k for k in range(9) if known[k] < 0.5]
    with pytest.raises(BadInput, match=r"that the fit learns from show .*raise method\.people"):
        attached(pixel)._labels(DATA, bare, HAT)
    with pytest.raises(BadInput, match=r"method\.people=300 is more than the 256 images"):
        Weights2Weights(people=300).check(DATA, 20, ())
    with pytest.raises(BadInput, match="call fit, or load_state"):
        attached(pixel).invert(DATA.batch("test", [0]))
    with pytest.raises(BadInput, match="unknown edit 'smile"):
        learned.edit(DATA.batch("test", [0]), Edit("smile+", "smile"), torch.ones(1))
