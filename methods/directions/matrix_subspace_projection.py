"""Matrix subspace projection: a code's labels as coordinates, of which an edit sets one."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from latentbench.bounds import Positive, Steps, between
from latentbench.data.dataset import Dataset
from latentbench.errors import BadInput
from latentbench.types import Edit
from methods.directions.vector_code import MEAN, UNIT, LabelledCodeEditor


class MatrixSubspaceProjection(LabelledCodeEditor):
    """Sets one coordinate of M z, and leaves what is orthogonal to that row of M.

    Source: "Latent Space Factorisation and Manipulation via Matrix Subspace Projection", section 3,
    as a plug-in for a code z that stays as it is. M has a row per label y, -1 or 1, and makes
    |M z - y|^2 + |M^T y - z|^2 least over labelled images. An edit of label i is
    z + (v w - (M z)_i) M_i, where v is -1 or 1; the published scripts take w from 1 to 2.6.
    Strength is w. Below 1 the edit goes that share of the way to v, so that 0 is the
    reconstruction.

    Deviations: the source learns encoder, decoder and M together, by descent, so that codes arrange
    themselves along M; here M alone is learned, by the one solution of the Sylvester equation
    M S_zz + S_yy M = 2 S_yz that the derivative gives. Codes are standardised per channel. The
    second term shortens the rows of labels that a frozen code does not tell; they move little.

    Args:
        images: labelled images of the generators' split; the cell's seed chooses them.
        orthonormal: take the nearest orthonormal rows (the polar factor) in place of M. Readouts of
            other labels then stay as they were, and the edit arrives at v w exactly.
        steps: sampling steps, where the model has any; default: the model's.
        max_strength: largest w of a benchmark's curve.

    Example:
        >>> editor = MatrixSubspaceProjection(images=500)  # editor.fit(data, edits)
    """

    paper = "Latent Space Factorisation and Manipulation via Matrix Subspace Projection, section 3"
    small: ClassVar[Mapping[str, Any]] = {
        "images": 12,
        "max_strength": 12.0,
    }  # toys hardly show w 2

    def __init__(
        self,
        *,
        images: Annotated[int, between(2, 1_000_000)] = 2000,
        orthonormal: bool = False,
        steps: Steps | None = None,
        max_strength: Positive = 5.0,
    ) -> None:
        self.images, self.orthonormal = images, orthonormal
        self.steps, self.max_strength = steps, max_strength
        self.learned_ = {}  # mean and deviation of the code, and M by row

    def fit(self, data: Dataset, edits: Sequence[Edit]) -> None:
        """Solve for M, from the codes and all labels.

        Raises:
            BadInput: see `labelled`; or more labels than orthonormal rows can be.
        """
        z, y = self.labelled(data, edits)
        if self.orthonormal and y.shape[1] > z.shape[1]:
            raise BadInput(
                f"the {y.shape[1]} labels of the data are more than the {z.shape[1]} numbers of a "
                f"code, which has no room for orthonormal rows; take method.orthonormal=false"
            )
        M = projection(z, y)
        if self.orthonormal:
            u, _, vh = torch.linalg.svd(M, full_matrices=False)
            M = u @ vh
        self.keep_rows(data, M)

    def moved(
        self, code: Float[Tensor, "r d"], edit: Edit, strength: Float[Tensor, " r"]
    ) -> Float[Tensor, "r d"]:
        """Return z + (v w - (M z)_i) M_i; the strength is v w."""
        row, unit = self.row(edit), self.learned_[UNIT]
        z = (code - self.learned_[MEAN]) / unit
        own = (z * row).sum(1)  # row by row: bytes do not depend on the neighbours
        change = strength - strength.abs().clamp(max=1) * own
        return code + unit * change[:, None] * row


def projection(z: Float[Tensor, "n k"], y: Float[Tensor, "n m"]) -> Float[Tensor, "m k"]:
    """Return the M of least |M z - y|^2 + |M^T y - z|^2, summed over rows; in float64.

    Its derivative is zero where M z^T z + y^T y M = 2 y^T z, which both sides' eigenvectors solve
    entry by entry.

    Example:
        >>> z = torch.tensor([[1.0, 0.0], [-1.0, 0.0]], dtype=torch.float64)
        >>> projection(z, z[:, :1]).tolist()
        [[1.0, 0.0]]
    """
    z, y = z.double(), y.double()
    a, U = torch.linalg.eigh(y.T @ y)
    b, V = torch.linalg.eigh(z.T @ z)
    return U @ ((U.T @ (2 * y.T @ z) @ V) / (a[:, None] + b).clamp(min=1e-9)) @ V.T
