"""Energy guidance: Langevin dynamics in the space of noise."""

from dataclasses import replace

import pytest
import torch

from latentbench.cache import Cache
from latentbench.conformance import toy
from latentbench.errors import BadInput
from latentbench.streams import Streams
from latentbench.types import Concept, Space
from methods.generation.energy_guidance import EnergyGuidance

IDS = tuple(map(str, range(12)))


def attached(model, **settings) -> EnergyGuidance:
    editor = EnergyGuidance(**{"steps": 4} | settings)
    editor.attach(model, Streams(0), Cache(None), {"scorer": toy.PatternScorer()})
    return editor


def asked(word: str, weight: float = 1.0) -> list[Concept]:
    return [Concept((word,) * len(IDS), weight)]


def test_without_energy_the_chain_keeps_the_prior(gaussian):
    editor = attached(gaussian, weight=0.0, iterations=40, step_size=0.2, keep="last")
    z = 3 * gaussian.prior(Streams(0), IDS).parts[Space.NOISE]
    found = editor.walk(IDS, asked("hat"), z)
    assert float(found.square().mean()) == pytest.approx(1, abs=0.1)


def test_energy_falls_while_the_noise_stays_noise(gaussian):
    """And a negated concept does the opposite."""
    energies = {}
    for name, weight, iterations in (("none", 1.0, 0), ("hat", 1.0, 20), ("not hat", -1.0, 20)):
        editor = attached(gaussian, weight=60.0, iterations=iterations, keep="last")
        z = gaussian.prior(Streams(0), IDS).parts[Space.NOISE]
        found = editor.walk(IDS, asked("hat", weight), z)
        told = editor._told(asked("hat"))
        images = gaussian.decode(editor._sampled(found))
        energies[name] = float(editor.energy(images, told).mean())
        assert float(found.square().mean()) == pytest.approx(1, abs=0.25)
    assert energies["hat"] < energies["none"] - 0.2 < energies["none"] + 0.2 < energies["not hat"]


def test_the_best_is_no_worse_than_any_other(gaussian):
    editors = [attached(gaussian, weight=0.0, iterations=5, keep=keep) for keep in ("last", "best")]
    told = editors[0]._told(asked("hat"))
    last, best = (e.energy(e.compose(IDS, asked("hat")), told) for e in editors)
    assert bool((best <= last + 1e-6).all()) and bool((best < last - 1e-3).any())


def test_a_model_without_prompts_is_asked_as_well(pixel):
    concepts = [Concept(("hat", "smile"))]
    before = replace(pixel.evaluations)
    found = attached(pixel, iterations=2, steps=3).compose(("a", "b"), concepts)
    assert found.shape == (2, 3, 16, 16)
    assert pixel.evaluations.forward - before.forward == 2 * 3 * 4
    assert pixel.evaluations.backward - before.backward == 2 * 3 * 2


def test_a_region_is_refused(gaussian):
    with pytest.raises(BadInput, match="has a region"):
        attached(gaussian).compose(("a",), [Concept(("hat",), 1.0, torch.ones(1, 8, 8))])
