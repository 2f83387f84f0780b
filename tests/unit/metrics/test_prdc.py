import numpy as np
import pytest
from planted import PlantedData, outputs_of

from latentbench.intervals import jackknife_units
from metrics.half_samples import GROUPS, half_replicates, halves
from metrics.sets.prdc import NAMES, PrecisionRecall, _figures, prdc, prdc_scores


def normal(n, d=4, shift=0.0, seed=0):
    return np.random.default_rng(seed).normal(size=(n, d)) + shift


def names(n, prefix="x"):
    return [f"{prefix}{k:04d}" for k in range(n)]


def by_definition(a, b, k):
    """The four figures from whole distance matrices, as their papers write them."""
    gaps = {
        (i, j): np.linalg.norm(x[:, None] - y[None], axis=2)
        for i, x in enumerate((a, b))
        for j, y in enumerate((a, b))
    }
    made, real = (np.sort(gaps[i, i], axis=1)[:, k] for i in (0, 1))  # place 0 is the row itself
    inside = gaps[0, 1] < real
    return {
        "precision": inside.any(1).mean(),
        "recall": (gaps[0, 1] < made[:, None]).any(0).mean(),
        "density": inside.sum(1).mean() / k,
        "coverage": inside.any(0).mean(),
    }


@pytest.mark.parametrize(("n", "m", "k"), [(30, 50, 5), (50, 30, 3), (40, 40, 1)])
def test_equals_the_definitions(n, m, k):
    a, b = normal(n, shift=0.5), normal(m, seed=1)
    assert prdc(a, b, k) == pytest.approx(by_definition(a, b, k))


def test_blocks_change_nothing(monkeypatch):
    a, b = normal(50), normal(70, seed=1)
    whole = prdc(a, b)
    monkeypatch.setattr("metrics.sets.neighbours.BLOCK", 16)
    assert prdc(a, b) == pytest.approx(whole)


@pytest.mark.parametrize("spread", [1.0, 1e-3])
def test_figures_of_halves_are_those_of_what_stays(spread):
    """Also where all near neighbours of an image are in the other half."""
    a, b = normal(40), normal(300, seed=1, shift=0.3)
    b[::GROUPS] *= spread
    b[1] = 0
    kept = [halves(names(len(x))) for x in (a, b)]
    for found, *masks in zip(_figures(a, b, *kept, 3), *kept, strict=True):
        expected = prdc(*(x[mask] for x, mask in zip((a, b), masks, strict=True)), 3)
        assert found.tolist() == pytest.approx([expected[n] for n in NAMES])


def test_halves_give_what_the_jackknife_gives_where_the_figure_is_a_mean():
    values = normal(GROUPS, 1)[:, 0]
    kept = halves(names(GROUPS))
    found = half_replicates(values.mean(), np.array([values[mask].mean() for mask in kept]), False)
    without = [np.delete(values, k).mean() for k in range(GROUPS)]
    assert found == pytest.approx(without)


def test_a_share_of_halves_that_are_nearer_to_an_end_has_the_variance_of_the_whole():
    """Hits of halves are as many as of 100 independent rows, so those of the whole are of 200."""
    draws = np.random.default_rng(0).binomial(100, 0.95, (2000, 22)) / 100
    rows = [0.9 * 0.1 / jackknife_units(0.9, half_replicates(0.9, d, True)).values.var() * GROUPS
            for d in draws]  # fmt: skip
    assert np.median(rows) == pytest.approx(200, rel=0.15)


def test_too_few_images_for_neighbours_within_a_half_give_no_interval():
    few, enough = ((normal(n), names(n)) for n in (23, 24))
    assert all(s.low is None and "at least 24" in s.note for s in prdc_scores(few, enough, 5))
    assert all(s.low is not None for s in prdc_scores(enough, enough, 5))
    wide = prdc_scores(enough, enough, 14)
    assert all(s.low is None and "at least 36" in s.note for s in wide)
    many = normal(36), names(36)
    assert all(s.low is not None for s in prdc_scores(many, many, 14))


def test_best_equal_sets():
    a = normal(100)
    found = prdc(a, a)
    assert (found["precision"], found["recall"], found["coverage"]) == (1, 1, 1)
    assert found["density"] >= 1


def test_worst_disjoint_sets():
    assert prdc(normal(50), normal(50, seed=1, shift=100)) == dict.fromkeys(NAMES, 0)


def test_trap_one_mode_repeated_is_precise_and_covers_nothing():
    real = normal(200)
    made = real[:1] + 1e-6 * normal(100, seed=1)
    found = prdc(made, real)
    assert found["precision"] == 1 and found["recall"] < 0.02 and found["coverage"] < 0.1


def test_trap_one_far_real_image_lifts_precision_and_not_density():
    """Naeem et al., figure 2: the ball of an outlier is huge."""
    real = np.concatenate([normal(100), [[30.0, 30.0, 30.0, 30.0]]])
    made = normal(100, seed=1, shift=20)
    found = prdc(made, real)
    assert found["precision"] > 0.9 and found["density"] < 0.3


def score(surroundings, images, **settings):
    metric = PrecisionRecall(reference_n=200, **settings)
    metric.prepare(surroundings)
    metric.update(outputs_of(images))
    return metric.compute()


def test_note_gives_real_against_real_and_few_images_are_refused(surroundings):
    images = PlantedData().batch("test", range(60)).images
    found = score(surroundings, images)
    assert all("real against real" in s.note for s in found.values())
    assert all(s.low <= s.value <= s.high for s in found.values())
    found = score(surroundings, images[:5])
    assert all(s.value is None and "at least 6" in s.note for s in found.values())
    assert score(surroundings, images[:6])["coverage_zoo1"].low is None
