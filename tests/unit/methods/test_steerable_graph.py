"""GraphCG: its loss written out, the shapes it ends in, and what strength 0 and a mean."""

import pytest
import torch

from latentbench.cache import Cache
from latentbench.conformance import toy
from latentbench.errors import BadInput
from latentbench.streams import Streams
from latentbench.types import Edit
from methods.directions.steerable_graph import SteerableGraph, contrast

DATA = toy.ToyData()
SIZE = 12


def random(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


class OnGaussianCodes(SteerableGraph):
    """It learns from Gaussian codes, of which no direction is special."""

    def codes(self, data):
        return 2 * random(self.images, SIZE) + 1


def fitted(model, cls=OnGaussianCodes, **settings):
    editor = cls(**{"count": 3, "images": 64, "batch": 32, "iterations": 300,
                    "learning_rate": 0.01, **settings})  # fmt: skip
    editor.attach(model, Streams(0), Cache(None))
    with torch.enable_grad():
        editor.fit(DATA, [])
    return editor


def test_the_loss_is_that_of_the_pairs():
    """Against a loop over pairs, as the paper's estimate is written."""
    u, v, far = torch.nn.functional.normalize(random(3, 3, 4, 5), dim=3)
    terms = []
    for n in range(4):
        for i in range(3):
            terms.append(-torch.sigmoid(u[i, n] @ v[i, n]).log())
            terms.append(-(1 - torch.sigmoid(u[i, n] @ far[i, n])).log())
            terms += [-(1 - torch.sigmoid(u[i, n] @ u[j, n])).log() for j in range(i + 1, 3)]
    torch.testing.assert_close(contrast(u, v, far), torch.stack(terms).mean())


def test_linear_directions_end_as_a_regular_simplex(gan):
    d = fitted(gan).learned_["directions"]
    cosines = (d @ d.T)[~torch.eye(3, dtype=torch.bool)]
    torch.testing.assert_close(cosines, torch.full((6,), -0.5), atol=0.05, rtol=0)


@pytest.mark.slow
def test_squared_directions_end_on_axes_of_the_code(gan):
    d = fitted(gan, variant="relu_square", iterations=600).learned_["directions"]
    assert bool((d >= 0).all())
    assert float(d.max(1).values.min()) > 0.9


def test_a_strength_is_an_amount_in_standard_deviations(gan):
    editor, code = fitted(gan, iterations=1), random(2, SIZE)
    codes = editor.codes(DATA)
    unit = (codes - codes.mean(0)).square().mean().sqrt()
    moved = editor.moved(code, Edit("direction 1", component=1), torch.tensor([0.0, 1.5]))
    torch.testing.assert_close(moved[0], code[0])
    torch.testing.assert_close(moved[1] - code[1], 1.5 * unit * editor.learned_["directions"][1])


def test_the_correction_vanishes_at_0_and_depends_on_the_code(gan):
    editor, code = fitted(gan, variant="nonlinear", iterations=5), random(2, SIZE)
    edit = Edit("direction 0", component=0)
    torch.testing.assert_close(editor.moved(code, edit, torch.zeros(2)), code)
    change = editor.moved(code, edit, torch.ones(2)) - code
    assert float((change[0] - change[1]).norm()) > 1e-3
    other = SteerableGraph(variant="nonlinear")
    other.attach(gan, Streams(0), Cache(None))
    other.load_state(editor.state())
    assert torch.equal(other.moved(code, edit, torch.ones(2)), change + code)


def test_what_does_not_fit_is_refused(gan):
    with pytest.raises(BadInput, match="a batch of 9 is more than the 8 images"):
        SteerableGraph(images=8, batch=9)
    editor = fitted(gan, iterations=0)
    with pytest.raises(BadInput, match="by number, 0 to 2"):
        editor.moved(random(1, SIZE), Edit("hat+", "hat"), torch.ones(1))
