"""Base of metrics that compare each output with an image."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Literal

from jaxtyping import Float
from torch import Tensor

from latentbench.bounds import distinct, not_empty
from latentbench.metric import Figure, SampleMetric
from latentbench.types import Samples

Against = Literal["truths", "sources", "reconstructions"]
References = Annotated[Sequence[Against], not_empty, distinct]
SUFFIX = {"truths": "", "sources": "_source", "reconstructions": "_reconstruction"}


class Pairwise(SampleMetric):
    """A value per output: how it compares with the truth, the source or the reconstruction.

    Columns: ``name`` against the truth, ``name_source`` against the image before the edit,
    ``name_reconstruction`` against the method's own output at strength 0.

    Args:
        against: which images; each gives a column.
    """

    name: str
    figure: Figure

    def __init__(self, *, against: References = ("truths",)) -> None:
        super().__init__()
        self.against = tuple(against)
        self.needs = frozenset(against)

    @abstractmethod
    def compare(
        self, outputs: Float[Tensor, "n 3 h w"], targets: Float[Tensor, "n 3 h w"]
    ) -> Float[Tensor, " n"]:
        """Return one value per pair of images in [-1, 1]."""

    @property
    def figures(self) -> dict[str, Figure]:
        """One figure for each kind of image compared with."""
        what = self.figure.description
        return {
            self.column(kind): replace(self.figure, description=f"{what}, outputs against {kind}")
            for kind in self.against
        }

    def column(self, kind: Against) -> str:
        """Return the figure's name."""
        return f"{self.name}{SUFFIX[kind]}"

    def values(self, samples: Samples) -> dict[str, Tensor]:
        """Return a value per output and kind of image."""
        return {self.column(kind): self._compare(samples, kind) for kind in self.against}

    def _compare(self, samples: Samples, kind: Against) -> Float[Tensor, "b s"]:
        target = samples.tensors()[kind]
        target = target if kind == "truths" else target[:, None]
        pair = samples.outputs, target.expand_as(samples.outputs)
        found = self.compare(*(images.flatten(0, 1) for images in pair))
        return found.unflatten(0, samples.outputs.shape[:2])


def unit_range(images: Float[Tensor, "*n 3 h w"]) -> Float[Tensor, "*n 3 h w"]:
    """Return images of [-1, 1] in [0, 1], clamped, in float64."""
    return ((images.double() + 1) / 2).clamp(0, 1)
