"""h-space directions: what is learned from planted labels, and how it is added."""

import pytest
import torch

from latentbench.cache import Cache
from latentbench.conformance import toy
from latentbench.errors import BadInput
from latentbench.model import Condition
from latentbench.models.pixel_diffusion import PixelDiffusion
from latentbench.sampling.loop import Recorder, generate, guided
from latentbench.streams import Streams
from latentbench.types import Batch, Edit, Space
from methods.directions.hspace import HSpaceDirections

EDITS = [Edit(name, name) for name in toy.FACTORS]
IMAGES, EXTREMES = 64, 16
SMALL = {"images": IMAGES, "extremes": EXTREMES, "components": 4, "steps": 5}


@pytest.fixture(scope="module")
def cache(tmp_path_factory) -> Cache:
    """Inversions are shared by all fits here, as they are in a sweep."""
    return Cache(tmp_path_factory.mktemp("cache"))


def fitted(model, cache: Cache, data=None, **settings) -> HSpaceDirections:
    editor = HSpaceDirections(**(SMALL | settings))
    editor.attach(model, Streams(0), cache)
    editor.fit(data or toy.ToyData(model.image_size), EDITS)
    return editor


def shift(editor: HSpaceDirections, name: str) -> torch.Tensor:
    return editor.directions_[name].shift.flatten()


