"""Random streams: one per seed, component and id."""

import numpy as np
import pytest
import torch

from latentbench.errors import BadInput
from latentbench.streams import LARGE, Streams, inside_out

IDS = [f"test/{k}" for k in range(200)]


def test_a_row_depends_on_its_id_alone():
    many = Streams(3).normal("prior", IDS, (2, 3))
    alone = Streams(3).normal("prior", IDS[17:18], (2, 3))
    assert torch.equal(many[17:18], alone)


def test_seed_component_and_id_each_change_the_draw():
    first = Streams(0).normal("prior", ["x"], (100,))
    others = [
        Streams(1).normal("prior", ["x"], (100,)),
        Streams(0).normal("sdedit", ["x"], (100,)),
        Streams(0).normal("prior", ["y"], (100,)),
    ]
    for other in others:
        assert abs(float(torch.cosine_similarity(first, other))) < 0.4


def test_the_global_generator_is_neither_read_nor_moved():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    first = Streams(0).normal("prior", ["x"], (4,))
    assert torch.equal(before, torch.get_rng_state())
    torch.manual_seed(1)
    assert torch.equal(first, Streams(0).normal("prior", ["x"], (4,)))


def test_draws_are_standard_normal_and_independent_over_ids():
    z = Streams(0).normal("prior", IDS, (500,))
    assert z.dtype == torch.float32
    assert abs(float(z.mean())) < 0.015 and abs(float(z.std()) - 1) < 0.015
    correlation = torch.corrcoef(z) - torch.eye(len(IDS))
    assert float(correlation.abs().max()) < 0.3


def test_draws_stay_what_they_were():
    """A change of these figures changes every published number: raise the versions if you must."""
    found = Streams(0).normal("prior", ["test/0"], (3,))[0]
    expected = torch.tensor(EXPECTED)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)


EXPECTED = [-0.7010, -1.2721, 0.9220]


@pytest.mark.parametrize(("population", "count"), [(1, 1), (7, 7), (60, 5), (60, 60), (3000, 40)])
def test_a_large_shuffle_is_put_together_inside_out(population, count):
    """As it is written, with all numbers in their places."""
    twister, order = np.random.RandomState(5), []
    for i in range(population):
        high, low = twister.randint(0, 2**32, 2, dtype=np.uint32).tolist()
        z = ((high << 32) + low) % (i + 1)
        order.append(i)
        order[i], order[z] = order[z], i
    assert inside_out(2**40 + 5, population, count).tolist() == order[:count]


@pytest.mark.slow
def test_a_choice_of_very_many_is_the_beginning_of_a_shuffle():
    """Of just so many that the shuffle is another, and of one fewer."""
    for population in (LARGE, LARGE - 1):
        order = torch.randperm(population, generator=Streams(0).generator("fit"))
        assert Streams(0).choice("fit", population, 50) == order[:50].tolist()


def test_a_choice_follows_seed_and_component_and_repeats_nothing():
    first = Streams(0).choice("fit", 1000, 50)
    assert len(set(first)) == 50 and all(0 <= k < 1000 for k in first)
    assert first == Streams(0).choice("fit", 1000, 50)
    others = [Streams(1).choice("fit", 1000, 50), Streams(0).choice("other", 1000, 50)]
    assert all(len(set(first) & set(other)) < 15 for other in others)
    assert sorted(Streams(0).choice("fit", 20, 20)) == list(range(20))
    with pytest.raises(BadInput, match="21 of 20"):
        Streams(0).choice("fit", 20, 21)
