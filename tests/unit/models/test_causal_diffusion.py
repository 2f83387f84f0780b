"""Codes that a graph ties together: abducted, acted upon, predicted along chains."""

import pytest
import torch

from latentbench.conformance import toy
from latentbench.errors import BadInput
from latentbench.models.causal_diffusion import CausalEncoder, causal_order

CHAIN = (("glasses", "hat"), ("hat", "smile"))


@pytest.fixture
def z(causal):
    return causal.encode_semantic(toy.ToyData().batch("test", range(3)).images)


def blocks(causal, z):
    return causal.semantic_encoder.blocks(z)


def test_a_circle_and_an_unknown_factor_are_refused():
    with pytest.raises(BadInput, match="no circles, got"):
        causal_order(("a", "b"), [("a", "b"), ("b", "a")])
    with pytest.raises(BadInput, match="unknown factor of an edge 'c'"):
        CausalEncoder(16, (8, 16), ("a", "b"), (("a", "c"),))


def test_what_is_abducted_predicts_the_code(causal, z):
    encoder = causal.semantic_encoder
    u = encoder.abduct(z)
    torch.testing.assert_close(encoder.predict(u), z)
    assert float((u - z).abs()[:, :4].max()) == 0  # nothing acts on glasses
    assert float((u - z).abs()[:, 4:].amax(1).min()) > 1e-3


def test_predictions_are_the_equations_along_the_chain(causal):
    encoder, u = causal.semantic_encoder, torch.randn(3, 12)
    glasses, hat, smile = u.split(4, 1)
    hat = encoder.equations["hat"](glasses) + hat
    smile = encoder.equations["smile"](hat) + smile
    torch.testing.assert_close(encoder.predict(u), torch.cat([glasses, hat, smile], 1))


def test_an_intervention_moves_effects_of_effects_and_no_causes(causal, z):
    share, before = torch.ones(3), blocks(causal, z)
    first = blocks(causal, causal.intervene(z, "glasses", 1.0, share))
    assert all(float((first[k] - before[k]).abs().amax(1).min()) > 1e-3 for k in first)
    last = blocks(causal, causal.intervene(z, "smile", 1.0, share))
    for name in ("glasses", "hat"):
        torch.testing.assert_close(last[name], before[name])
    torch.testing.assert_close(last["smile"], torch.ones(3, 4))  # `high` of the toy


def test_effects_stay_where_nothing_is_propagated(causal, z):
    after = causal.intervene(z, "glasses", 0.0, torch.ones(3), propagate=False)
    assert torch.equal(after[:, 4:], z[:, 4:])
    assert not after[:, :4].any()  # `low` of the toy


def test_a_share_goes_part_of_the_way(causal, z):
    share = torch.tensor([0.0, 0.5, 1.0])
    after = causal.intervene(z, "smile", 1.0, share)[:, 8:]
    torch.testing.assert_close(after, z[:, 8:] + share[:, None] * (1 - z[:, 8:]))
    torch.testing.assert_close(causal.intervene(z, "hat", 1.0, torch.zeros(3)), z)


def test_the_prior_has_the_spread_of_u(causal):
    encoder, noise = causal.semantic_encoder, torch.randn(4, 12)
    encoder.u_mean.fill_(0.5)
    encoder.u_spread.fill_(2.0)
    try:
        found = encoder.abduct(causal.draw_semantic(noise))
    finally:
        encoder.u_mean.zero_()
        encoder.u_spread.fill_(1.0)
    torch.testing.assert_close(found, 0.5 + 2 * noise)


def test_a_factor_without_a_block_is_refused(causal, z):
    with pytest.raises(BadInput, match="did you mean hat"):
        causal.intervene(z, "hats", 1.0, torch.ones(3))
