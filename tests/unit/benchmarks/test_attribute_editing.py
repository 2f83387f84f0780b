"""Attribute editing: matching strengths on a planted editor whose effect is known exactly."""

from dataclasses import replace

import pytest
import torch

from benchmarks.attribute_editing import AttributeEditing, _next_trial
from latentbench.benchmark import Bench, Work
from latentbench.cache import Cache
from latentbench.data.faces_dataset import FacesDataset
from latentbench.editor import Editor
from latentbench.errors import BadInput
from latentbench.streams import Streams

DATA = FacesDataset(size=32)


class Planted(Editor):
    """Renders the true counterfactual at a known function of the strength."""

    max_strength = 2.0

    def __init__(self, centre: float, width: float, most: float = 1.0) -> None:
        self.centre, self.width, self.most = centre, width, most

    def value(self, strength: torch.Tensor) -> torch.Tensor:
        return self.most * ((strength - self.centre) / self.width).sigmoid() * (strength > 0)

    def edit(self, batch, edit, strengths):
        index = [int(i.split("/")[1]) for i in batch.ids]
        values = [self.value(s).expand(len(batch)) for s in strengths]
        frames = [DATA.counterfactual("test", index, edit.attribute, v) for v in values]
        return torch.stack(frames, 1)


def bench(editor: Editor) -> Bench:
    nowhere, device = Cache(None), torch.device("cpu")
    return Bench(editor, None, DATA, Streams(0), nowhere, device, batch_size=4)


@pytest.mark.parametrize("width", [0.3, 0.02])
def test_the_matched_strength_has_the_gain_that_was_asked(width):
    """A curve that jumps between two of its points is matched as well as a flat one."""
    editor = Planted(1.1, width)
    found = AttributeEditing(n=6, attributes=("glasses+",), strengths=3).setup(bench(editor))
    found = found["glasses+"]
    assert found["reached"]
    assert found["matched_gain"] == pytest.approx(0.5, abs=0.08)
    assert float(editor.value(torch.tensor(found["matched"]))) == pytest.approx(0.5, abs=0.15)
    assert found["strengths"] == pytest.approx([2 / 3, 4 / 3, 2])


def test_an_effect_that_stays_below_is_not_reached():
    found = AttributeEditing(n=4, attributes=("hat+",)).setup(bench(Planted(1.0, 0.1, most=0.3)))
    assert not found["hat+"]["reached"]
    assert found["hat+"]["matched"] == 2.0


def test_too_few_images_to_edit_are_an_error_that_tells_their_number():
    class Few(FacesDataset):
        def size(self, split):
            return 10

    protocol, surroundings = AttributeEditing(n=9, attributes=("hat+",)), bench(Planted(1.0, 0.1))
    surroundings = replace(surroundings, dataset=Few(size=32))
    with pytest.raises(
        BadInput, match=r"asks for 9 images far from 'hat\+'.*has [1-8] among its 10"
    ):
        protocol.setup(surroundings)


def test_the_last_output_is_the_matched_one():
    protocol, editor = AttributeEditing(n=4, attributes=("glasses+",)), Planted(1.0, 0.2)
    surroundings = bench(editor)
    setup = protocol.setup(surroundings)
    samples = protocol.run(Work("glasses+", (0, 1), 2), surroundings, setup)
    assert samples.main == 4
    assert samples.strengths is not None and samples.truths is not None
    assert float(samples.strengths[0, -1]) == pytest.approx(setup["glasses+"]["matched"])
    gap = (samples.outputs - samples.truths).abs().amax((0, 2, 3, 4))
    assert float(gap[3]) < 0.05 < float(gap[0])  # the whole change at the end, little at first


@pytest.mark.parametrize(("edit", "goal"), [("glasses+", 1.0), ("smile-", 0.0)])
def test_the_truth_is_the_whole_change_along_the_curve_and_the_matched_share_at_its_end(edit, goal):
    protocol = AttributeEditing(n=2, attributes=(edit,), gain=0.3, strengths=2)
    surroundings = bench(Planted(1.0, 0.2))
    found = {"strengths": [1.0, 2.0], "matched": 1.5, "reached": True}
    samples = protocol.run(Work(edit, (0, 1), 2), surroundings, {edit: found})
    index = [int(i.split("/")[1]) for i in samples.ids]
    now = samples.factors[:, DATA.factor_names.index(edit[:-1])]
    whole, part = (
        DATA.counterfactual("test", index, edit[:-1], now + share * (goal - now))
        for share in (1.0, 0.3)
    )
    assert float((whole - part).abs().amax((1, 2, 3)).min()) > 0.1
    torch.testing.assert_close(samples.truths, torch.stack([whole, whole, part], 1))


def test_trials_narrow_the_first_bracket():
    points = {0.0: 0.0, 1.0: 0.9, 2.0: 0.4, 3.0: 1.0}
    assert _next_trial(0.45, points) == pytest.approx(0.5)
    assert _next_trial(0.45, {0.0: 0.0, 1.0: 0.46}) is None  # near enough
    assert _next_trial(0.5, {0.0: 0.0, 1.0: 0.2}) is None  # never reached
    assert _next_trial(0.05, {0.0: 0.0, 1.0: 1.0}) == pytest.approx(0.15)  # keeps off the ends
