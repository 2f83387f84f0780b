"""Normals of a code's classifiers: found, of unit length, moved along in roots of the length."""

import pytest
import torch

from latentbench.cache import Cache
from latentbench.conformance import toy
from latentbench.errors import BadInput
from latentbench.streams import Streams
from latentbench.types import Edit
from methods.directions.code_classifier import CodeClassifier

DATA = toy.ToyData()
SIZE = 6


class OnPlantedCodes(CodeClassifier):
    """Codes of which the first three numbers are the factors, the rest noise."""

    def codes(self, data):
        factors = data.describe("generator", self.chosen(data)).factors
        noise = torch.randn(len(factors), SIZE - 3, generator=torch.Generator().manual_seed(0))
        return torch.cat([5 * factors + 1, noise], 1)


def fitted(model, cls=OnPlantedCodes, **settings) -> CodeClassifier:
    editor = cls(**{"images": 128, "iterations": 200, "learning_rate": 0.02, **settings})
    editor.attach(model, Streams(0), Cache(None))
    with torch.enable_grad():
        editor.fit(DATA, [])
    return editor


def test_planted_labels_are_found(gan):
    editor = fitted(gan)
    for k, name in enumerate(toy.FACTORS):
        row = editor.row(Edit(f"{name}+", name))
        assert abs(float(row.norm()) - 1) < 1e-5
        assert float(row[k]) > 0.9


def test_a_strength_is_in_roots_of_the_length_of_the_code(gan):
    editor = fitted(gan, iterations=1)
    code = torch.ones(2, SIZE)
    edit = Edit("hat+", "hat")
    moved = editor.moved(code, edit, torch.tensor([0.0, -0.3]))
    torch.testing.assert_close(moved[0], code[0])
    step = -0.3 * SIZE**0.5 * editor.learned_["unit"] * editor.row(edit)
    torch.testing.assert_close(moved[1], code[1] + step)


def test_a_batch_larger_than_the_fit_is_refused():
    with pytest.raises(BadInput, match="a batch of 9 is more than the 8 images"):
        CodeClassifier(images=8, batch=9)
