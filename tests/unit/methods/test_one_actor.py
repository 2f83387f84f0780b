"""OneActor: an offset read off h is learned, and guides where and when it should."""

from dataclasses import replace

import pytest
import torch

from latentbench.cache import Cache
from latentbench.conformance import toy
from latentbench.errors import BadInput
from latentbench.sampling.loop import generate, guided
from latentbench.streams import Streams
from latentbench.types import SUBJECT, Space
from methods.personalisation.learned_subject import place_of_subject
from methods.personalisation.one_actor import OneActor, projected

REFERENCES = toy.ToyData().batch("test", [0, 1])
PROMPT = f"a {SUBJECT} hat"
SMALL = {"iterations": 2, "auxiliaries": 3, "together": 2}


def attached(model, **settings):
    editor = OneActor(**{**SMALL, **settings})
    editor.attach(model, Streams(0), Cache(None))
    return editor


def drawn(editor, prompt=PROMPT):
    return editor.personalise(REFERENCES, ("a",), (prompt,))


def plainly(model, prompt=PROMPT):
    told = model.condition_with_words((prompt,), {SUBJECT: model.vocabulary().mean(0)})
    x = model.prior(Streams(0), ("a",)).parts[Space.NOISE]
    return model.decode(generate(model, x, guided(told, model.condition(None, 1), model.guidance)))


def test_the_offset_is_added_at_the_subjects_place_alone(latent):
    editor = attached(latent)
    prompts = (PROMPT, "a hat")
    shift = torch.nn.functional.normalize(torch.ones(2, latent.vocabulary().shape[1]), dim=1)
    bare, moved = (
        editor._shifted(prompts, offsets).tensors["encoder_hidden_states"]
        for offsets in (None, shift)
    )
    change, place = (moved - bare).norm(dim=-1), place_of_subject(latent, PROMPT)
    assert float(change[0, place]) == pytest.approx(float(bare[0].norm(dim=-1).mean()), rel=1e-4)
    assert float(change.sum()) == pytest.approx(float(change[0, place]))


@pytest.mark.slow
def test_without_offset_without_guided_steps_or_without_the_subject_the_model_draws(latent):
    for settings in ({"offset": 0.0}, {"until": 0.0}):
        assert torch.allclose(drawn(attached(latent, **settings)), plainly(latent), atol=1e-5)
    other = "a hat"
    assert torch.allclose(drawn(attached(latent), other), plainly(latent, other), atol=1e-5)
    assert float((drawn(attached(latent)) - plainly(latent)).abs().max()) > 1e-3


def test_what_is_learned_is_told_by_the_references_and_others(latent):
    learned = attached(latent).learn(REFERENCES)
    offsets = projected(learned, learned["h_target"])
    assert torch.allclose(offsets.norm(dim=1), torch.ones(2))
    assert len(learned["h_target"]) == 2 and len(learned["h_others"]) == len(learned["z"]) == 3
    alone = projected(learned, learned["h_target"][1:])
    assert torch.allclose(alone[0], offsets[1], atol=1e-6)  # no image depends on its neighbours


def test_exclusion_costs_a_third_evaluation_in_each_guided_step(latent):
    def cost(**settings):
        editor = attached(latent, **settings)
        editor.learn(REFERENCES)
        before = latent.evaluations.forward
        drawn(editor)
        return latent.evaluations.forward - before

    assert latent.steps == 5
    assert cost() == 2 * 5
    assert cost(exclusion=0.5) == 2 * 5 + 4  # steps that begin before .67
    assert cost(exclusion=0.5, until=1.0) == 3 * 5


def test_a_fit_costs_the_others_their_features_and_its_steps(latent):
    counts = replace(latent.evaluations)
    attached(latent).learn(REFERENCES)
    rows = 2 * (2 + 2 + 2)  # targets, others and copies in two steps
    assert latent.evaluations.forward - counts.forward == 3 * 2 * 5 + 3 + 2 + rows
    assert latent.evaluations.backward - counts.backward == rows


def test_more_others_than_there_are_are_refused():
    with pytest.raises(BadInput, match="together must be at most auxiliaries, 3, got 4"):
        OneActor(auxiliaries=3, together=4)


@pytest.mark.slow
def test_the_loss_falls(latent):
    z0, captions = latent.encode(REFERENCES.images), (SUBJECT, SUBJECT)

    def loss(n):
        editor = attached(latent, iterations=n, learning_rate=0.01)
        learned = editor.learn(REFERENCES)
        draws = [editor.loss(learned, z0, captions, REFERENCES.ids, k) for k in range(1000, 1040)]
        return float(torch.stack(draws).mean().detach())

    assert loss(60) < loss(1)
