"""`fid`: the published Frechet Inception distance."""

from latentbench.bounds import NotNegative, SetSize
from latentbench.data.dataset import Split
from latentbench.metric import Surroundings
from metrics.networks.inception import WEIGHTS, InceptionFeatures, Mode, load_inception
from metrics.sets.frechet import PublishedFrechetDistance


class FrechetInceptionDistance(PublishedFrechetDistance):
    """The published FID: clean-fid's network, resizing and distance, in any of its three modes.

    Switched on by the original weights only. `FrechetDistance` says when there is no value and
    what the interval covers. The modes resize differently: their figures never compare.

    Source: Heusel et al., "GANs Trained by a Two Time-Scale Update Rule", section 3; modes as in
    Parmar et al., "On Aliased Resizing and Surprising Subtleties in GAN Evaluation".

    Args:
        mode: "clean" gives ``fid``; "legacy_pytorch" (as pytorch-fid) and "legacy_tensorflow" (as
            the first code) give ``fid_legacy_pytorch`` and ``fid_legacy_tensorflow``.
        reference_split: split of the real images.
        reference_n: number of real images.
        per_dimension: images per feature dimension, on both sides, below which there is no value.

    Example:
        >>> FrechetInceptionDistance(mode="legacy_pytorch").column
        'fid_legacy_pytorch'
    """

    source = "On Aliased Resizing and Surprising Subtleties in GAN Evaluation"

    def __init__(
        self,
        *,
        mode: Mode = "clean",
        reference_split: Split = "test",
        reference_n: SetSize = 10_000,
        per_dimension: NotNegative = 2.0,
    ) -> None:
        super().__init__(
            reference_split=reference_split, reference_n=reference_n, per_dimension=per_dimension
        )
        self.mode: Mode = mode
        self.what, self.weights = f"FID, clean-fid's mode {mode}", (WEIGHTS[mode],)

    @property
    def column(self) -> str:
        """Name of the figure."""
        return "fid" if self.mode == "clean" else f"fid_{self.mode}"

    def load(self, surroundings: Surroundings) -> InceptionFeatures:
        """Return the network of the mode."""
        return load_inception(self.mode, surroundings)
