"""Textual inversion: the word is learned, kept, and used."""

import pytest
import torch

from latentbench.cache import Cache
from latentbench.conformance import toy
from latentbench.fitting import Fitting
from latentbench.streams import Streams
from latentbench.types import SUBJECT
from methods.personalisation.textual_inversion import TextualInversion

REFERENCES = toy.ToyData().batch("test", [0, 1])


def attached(model, cache=None, fitting=None, **settings):
    editor = TextualInversion(**{"iterations": 4, **settings})
    editor.attach(model, Streams(0), cache or Cache(None), fitting=fitting)
    return editor


def loss(editor, word):
    z0 = editor.model.encode(REFERENCES.images)
    draws = [editor._loss(word, z0, REFERENCES.ids, step) for step in range(1000, 1040)]
    return float(torch.stack(draws).mean())


@pytest.mark.slow
def test_the_loss_falls(latent):
    first, learned = (attached(latent, iterations=n) for n in (1, 60))
    before, after = (loss(editor, editor.learn(REFERENCES)) for editor in (first, learned))
    assert after < before


def test_the_word_is_learned_once(latent, tmp_path):
    editor = attached(latent, Cache(tmp_path))
    editor.personalise(REFERENCES, ("a",), (SUBJECT,))
    before = latent.evaluations.backward
    editor.personalise(REFERENCES, ("b",), (f"{SUBJECT} smile",))
    assert latent.evaluations.backward == before


def test_a_killed_fit_goes_on_where_it_stopped(latent, tmp_path, monkeypatch):
    whole = attached(latent).learn(REFERENCES)
    count, real = [], TextualInversion._loss

    def dies(self, v, z0, ids, step):
        count.append(step)
        if len(count) == 3:
            raise KeyboardInterrupt
        return real(self, v, z0, ids, step)

    monkeypatch.setattr(TextualInversion, "_loss", dies)
    with pytest.raises(KeyboardInterrupt):
        attached(latent, fitting=Fitting(tmp_path, seconds=0)).learn(REFERENCES)
    resumed = attached(latent, fitting=Fitting(tmp_path, seconds=0)).learn(REFERENCES)
    assert count == [0, 1, 2, 2, 3]
    assert torch.equal(resumed, whole)


def test_prompts_say_what_the_subject_does(latent):
    one, two = attached(latent).personalise(
        REFERENCES, ("a", "a"), (f"{SUBJECT} hat", f"{SUBJECT} smile")
    )
    assert float((one - two).abs().max()) > 1e-3
