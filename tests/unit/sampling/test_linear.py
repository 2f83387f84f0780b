"""Linear algebra, each function against an independent way to the same figure."""

import pytest
import torch
from sklearn.decomposition import PCA

from latentbench.sampling.linear import lerp, orthogonalise, pca, slerp


def rows(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_slerp_turns_by_equal_angles_in_the_plane_of_its_ends():
    a, b = rows(1, 3, 8, 8), rows(1, 3, 8, 8, seed=1)
    b = b / b.norm() * a.norm()
    frames = slerp(a, b, torch.linspace(0, 1, 5))[0].double().flatten(1)
    cosines = torch.cosine_similarity(frames[:-1], frames[1:], dim=1)
    whole = torch.cosine_similarity(frames[:1], frames[-1:], dim=1).arccos()
    torch.testing.assert_close(cosines.arccos(), whole.expand(4) / 4, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(frames.norm(dim=1), a.norm().double().expand(5))
    assert torch.linalg.matrix_rank(frames, rtol=1e-5) == 2


def test_slerp_is_over_the_whole_sample_not_its_last_axis():
    a, b = rows(2, 4, 8, 8), rows(2, 4, 8, 8, seed=1)
    whole = slerp(a, b, torch.tensor([0.5]))
    flat = slerp(a.flatten(1), b.flatten(1), torch.tensor([0.5])).reshape_as(whole)
    assert torch.equal(whole, flat)
    by_rows = slerp(a.reshape(-1, 8), b.reshape(-1, 8), torch.tensor([0.5])).reshape_as(whole)
    assert float((whole - by_rows).norm() / whole.norm()) > 0.1


@pytest.mark.parametrize("scale", [1.0, 2.0, -1.0])
def test_slerp_of_parallel_ends_is_lerp(scale):
    a = rows(2, 5)
    w = torch.linspace(0, 1, 3)
    torch.testing.assert_close(slerp(a, scale * a, w), lerp(a, scale * a, w))


@pytest.mark.parametrize(("cosine", "turns"), [(0.9994, True), (0.9996, False), (-0.9994, True)])
def test_slerp_is_lerp_above_a_cosine_of_0_9995(cosine, turns):
    """A turn keeps the length, a chord does not."""
    a = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    b = torch.tensor([[cosine, (1 - cosine**2) ** 0.5]], dtype=torch.float64)
    w = torch.tensor([0.5])
    chord = ((1 + cosine) / 2) ** 0.5
    assert float(slerp(a, b, w).norm()) == pytest.approx(1 if turns else chord, abs=1e-9)
    assert torch.equal(slerp(a, b, w), lerp(a, b, w)) is not turns


def test_slerp_decides_per_sample():
    a = rows(2, 6)
    b = torch.stack([a[0], rows(6, seed=1)])
    both = slerp(a, b, torch.tensor([0.3]))
    assert torch.equal(both[1:], slerp(a[1:], b[1:], torch.tensor([0.3])))
    torch.testing.assert_close(both[0, 0], a[0])


def test_every_row_may_have_weights_of_its_own():
    a, b = rows(2, 3, 4), rows(2, 3, 4, seed=1)
    w = torch.tensor([[0.0, 0.5, 1.0], [0.2, 0.3, 0.9]])
    for path in (lerp, slerp):
        alone = [path(a[k : k + 1], b[k : k + 1], w[k]) for k in (0, 1)]
        torch.testing.assert_close(path(a, b, w), torch.cat(alone))


def test_lerp_midpoint_of_independent_noises_has_norm_0_707():
    a, b = rows(64, 3, 16, 16), rows(64, 3, 16, 16, seed=1)
    middle = lerp(a, b, torch.tensor([0.5]))[:, 0]
    ratio = middle.flatten(1).norm(dim=1).mean() / a.flatten(1).norm(dim=1).mean()
    assert float(ratio) == pytest.approx(0.5**0.5, abs=0.005)


def test_pca_is_scikit_learns():
    x = rows(30, 6) @ torch.diag(torch.tensor([9.0, 5, 3, 2, 1, 0.5]))
    components, deviations = pca(x, 3)
    reference = PCA(3).fit(x.numpy())
    torch.testing.assert_close(components.abs(), torch.tensor(reference.components_).abs())
    expected = torch.tensor(reference.explained_variance_).sqrt()
    torch.testing.assert_close(deviations, expected, rtol=1e-4, atol=1e-5)


def test_pca_refuses_components_that_are_noise():
    assert pca(rows(6, 10), 4)[0].shape == (4, 10)
    with pytest.raises(ValueError, match="5 components need 7 rows, got 6"):
        pca(rows(6, 10), 5)


def test_orthogonalise_equals_the_projector():
    v, others = rows(2, 3, 4), rows(3, 2, 3, 4, seed=1)
    V = others.flatten(1).T.double()
    projector = torch.eye(24).double() - V @ torch.linalg.inv(V.T @ V) @ V.T
    expected = (projector @ v.flatten().double()).float().reshape(v.shape)
    torch.testing.assert_close(orthogonalise(v, others), expected, rtol=1e-4, atol=1e-5)


def test_orthogonalise_to_nothing_and_to_a_direction_twice():
    v, other = rows(8), rows(1, 8, seed=1)
    assert torch.equal(orthogonalise(v, other[:0]), v)
    once, twice = orthogonalise(v, other), orthogonalise(v, torch.cat([other, other]))
    torch.testing.assert_close(once, twice, rtol=1e-4, atol=1e-5)
