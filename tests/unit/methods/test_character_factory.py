"""CharacterFactory: names are learned, a GAN draws new ones, and both say who is shown."""

import pytest
import torch

from latentbench.cache import Cache
from latentbench.conformance import toy
from latentbench.errors import BadInput
from latentbench.fitting import Fitting
from latentbench.streams import Streams
from latentbench.types import SUBJECT
from methods.personalisation.character_factory import (
    CharacterFactory,
    clear_words,
    generated,
    judged,
    named,
    vocabulary,
)

WORDS = ("glasses", "hat", "smile")
PROMPT = f"{SUBJECT} hat"


class WordedData(toy.ToyData):
    """Has words for both ends of its factors."""

    def words(self, factor):
        return ("a", factor)


DATA = WordedData()


def attached(model, cache=None, fitting=None, **settings):
    editor = CharacterFactory(**{**CharacterFactory.small, **settings})
    editor.attach(model, Streams(0), cache or Cache(None), fitting=fitting)
    return editor


def fitted(model, **more):
    editor = attached(model, **more)
    with torch.enable_grad():
        editor.fit(DATA, [])
    return editor


def test_a_photo_is_told_by_the_words_that_are_clear():
    photos = DATA.batch("generator", [0, 1, 2])
    said = list(clear_words(photos, DATA))
    assert vocabulary(DATA) == ["a", "glasses", "a", "hat", "a", "smile"]
    for row, words in zip(photos.factors.tolist(), said, strict=True):
        clear = [v for v in row if min(v, 1 - v) <= 0.2]
        assert len(words.split()) == len(clear)
        assert [w != "a" for w in words.split()] == [v > 0.5 for v in clear]


def test_two_words_stand_where_the_subject_does(latent):
    words = torch.randn(2, 2, latent.vocabulary().shape[1])
    told = named(latent, (PROMPT, "hat"), words).tensors["encoder_hidden_states"]
    own = latent.embed_words("x y hat", {"x": words[0, 0], "y": words[0, 1]})
    assert torch.allclose(told[0], own, atol=1e-6)
    assert torch.allclose(told[1], latent.embed("hat"), atol=1e-6)  # names nobody


def test_drawn_words_have_the_moments_of_the_names(latent):
    editor = attached(latent, z=8)
    names = torch.randn(50, 64) * torch.linspace(0.1, 2, 64) + 3
    w = generated(editor._generator(64), names, torch.randn(400, 8))
    assert torch.allclose(
        ((w - names.mean(0)) / names.std(0)).square().mean(1), torch.ones(400), atol=1e-3
    )


def test_a_name_is_one_person_whatever_the_noise_and_neighbours(latent):
    editor = fitted(latent)
    one, two, again = editor._words(("one", "two", "one"))
    assert torch.equal(one, again) and not torch.equal(one, two)
    images = editor.invent(("one", "two", "one"), ("a", "a", "a"), (PROMPT,) * 3)
    assert torch.equal(images[0], images[2])
    assert float((images[0] - images[1]).abs().max()) > 1e-3


def test_controls_draw_names_without_the_gan(latent, tmp_path):
    cache = Cache(tmp_path)
    gan = fitted(latent, cache=cache)
    before = latent.evaluations.forward
    names = fitted(latent, cache=cache, characters="names")
    assert latent.evaluations.forward == before  # the names are shared
    assert names.state().keys() == {"names"}
    table = gan.state()["names"]
    assert torch.equal(names.state()["names"], table)
    found = names._words(("one", "two")).flatten(1)
    assert all(bool((table == row).all(1).any()) for row in found)
    normal = fitted(latent, cache=cache, characters="normal")
    many = normal._words([str(k) for k in range(400)]).flatten(1)
    assert torch.allclose(many.mean(0), table.mean(0), atol=0.4 * float(table.std()))
    assert len({tuple(r.tolist()) for r in many}) == 400


def test_the_context_loss_is_nothing_where_the_name_comes_first(latent):
    editor = attached(latent)
    w = latent.vocabulary()[None, :2]
    first = editor._inconsistency(w, (f"{SUBJECT} hat", f"{SUBJECT} glasses"))
    assert float(first) == pytest.approx(0, abs=1e-10)
    later = editor._inconsistency(w, (f"hat {SUBJECT}", f"{SUBJECT} glasses"))
    assert float(later) > 1e-3


@pytest.mark.slow
def test_the_context_loss_is_lowered(latent):
    captions = [f"hat {SUBJECT}", f"{SUBJECT} glasses", f"smile hat {SUBJECT}"]
    names = torch.randn(6, 2 * latent.vocabulary().shape[1]) * latent.vocabulary().std()

    def loss(context):
        editor = attached(latent, iterations=200, learning_rate=0.003, context=context)
        g = editor._gan(names, list(WORDS))
        drawn = generated(g, names, torch.randn(8, 4, generator=torch.Generator().manual_seed(0)))
        found = [editor._inconsistency(w[None].unflatten(1, (2, -1)), captions) for w in drawn]
        return float(torch.stack(found).mean())

    with torch.enable_grad():
        assert loss(30.0) < 0.8 * loss(0.0)


def test_the_first_name_alone_is_read_as_published(latent):
    both = [fitted(latent, reads=reads).state()["A"] for reads in ("batch", "first")]
    assert not torch.equal(*both)


def test_dropout_keeps_the_scale(latent):
    editor = attached(latent)
    d = editor._discriminator(8)
    w = torch.randn(5, 8)
    plain = judged(d, w, [torch.ones(512), torch.ones(256)])
    drawn = torch.stack([judged(d, w, editor._masks(str(k))) for k in range(200)])
    assert torch.allclose(drawn.mean(0), plain, atol=4 * float(drawn.std()) / 200**0.5)


class Killed(Exception):
    """Stops a fit."""


def test_a_killed_fit_goes_on_where_it_stopped(latent, tmp_path):
    whole = fitted(latent, iterations=4).state()

    def stop(step, count):
        if count == 4 and step == 3:
            raise Killed

    with pytest.raises(Killed):
        fitted(latent, iterations=4, fitting=Fitting(tmp_path, seconds=0, report=stop))
    counts = []
    again = fitted(
        latent,
        iterations=4,
        fitting=Fitting(tmp_path, seconds=0, report=lambda step, count: counts.append(step)),
    )
    assert counts == [3, 4]
    assert all(torch.equal(again.state()[k], v) for k, v in whole.items())


def test_what_does_not_fit_is_refused(latent):
    with pytest.raises(BadInput, match="a batch of 8 is more than the 4 people"):
        CharacterFactory(people=4)
    with pytest.raises(BadInput, match="people=300 is more than the 256 images"):
        CharacterFactory(people=300).check(DATA, 20, ())
    with pytest.raises(BadInput, match="call fit first"):
        attached(latent).invent(("one",), ("a",), (PROMPT,))