def cosine(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(torch.cosine_similarity(a.double(), b.double(), dim=0))


def codes(editor: HSpaceDirections, batch: Batch) -> torch.Tensor:
    """h of inverted images at every step, ``[b, n, c, h, w]``, by the loop itself."""
    recorder, rows = Recorder(bottleneck=True), len(batch)
    terms = guided(editor.model.condition(None, rows), Condition(), 1.0)
    x = editor.invert(batch).parts[Space.NOISE]
    generate(editor.model, x, terms, grid=editor.model.grid(5), interventions=[recorder])
    return torch.stack([recorder.h[i] for i in range(5)], 1)


def test_a_class_difference_is_the_difference_of_mean_codes(pixel, cache):
    editor = fitted(pixel, cache)
    batch = toy.ToyData().batch("generator", range(IMAGES))
    h = codes(editor, batch)
    for k, name in enumerate(toy.FACTORS):
        order = batch.factors[:, k].argsort()
        expected = h[order[-EXTREMES:]].mean(0) - h[order[:EXTREMES]].mean(0)
        found = editor.directions_[name]
        assert found.space is Space.BOTTLENECK and found.steps == 5
        torch.testing.assert_close(found.shift, expected, rtol=1e-2, atol=1e-3)


def test_orthogonal_directions_are_orthogonal_to_the_others_plain_ones(pixel, cache):
    plain, projected = fitted(pixel, cache), fitted(pixel, cache, orthogonal=True)
    for name in toy.FACTORS:
        own = shift(projected, name)
        for other in set(toy.FACTORS) - {name}:
            assert abs(cosine(own, shift(plain, other))) < 1e-4
        assert cosine(own, shift(plain, name)) > 0.3
        assert float(own.norm()) < float(shift(plain, name).norm())


def test_orthogonal_undoes_a_confounder(pixel, cache):
    """Labels that go together give directions that leak; projected ones do not."""

    class Confounded(toy.ToyData):
        def batch(self, split, indices):
            batch = super().batch(split, indices)
            batch.factors[:, 1] = 0.7 * batch.factors[:, 0] + 0.3 * batch.factors[:, 1]
            images = self.render(batch.ids, batch.factors)
            return type(batch)(batch.ids, images, batch.prompts, batch.factors)

    plain = fitted(pixel, cache, Confounded())
    projected = fitted(pixel, cache, Confounded(), orthogonal=True)
    clean = fitted(pixel, cache)
    before, after = (
        abs(cosine(shift(e, "hat"), shift(clean, "glasses"))) for e in (plain, projected)
    )
    assert before > 0.3 and after < 0.5 * before


@pytest.mark.parametrize("planted", toy.FACTORS)
def test_pca_picks_the_planted_component(pixel, cache, planted):
    """What makes most of the variance is found: new images' h along it is their label."""

    class Planted(toy.ToyData):
        def render(self, ids, factors):
            weights = torch.tensor([1.5 if n == planted else 0.2 for n in toy.FACTORS])
            return super().render(ids, (factors - 0.5) * weights + 0.5)

    editor = fitted(pixel, cache, Planted(), variant="pca")
    test = Planted().batch("test", range(IMAGES))
    h, v = codes(editor, test), editor.directions_[planted].shift
    along = (h * v).flatten(1).sum(1)
    r = torch.corrcoef(torch.cat([along[None], test.factors.T]))[0, 1:]
    own = toy.FACTORS.index(planted)
    assert float(r[own]) > 0.8
    assert all(abs(float(r[k])) < 0.5 for k in range(3) if k != own)


def test_pca_directions_have_a_standard_deviations_length(pixel, cache):
    editor = fitted(pixel, cache, variant="pca")
    h = codes(editor, toy.ToyData().batch("generator", range(IMAGES)))
    for name in toy.FACTORS:
        for i in range(5):
            v = editor.directions_[name].shift[i].flatten().double()
            along = h[:, i].flatten(1).double() @ (v / v.norm())
            assert float(v.norm()) == pytest.approx(float(along.std()), rel=1e-3)


def test_a_noise_direction_is_a_class_gap_on_a_linear_model(gaussian):
    """There inversion is affine: one gap in x_T is what images one gap apart would give."""
    editor = fitted(gaussian, Cache(None), space="noise", steps=50)
    data = toy.ToyData(gaussian.image_size)
    learn, test = data.batch("generator", range(IMAGES)), data.batch("test", range(4))
    order = learn.factors[:, 2].argsort()
    gap = learn.images[order[-EXTREMES:]].mean(0) - learn.images[order[:EXTREMES]].mean(0)
    images = editor.edit(test, Edit("smile+", "smile"), torch.tensor([0.0, 0.3, 0.6]))
    once, twice = (images[:, k] - images[:, 0] for k in (1, 2))
    torch.testing.assert_close(twice, 2 * once, rtol=1e-3, atol=1e-3)
    moved = Batch(test.ids, test.images + 0.3 * gap)
    expected = editor.decode(editor.invert(moved)) - images[:, 0]
    torch.testing.assert_close(once, expected, rtol=1e-3, atol=1e-3)
    assert cosine(once.mean(0).flatten(), gap.flatten()) > 0.95


def test_noise_has_no_components(pixel):
    with pytest.raises(BadInput, match="pca works on space=bottleneck"):
        HSpaceDirections(variant="pca", space="noise")
    with pytest.raises(BadInput, match="need 128 images"):
        HSpaceDirections(images=100, extremes=64)


def test_the_edit_adds_g_times_v_at_every_step(pixel, cache):
    editor = fitted(pixel, cache, asymmetric=False)
    batch = toy.ToyData().batch("test", range(2))
    strengths = torch.tensor([0.0, 1.5])
    images = editor.edit(batch, Edit("hat+", "hat"), strengths)
    v = editor.directions_["hat"].shift
    step = iter(range(5))

    def add(module, args, h):
        return h + 1.5 * v[next(step)]

    handle = pixel.network.mid_block.register_forward_hook(add)
    try:
        expected = editor.decode(editor.invert(batch))
    finally:
        handle.remove()
    torch.testing.assert_close(images[:, 1], expected, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(
        images[:, 0], editor.decode(editor.invert(batch)), rtol=1e-3, atol=1e-4
    )


def test_the_sign_of_an_edit_turns_the_direction(pixel, cache):
    editor = fitted(pixel, cache)
    batch = toy.ToyData().batch("test", range(2))
    down = editor.edit(batch, Edit("hat-", "hat", -1), torch.tensor([1.0]))
    assert torch.equal(down, editor.edit(batch, Edit("hat+", "hat", 1), torch.tensor([-1.0])))


def test_asymmetric_edits_go_further_and_cost_twice(zoo, cache):
    """Asyrp's claim; a long chain makes it plain."""
    model = PixelDiffusion(path=str(zoo / "pixel"), steps=20)
    settings = {"images": 8, "extremes": 4, "steps": 20}
    batch, moved, costs = toy.ToyData().batch("test", range(2)), [], []
    state = fitted(model, cache, **settings).state()
    for asymmetric in (False, True):
        editor = HSpaceDirections(asymmetric=asymmetric, **settings)
        editor.attach(model, Streams(0), cache)
        editor.load_state(state)
        editor.invert(batch)
        before = model.evaluations.forward
        images = editor.edit(batch, Edit("hat+", "hat"), torch.tensor([0.0, 1.0]))
        costs.append(model.evaluations.forward - before)
        moved.append(float((images[:, 1] - images[:, 0]).norm()))
    assert costs[1] == 2 * costs[0]
    assert moved[1] > 2 * moved[0]


def test_an_attribute_that_was_not_fitted_is_refused(pixel, cache):
    editor = fitted(pixel, cache)
    with pytest.raises(BadInput, match="no direction for attribute 'beard'; fitted: glasses, hat"):
        editor.edit(toy.ToyData().batch("test", [0]), Edit("x", "beard"), torch.ones(1))


def test_the_space_decides_what_the_model_must_have():
    spaces = {
        s: HSpaceDirections.required(["edit"], {"space": s})[0] for s in ("bottleneck", "noise")
    }
    assert spaces["bottleneck"] == {Space.NOISE, Space.BOTTLENECK}
    assert spaces["noise"] == {Space.NOISE}
