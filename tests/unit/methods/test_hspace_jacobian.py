"""Spectral directions of h-space: against a full Jacobian, and how they are added."""

import pytest
import torch

from latentbench.cache import Cache
from latentbench.conformance import toy
from latentbench.errors import BadInput
from latentbench.sampling.loop import Intervention, Recorder, generate, plain
from latentbench.streams import Streams
from latentbench.types import Edit, Space
from methods.directions.hspace_jacobian import HSpaceJacobian

DATA = toy.ToyData()
BATCH = DATA.batch("test", [0, 1])
FIRST = Edit("direction 0", component=0)


def fitted(model, **settings):
    editor = HSpaceJacobian(**{"rank": 2, "iterations": 2, "steps": 5, "at": 0.4, **settings})
    editor.attach(model, Streams(0), Cache(None))
    editor.fit(DATA, [FIRST])
    return editor


@pytest.mark.slow
def test_the_strongest_direction_is_nearly_that_of_the_full_jacobian(pixel):
    """After a few iterations; how near they come in the end is tested where they are made."""
    editor, batch = fitted(pixel, variant="own", iterations=8), DATA.batch("test", [0])
    v, values = editor._directions(batch)
    recorder = Recorder(bottleneck=True)
    x, told = editor.invert(batch).parts[Space.NOISE], plain(pixel.unconditional(1))
    generate(pixel, x, told, grid=pixel.grid(5), interventions=[recorder])
    function = editor._prediction(recorder.x[2], 2, None)
    with pixel.differentiable_attention():
        J = torch.func.jacrev(lambda h: function(h).flatten())(torch.zeros_like(recorder.h[2]))
    s = torch.linalg.svdvals(J.flatten(1))[0]
    assert 0.9 * s < values[0, 2, 0] < 1.001 * s
    assert 0.9 * s < (J.flatten(1) @ v[0, 0].flatten()).norm() < 1.001 * s


def test_the_change_is_as_long_as_the_singular_value_at_every_step(pixel):
    editor = fitted(pixel)
    images = editor.edit(BATCH, FIRST, torch.tensor([0.0, 2.0, -2.0]))
    v, values = editor.learned_["vectors"][0], editor.learned_["values"][:, 0]
    assert float(v.norm()) == pytest.approx(1, rel=1e-4)

    class Add(Intervention):
        def bottleneck(self, step, h):
            return h + 2.0 * values[step.index] * v

    latent = editor.invert(BATCH)
    told = pixel.sample(latent, guidance=1.0, steps=5, interventions=[Add()])
    torch.testing.assert_close(images[:, 1], told, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(images[:, 0], editor.decode(latent), rtol=1e-4, atol=1e-4)
    back = editor.edit(BATCH, Edit("direction 0", sign=-1, component=0), torch.tensor([2.0]))
    torch.testing.assert_close(back[:, 0], images[:, 2], rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_the_control_is_a_unit_vector_with_the_same_singular_values(pixel):
    editor = fitted(pixel)
    before, values = editor._directions(BATCH)
    editor.randomise(Streams(1))
    after, same = editor._directions(BATCH)
    torch.testing.assert_close(after.flatten(2).norm(dim=2), torch.ones(2, 2))
    assert torch.equal(values, same)
    assert torch.equal(after[0], after[1])
    assert float((before * after).flatten(2).sum(2).abs().max()) < 0.5


def test_an_edit_without_a_number_is_refused(pixel):
    with pytest.raises(BadInput, match="by number, 0 to 1"):
        fitted(pixel, iterations=1).edit(BATCH, Edit("hat+", "hat"), torch.ones(1))
