"""Textual inversion: the word is learned, kept, and used."""

from dataclasses import replace

import pytest
import torch

from latentbench.cache import Cache
from latentbench.conformance import toy
from latentbench.fitting import Fitting
from latentbench.streams import Streams
from latentbench.types import SUBJECT
from methods.personalisation.learned_subject import captions_of
from methods.personalisation.textual_inversion import TextualInversion

REFERENCES = toy.ToyData().batch("test", [0, 1])


def attached(model, cache=None, fitting=None, **settings):
    editor = TextualInversion(**{"iterations": 4, **settings})
    editor.attach(model, Streams(0), cache or Cache(None), fitting=fitting)
    return editor


def loss(editor, learned):
    z0, captions = editor.model.encode(REFERENCES.images), captions_of(REFERENCES)
    draws = [editor.loss(learned, z0, captions, REFERENCES.ids, k) for k in range(1000, 1040)]
    return float(torch.stack(draws).mean())


@pytest.mark.slow
def test_the_loss_falls(latent):
    first, learned = (attached(latent, iterations=n) for n in (1, 60))
    before, after = (loss(editor, editor.learn(REFERENCES)) for editor in (first, learned))
    assert after < before


def test_the_word_is_learned_once(latent, tmp_path):
    counts = latent.evaluations
    cache = Cache(tmp_path, lambda: (counts.forward, counts.backward))
    editor = attached(latent, cache)
    editor.personalise(REFERENCES, ("a",), (SUBJECT,))
    before = latent.evaluations.backward
    editor.personalise(REFERENCES, ("b",), (f"{SUBJECT} smile",))
    assert latent.evaluations.backward == before
    assert cache.saved.tolist() == [0, 0]  # nor is it counted again
    attached(latent, cache).personalise(REFERENCES, ("b",), (SUBJECT,))
    assert latent.evaluations.backward == before
    assert cache.saved.tolist() == [8, 8]


def test_names_count_with_a_cache_as_without(latent, tmp_path):
    """The same images under other names, by which the noises of training are drawn."""
    both = REFERENCES, replace(REFERENCES, ids=("x", "y"))
    kept = attached(latent, Cache(tmp_path))
    found, fresh = (
        [editor.learn(batch)["word"] for editor, batch in zip(editors, both, strict=True)]
        for editors in ((kept, kept), (attached(latent), attached(latent)))
    )
    assert all(map(torch.equal, found, fresh)) and not torch.equal(*fresh)


def test_captions_that_name_the_subject_are_read(latent):
    told = replace(REFERENCES, prompts=(f"{SUBJECT} hat", f"a {SUBJECT}"))
    assert captions_of(told) == told.prompts
    assert captions_of(REFERENCES) == captions_of(replace(REFERENCES, prompts=None))
    one, two = (attached(latent).learn(batch)["word"] for batch in (told, REFERENCES))
    assert not torch.equal(one, two)


def test_a_killed_fit_goes_on_where_it_stopped(latent, tmp_path, monkeypatch):
    whole = attached(latent).learn(REFERENCES)["word"]
    count, real = [], TextualInversion.loss

    def dies(self, learned, z0, captions, ids, step):
        count.append(step)
        if len(count) == 3:
            raise KeyboardInterrupt
        return real(self, learned, z0, captions, ids, step)

    monkeypatch.setattr(TextualInversion, "loss", dies)
    with pytest.raises(KeyboardInterrupt):
        attached(latent, fitting=Fitting(tmp_path, seconds=0)).learn(REFERENCES)
    resumed = attached(latent, fitting=Fitting(tmp_path, seconds=0)).learn(REFERENCES)
    assert count == [0, 1, 2, 2, 3]
    assert torch.equal(resumed["word"], whole)


def test_prompts_say_what_the_subject_does(latent):
    one, two = attached(latent).personalise(
        REFERENCES, ("a", "a"), (f"{SUBJECT} hat", f"{SUBJECT} smile")
    )
    assert float((one - two).abs().max()) > 1e-3
