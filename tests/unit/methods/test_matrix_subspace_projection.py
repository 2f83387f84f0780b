"""Matrix subspace projection: the least loss, published edits, and what orthonormal rows keep."""

import pytest
import torch

from latentbench.cache import Cache
from latentbench.conformance import toy
from latentbench.errors import BadInput
from latentbench.streams import Streams
from latentbench.types import Edit
from methods.directions.matrix_subspace_projection import MatrixSubspaceProjection, projection

DATA = toy.ToyData()
HAT = Edit("hat+", "hat")


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    drawn = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=drawn, dtype=torch.float64)


def loss(M: torch.Tensor, z: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return (z @ M.T - y).square().sum() + (y @ M - z).square().sum()


def fitted(model, **settings) -> MatrixSubspaceProjection:
    editor = MatrixSubspaceProjection(**{"images": 64, **settings})
    editor.attach(model, Streams(0), Cache(None))
    editor.fit(DATA, [])
    return editor


def matrix(editor: MatrixSubspaceProjection) -> torch.Tensor:
    return torch.cat([editor.learned_[f"row/{name}"] for name in toy.FACTORS])


@torch.enable_grad()
def test_the_solution_is_where_the_loss_is_flat_and_nowhere_lower():
    z, y = random(40, 7), random(40, 3, seed=1).sign()
    M = projection(z, y).requires_grad_()
    least = loss(M, z, y)
    (slope,) = torch.autograd.grad(least, M)
    assert float(slope.abs().max()) < 1e-9
    for seed in range(5):
        assert loss(M.detach() + 0.01 * random(3, 7, seed=seed), z, y) > least


def test_planted_rows_are_found():
    """Codes that are y in an orthonormal basis, and nothing else: M is that basis."""
    basis = torch.linalg.qr(random(7, 3)).Q.T
    y = random(200, 3, seed=1).sign()
    torch.testing.assert_close(projection(y @ basis, y), basis)


def test_fewer_images_than_channels_are_solved_as_well():
    z, y = random(4, 7), random(4, 2, seed=1).sign()
    assert bool(torch.isfinite(projection(z, y)).all())


def test_an_edit_is_the_published_step(gan):
    """Against z + (v w - (M z)_i) M_i, both ways, in standardised codes."""
    editor = fitted(gan)
    mean, unit, M = editor.learned_["mean"], editor.learned_["unit"], matrix(editor)
    z = random(3, len(mean)).float()
    d = torch.zeros(3, 3)
    d[:, 1] = torch.tensor([2.0, -2.0, 2.0]) - (z @ M.T)[:, 1]
    d[2, 1] = 0.5 * (1.0 - (z @ M.T)[2, 1])  # half of the way to the label
    moved = editor.moved(mean + unit * z, HAT, torch.tensor([2.0, -2.0, 0.5]))
    torch.testing.assert_close((moved - mean) / unit, z + d @ M, rtol=1e-4, atol=1e-5)


def test_orthonormal_rows_arrive_and_leave_other_labels_alone(gan):
    editor = fitted(gan, orthonormal=True)
    mean, unit, M = editor.learned_["mean"], editor.learned_["unit"], matrix(editor)
    torch.testing.assert_close(M @ M.T, torch.eye(3), rtol=0, atol=1e-5)
    z = random(2, len(mean)).float()
    moved = editor.moved(mean + unit * z, HAT, torch.tensor([1.3, -1.0]))
    before, after = z @ M.T, (moved - mean) / unit @ M.T
    torch.testing.assert_close(after[:, 1], torch.tensor([1.3, -1.0]), rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(after[:, [0, 2]], before[:, [0, 2]], rtol=1e-3, atol=1e-4)


def test_labels_are_signs_and_the_code_is_standardised(gan):
    editor = fitted(gan)
    M = matrix(editor)
    z, y = editor.labelled(DATA, [])
    assert set(y.unique().tolist()) == {-1.0, 1.0}
    torch.testing.assert_close(z.std(0), torch.ones(z.shape[1]), rtol=1e-3, atol=0)
    torch.testing.assert_close(projection(z, y).float(), M)


def test_the_control_draws_rows_and_leaves_the_codes_statistics(gan):
    editor = fitted(gan)
    before = dict(editor.learned_)
    editor.randomise(Streams(1))
    assert torch.equal(editor.learned_["mean"], before["mean"])
    assert torch.equal(editor.learned_["unit"], before["unit"])
    drawn, own = editor.learned_["row/hat"], before["row/hat"]
    torch.testing.assert_close(drawn.norm(), own.norm())
    assert float(torch.cosine_similarity(drawn, own)) < 0.9


def test_what_cannot_be_edited_is_told(gan):
    bare = MatrixSubspaceProjection()
    bare.attach(gan, Streams(0), Cache(None))
    with pytest.raises(BadInput, match="has learned nothing yet"):
        bare.row(HAT)
    with pytest.raises(BadInput, match="unknown attribute 'hatt'; did you mean hat"):
        fitted(gan).row(Edit("hatt+", "hatt"))


class Short(MatrixSubspaceProjection):
    """Codes of two numbers."""

    def codes(self, data):
        return torch.randn(self.images, 2, generator=torch.Generator().manual_seed(0))


def test_what_cannot_be_learned_is_refused(gan, monkeypatch):
    editor = Short(images=2)
    editor.attach(gan, Streams(0), Cache(None))
    hats = DATA.describe("generator", range(9)).factors[:, 1] > 0.5
    monkeypatch.setattr(editor, "chosen", lambda data: (~hats).nonzero().flatten().tolist())
    with pytest.raises(BadInput, match=r"none of the . images .* show 'hat'; raise method\.images"):
        editor.fit(DATA, [HAT])
    with pytest.raises(BadInput, match="unknown attribute 'hatt'"):
        editor.fit(DATA, [Edit("hatt+", "hatt")])
    editor = Short(images=64, orthonormal=True)
    editor.attach(gan, Streams(0), Cache(None))
    with pytest.raises(BadInput, match="3 labels of the data are more than the 2 numbers"):
        editor.fit(DATA, [HAT])
