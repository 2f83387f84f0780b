"""Plain sampling."""

import pytest
import torch

from latentbench.cache import Cache
from latentbench.errors import BadInput
from latentbench.sampling.loop import generate, guided
from latentbench.streams import Streams
from methods.generation.plain import PlainSampling

IDS, PROMPTS = ("a", "b"), ("a face with hat", "smile")


def attached(model, **settings) -> PlainSampling:
    editor = PlainSampling(**settings)
    editor.attach(model, Streams(0), Cache(None))
    return editor


def test_it_is_the_loop_from_the_ids_own_noise(latent):
    found = attached(latent).generate(IDS, PROMPTS)
    x = Streams(0).normal("prior", IDS, latent.latent_shape)
    terms = guided(latent.condition(PROMPTS, 2), latent.condition(None, 2), latent.guidance)
    assert torch.equal(found, latent.decode(generate(latent, x, terms)))


def test_settings_override_the_models(latent):
    base = attached(latent).generate(IDS, PROMPTS)
    before = latent.evaluations.forward
    stronger = attached(latent, guidance=6.0).generate(IDS, PROMPTS)
    assert latent.evaluations.forward - before == 2 * 2 * 5
    before = latent.evaluations.forward
    shorter = attached(latent, steps=3, guidance=1.0).generate(IDS, PROMPTS)
    assert latent.evaluations.forward - before == 2 * 3
    for other in (stronger, shorter):
        assert float((other - base).abs().max()) > 1e-3


def test_a_model_without_prompts_ignores_them(pixel):
    editor = attached(pixel)
    assert torch.equal(editor.generate(IDS, PROMPTS), editor.generate(IDS, None))


def test_one_prompt_per_id(latent):
    with pytest.raises(BadInput, match="1 prompts for 2 images"):
        attached(latent).generate(IDS, PROMPTS[:1])
