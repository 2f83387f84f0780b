"""Laws of the procedural faces."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from latentbench.data import faces

INDICES = st.lists(st.integers(0, faces.SPLIT_SIZE - 1), min_size=1, max_size=6)
FACTOR = st.sampled_from(faces.FACTOR_NAMES)
VALUE = st.floats(0, 1, width=32)
EXAMPLES = settings(max_examples=15, deadline=None)


@EXAMPLES
@given(
    split=st.sampled_from(faces.SPLITS), indices=INDICES, correlation=st.sampled_from([0.0, 0.7])
)
def test_a_face_depends_on_its_index_alone(split, indices, correlation):
    rows = torch.tensor(indices)
    together = faces.sample_factors(split, rows, correlation)
    alone = torch.cat([faces.sample_factors(split, row[None], correlation) for row in rows])
    assert torch.equal(together, alone)
    assert together.min() >= 0 and together.max() <= 1
    assert torch.equal((together * 2**16).round(), together * 2**16)


@EXAMPLES
@given(indices=INDICES, size=st.sampled_from([64, 32]))
def test_images_do_not_depend_on_batch_or_order(indices, size):
    factors = faces.sample_factors("test", torch.tensor(indices))
    images = faces.render(factors, size)
    assert torch.equal(faces.render(factors.flip(0), size).flip(0), images)
    alone = torch.cat([faces.render(row[None], size) for row in factors])
    assert (alone - images).abs().max() < 1e-5
    assert images.dtype == torch.float32 and images.abs().max() <= 1


@EXAMPLES
@given(index=st.integers(0, 10**6))
def test_small_images_average_large_ones(index):
    factors = faces.sample_factors("test", torch.tensor([index]))
    large = torch.nn.functional.avg_pool2d(faces.render(factors), 2)
    assert torch.equal(faces.render(factors, 32), large)


@EXAMPLES
@given(index=st.integers(0, 10**6), factor=FACTOR, value=VALUE)
def test_a_counterfactual_changes_one_factor_and_one_word(index, factor, value):
    data, rows = faces.Faces(), torch.tensor([index])
    factors = data.factors(rows)
    edited = faces.with_factor(factors, factor, value)
    column = faces.factor_index(factor)
    assert edited[0, column] == value
    assert (edited != factors).sum() == (factors[0, column] != value)
    assert torch.equal(data.counterfactual(rows, factor, value), faces.render(edited))
    words = zip(faces.caption(factors)[0].split(), faces.caption(edited)[0].split(), strict=True)
    assert sum(a != b for a, b in words) <= 1


@EXAMPLES
@given(index=st.integers(0, 10**6), factor=FACTOR, value=VALUE)
def test_local_edits_stay_inside_their_masks(index, factor, value):
    factors = faces.sample_factors("test", torch.tensor([index]))
    edited = faces.with_factor(factors, factor, value)
    parts = faces.FACTORS[faces.factor_index(factor)].part
    if parts == ("global",):
        return
    change = (faces.render(factors) - faces.render(edited)).abs().amax(1)
    before, after = faces.part_masks(factors), faces.part_masks(edited)
    inside = torch.stack([before[p] | after[p] for p in parts]).any(0)
    assert (change * ~inside).max() < 0.01
