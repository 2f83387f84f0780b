"""pOps: slots and masks, the prediction, guidance, whitening, and that an operator is learned."""

from itertools import pairwise

import pytest
import torch
from diffusers import UnCLIPScheduler

from latentbench.cache import Cache
from latentbench.conformance import toy
from latentbench.errors import BadInput
from latentbench.fitting import Fitting
from latentbench.streams import Streams
from latentbench.types import Edit
from methods.recombination import embedding_prior, pops
from methods.recombination.embedding_prior import predicted, trained
from methods.recombination.pops import Pops

D = 6  # numbers of an embedding
IDS = ("x", "y")


def editor(**settings):
    found = Pops(**{**Pops.small, **settings})
    found.streams = Streams(0)
    return found


def normal(name, rows=2):
    return Streams(7).normal(name, [str(k) for k in range(rows)], (D,))


def network(**settings):
    return editor(**settings)._network("wear", torch.zeros(1, D))


# ---------------------------------------------------------------- the prior


def test_slots_come_first_the_query_last_and_the_mask_is_causal():
    net, seen = network(), {}
    block = net.transformer_blocks[0]
    block.register_forward_pre_hook(
        lambda module, args, kwargs: seen.update(h=args[0], mask=kwargs["attention_mask"]),
        with_kwargs=True,
    )
    slots = torch.stack([normal("a"), normal("b")], 1)
    predicted(net, normal("x"), torch.tensor([3, 4]), slots)
    h, mask = seen["h"], seen["mask"]
    assert h.shape == (2, 6, 16)  # slot a, slot b, 0, t, e_t, query
    assert net.encoder_hidden_states_proj is not None
    torch.testing.assert_close(h[:, :2], net.encoder_hidden_states_proj(slots))
    torch.testing.assert_close(h[:, 2], net.embedding_proj.bias.expand(2, -1))
    torch.testing.assert_close(h[:, 4], net.proj_in(normal("x")))
    assert torch.equal(h[:, 5], net.prd_embedding[:, 0].expand(2, -1))
    assert torch.equal(mask[0] < 0, torch.ones(6, 6).triu(1) > 0)


def test_how_embeddings_are_whitened_is_none_of_the_weights():
    net = network()
    assert {k for k in net.state_dict() if k not in trained(net)} == {"clip_mean", "clip_std"}


def test_the_start_depends_on_seed_and_operator_and_not_on_the_global_generator():
    first = network().state_dict()
    torch.manual_seed(5)
    state = torch.get_rng_state()
    again = network().state_dict()
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(first[k], again[k]) for k in first)
    other = editor()._network("pose", torch.zeros(1, D)).state_dict()
    assert not torch.equal(first["proj_in.weight"], other["proj_in.weight"])


# ---------------------------------------------------------------- sampling


@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_a_sample_is_what_the_published_scheduler_draws(scale):
    """The authors' loop: x0 predictions are mixed, then UnCLIPScheduler steps, clipped."""
    method = editor(prior_guidance=scale, prior_steps=7)
    net = method._network("wear", torch.zeros(1, D))
    torch.nn.init.normal_(net.proj_to_clip_embeddings.weight)  # some predictions beyond the range
    slots = torch.stack([normal("a", 1), normal("b", 1)], 1)
    theirs = UnCLIPScheduler(
        variance_type="fixed_small_log", prediction_type="sample", clip_sample=True,
        clip_sample_range=embedding_prior.RANGE,
    )  # fmt: skip
    theirs.set_timesteps(7)
    times = [*theirs.timesteps.tolist(), None]
    x = Streams(0).normal("pops/start", ("x",), (D,))
    reached = 0.0
    for i, (t, after) in enumerate(pairwise(times)):
        with torch.no_grad():
            told = predicted(net, x, torch.tensor([t]), slots)
            free = predicted(net, x, torch.tensor([t]), torch.zeros_like(slots))
        x0 = free + scale * (told - free)
        reached = max(reached, float(x0.abs().max()))
        noise = Streams(0).generator(f"pops/noise/{i}", "x")
        x = theirs.step(x0, t, x, prev_timestep=after, generator=noise).prev_sample
    with torch.no_grad():
        found = method.sample(net, slots, ("x",))
    assert reached > embedding_prior.RANGE
    torch.testing.assert_close(found, x, rtol=1e-3, atol=1e-3)


