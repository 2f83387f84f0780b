"""Attribute editing: strengths of a planted editor whose effect is known exactly."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from benchmarks.attribute_editing import AttributeEditing
from latentbench.benchmark import Bench, Work
from latentbench.cache import Cache
from latentbench.conformance import toy
from latentbench.data.faces_dataset import FacesDataset
from latentbench.editor import Editor
from latentbench.errors import BadInput
from latentbench.streams import Streams
from methods.inversion.edit_friendly_ddpm import EditFriendlyDDPM

DATA = FacesDataset(size=32)


class Planted(Editor):
    """Renders the true counterfactual at a known function of the strength."""

    max_strength = 2.0

    def __init__(self, centre: float, width: float, most: float = 1.0) -> None:
        self.centre, self.width, self.most = centre, width, most
        self.asked: list[str] = []
        self.made: Counter[tuple[str, float]] = Counter()

    def share(self, strength: torch.Tensor) -> torch.Tensor:
        return self.most * ((strength - self.centre) / self.width).sigmoid() * (strength > 0)

    def edit(self, batch, edit, strengths):
        splits = {i.split("/")[0] for i in batch.ids}
        self.asked += splits
        self.made.update((i, s) for i in batch.ids for s in strengths.tolist())
        (split,), index = splits, [int(i.split("/")[1]) for i in batch.ids]
        now = batch.factors[:, DATA.factor_names.index(edit.attribute)]
        values = [now + self.share(s) * (float(edit.sign > 0) - now) for s in strengths]
        frames = [DATA.counterfactual(split, index, edit.attribute, v) for v in values]
        return torch.stack(frames, 1)


def bench(editor: Editor, kept: Path | None = None) -> Bench:
    nowhere, device, model = Cache(None), torch.device("cpu"), toy.GaussianModel()
    kept_there = Cache(kept)
    return Bench(editor, model, DATA, Streams(0), nowhere, device, batch_size=4, kept=kept_there)


def chosen(editor: Editor, name: str, **settings):
    protocol = AttributeEditing(attributes=(name,), n=4, calibration_n=6, **settings)
    return protocol.setup(bench(editor))[name]


@pytest.mark.parametrize("width", [0.3, 0.02])
def test_half_of_a_graded_factor_is_found(width):
    """A curve that jumps between two of its points is matched as well as a flat one."""
    editor = Planted(1.1, width)
    found = chosen(editor, "smile+")
    assert found["reached"]
    assert found["matched_gain"] == pytest.approx(0.5, abs=0.1)
    assert float(editor.share(torch.tensor(found["matched"]))) == pytest.approx(0.5, abs=0.15)
    assert found["strengths"] == pytest.approx([2 / 3, 4 / 3, 2])
    assert found["main_error"] == min(found["errors"] + [found["main_error"]])


class Switch(Planted):
    """Puts the whole thing on more and more of the images."""

    def edit(self, batch, edit, strengths):
        whole = super().edit(batch, edit, torch.full_like(strengths, 9.0))
        when = torch.tensor([0.3 + int(i.split("/")[1]) % 7 / 4 for i in batch.ids])
        on = (strengths > when[:, None])[..., None, None, None]
        faint = batch.images[:, None] + 0.001 * strengths.reshape(-1, 1, 1, 1)
        return torch.where(on, whole, faint)


def test_a_thing_is_wanted_whole_and_matched_by_the_share_of_images_that_show_it():
    found = chosen(Switch(1.0, 0.1), "glasses+")
    assert found["main"] == 2 and found["main_error"] < 0.05
    assert found["matched_gain"] * 6 == pytest.approx(round(found["matched_gain"] * 6), abs=1e-5)
    assert found["matched_gain"] == found["matched_scorer_gain"] == pytest.approx(0.5, abs=0.17)
    assert found["reached"]


def test_an_effect_that_stays_below_is_not_reached():
    assert not chosen(Planted(1.0, 0.1, most=0.3), "smile+")["reached"]


def test_strengths_are_chosen_on_images_that_are_not_scored():
    editor = Planted(1.0, 0.2)
    protocol, surroundings = AttributeEditing(n=4, attributes=("smile-",)), bench(editor)
    setup = protocol.setup(surroundings)
    assert set(editor.asked) == {"calibration"}
    protocol.run(Work("smile-", (0, 1), 2), surroundings, setup)
    assert editor.asked[-1] == "test"


def test_no_image_is_made_twice_nor_after_a_kill(tmp_path):
    """Curve, trials and what is shown: each image at each strength once, and no padding."""

    class Killed(Planted):
        def edit(self, batch, edit, strengths):
            if len(self.made) == 3 * 4:  # the curve and one trial of all images
                raise KeyboardInterrupt
            return super().edit(batch, edit, strengths)

    protocol, first, second = (
        AttributeEditing(n=2, calibration_n=3, strengths=2, attributes=("smile+",)),
        Killed(1.1, 0.3),
        Planted(1.1, 0.3),
    )
    with pytest.raises(KeyboardInterrupt):
        protocol.setup(bench(first, tmp_path))
    surroundings = bench(second, tmp_path)
    setup = protocol.setup(surroundings)
    assert setup == protocol.setup(bench(Planted(1.1, 0.3)))
    protocol.run(Work("smile+", (0, 1), 2), surroundings, setup)
    tried, shown = setup["smile+"]["tried"], {setup["smile+"][key] for key in ("main", "matched")}
    assert set((first.made + second.made).values()) == {1}
    shown |= {0.0, *setup["smile+"]["strengths"]}
    assert len(first.made + second.made) == 3 * len(tried) + 2 * len(shown)


class Terse(FacesDataset):
    """Captions of few words, which the toy model can read."""

    def batch(self, split, index):
        return replace(super().batch(split, index), prompts=("a face",) * len(index))

    def edited_prompts(self, split, index, attribute, value):
        return ("a face with smile",) * len(index)


def test_evaluations_are_those_of_the_images_that_are_tried_and_shown(latent, tmp_path):
    """Each image is inverted once; at strength 0 its guidance is 1, which takes one branch."""
    editor, cache = EditFriendlyDDPM(), Cache(tmp_path)
    editor.attach(latent, Streams(0), cache)
    surroundings = replace(bench(editor), model=latent, dataset=Terse(size=16), cache=cache)
    protocol = AttributeEditing(n=3, calibration_n=4, attributes=("smile+",))
    before = latent.evaluations.forward
    setup = protocol.setup(surroundings)
    protocol.run(Work("smile+", (0, 1, 2), 3), surroundings, setup)
    found = setup["smile+"]
    tried, shown = found["tried"], {0.0, *found["strengths"], found["main"], found["matched"]}
    steps = latent.steps - int(0.3 * latent.steps)
    decoded = (n * (2 * len(s) - 1) for n, s in ((4, tried), (3, shown)))
    assert latent.evaluations.forward - before == steps * (4 + 3 + sum(decoded))


def test_too_few_images_to_edit_are_an_error_that_tells_their_number():
    class Few(FacesDataset):
        def size(self, split):
            return 10

    with pytest.raises(
        BadInput, match=r"asks for 9 images far from 'hat\+'.*has [1-8] among its 10"
    ):
        AttributeEditing(n=9, attributes=("hat+",)).check(Few(size=32))
    with pytest.raises(BadInput, match=r"'calibration' has .*lower benchmark.calibration_n"):
        AttributeEditing(n=1, calibration_n=9, attributes=("hat+",)).check(Few(size=32))


@pytest.mark.parametrize(
    ("edit", "goal", "share"), [("glasses+", 1.0, 1.0), ("smile-", 0.0, 0.3), ("beard-", 0.0, 1.0)]
)
def test_the_truth_is_the_answer_half_of_what_is_graded_and_the_whole_of_a_thing(edit, goal, share):
    protocol = AttributeEditing(n=2, attributes=(edit,), gain=0.3, strengths=2)
    surroundings = bench(Planted(1.0, 0.2))
    found = {"strengths": [1.0, 2.0], "main": 2.0, "matched": 1.5, "reached": True}
    samples = protocol.run(Work(edit, (0, 1), 2), surroundings, {edit: found})
    index = [int(i.split("/")[1]) for i in samples.ids]
    now = samples.factors[:, DATA.factor_names.index(edit[:-1])]
    answer = DATA.counterfactual("test", index, edit[:-1], now + share * (goal - now))
    torch.testing.assert_close(samples.truths, torch.stack([answer] * 4, 1))
    assert samples.strengths[0].tolist() == [1.0, 2.0, 2.0, 1.5]
    assert (samples.main, samples.effect) == (2, 3)
    torch.testing.assert_close(samples.outputs[:, 1], samples.outputs[:, 2])
