import math

import pytest
import torch
from planted import outputs_of
from torchmetrics.functional.image import (
    peak_signal_noise_ratio,
    structural_similarity_index_measure,
)

from latentbench.errors import BadInput
from metrics.pairs.mse import MeanSquaredError
from metrics.pairs.perceptual import PerceptualDistance
from metrics.pairs.psnr import PSNR
from metrics.pairs.ssim import SSIM


def images(n=10, seed=0):
    return torch.rand(n, 3, 16, 16, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def scored(metric, a, b):
    metric.update(outputs_of(a, truths=b[:, None]))
    return metric.compute()


def test_equal_images_are_best():
    x = images()
    assert scored(PSNR(), x, x)["psnr"].value == 100
    assert scored(SSIM(), x, x)["ssim"].value == pytest.approx(1, abs=1e-9)
    assert scored(MeanSquaredError(), x, x)["mse"].value == 0


def test_black_against_white_is_worst():
    x = torch.ones(10, 3, 16, 16)
    assert scored(PSNR(), x, -x)["psnr"].value == pytest.approx(0)
    assert scored(MeanSquaredError(), x, -x)["mse"].value == 1
    assert scored(SSIM(), x, -x)["ssim"].value < 1e-3


def test_trap_mean_of_ratios_is_not_ratio_of_mean():
    truth = torch.zeros(2, 3, 16, 16)
    output = torch.stack([truth[0] + 0.02, truth[0] + 0.2])
    assert scored(PSNR(), output, truth)["psnr"].value == pytest.approx(30, abs=1e-4)


def test_equal_to_torchmetrics_image_by_image():
    a, b = images(3), images(3, seed=1)
    metric = PSNR()
    metric.update(outputs_of(a, truths=b[:, None]))
    for value, x, y in zip(metric.table()["psnr"], (a + 1) / 2, (b + 1) / 2, strict=True):
        assert float(value) == pytest.approx(
            float(peak_signal_noise_ratio(x, y, data_range=1.0)), abs=1e-4
        )
    metric = SSIM()
    metric.update(outputs_of(a, truths=b[:, None]))
    for value, x, y in zip(metric.table()["ssim"], (a + 1) / 2, (b + 1) / 2, strict=True):
        alone = structural_similarity_index_measure(x[None], y[None], data_range=1.0)
        assert float(value) == pytest.approx(float(alone), abs=1e-5)


def test_ssim_refuses_images_smaller_than_its_window():
    with pytest.raises(BadInput, match="at least 11 pixels"):
        SSIM().update(outputs_of(torch.zeros(2, 3, 8, 8), truths=torch.zeros(2, 1, 3, 8, 8)))


def test_columns_name_what_is_compared_with():
    x = images()
    metric = PSNR(against=["truths", "sources", "reconstructions"])
    metric.update(outputs_of(x, truths=x[:, None], sources=-x, reconstructions=x.clamp(-0.5, 0.5)))
    scores = metric.compute()
    assert list(scores) == ["psnr", "psnr_source", "psnr_reconstruction"] == list(metric.figures)
    assert scores["psnr"].value > scores["psnr_reconstruction"].value > scores["psnr_source"].value


def test_only_rows_at_the_matched_effect_count_and_only_at_the_headline():
    truth = torch.zeros(20, 2, 3, 16, 16)
    outputs = truth.clone()
    outputs[:, 0] = 1.0
    outputs[:5, 1] = 1.0
    samples = outputs_of(outputs[:, 0], truths=truth)
    matched = torch.arange(20) >= 5
    samples = type(samples)(
        samples.ids, outputs, samples.groups, truths=truth, main=1, matched=matched
    )
    metric = MeanSquaredError()
    metric.update(samples)
    score = metric.compute()["mse"]
    assert (score.value, score.n) == (0, 15)
    assert "5 of 20 rows did not reach" in score.note
    assert metric.table()["mse"].shape == (20, 2)


def test_no_row_at_the_matched_effect_gives_no_value():
    x = images()
    samples = outputs_of(x, truths=x[:, None], main=0, matched=torch.zeros(10, dtype=torch.bool))
    metric = PSNR()
    metric.update(samples)
    score = metric.compute()["psnr"]
    assert score.value is None and "10 of 10" in score.note


@pytest.mark.parametrize(
    ("make", "what"),
    [
        (lambda x: outputs_of(x), "needs Samples.truths, got None"),
        (lambda x: outputs_of(x * 2, truths=x[:, None]), "values in"),
        (lambda x: outputs_of(x.double(), truths=x[:, None]), "float64"),
    ],
)
def test_bad_input_names_metric_and_field(make, what):
    with pytest.raises(BadInput, match="PSNR.*" + what):
        PSNR().update(make(images()))


def test_perceptual_distance(surroundings):
    x = images()
    other = images(seed=1)
    for against in ("sources", "reconstructions"):
        metric = PerceptualDistance(against=[against])
        metric.prepare(surroundings)
        metric.update(outputs_of(x, **{against: x}))
        (score,) = metric.compute().values()
        assert score.value == 0
    metric = PerceptualDistance()
    metric.prepare(surroundings)
    metric.update(outputs_of(x, truths=other[:, None]))
    (score,) = metric.compute().values()
    judge = surroundings.judge("zoo1", torch.device("cpu"))
    assert score.value == pytest.approx(float(judge.distance(x, other).mean()), rel=1e-6)
    assert score.low < score.value < score.high and score.n == 10


def test_trap_a_shift_by_a_constant_fools_neither():
    """A perceptual distance without normalised channels would see brightness alone."""
    x = images().clamp(-0.5, 0.5)
    assert scored(PSNR(), x + 0.1, x)["psnr"].value == pytest.approx(
        -20 * math.log10(0.05), abs=1e-3
    )
