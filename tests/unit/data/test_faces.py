"""Procedural faces: interface, captions, masks, errors."""

import pytest
import torch
import torch.nn.functional as F

from latentbench.data import faces
from latentbench.data.faces import FACTOR_NAMES, FACTORS, SPLITS, Faces

PLAIN = {"glasses": 0.0, "hat": 0.0, "beard": 0.0, "yaw": 0.5, "hair_length": 0.5}


def plain(n: int) -> torch.Tensor:
    """Faces whose parts do not cover each other much."""
    factors = faces.sample_factors("test", torch.arange(n))
    for name, value in PLAIN.items():
        factors = faces.with_factor(factors, name, value)
    return factors


def changed_part(factors: torch.Tensor, name: str, size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Absolute change from 0 to 1 per pixel, and where the factor's parts are in either image."""
    low, high = (faces.with_factor(factors, name, value) for value in (0.0, 1.0))
    change = (faces.render(high, size) - faces.render(low, size)).abs().amax(1)
    before, after = faces.part_masks(low, size), faces.part_masks(high, size)
    parts = FACTORS[faces.factor_index(name)].part
    if parts == ("global",):
        return change, torch.ones_like(change, dtype=torch.bool)
    return change, torch.stack([before[p] | after[p] for p in parts]).any(0)


def test_ten_factors_of_each_kind():
    assert len(faces.IDENTITY) == len(faces.ATTRIBUTES) == 10
    assert set(faces.IDENTITY) | set(faces.ATTRIBUTES) == set(FACTOR_NAMES)


@pytest.mark.parametrize("size", [64, 32])
@pytest.mark.parametrize("name", FACTOR_NAMES)
def test_every_factor_is_visible_inside_its_parts(name, size):
    change, where = changed_part(plain(8), name, size)
    assert (change * where).sum() / where.sum() > 0.1
    assert change.mean() > 0.003


@pytest.mark.parametrize("name", [f.name for f in FACTORS if f.part != ("global",)])
def test_a_local_factor_changes_nothing_elsewhere(name):
    factors = faces.sample_factors("test", torch.arange(40, 56))
    change, where = changed_part(factors, name, 64)
    assert (change * ~where).max() < 0.01


def test_splits_share_no_face():
    rows = torch.cat([faces.sample_factors(split, torch.arange(2000)) for split in SPLITS])
    assert len(rows.unique(dim=0)) == len(rows)
    states = torch.cat([faces._states(split, torch.arange(2000)) for split in SPLITS])
    assert len(states.unique()) == len(states)


def test_factors_never_change():
    """Figures of published records rest on these values."""
    row = faces.sample_factors("test", torch.tensor([7]))[0]
    assert (row[:4] * 2**16).tolist() == [38984.0, 33773.0, 26097.0, 40670.0]


def test_laws():
    factors = faces.sample_factors("judge", torch.arange(20_000))
    for column, factor in enumerate(FACTORS):
        values = factors[:, column]
        assert abs(values.mean() - 0.5) < 0.02
        ends = ((values == 0) | (values == 1)).float().mean()
        assert abs(ends - (5 / 6 if factor.law == "presence" else 0)) < 0.02


def test_correlation_ties_pairs_and_keeps_laws():
    def table(correlation):
        rows = faces.sample_factors("judge", torch.arange(8000), correlation)
        return rows, torch.corrcoef(rows.T)

    (loose, none), (tied, some) = table(0.0), table(0.8)
    for driver, follower, share in faces.CORRELATED:
        i, j = faces.factor_index(driver), faces.factor_index(follower)
        assert abs(none[i, j]) < 0.05
        assert some[i, j] * share > 0.2
    assert (loose.mean(0) - tied.mean(0)).abs().max() < 0.03


def test_identity_variants_keep_the_person():
    photos = faces.identity_variants("judge", torch.tensor([3, 4]), 5)
    own = [faces.factor_index(name) for name in faces.IDENTITY]
    rest = [faces.factor_index(name) for name in faces.ATTRIBUTES]
    alone = faces.sample_factors("judge", torch.tensor([3, 4]))
    assert torch.equal(photos[:, :, own], alone[:, None, own].expand(-1, 5, -1))
    assert len(photos[0][:, rest].unique(dim=0)) == 5
    assert torch.equal(photos[:, 2:], faces.identity_variants("judge", torch.tensor([3, 4]), 3, 2))


def test_words_are_unique_and_plain():
    words = faces.vocabulary()
    assert len(set(words)) == len(words)
    assert all(word.isalpha() and word.islower() for word in words)
    assert all(len(f.words) >= 2 and f.word(0.0) == f.words[0] for f in FACTORS)
    assert all(f.word(f.value(word)) == word for f in FACTORS for word in f.words)


def test_caption_of_an_edit_differs_in_one_word():
    factors = faces.sample_factors("test", torch.arange(6))
    for name in FACTOR_NAMES:
        low, high = (faces.caption(faces.with_factor(factors, name, v)) for v in (0.0, 1.0))
        for a, b in zip(low, high, strict=True):
            pairs = enumerate(zip(a.split(), b.split(), strict=True))
            different = [k for k, (u, v) in pairs if u != v]
            assert different == [faces.factor_index(name)]


@pytest.mark.parametrize("size", [64, 32])
def test_masks_cover_the_image(size):
    masks = faces.part_masks(faces.sample_factors("test", torch.arange(8)), size)
    assert set(masks) == set(faces.PARTS)
    assert torch.stack(list(masks.values())).any(0).all()
    assert all(m.dtype == torch.bool and m.shape == (8, size, size) for m in masks.values())


def test_optional_parts_have_masks_when_absent():
    factors = faces.with_factor(plain(2), "glasses", 0.0)
    worn = faces.part_masks(faces.with_factor(factors, "glasses", 1.0))["glasses"]
    assert torch.equal(faces.part_masks(factors)["glasses"], worn)
    assert worn.float().mean() > 0.03


def test_data_set():
    data, rows = Faces(split="calibration", size=32, n=9), torch.tensor([5, 2])
    assert len(data) == 9 and data.image_shape == (3, 32, 32)
    assert data.images(rows).shape == (2, 3, 32, 32)
    assert data.captions(rows) == faces.caption(data.factors(rows))
    assert data.masks(rows)["hat"].shape == (2, 32, 32)
    own = data.factors(rows)[:, faces.factor_index("smile")]
    assert torch.equal(data.counterfactual(rows, "smile", own), data.images(rows))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: faces.factor_index("smle"), "did you mean smile"),
        (lambda: Faces(split="tset"), "did you mean test"),
        (lambda: Faces(size=48), "use 64 or 32"),
        (lambda: Faces(n=0), "n must lie in"),
        (lambda: Faces(correlation=2.0), "correlation must lie in"),
        (lambda: Faces().factors(torch.tensor([-1])), "indices must lie in"),
        (lambda: Faces().counterfactual(torch.tensor([0]), "hat", 1.5), "clamp first"),
        (lambda: faces.render(torch.zeros(2, 19)), r"shape \(batch, 20\)"),
        (lambda: faces.render(torch.full((1, 20), float("nan"))), "finite"),
        (lambda: faces.render(torch.zeros(1, 20), 32, "oil"), "styles are photo, lines"),
        (lambda: faces.identity_variants("test", torch.tensor([0]), 0), "at least 1 photo"),
        (lambda: FACTORS[0].value("wied"), "is not a word of"),
    ],
)
def test_errors_say_what_to_do(call, message):
    with pytest.raises(ValueError, match=message):
        call()


