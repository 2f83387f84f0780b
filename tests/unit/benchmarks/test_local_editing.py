"""Local editing: exact masks around a planted editor whose effect is known exactly."""

from dataclasses import replace

import pytest
import torch
from test_attribute_editing import DATA, Planted, bench

from benchmarks.local_editing import LocalEditing
from latentbench.benchmark import Work
from latentbench.data.edges import edges
from latentbench.data.masks import changed
from metrics.pairs.background import Background


class Reckless(Planted):
    """Renders the true counterfactual on another background."""

    def edit(self, batch, edit, strengths):
        images = super().edit(batch, edit, strengths)
        return torch.where(strengths.reshape(-1, 1, 1, 1) > 0, images * 0.8, images)


def samples_of(editor, **settings):
    protocol, surroundings = (
        LocalEditing(n=4, strengths=2, calibration_n=4, **settings),
        bench(editor),
    )
    group = protocol.attributes[0]
    setup = protocol.setup(surroundings)
    samples = protocol.run(Work(group, (0, 1, 2, 3), 4), surroundings, setup)
    return replace(samples, matched=None)  # whether judges agree on it is not asked here


@pytest.mark.parametrize("attribute", ["glasses+", "hat+", "smile+"])
def test_a_perfect_edit_changes_the_mask_alone(attribute):
    samples = samples_of(Planted(1.0, 0.2), attributes=(attribute,))
    metric = Background()
    metric.update(samples)
    score = metric.compute()["bg_psnr"]
    assert score.value > 45  # pixels that change by less than can be seen
    assert 0.005 < float(samples.masks.mean()) < 0.5
    assert "reconstructions read 100" in score.note


def test_the_background_of_another_edit_is_found():
    metric = Background()
    metric.update(samples_of(Reckless(1.0, 0.2), attributes=("glasses+",)))
    assert metric.compute()["bg_psnr"].value < 30


def test_masks_hold_what_changes_and_grow():
    before, after = torch.zeros(1, 3, 9, 9), torch.zeros(1, 3, 9, 9)
    after[0, 2, 4, 4] = 0.1  # in one channel
    after[0, :, 0, 0] = 0.01  # not to be seen
    assert changed(before, after, 0).nonzero().tolist() == [[0, 4, 4]]
    assert float(changed(before, after, 2).sum()) == 25
    index = [0, 1, 2]
    source = DATA.batch("test", index).images
    glasses = DATA.counterfactual("test", index, "glasses", torch.ones(3))
    mask = changed(source, glasses, 1)
    assert bool((source == glasses).all(1)[mask == 0].float().mean() > 0.99)


@pytest.mark.parametrize("told", [False, True])
def test_a_method_sees_the_mask_only_where_that_is_asked(told):
    seen = []

    class Spied(Planted):
        def edit(self, batch, edit, strengths):
            seen.append(edit.masks)
            return super().edit(batch, edit, strengths)

    samples = samples_of(Spied(1.0, 0.2), attributes=("hat+",), give_masks=told)
    assert all((masks is not None) == told for masks in seen)
    assert not told or torch.equal(seen[-1], samples.masks)


@pytest.mark.parametrize("told", [None, "edges"])
def test_a_method_sees_the_answer_s_edges_only_where_that_is_asked(told):
    seen = []

    class Spied(Planted):
        def edit(self, batch, edit, strengths):
            seen.append(edit.references)
            return super().edit(batch, edit, strengths)

    samples = samples_of(Spied(1.0, 0.2), attributes=("hat+",), give_references=told)
    if told is None:
        assert all(references is None for references in seen)
        return
    assert torch.equal(seen[-1], 2 * edges(samples.truths[:, 0]) - 1)
    assert not torch.equal(seen[-1], 2 * edges(samples.sources) - 1)
