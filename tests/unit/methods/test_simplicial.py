"""Cells of the noise, and the share of it that lies inside them."""

import pytest
import torch

from latentbench.cache import Cache
from latentbench.conformance import toy
from latentbench.errors import BadInput
from latentbench.streams import Streams
from latentbench.types import Space
from methods.generation.simplicial import SimplicialTruncation, clearness

DATA, IDS = toy.ToyData(), tuple(f"{k}" for k in range(40))


def attached(model, **settings):
    editor = SimplicialTruncation(**{"pool": 2000, "modes": 4, **settings})
    editor.attach(model, Streams(0), Cache(None))
    return editor


def fitted(model, **settings):
    editor = attached(model, **settings)
    editor.fit(DATA, [])
    return editor


def drawn(n, d):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize(
    ("d", "m", "shares"),
    [
        (64, 8, {0.9: 0.238, 0.7: 0.289, 0.5: 0.338}),
        (64, 10, {0.9: 0.209, 0.7: 0.255, 0.5: 0.298}),
        (128, 16, {0.9: 0.156, 0.7: 0.192, 0.5: 0.226}),
        (128, 100, {0.39: 0.08, 0.01: 0.2}),
    ],
)
def test_thresholds_that_were_found_by_another_simulation(d, m, shares):
    clear = clearness(drawn(50_000, d), torch.arange(m))
    for share, tau in shares.items():
        assert float((clear > tau).float().mean()) == pytest.approx(share, abs=0.012)


def test_the_released_threshold_takes_nearly_all():
    assert float((clearness(drawn(50_000, 64), torch.arange(10)) > 0.135).float().mean()) > 0.999


def test_clearness_is_the_softmax_over_equidistant_centres():
    z, axes = drawn(100, 16), torch.tensor([3, 5, 11])
    centres = 16**0.5 * torch.eye(16)[axes]
    gaps = torch.cdist(centres, centres)
    assert torch.allclose(gaps[gaps > 0], gaps.max())
    u = z / z.norm(dim=1, keepdim=True)
    assert torch.allclose(clearness(z, axes), (u @ centres.T).softmax(1).amax(1))


def test_the_asked_share_of_fresh_noise_lies_inside(gan):
    for acceptance in (0.2, 0.8):
        learned = fitted(gan, acceptance=acceptance).state()
        inside = clearness(drawn(50_000, 16), learned["axes"]) > learned["tau"]
        assert float(inside.float().mean()) == pytest.approx(acceptance, abs=0.03)


def test_noise_inside_stays_and_other_noise_is_drawn_again(gan):
    z = gan.prior(Streams(0), IDS).parts[Space.NOISE]
    for keep in ("inside", "border"):
        editor = fitted(gan, keep=keep)
        axes, tau = editor.state()["axes"], editor.state()["tau"]
        found = editor.changed(z, IDS)[Space.NOISE]
        assert ((clearness(found, axes) > tau) == (keep == "inside")).all()
        fits = (clearness(z, axes) > tau) == (keep == "inside")
        assert torch.equal(found[fits], z[fits]) and 5 < int(fits.sum()) < 35
        assert (found[~fits] != z[~fits]).all()
        assert len(found.unique(dim=0)) == len(IDS)


def test_more_cells_than_axes_are_refused(gan):
    with pytest.raises(BadInput, match=r"modes=17 .* 16 numbers"):
        attached(gan, modes=17).fit(DATA, [])


def test_no_cells_are_refused(gan):
    with pytest.raises(BadInput, match="call fit"):
        attached(gan).generate(IDS, None)
