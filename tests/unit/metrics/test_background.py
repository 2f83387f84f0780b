import math

import pytest
import torch
from planted import outputs_of

from latentbench.errors import BadInput
from metrics.pairs.background import Background
from metrics.pairs.background_lpips import BackgroundLPIPS
from metrics.pairs.background_perceptual import BackgroundPerceptual


def source(n=8, size=48):
    return torch.rand(n, 3, size, size, generator=torch.Generator().manual_seed(0)) - 0.5


def box(n=8, size=48, side=16):
    masks = torch.zeros(n, size, size)
    masks[:, 4 : 4 + side, 4 : 4 + side] = 1
    return masks


def measured(outputs, sources, masks, **settings):
    metric = Background(**settings)
    metric.update(outputs_of(outputs, sources=sources, masks=masks))
    return {name.removesuffix("_pie"): score for name, score in metric.compute().items()}


@pytest.mark.parametrize("whole", [False, True])
def test_best_and_trap_a_change_inside_the_mask_is_none_of_its_business(whole):
    x, masks = source(), box()
    edited = torch.where(masks[:, None] > 0, -x, x)
    found = measured(edited, x, masks, whole_image=whole)
    assert found["bg_psnr"].value == 100 and found["bg_mse"].value == 0
    assert found["bg_ssim"].value == pytest.approx(1)


def test_worst_noise_everywhere():
    x = source()
    other = torch.rand(x.shape, generator=torch.Generator().manual_seed(1)) - 0.5
    found = measured(other, x, box())
    assert found["bg_psnr"].value < 20 and found["bg_ssim"].value < 0.1


def test_a_growing_mask_leaves_the_psnr_and_raises_that_of_the_whole_image():
    x = source()
    noisy = (x + 0.1 * torch.randn(x.shape, generator=torch.Generator().manual_seed(2))).clamp(
        -1, 1
    )
    own, pie = (
        [measured(noisy, x, box(side=side), whole_image=w)["bg_psnr"].value for side in (4, 20, 40)]
        for w in (False, True)
    )
    assert own == pytest.approx([own[0]] * 3, abs=0.2)
    assert pie[2] - pie[0] == pytest.approx(10 * math.log10(2288 / 704), abs=0.2)


def test_a_mask_of_everything_has_no_background():
    x, masks = source(), box()
    masks[0] = 1
    found = measured(x, x, masks)
    assert found["bg_mse"].n == 7 and "1 undefined" in found["bg_mse"].note


def test_errors_name_what_is_needed():
    x = source()
    with pytest.raises(BadInput, match=r"Background needs Samples\.masks, got None"):
        Background().update(outputs_of(x, sources=x))
    with pytest.raises(BadInput, match=r"at least 11 pixels per side, got \(8, 8\)"):
        Background().update(outputs_of(x[..., :8, :8], sources=x[..., :8, :8], masks=box(8, 8)))
    with pytest.raises(BadInput, match=r"Samples\.masks must be float32 of 0 and 1 and as large"):
        Background().update(outputs_of(x, sources=x, masks=box() * 2))


def test_the_learned_twin_and_lpips_see_only_the_background(surroundings):
    x, masks = source(8, 16), box(8, 16, 6)
    lpips = BackgroundLPIPS()
    lpips.network, lpips.surroundings = Distance(), surroundings
    twin = BackgroundPerceptual()
    twin.prepare(surroundings)
    for metric, name in ((lpips, "bg_lpips_squeeze_pie"), (twin, "bg_lpd_zoo1")):
        values = []
        for edited in (masks[:, None] > 0, masks[:, None] == 0):
            metric.reset()
            metric.update(outputs_of(torch.where(edited, -x, x), sources=x, masks=masks))
            values.append(metric.compute()[name].value)
        assert values[0] == pytest.approx(0, abs=1e-9) and values[1] > 1e-3


class Distance(torch.nn.Module):
    def forward(self, a, b):
        return (a - b).square().mean((1, 2, 3))
