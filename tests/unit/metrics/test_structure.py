"""Structure on real faces: the layout counts, colours hardly do."""

import pytest
import torch
from planted import in_parts, outputs_of

from latentbench.cache import Cache
from latentbench.data.faces_dataset import FacesDataset
from latentbench.metric import Surroundings
from latentbench.zoo.judges import load_judge
from metrics.pairs.structure import Structure

N, DATA = 16, FacesDataset(size=64)
INDEX = range(N)
LAYOUT = ("face_width", "face_height", "hair_length", "yaw")
COLOUR = ("skin", "hair_colour", "eye_colour", "background", "shirt", "light")


@pytest.fixture(scope="module")
def faces():
    return DATA.batch("test", INDEX).images


@pytest.fixture(scope="module")
def metric():
    found = Structure()
    found.prepare(Surroundings(DATA, torch.device("cpu"), Cache(None), load_judge))
    return found


def distance(metric, a, b):
    return float(metric.compare(a, b).mean())


def of_factor(metric, factor):
    ends = (DATA.counterfactual("test", INDEX, factor, torch.full((N,), v)) for v in (0.0, 1.0))
    return distance(metric, *ends)


def test_best_the_same_image(metric, faces):
    assert distance(metric, faces, faces) == 0


def test_worst_another_face_and_noise(metric, faces):
    other, noise = faces.roll(1, 0), torch.rand(faces.shape) * 2 - 1
    near = distance(metric, faces, (faces + 0.02).clamp(-1, 1))
    assert min(distance(metric, faces, x) for x in (other, noise)) > 20 * near


def test_what_matters_is_less_than_a_smile_and_more_than_a_grey_level(metric, faces):
    """Trap: 1% of the possible range is more than glasses change, and tells no methods apart."""
    grey = distance(metric, faces, (faces + 2 / 255).clamp(-1, 1))
    smile, other = of_factor(metric, "smile"), distance(metric, faces, faces.roll(1, 0))
    assert grey < metric.figure.smallest < min(smile, 0.02 * other)


def test_trap_colours_hardly_count_and_the_layout_does(metric, faces):
    layout = sum(of_factor(metric, f) for f in LAYOUT) / len(LAYOUT)
    colour = sum(of_factor(metric, f) for f in COLOUR) / len(COLOUR)
    assert layout > 3 * colour
    darker, moved = 0.5 * faces - 0.5, faces.roll(4, -1)
    assert distance(metric, faces, moved) > 2 * distance(metric, faces, darker)


def test_rows_do_not_depend_on_their_neighbours(metric, faces):
    samples = outputs_of(faces.roll(1, 0), sources=faces)
    values = []
    for sizes in ((N,), (3, 6)):
        metric.reset()
        values.append(in_parts(metric, samples, sizes).table()["struct_zoo1"])
    assert torch.equal(*values)
