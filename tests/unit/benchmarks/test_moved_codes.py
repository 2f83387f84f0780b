"""Codes that are flipped and shifted, and the images that they give."""

import pytest
import torch

from benchmarks.moved_codes import MovedCodes, moved, moved_code
from latentbench.benchmark import Bench, Work
from latentbench.cache import Cache
from latentbench.conformance import toy
from latentbench.errors import BadInput, Incompatible
from latentbench.streams import Streams
from latentbench.types import Latent, Space
from methods.inversion.edit_friendly_ddpm import EditFriendlyDDPM

WORK = {move: Work(move, (0, 1, 2), 3) for move in ("flip", "shift 4")}


class Unmoved(EditFriendlyDDPM):
    """Decodes the images that it has seen first, whatever becomes of their codes."""

    def invert(self, batch):
        self.seen = getattr(self, "seen", batch.images)
        return super().invert(batch)

    def decode(self, latent):
        return self.seen


def error(editor, move):
    """Squared distance to the moved image, as a share of that of the image itself."""
    model, streams, cache = toy.GaussianModel(spread=0.5), Streams(0), Cache(None)
    editor.attach(model, streams, cache)
    data = toy.ToyData(model.image_size)
    setting = Bench(editor, model, data, streams, cache, torch.device("cpu"), 3)
    samples = MovedCodes().run(WORK[move], setting, {})
    assert torch.equal(samples.truths[:, 0], moved(samples.sources, 0 if move == "flip" else 4))
    gap = (samples.outputs - samples.truths).square().mean()
    return float(gap / (samples.sources[:, None] - samples.truths).square().mean())


@pytest.mark.parametrize("move", WORK)
def test_a_model_that_knows_no_side_moves_with_the_code(move):
    """Exactly where it is flipped; where it is shifted, nearer to the moved image than it was."""
    assert error(EditFriendlyDDPM(skip=10), move) < {"flip": 1e-4, "shift 4": 0.6}[move]


def test_an_image_that_stays_has_an_error_of_one():
    assert error(Unmoved(skip=10), "flip") == pytest.approx(1, abs=0.01)


def test_what_enters_is_the_fresh_code():
    code = Latent({Space.NOISE: torch.arange(4.0).expand(1, 1, 4, 4)})
    fresh = Latent({Space.NOISE: torch.full((1, 1, 4, 4), 9.0)})
    found = moved_code(code, 4, 8, fresh).parts[Space.NOISE]
    assert found[0, 0, 0].tolist() == [9, 9, 0, 1]
    assert moved_code(code, 0, 8, None).parts[Space.NOISE][0, 0, 0].tolist() == [3, 2, 1, 0]


@pytest.mark.parametrize("by", [3, 8])
def test_a_shift_that_the_latents_cannot_make_is_refused(by):
    code = Latent({Space.NOISE: torch.zeros(1, 1, 4, 4)})
    with pytest.raises(BadInput, match="1 to 3 cells of 2 pixels"):
        moved_code(code, by, 8, code)


def test_a_code_without_places_is_skipped():
    code = Latent({Space.NOISE: torch.zeros(1, 1, 4, 4), Space.SEMANTIC: torch.zeros(1, 6)})
    with pytest.raises(Incompatible, match="semantic is a vector of 6"):
        moved_code(code, 0, 8, None)
