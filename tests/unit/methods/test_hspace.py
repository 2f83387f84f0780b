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


def chosen(seed: int = 0) -> list[int]:
    """The images of a fit: the seed's choice among all."""
    return Streams(seed).choice("fit/images", toy.ToyData().size("generator"), IMAGES)


def fitted(model, cache: Cache, data=None, seed=0, **settings) -> HSpaceDirections:
    editor = HSpaceDirections(**(SMALL | settings))
    editor.attach(model, Streams(seed), cache)
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
    batch = toy.ToyData().batch("generator", chosen())
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
            images = self.drawn(batch.ids, batch.factors)
            return type(batch)(batch.ids, images, batch.prompts, batch.factors)

    plain = fitted(pixel, cache, Confounded())
    projected = fitted(pixel, cache, Confounded(), orthogonal=True)
    clean = fitted(pixel, cache)
    before, after = (
        abs(cosine(shift(e, "hat"), shift(clean, "glasses"))) for e in (plain, projected)
    )
    assert before > 0.3 and after < 0.5 * before


@pytest.mark.parametrize(
    "planted",
    [toy.FACTORS[0], *(pytest.param(name, marks=pytest.mark.slow) for name in toy.FACTORS[1:])],
)
def test_pca_picks_the_planted_component(pixel, cache, planted):
    """What makes most of the variance is found: new images' h along it is their label."""

    class Planted(toy.ToyData):
        def drawn(self, ids, factors):
            weights = torch.tensor([1.5 if n == planted else 0.2 for n in toy.FACTORS])
            return super().drawn(ids, (factors - 0.5) * weights + 0.5)

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
    h = codes(editor, toy.ToyData().batch("generator", chosen()))
    for name in toy.FACTORS:
        for i in range(5):
            v = editor.directions_[name].shift[i].flatten().double()
            along = h[:, i].flatten(1).double() @ (v / v.norm())
            assert float(v.norm()) == pytest.approx(float(along.std()), rel=1e-3)


def test_a_noise_direction_is_a_class_gap_on_a_linear_model(gaussian):
    """There inversion is affine: one gap in x_T is what images one gap apart would give."""
    editor = fitted(gaussian, Cache(None), space="noise", steps=50)
    data = toy.ToyData(gaussian.image_size)
    learn, test = data.batch("generator", chosen()), data.batch("test", range(4))
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


@pytest.mark.slow
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


def test_another_seed_learns_from_other_images(pixel, cache):
    one, two = (fitted(pixel, cache, seed=seed) for seed in (0, 1))
    assert len(set(chosen(0)) & set(chosen(1))) < IMAGES / 2
    assert 0.3 < cosine(shift(one, "hat"), shift(two, "hat")) < 0.99


def test_attributes_to_project_off_may_be_named(pixel, cache):
    plain, two = fitted(pixel, cache), fitted(pixel, cache, orthogonal=["hat"])
    for name in ("glasses", "smile"):
        assert abs(cosine(shift(two, name), shift(plain, "hat"))) < 1e-4
    assert torch.equal(shift(two, "hat"), shift(plain, "hat"))
    alone = HSpaceDirections(**SMALL, orthogonal=["hat"])
    alone.attach(pixel, Streams(0), cache)
    alone.fit(toy.ToyData(), EDITS[:1])  # glasses: the hat is not asked for
    assert list(alone.directions_) == ["glasses"]
    assert torch.equal(shift(alone, "glasses"), shift(two, "glasses"))
    with pytest.raises(BadInput, match="'hatt'; did you mean hat"):
        fitted(pixel, cache, orthogonal=["hatt"])


@pytest.mark.slow
def test_balanced_classes_undo_a_confounder(pixel, cache):
    """Glasses go with hats in this data; with as many hats on either side they do not leak."""

    class Confounded(toy.ToyData):
        def batch(self, split, indices):
            batch = super().batch(split, indices)
            glasses = batch.factors[:, 0] > 0.5
            rare = batch.factors[:, 2] > 0.8  # one in five breaks the rule
            hat = torch.where(glasses ^ rare, 0.9, 0.1)
            batch.factors[:, 1] = hat
            images = self.drawn(batch.ids, batch.factors)
            return type(batch)(batch.ids, images, batch.prompts, batch.factors)

    settings = {"images": 192, "extremes": 16}
    plain, balanced = (
        fitted(pixel, cache, Confounded(), balance=b, **settings) for b in (None, ["hat"])
    )
    clean = fitted(pixel, cache, **settings)
    before, after = (
        abs(cosine(shift(e, "glasses"), shift(clean, "hat"))) for e in (plain, balanced)
    )
    assert before > 0.1 and after < 0.5 * before


