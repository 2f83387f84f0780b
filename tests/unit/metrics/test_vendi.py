import numpy as np
import pytest
from planted import PlantedData, outputs_of

from metrics.sets.vendi import VendiScore, vendi, vendi_score


def test_best_orthogonal_rows_count_in_full():
    assert vendi(3 * np.eye(7)) == pytest.approx(7)
    assert vendi(np.eye(7, 9)) == pytest.approx(7)


def test_worst_copies_count_once():
    row = np.random.default_rng(0).normal(size=(1, 5))
    assert vendi(np.repeat(row, 20, axis=0)) == pytest.approx(1)
    assert vendi(row * np.arange(1, 9)[:, None]) == pytest.approx(1)


def test_trap_repeating_a_set_adds_nothing():
    x = np.random.default_rng(0).normal(size=(6, 4))
    assert vendi(np.repeat(x, 5, axis=0)) == pytest.approx(vendi(x))


def test_two_classes_of_unequal_size():
    """exp of the entropy of (3/4, 1/4)."""
    x = np.eye(2)[[0, 0, 0, 1]]
    assert vendi(x) == pytest.approx(np.exp(-(0.75 * np.log(0.75) + 0.25 * np.log(0.25))))


def test_a_row_of_zeros_is_no_nan():
    assert np.isfinite(vendi(np.array([[0.0, 0.0], [1.0, 0.0]])))


def test_interval_needs_twenty_images():
    x = np.random.default_rng(0).normal(size=(20, 3))
    ids = [str(k) for k in range(20)]
    assert vendi_score((x, ids)).low is not None
    assert "at least 20" in vendi_score((x[:19], ids[:19])).note


def test_collapse_scores_below_real_images(surroundings):
    images = PlantedData().batch("test", range(40)).images
    found = []
    for shown in (images, images[:1].expand(40, -1, -1, -1)):
        metric = VendiScore(reference_n=100)
        metric.prepare(surroundings)
        metric.update(outputs_of(shown))
        found.append(metric.compute()["vendi_zoo1"])
    assert found[1].value == pytest.approx(1) and found[0].value > 1.1
    assert "40 real images" in found[0].note
