"""Noise whose large entries are drawn again."""

import torch

from latentbench.cache import Cache
from latentbench.streams import Streams
from latentbench.types import Space
from methods.generation.entry_truncation import EntryTruncation

IDS = tuple(f"{k}" for k in range(50))


def changed(model, z, tau):
    editor = EntryTruncation(tau=tau)
    editor.attach(model, Streams(0), Cache(None))
    return editor.changed(z, IDS)[Space.NOISE]


def test_entries_are_those_of_a_truncated_normal_law_and_small_ones_stay(pixel):
    z, tau = pixel.prior(Streams(0), IDS).parts[Space.NOISE], 0.8
    found = changed(pixel, z, tau)
    assert float(found.abs().max()) <= tau
    inside = z.abs() <= tau
    assert torch.equal(found[inside], z[inside])
    normal = torch.distributions.Normal(0.0, 1.0)
    share = 2 * normal.cdf(torch.tensor(tau)) - 1
    density = normal.log_prob(torch.tensor(tau)).exp()
    for entries in (found, found[~inside]):  # the drawn ones have the law by themselves
        expected = float(1 - 2 * tau * density / share)  # its variance
        assert abs(float(entries.square().mean()) - expected) < 0.02
        assert abs(float(entries.mean())) < 0.02


def test_noise_within_tau_is_plain_sampling(pixel):
    z = pixel.prior(Streams(0), IDS).parts[Space.NOISE]
    assert torch.equal(changed(pixel, z, 10.0), z)