def test_components_are_asked_for_by_number(pixel, cache):
    editor = fitted(pixel, cache, variant="pca")
    batch = toy.ToyData().batch("test", range(2))
    named = editor.edit(batch, Edit("hat+", "hat"), torch.tensor([1.0]))
    number = next(
        k
        for k in range(4)
        if abs(cosine(shift(editor, f"component {k}"), shift(editor, "hat"))) > 0.99
    )
    sign = 1 if cosine(shift(editor, f"component {number}"), shift(editor, "hat")) > 0 else -1
    edit = Edit(f"component {number}", sign=sign, component=number)
    torch.testing.assert_close(editor.edit(batch, edit, torch.tensor([1.0])), named)
    with pytest.raises(BadInput, match="'component 4'; fitted: component 0"):
        editor.edit(batch, Edit("x", component=4), torch.ones(1))


def test_components_need_no_labels(pixel, cache):
    class Unlabelled(toy.ToyData):
        gives = frozenset()
        factor_names = ()

        def batch(self, split, indices):
            batch = super().batch(split, indices)
            return Batch(batch.ids, batch.images)

    editor = HSpaceDirections(**SMALL, variant="pca")
    editor.attach(pixel, Streams(0), cache)
    editor.fit(Unlabelled(), [Edit("component 0", component=0)])
    assert list(editor.directions_) == [f"component {k}" for k in range(4)]
    assert HSpaceDirections.required(["edit"], {"variant": "pca"})[1] == frozenset()
    assert HSpaceDirections.required(["edit"], {"variant": "supervised"})[1] != frozenset()


@pytest.mark.slow
def test_joint_components_are_those_of_all_steps_together(pixel, cache):
    editor = fitted(pixel, cache, variant="pca", joint=True)
    h = codes(editor, toy.ToyData().batch("generator", chosen())).flatten(1).double()
    h = h - h.mean(0)
    for k in range(4):
        v = shift(editor, f"component {k}").double()
        along = h @ (v / v.norm())
        assert float(v.norm()) == pytest.approx(float(along.std()), rel=1e-3)
        for other in range(k):
            assert abs(cosine(v, shift(editor, f"component {other}"))) < 1e-3
    per_step = fitted(pixel, cache, variant="pca")
    whole = [float(shift(e, "component 0").norm()) for e in (editor, per_step)]
    assert whole[0] <= whole[1] * 1.001  # each step's own first component varies at least as much


def test_the_tap_may_lie_before_the_middle_block(pixel, cache):
    editor = fitted(pixel, cache, tap="before")
    batch, found = toy.ToyData().batch("test", range(2)), []
    v, step = editor.directions_["hat"].shift, iter(range(5))

    def add(module, args):
        found.append(args[0])
        return (args[0] + 1.5 * v[next(step)], *args[1:])

    images = editor.edit(batch, Edit("hat+", "hat"), torch.tensor([1.5]))
    handle = pixel.network.mid_block.register_forward_pre_hook(add)
    try:
        expected = editor.decode(editor.invert(batch))
    finally:
        handle.remove()
    torch.testing.assert_close(images[:, 0], expected, rtol=1e-3, atol=1e-4)
    assert v.shape[1:] == found[0].shape[1:]
    after = fitted(pixel, cache).directions_["hat"].shift
    assert v.shape != after.shape or not torch.allclose(v, after)


def test_a_window_of_steps(pixel, cache):
    editor = fitted(pixel, cache, start=0.4, stop=0.8)
    batch = toy.ToyData().batch("test", range(2))
    images = editor.edit(batch, Edit("hat+", "hat"), torch.tensor([2.0]))
    whole = fitted(pixel, cache)
    v = whole.directions_["hat"].shift.clone()
    v[[0, 1, 4]] = 0  # 5 steps: the third and the fourth
    whole.load_state({"hat": v})
    expected = whole.edit(batch, Edit("hat+", "hat"), torch.tensor([2.0]))
    torch.testing.assert_close(images, expected, rtol=1e-4, atol=1e-4)
    with pytest.raises(BadInput, match="no step is between"):
        HSpaceDirections(start=0.5, stop=0.5)