# ---------------------------------------------------------------- line drawings


def test_drawings_are_ink_on_paper_and_show_no_background():
    factors = faces.sample_factors("test", torch.arange(8))
    drawn = faces.render(factors, style="lines")
    assert torch.equal(faces.render(factors, 32, "lines"), F.avg_pool2d(drawn, 2))
    empty = faces.part_masks(factors)["background"] & ~any_other_part(factors)
    paper = torch.tensor(faces._PAPER) * 2 - 1
    assert (drawn.permute(0, 2, 3, 1)[empty] - paper).abs().max() < 1e-6
    way = torch.tensor(faces._INK) * 2 - 1 - paper
    share = ((drawn - paper[:, None, None]) / way[:, None, None]).unbind(1)
    for channel in share[1:]:  # every pixel lies between paper and ink
        torch.testing.assert_close(channel, share[0], rtol=0, atol=1e-5)
    assert float(share[0].min()) > -1e-5 and float(share[0].max()) < 1 + 1e-5


def any_other_part(factors):
    masks = faces.part_masks(factors)
    return torch.stack([m for name, m in masks.items() if name != "background"]).any(0)


@pytest.mark.parametrize("name", [n for n in FACTOR_NAMES if n != "background"])
def test_every_factor_but_the_background_shows_in_a_drawing(name):
    low, high = (faces.with_factor(plain(4), name, value) for value in (0.0, 1.0))
    change = faces.render(high, 32, "lines") - faces.render(low, 32, "lines")
    assert float(change.abs().amax((1, 2, 3)).min()) > 0.05


def test_the_background_does_not_show_in_a_drawing():
    low, high = (faces.with_factor(plain(4), "background", value) for value in (0.0, 1.0))
    assert torch.equal(faces.render(high, 32, "lines"), faces.render(low, 32, "lines"))
