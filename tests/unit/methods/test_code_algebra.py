"""Linear algebra on codes: what each rule makes, and what triplets are."""

import pytest
import torch

from latentbench.cache import Cache
from latentbench.conformance import toy
from latentbench.errors import BadInput
from latentbench.streams import Streams
from latentbench.types import Edit, Latent
from methods.recombination.code_algebra import CodeAlgebra

DATA = toy.ToyData(noise=0.0)
WEAR = Edit("wear", factors=("glasses", "hat"))


@pytest.fixture
def fitted(diffae):
    def make(model=diffae, cache=None, **settings):
        editor = CodeAlgebra(**{"images": 64, "steps": 2, **settings})
        editor.attach(model, Streams(0), cache or Cache(None))
        editor.fit(DATA, [WEAR])
        return editor

    return make


def test_triplets_are_codes_of_an_image_another_one_and_the_exact_answer(fitted, diffae):
    editor = fitted(images=6)
    a, b, c = editor.triplets(DATA, WEAR)
    chosen = torch.randint(256, (6,), generator=Streams(0).generator("fit/images"))
    real = DATA.batch("generator", chosen.tolist())
    torch.testing.assert_close(a, diffae.encode_semantic(real.images), rtol=1e-4, atol=1e-5)
    assert torch.equal(b, a.roll(1, 0))
    wanted = real.factors.roll(1, 0).clone()
    smile = DATA.factor_names.index("smile")
    wanted[:, smile] = real.factors[:, smile]
    answer = diffae.encode_semantic(DATA.render(wanted))
    torch.testing.assert_close(c, answer, rtol=1e-4, atol=1e-5)


def test_codes_are_made_once_for_all_methods_of_one_seed(fitted, diffae, tmp_path, monkeypatch):
    cache = Cache(tmp_path)
    first = fitted(cache=cache).triplets(DATA, WEAR)
    monkeypatch.setattr(diffae, "code_of", None)
    assert torch.equal(fitted(cache=cache, rule="slerp").triplets(DATA, WEAR), first)
    with pytest.raises(TypeError):  # other factors are other answers
        fitted(cache=cache).triplets(DATA, Edit("smile", factors=("smile",)))


def test_rules_on_whitened_codes(fitted):
    a, b = torch.eye(4)[:1], torch.eye(4)[1:2]
    for rule, expected in (
        ("first", [1, 0, 0, 0]), ("mean", [0.5, 0.5, 0, 0]), ("sum", [1, 1, 0, 0]),
        ("slerp", [0.5**0.5, 0.5**0.5, 0, 0]),
    ):  # fmt: skip
        found = CodeAlgebra(rule=rule).operate("wear", a, b, ("x",))
        torch.testing.assert_close(found, torch.tensor([expected]).float())


def test_a_linear_world_is_regressed_exactly():
    editor, normal = CodeAlgebra(rule="regression"), Streams(0).normal
    a, b = (normal(k, [str(i) for i in range(40)], (3,)) for k in "ab")
    c = a @ torch.diag(torch.tensor([1.0, 1.0, 0.0])) + b @ torch.diag(torch.tensor([0.0, 0, 1]))
    editor.learned_ = {f"wear/{k}": v for k, v in editor.learn("wear", a, b, c).items()}
    torch.testing.assert_close(editor.operate("wear", a, b, ()), c, rtol=0, atol=1e-5)
    with pytest.raises(BadInput, match="has not learned 'pose'"):
        editor.operate("pose", a, b, ())


def test_the_first_rule_is_the_reconstruction_whatever_the_second_image(fitted, diffae):
    editor = fitted(rule="first")
    one, two = DATA.batch("test", [0, 1]), DATA.batch("test", [2, 3])
    found = editor.combine(one, two, WEAR)
    latent = diffae.invert(one, Cache(None), steps=2)
    expected = diffae.sample(latent, guidance=1.0, steps=2)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)


def test_codes_that_are_not_whitened_are_whitened_and_taken_back(fitted, vae):
    """On a VAE, whose numbers have spreads of their own, a + b - mean is no plain sum."""
    editor = fitted(vae, rule="sum")
    one, two = DATA.batch("test", [0, 1]), DATA.batch("test", [2, 3])
    space = next(iter(vae.code_of(one.images).parts))
    a, b = (vae.code_of(batch.images).parts[space] for batch in (one, two))
    mean = editor.triplets(DATA, WEAR)[0].mean(0)
    assert float(mean.abs().max()) > 1e-3
    expected = vae.sample(Latent({space: a + b - mean}), guidance=1.0)
    torch.testing.assert_close(editor.combine(one, two, WEAR), expected, rtol=0, atol=1e-4)


def test_noise_in_the_place_of_what_was_learned_leaves_how_codes_are_whitened(fitted):
    editor = fitted(rule="regression")
    before = editor.state()
    editor.randomise(Streams(1))
    after = editor.state()
    assert torch.equal(before["mean"], after["mean"]) and torch.equal(before["unit"], after["unit"])
    assert not torch.allclose(before["wear/map"], after["wear/map"])


def test_refusals(fitted, diffae):
    editor = CodeAlgebra()
    editor.attach(diffae, Streams(0), Cache(None))
    with pytest.raises(BadInput, match="has learned nothing yet"):
        editor.combine(DATA.batch("test", [0]), DATA.batch("test", [1]), WEAR)
    with pytest.raises(BadInput, match="beard: ToyData has no such factor; it has: glasses"):
        fitted().fit(DATA, [Edit("shave", factors=("beard",))])
