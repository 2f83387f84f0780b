"""Direction discovery: strengths, the control, and what is asked of a method."""

from dataclasses import replace

import pytest
import torch
from planted_editors import Blank

from benchmarks.attribute_editing import AttributeEditing
from benchmarks.direction_discovery import DirectionDiscovery, crossing
from benchmarks.reconstruction import Reconstruction
from latentbench.benchmark import Bench
from latentbench.cache import Cache
from latentbench.cells.catalogue import option
from latentbench.cells.compatibility import Parts
from latentbench.conformance import toy
from latentbench.data.faces_dataset import FacesDataset
from latentbench.editor import Editor
from latentbench.errors import BadInput, Incompatible
from latentbench.models.pixel_diffusion import PixelDiffusion
from latentbench.streams import Streams


class Learned(Editor):
    """Has learned two tensors."""

    paper = "none"

    def state(self):
        return self.learned_

    def load_state(self, state):
        self.learned_ = state


def test_the_strength_is_the_first_at_which_the_effect_is_reached():
    curve = [0.0, 1.0, 2.0, 3.0]
    assert crossing(curve, [0.0, 1.0, 3.0, 0.5], 2.0) == 1.5
    assert crossing(curve, [0.0, 0.1, 0.2, 0.3], 2.0) == 3.0  # never: the largest


def test_noise_takes_the_place_of_what_was_learned_and_keeps_its_norms():
    editor = Learned()
    learned = {"v": torch.arange(12.0).reshape(3, 2, 2) + 1, "count": torch.tensor([3])}
    editor.load_state(learned)
    editor.randomise(Streams(0))
    found = editor.state()
    assert not torch.allclose(found["v"], learned["v"]) and found["count"] is learned["count"]
    norms = [x["v"].flatten(1).norm(dim=1) for x in (found, learned)]
    torch.testing.assert_close(*norms)
    first = found["v"]
    editor.load_state(learned)
    editor.randomise(Streams(0))
    assert torch.equal(editor.state()["v"], first)


def test_a_zero_stays_zero():
    editor = Learned()
    editor.load_state({"v": torch.zeros(2, 3)})
    editor.randomise(Streams(0))
    assert not editor.state()["v"].any()


def test_what_has_learned_nothing_has_no_control():
    with pytest.raises(Incompatible, match="has learned nothing"):
        Editor.randomise(type("Plain", (Learned,), {"state": Editor.state})(), Streams(0))


def test_directions_are_asked_for_by_number():
    asked = DirectionDiscovery(directions=3).edits(toy.ToyData())
    assert [(e.name, e.component, e.attribute) for e in asked] == [
        (f"direction {k}", k, None) for k in range(3)
    ]


@pytest.mark.parametrize(
    ("method", "fits"), [("hspace", False), ("hspace_pca", True), ("noise_direction", False)]
)
def test_only_methods_that_find_directions_are_asked(method, fits):
    chosen = option("method", method)
    parts = Parts(
        chosen.cls, chosen.config, PixelDiffusion, FacesDataset(size=32), DirectionDiscovery()
    )
    assert parts.fits() is fits
    if not fits:
        assert "finds no directions by itself" in str(parts.misfit())


@pytest.mark.parametrize(
    ("method", "fits"),
    [("noiseclr", False), ("sliderspace", False), ("hspace_jacobian", False),
     ("subspace_edit", False), ("subspace_edit_text", True), ("hspace_pca", True)],
)  # fmt: skip
def test_directions_without_names_are_not_asked_for_an_attribute(method, fits):
    """They failed after the model was loaded; the cell is skipped before."""
    chosen, model = option("method", method), option("model", "faces_ldm").cls
    data = FacesDataset(size=32)
    parts = Parts(chosen.cls, chosen.config, model, data, AttributeEditing())
    assert parts.fits() is fits
    if not fits:
        assert "have numbers and no names, by which AttributeEditing" in str(parts.misfit())
        rebuilt = replace(parts, benchmark=Reconstruction())
        assert parts.editor.directions(chosen.config) and "numbers" not in str(rebuilt.misfit())


def test_a_bench_made_by_hand_says_that_it_cannot_fit_again():
    data, device = FacesDataset(size=32), torch.device("cpu")
    bench = Bench(Learned(), Blank(), data, Streams(0), Cache(None), device, 4)
    with pytest.raises(BadInput, match="no refit"):
        bench.refit(1)


def test_the_judge_of_the_scores_does_not_choose_the_strengths():
    from latentbench.annotations import fault
    from latentbench.cells.constructors import of_class

    annotation = of_class(DirectionDiscovery)["judge"].annotation
    assert fault("judge", "zoo1", annotation) and not fault("judge", "zoo2", annotation)
