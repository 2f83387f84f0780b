"""Path length: the two noises of a pair, through an editor that shows them."""

import pytest
import torch

from benchmarks.path_length import PathLength
from latentbench.benchmark import Bench, Work
from latentbench.cache import Cache
from latentbench.conformance import toy
from latentbench.data.faces_dataset import FacesDataset
from latentbench.editor import Editor
from latentbench.streams import Streams
from latentbench.types import Latent, Space

SHAPE = (3, 32, 32)


class Shown(Editor):
    """Gives the noises themselves as images, small enough to be in range."""

    def interpolate(self, a, b, steps):
        assert steps == 2 and a.prompts is None
        return torch.stack([a.noise, b.noise], 1) / 10


class Codes(Shown):
    """Gives the ends' codes as images, padded."""

    def interpolate(self, a, b, steps):
        codes = torch.stack([a.code, b.code], 1)
        rows = torch.nn.functional.pad(codes, (0, 3 * 32 * 32 - codes.shape[-1]))
        return rows.unflatten(2, SHAPE) / 10


class Noises(toy.GaussianModel):
    """A model of noise alone."""

    gives = frozenset()

    def prior(self, streams, ids):
        return Latent({Space.NOISE: streams.normal("prior", ids, SHAPE)})


def run(*indices, epsilon=0.01, model=None, editor=None):
    device, data = torch.device("cpu"), FacesDataset(size=32)
    parts = editor or Shown(), model or Noises(), data, Streams(0), Cache(None), device, 4
    bench = Bench(*parts)
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


def test_a_pair_has_the_codes_of_the_models_own_prior(diffae):
    """Not the code of zeros, which no sample of such a model has."""
    found = 10 * run(0, 1, model=diffae, editor=Codes()).outputs.flatten(2)[..., :16]
    data = FacesDataset(size=32)
    a, b = (
        diffae.prior(Streams(0), data.describe("test", index).ids).parts[Space.SEMANTIC]
        for index in ([0, 2], [1, 3])
    )
    torch.testing.assert_close(found[:, 0], a)
    torch.testing.assert_close(found[:, 1], a + 0.01 * (b - a))
    assert float(a.abs().max()) > 0.1
