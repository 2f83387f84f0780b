"""Counterfactuals of a causal code: strength, sign, and what follows."""

import pytest
import torch

from latentbench.cache import Cache
from latentbench.cells.compatibility import Parts
from latentbench.conformance import toy
from latentbench.errors import BadInput
from latentbench.models.diffusion_autoencoder import DiffusionAutoencoder
from latentbench.streams import Streams
from latentbench.types import Edit
from methods.directions.causal_do import CausalDo

DATA = toy.ToyData()


def attached(model, **settings) -> CausalDo:
    editor = CausalDo(**settings)
    editor.attach(model, Streams(0), Cache(None))
    return editor


def test_the_sign_says_which_end_of_the_factor_is_set(causal):
    editor, code = attached(causal), torch.randn(2, 12)
    for sign, level in ((1, 1.0), (-1, 0.0)):
        found = editor.moved(code, Edit("smile", "smile", sign), sign * torch.ones(2))
        torch.testing.assert_close(found[:, 8:], torch.full((2, 4), level))
        torch.testing.assert_close(found[:, :8], code[:, :8])


def test_a_cause_changes_more_of_the_image_with_its_effects_than_without(causal):
    batch, edit = DATA.batch("test", range(2)), Edit("glasses+", "glasses")
    strengths = torch.tensor([0.0, 1.0])
    followed, alone = (
        attached(causal, propagate=propagate).edit(batch, edit, strengths)
        for propagate in (True, False)
    )
    torch.testing.assert_close(followed[:, 0], alone[:, 0], rtol=1e-3, atol=1e-4)
    assert float((followed[:, 1] - alone[:, 1]).abs().amax((1, 2, 3)).min()) > 1e-3


def test_an_attribute_that_the_model_does_not_know_is_refused(causal):
    with pytest.raises(BadInput, match="unknown factor of this model 'beard'"):
        attached(causal).edit(DATA.batch("test", [0]), Edit("beard+", "beard"), torch.ones(1))


def test_a_model_without_a_graph_is_refused():
    reason = Parts(CausalDo, {}, DiffusionAutoencoder, DATA, toy.Asks(verb="edit")).misfit()
    assert reason is not None and "CausalDiffusion" in reason
