"""SelfDiscovery: captions that differ in one word, and the vector that makes up for it."""

import pytest
import torch

from latentbench.cache import Cache
from latentbench.conformance import toy
from latentbench.errors import BadInput
from latentbench.sampling.loop import Recorder, denoise, guided
from latentbench.streams import Streams
from latentbench.types import Edit
from methods.directions.selfdiscovery import AddConcept, SelfDiscovery

DATA = toy.ToyData()
HAT = Edit("hat+", "hat", words=("no hat", "hat"))


def attached(model, **settings):
    small = {"images": 6, "batch": 4, "iterations": 12, "learning_rate": 0.05}
    editor = SelfDiscovery(**{**small, **settings})
    editor.attach(model, Streams(0), Cache(None))
    return editor


def fitted(model, **settings):
    editor = attached(model, **settings)
    with torch.enable_grad():
        editor.fit(DATA, [HAT])
    return editor


@pytest.fixture(scope="module")
def learned(latent):
    return fitted(latent)


def test_the_captions_differ_in_the_one_word(latent):
    told, neutral = attached(latent).captions(DATA, HAT)
    for a, b in zip(told, neutral, strict=True):
        assert "hat" in a.split() and [w for w in a.split() if w != "hat"] == b.split()


def test_the_concept_explains_images_that_the_neutral_caption_does_not(latent, learned):
    told, neutral = learned.captions(DATA, HAT)
    latents = learned._sampled("unseen", told)
    condition = latent.condition(list(neutral), len(latents))
    concept = learned.concepts_["hat+"]
    with torch.no_grad():
        pairs = [
            [float(learned.loss(c, latents, condition, f"unseen/{draw}")) for draw in range(6)]
            for c in (concept, torch.zeros_like(concept))
        ]
    assert sum(pairs[0]) < sum(pairs[1])


def test_it_changes_the_conditional_branch_alone(latent):
    x = torch.randn(2, *latent.latent_shape, generator=torch.Generator().manual_seed(0))
    terms = guided(latent.condition(["a face", "a face"], 2), latent.unconditional(2), 3.0)
    seen = []

    class Watch(Recorder):
        def bottleneck(self, step, h):
            seen.append((step.branches, h))
            return h

    grid = latent.grid()
    concept = torch.ones(())
    for strength in (0.0, 2.0):
        change = AddConcept(concept, torch.full((2,), strength))
        watch = Watch(bottleneck=True)
        denoise(latent, x, terms, grid=grid, level=0, interventions=[change, watch])
    (branches, before), (_, after) = seen
    null, told = branches.index("null"), branches.index("condition")
    assert torch.equal(after[null], before[null])
    torch.testing.assert_close(after[told], before[told] + 2.0)


def test_strength_0_is_the_reconstruction_and_1_is_not(latent, learned):
    batch = DATA.batch("test", [0, 1])
    images = learned.edit(batch, HAT, torch.tensor([0.0, 1.0]))
    own = learned.decode(learned.invert(batch))
    torch.testing.assert_close(images[:, 0], own, rtol=1e-4, atol=1e-4)
    assert float((images[:, 1] - images[:, 0]).abs().max()) > 1e-3
    other = attached(latent)
    other.load_state(learned.state())
    assert torch.equal(other.edit(batch, HAT, torch.tensor([0.0, 1.0])), images)


def test_what_cannot_be_learned_is_refused(latent):
    with pytest.raises(BadInput, match="no words for before and after"):
        attached(latent).fit(DATA, [Edit("hat+", "hat")])
    with pytest.raises(BadInput, match="unknown edit 'smile"):
        attached(latent).edit(DATA.batch("test", [0]), Edit("smile+", "smile"), torch.ones(1))