def test_each_id_has_a_noise_of_its_own():
    method, net = editor(), network()
    slots = torch.stack([normal("a"), normal("b")], 1)
    with torch.no_grad():
        both = method.sample(net, slots, IDS)
        turned = method.sample(net, slots.flip(0), IDS[::-1])
        other = method.sample(net, slots, ("z", "y"))
    torch.testing.assert_close(turned.flip(0), both)
    assert not torch.allclose(other[0], both[0]) and torch.allclose(other[1], both[1])


# ---------------------------------------------------------------- learning


@pytest.fixture(scope="module")
def swap():
    """An operator that takes the second half of b's numbers, learned of 512 triplets."""
    method = editor(iterations=150, batch=64, width=32, prior_steps=4, learning_rate=5e-3, drop=0.1)
    method.fitting = Fitting(None)
    a, b = normal("a", 512), normal("b", 512)
    with torch.enable_grad():
        found = method.learn("wear", a, b, torch.cat([a[:, :3], b[:, 3:]], 1))
    method.learned_ = {f"wear/{k}": v.detach() for k, v in found.items()}
    return method


def test_an_operator_is_learned_and_its_slots_have_roles(swap):
    a, b = normal("new a", 64), normal("new b", 64)
    ids = [str(k) for k in range(64)]
    found = swap.operate("wear", a, b, ids)
    turned = swap.operate("wear", b, a, ids)

    def gap(x, y):
        return float((x - y).square().mean())

    assert gap(found[:, :3], a[:, :3]) < 0.3 and gap(found[:, 3:], b[:, 3:]) < 0.3
    assert gap(turned[:, :3], b[:, :3]) < 0.3 and gap(turned[:, 3:], a[:, 3:]) < 0.3
    assert gap(found[:, 3:], a[:, 3:]) > 1  # unrelated: 2


def test_each_slot_is_dropped_by_itself_in_training(monkeypatch):
    """Dropped is the zero vector of whitened embeddings."""
    method, seen = editor(iterations=1, batch=4096, drop=0.25), []

    def spy(net, noisy, t, slots):
        seen.append(slots)
        return predicted(net, noisy, t, slots)

    monkeypatch.setattr(pops, "predicted", spy)
    method.fitting = Fitting(None)
    a, b = normal("a", 64), normal("b", 64)
    with torch.enable_grad():
        method.learn("wear", a, b, a + b)
    gone = (seen[0] == 0).all(2)
    assert torch.equal(gone, (seen[0] == 0).any(2))
    assert gone.float().mean(0).tolist() == pytest.approx([0.25, 0.25], abs=0.03)
    assert float(gone.all(1).float().mean()) == pytest.approx(1 / 16, abs=0.015)


def test_a_fit_goes_on_where_it_was_killed(diffae, tmp_path):
    class Killed(Exception):
        pass

    def killing(step, count):
        if step == 2:
            raise Killed

    def attached(**given):
        method = Pops(**{**Pops.small, "iterations": 4})
        method.attach(diffae, Streams(0), Cache(None), fitting=Fitting(tmp_path, **given))
        return method

    data, edits = toy.ToyData(), [Edit("wear", factors=("hat",)), Edit("smile+", "smile")]
    whole = Pops(**{**Pops.small, "iterations": 4})
    whole.attach(diffae, Streams(0), Cache(None))
    with torch.enable_grad():
        whole.fit(data, edits)
        with pytest.raises(Killed):
            attached(seconds=0.0, report=killing).fit(data, edits)
        again = attached()
        again.fit(data, edits)
    assert again.state().keys() == whole.state().keys()
    assert all(torch.equal(v, whole.state()[k]) for k, v in again.state().items())
    assert not any(k.startswith("smile") for k in whole.state())  # an edit that takes nothing


def test_refusals():
    with pytest.raises(BadInput, match="a width of 30 is no multiple of the 4 heads"):
        Pops(width=30)
    method = editor()
    method.learned_ = {}
    with pytest.raises(BadInput, match="has not learned 'wear'"):
        method.operate("wear", normal("a"), normal("b"), IDS)
