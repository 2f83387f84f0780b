"""Path length: the two noises of a pair, through an editor that shows them."""

from types import SimpleNamespace

import pytest
import torch

from benchmarks.path_length import PathLength
from latentbench.benchmark import Bench, Work
from latentbench.cache import Cache
from latentbench.data.faces_dataset import FacesDataset
from latentbench.editor import Editor
from latentbench.streams import Streams

SHAPE = (3, 32, 32)


class Shown(Editor):
    """Gives the noises themselves as images, small enough to be in range."""

    def interpolate(self, a, b, steps):
        assert steps == 2 and a.prompts is None
        return torch.stack([a.noise, b.noise], 1) / 10


def run(*indices, epsilon=0.01):
    model = SimpleNamespace(latent_shape=SHAPE, gives=frozenset())
    device = torch.device("cpu")
    bench = Bench(Shown(), model, FacesDataset(size=32), Streams(0), Cache(None), device, 4)  # pyright: ignore
    return PathLength(n=8, epsilon=epsilon).run(Work("steps", indices, len(indices)), bench, {})


def test_a_pair_is_a_share_of_the_angle_between_two_noises_apart():
    samples = run(0, 1, 2, 3)
    a, b = (10 * samples.outputs[:, k].flatten(1).double() for k in (0, 1))
    angle = torch.nn.functional.cosine_similarity(a, b).clamp(-1, 1).arccos()
    assert angle == pytest.approx(
        [0.01 * torch.pi / 2] * 4, rel=0.06
    )  # noises are nearly at right angles
    assert a.norm(dim=1).tolist() == pytest.approx(b.norm(dim=1).tolist(), rel=2e-3)
    assert samples.strengths.tolist() == [[0.0, pytest.approx(0.01)]] * 4


def test_a_pair_depends_on_its_number_alone():
    samples, other = run(0, 1, 2), run(2, 0, 1)
    assert torch.equal(samples.outputs[[2, 0, 1]], other.outputs)
    assert samples.ids[2] == other.ids[0]
