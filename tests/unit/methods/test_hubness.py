"""Hubs of a pool of latents, and samples that are made of hubs alone."""

import pytest
import torch

from latentbench.cache import Cache
from latentbench.conformance import toy
from latentbench.errors import BadInput
from latentbench.streams import Streams
from latentbench.types import Space
from methods.generation.hubness import HubnessSampling, k_occurrence, smallest_count

DATA, IDS = toy.ToyData(), tuple(f"{k}" for k in range(60))


def attached(model, **settings):
    editor = HubnessSampling(**{"pool": 600, "share": 0.05, **settings})
    editor.attach(model, Streams(0), Cache(None))
    return editor


def fitted(model, **settings):
    editor = attached(model, **settings)
    editor.fit(DATA, [])
    return editor


@pytest.fixture(scope="module")
def of_gan(gan):
    return fitted(gan)


def drawn(n, d, seed=3):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


def brute_force(x, k):
    """Return N_k and the k-th neighbour's distance, one latent at a time."""
    counts, radii = [0] * len(x), []
    for i in range(len(x)):
        gaps = [(float((x[i] - x[j]).double().norm()), j) for j in range(len(x)) if j != i]
        near = sorted(gaps)[:k]
        radii.append(near[-1][0])
        for _, j in near:
            counts[j] += 1
    return counts, radii


def test_k_occurrence_against_brute_force():
    x = drawn(120, 8)
    for k in (1, 5):
        counts, radii = k_occurrence(x, k)
        expected = brute_force(x, k)
        assert counts.tolist() == expected[0]
        assert torch.allclose(radii, torch.tensor(expected[1]), atol=1e-5)
        assert int(counts.sum()) == 120 * k


def test_blocks_of_a_large_pool_do_not_count_a_latent_as_its_own_neighbour(monkeypatch):
    x = drawn(120, 8)
    whole = k_occurrence(x, 5)
    monkeypatch.setattr("methods.generation.hubness.POOLED", 50)
    assert all(torch.equal(a, b) for a, b in zip(k_occurrence(x, 5), whole, strict=True))


def test_a_pool_of_noise_has_hubs_in_many_dimensions_and_none_of_50_in_few():
    few, many = (k_occurrence(drawn(4000, d), 5)[0] for d in (16, 64))
    assert int(few.max()) < 50 < int(many.max())


def test_hubs_are_near_the_mean():
    x = drawn(4000, 64)
    counts, _ = k_occurrence(x, 5)
    pair = torch.stack([counts.float(), -x.norm(dim=1)])
    assert float(pair.corrcoef()[0, 1]) == pytest.approx(0.63, abs=0.08)


def test_a_candidate_is_counted_as_one_of_the_pool(gan, of_gan):
    """Put in the pool, it is among the neighbours of as many others."""
    z = drawn(20, 16)
    found = of_gan.hubness(z).tolist()
    for k in range(len(z)):
        together = torch.cat([of_gan.pool_, gan.push(z[k : k + 1])])
        assert int(k_occurrence(together, 5)[0][-1]) == found[k]


def test_the_threshold_is_the_smallest_that_the_share_allows():
    counts = torch.tensor([0, 0, 1, 2, 2, 3, 9, 9])
    assert [smallest_count(counts, s) for s in (0.25, 0.3, 0.4, 0.9, 0.01)] == [4, 4, 3, 1, 9]
    assert smallest_count(torch.arange(100), 0.29) == 71


def test_the_smallest_share_is_never_refused_for_ties(gan):
    editor = fitted(gan, pool=1100, share=0.001)
    assert editor.learned_["threshold"] > 0


def test_every_sample_is_a_hub_and_no_two_are_the_same(gan, of_gan):
    z = gan.prior(Streams(0), IDS).parts[Space.NOISE]
    found, t = of_gan.changed(z, IDS)[Space.NOISE], of_gan.state()["threshold"]
    assert (of_gan.hubness(found) >= t).all()
    assert len(found.unique(dim=0)) == len(IDS)
    fresh = of_gan.hubness(drawn(4000, 16)) >= t
    assert 0.02 < float(fresh.float().mean()) < 0.1
    some = of_gan.changed(z[[7, 3]], (IDS[7], IDS[3]))[Space.NOISE]
    assert torch.equal(some, found[[7, 3]])  # whatever else is made


def test_the_control_has_its_hubs_distances_and_its_own_directions(gan, of_gan):
    z = gan.prior(Streams(0), IDS).parts[Space.NOISE]
    control = fitted(gan, keep="matched")
    middle, w = control.state()["centre"], gan.push(z)
    hubs = gan.push(of_gan.changed(z, IDS)[Space.NOISE])
    found = control.changed(z, IDS)[Space.STYLE]
    assert torch.allclose((found - middle).norm(dim=1), (hubs - middle).norm(dim=1), rtol=1e-4)
    cosine = torch.nn.functional.cosine_similarity(found - middle, w - middle)
    assert torch.allclose(cosine, torch.ones(len(z)))
    assert float((found - middle).norm(dim=1).mean()) < float((w - middle).norm(dim=1).mean())


def test_in_noise_the_mean_is_zero(vae):
    editor = fitted(vae, keep="matched", space="noise")
    z = vae.prior(Streams(0), IDS).parts[Space.NOISE]
    found = editor.changed(z, IDS)[Space.NOISE]
    assert torch.allclose(found / found.norm(dim=1, keepdim=True), z / z.norm(dim=1, keepdim=True))


def test_a_threshold_that_no_latent_reaches_is_refused(gan):
    with pytest.raises(BadInput, match=r"0 of 600 .* method.threshold=500 .* most frequent of \d+"):
        fitted(gan, threshold=500)


def test_candidates_that_never_fit_are_refused(of_gan, gan, monkeypatch):
    monkeypatch.setattr("methods.generation.changed_prior.TRIES", 128)
    monkeypatch.setattr(of_gan, "hubness", lambda z: torch.zeros(len(z), dtype=torch.int64))
    with pytest.raises(BadInput, match="none of 128 candidates for image 'a' fits"):
        of_gan.changed(drawn(1, 16), ("a",))


def test_a_pool_without_neighbours_and_no_pool_are_refused(gan):
    with pytest.raises(BadInput, match="have no 5 neighbours"):
        HubnessSampling(pool=5)
    with pytest.raises(BadInput, match="call fit"):
        attached(gan).generate(IDS, None)
