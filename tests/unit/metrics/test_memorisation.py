import numpy as np
import pytest
from planted import PlantedData, outputs_of
from sklearn.neighbors import NearestNeighbors

from metrics.sets.memorisation import Memorisation, authentic, data_copying
from metrics.sets.neighbours import nearest, nearest_others


def normal(n, d=4, seed=0):
    return np.random.default_rng(seed).normal(size=(n, d))


def test_neighbours_equal_scikit_learn(monkeypatch):
    monkeypatch.setattr("metrics.sets.neighbours.BLOCK", 16)
    a, b = normal(50), normal(70, seed=1)
    gaps, place = NearestNeighbors(n_neighbors=2).fit(b).kneighbors(a)
    found = nearest(a, b)
    assert found[0] == pytest.approx(gaps[:, 0]) and (found[1] == place[:, 0]).all()
    own = NearestNeighbors(n_neighbors=2).fit(b).kneighbors(b)[0][:, 1]
    assert nearest_others(b) == pytest.approx(own)


def test_best_new_draws_are_neither_copies_nor_far():
    values = [
        data_copying(normal(80, seed=3 * k), normal(80, seed=3 * k + 1), normal(80, seed=3 * k + 2))
        for k in range(60)
    ]
    assert abs(np.mean(values)) < 0.5 and 0.6 < np.std(values) < 1.5


def test_worst_copies():
    training, held_out = normal(100), normal(100, seed=1)
    copies = training[:60] + 1e-3 * normal(60, seed=2)
    assert data_copying(copies, held_out, training) < -5
    assert authentic(copies, training).mean() == 0


def test_trap_far_outputs_are_authentic_and_underfit():
    training, held_out, far = normal(100), normal(100, seed=1), normal(60, seed=2) + 20
    assert authentic(far, training).mean() == 1
    assert data_copying(far, held_out, training) > 5


def test_more_than_64_dimensions_are_projected():
    training, held_out = normal(200, 100), normal(100, 100, seed=1)
    assert data_copying(training[:50], held_out, training) < -5


@pytest.mark.parametrize(("split", "low", "high"), [("generator", 0, 1), ("test", 20, 100)])
def test_copies_of_the_training_split_are_found(surroundings, split, low, high):
    metric = Memorisation(training_n=100, reference_n=100)
    metric.prepare(surroundings)
    metric.update(outputs_of(PlantedData().batch(split, range(40)).images))
    found = metric.compute()
    assert low <= found["authpct_zoo1"].value <= high
    assert (found["ct_zoo1"].value < -5) == (split == "generator")
    assert "100 training images" in found["ct_zoo1"].note and found["ct_zoo1"].low is None


def test_held_out_images_are_no_training_images():
    both = Memorisation(training_split="test", training_n=600, reference_n=500)
    assert "needs 1100 images of the split 'test'" in str(both.unfed(PlantedData(1024)))
    assert both.unfed(PlantedData(1100)) is None
    assert Memorisation(training_n=600, reference_n=500).unfed(PlantedData(1024)) is None
