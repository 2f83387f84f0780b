"""DeltaEdit: a map from differences of images, asked by differences of texts."""

import pytest
import torch

from latentbench.cache import Cache
from latentbench.conformance import toy
from latentbench.errors import BadInput
from latentbench.model import LatentModel
from latentbench.streams import Streams
from latentbench.types import Batch, Edit, Latent, Space
from methods.directions.delta_edit import DeltaEdit

DATA = toy.ToyData()
EDITS = [Edit(f"{name}+", name, words=("face", f"face {name}")) for name in toy.FACTORS]
FEW = {"images": 128, "rounds": 150, "pairs": 64, "width": 64, "probes": 1}


class PatternModel(LatentModel):
    """Images whose code is how much of each factor's pattern they hold, and one idle channel."""

    device = torch.device("cpu")

    def fingerprint(self):
        return "patterns"

    def encode(self, images):
        return images

    def decode(self, latent):
        return latent

    def code_of(self, images):
        seen = toy.PatternScorer().read_image(images)
        norms = torch.stack([toy.pattern(n, 16).square().sum() for n in toy.FACTORS])
        return Latent({Space.STYLE: torch.cat([seen / norms, torch.zeros(len(seen), 1)], 1)})

    def invert(self, batch, cache, **settings):
        return self.code_of(batch.images)

    def sample(self, latent, **settings):
        planted = torch.stack([toy.pattern(name, 16) for name in toy.FACTORS])
        return torch.einsum("bf,fchw->bchw", latent.parts[Space.STYLE][:, :3], planted)


def fitted(model, **settings) -> DeltaEdit:
    editor = DeltaEdit(**FEW | settings)
    editor.attach(model, Streams(0), Cache(None), {"scorer": toy.PatternScorer()})
    with torch.enable_grad():
        editor.fit(DATA, EDITS)
    return editor


def moved(editor, name: str) -> torch.Tensor:
    """Mean movement of each factor, in units of a whole pattern."""
    batch = Batch(tuple("abcd"), DATA.batch("test", range(4)).images)
    images = editor.edit(batch, Edit(f"{name}+", name), torch.tensor([0.0, 1.0]))
    codes = [PatternModel().code_of(images[:, k]).parts[Space.STYLE][:, :3] for k in (0, 1)]
    return (codes[1] - codes[0]).mean(0)


def test_text_moves_its_factor_most_though_none_was_seen():
    editor = fitted(PatternModel(), keep=1.0)
    for k, name in enumerate(toy.FACTORS):
        change = moved(editor, name)
        others = [j for j in range(3) if j != k]
        assert float(change[k]) > 0.2
        assert float(change[others].abs().max()) < 0.7 * float(change[k])


def test_the_gate_leaves_other_channels_alone():
    editor = fitted(PatternModel(), keep=0.25)  # one channel of four
    for k, name in enumerate(toy.FACTORS):
        change = moved(editor, name)
        others = [j for j in range(3) if j != k]
        assert float(change[k]) > 0.2 and float(change[others].abs().max()) < 1e-5


def test_relevance_is_the_direction_in_which_a_channel_moves_the_scorer():
    R = fitted(PatternModel(), rounds=1).learned_["R"]
    assert R[:3].argmax(1).tolist() == [0, 1, 2] and float(R[3].abs().max()) < 1e-4


def test_captions_come_before_words(gan):
    """Of two captions that are the same, nothing is asked: M gets no difference."""
    editor = fitted(gan, rounds=5)
    batch = Batch(("a",), DATA.batch("test", [0]).images, ("a face with hat",))
    both = [
        editor.edit(batch, Edit("hat+", target_prompts=(target,)), torch.ones(1))
        for target in ("a face with hat smile", "a face with hat glasses")
    ]
    assert float((both[0] - both[1]).abs().max()) > 1e-4


@pytest.mark.parametrize("name", ["gan", "vae", "diffae"])
def test_strength_0_is_the_reconstruction_and_state_gives_equal_edits(name, request):
    model = request.getfixturevalue(name)
    editor = fitted(model, rounds=3, steps=3 if name == "diffae" else None)
    batch = Batch(("a", "b"), DATA.batch("test", [0, 1]).images)
    found = editor.edit(batch, EDITS[0], torch.tensor([0.0, 1.0]))
    expected = editor.decode(editor.invert(batch))
    torch.testing.assert_close(found[:, 0], expected, rtol=1e-4, atol=1e-4)
    assert float((found[:, 1] - expected).abs().max()) > 1e-4
    other = DeltaEdit(**FEW | {"rounds": 3, "steps": editor.steps})
    other.attach(model, Streams(1), Cache(None), {"scorer": toy.PatternScorer()})
    other.load_state(editor.state())
    assert torch.equal(other.edit(batch, EDITS[0], torch.tensor([0.0, 1.0])), found)


def test_what_says_nothing_is_refused(gan):
    editor = fitted(gan, rounds=1)
    batch = Batch(("a",), DATA.batch("test", [0]).images)
    with pytest.raises(BadInput, match="neither captions nor words"):
        editor.edit(batch, Edit("beard+"), torch.ones(1))
    with pytest.raises(BadInput, match="has 256 images; give 256 or fewer"):
        DeltaEdit().check(DATA, None, [1.0])
