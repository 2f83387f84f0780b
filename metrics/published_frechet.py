"""What Frechet distances of published networks share."""

from latentbench.metric import Figure
from metrics.frechet import FrechetDistance


class PublishedFrechetDistance(FrechetDistance):
    """The Frechet distance of one published network, which takes the place of a judge.

    A subclass names its `column` and its `weights`, and loads the network.

    Args:
        reference_split: split of the real images.
        reference_n: number of real images.
        per_dimension: images per feature dimension, on both sides, below which there is no value.
    """

    what: str  # the figure in words

    def __init__(
        self,
        *,
        reference_split: str = "test",
        reference_n: int = 10_000,
        per_dimension: float = 2.0,
    ) -> None:
        super().__init__(
            reference_split=reference_split, reference_n=reference_n, per_dimension=per_dimension
        )

    @property
    def figures(self) -> dict[str, Figure]:
        """The one figure."""
        return {self.column: Figure(self.what, low=0.0, higher_is_better=False)}
