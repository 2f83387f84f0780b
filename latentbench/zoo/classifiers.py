"""The embedded classifier: the faces' factors, for methods, never a judge of what they make."""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn

from latentbench import weights
from latentbench.batching import map_batches
from latentbench.bounds import Name
from latentbench.content import content_hash
from latentbench.data.faces import FACTOR_NAMES
from latentbench.errors import unknown
from latentbench.models.classifier import Classifier
from latentbench.models.convolutions import ImageEncoder
from latentbench.zoo.judges import INPUT_SIZE, to_input_size
from latentbench.zoo.loading import load_network
from latentbench.zoo.scorers import refuse_judges


class FactorNetwork(nn.Module):
    """``attr1``: residual convolutions whose outputs are the log-odds of the faces' factors.

    Args:
        channels: width of each block.
    """

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__()
        self.encoder = ImageEncoder(INPUT_SIZE, channels, len(FACTOR_NAMES))

    def forward(self, images: Float[Tensor, "b 3 64 64"]) -> Float[Tensor, "b f"]:
        """Return log-odds."""
        return self.encoder(images)


ARCHITECTURES = {"FactorNetwork": FactorNetwork}
CLASSIFIERS = ("attr1",)
READ = 16  # images a classifier sees at once


class EmbeddedClassifier(Classifier):
    """The classifier that travels with the suite and judges nothing.

    Its labels are the factors of the faces; the probability of a graded factor is its estimated
    value in [0, 1]. Trained on the generators' split, on degraded images too.

    Args:
        path: "attr1".
        device: where it runs.

    Raises:
        BadInput: a judge's name, or an unknown one.

    Example:
        >>> classifier = EmbeddedClassifier()  # doctest: +SKIP
        >>> classifier.probabilities(images)[:, classifier.column("hat")]  # doctest: +SKIP
    """

    labels = FACTOR_NAMES

    def __init__(self, *, path: Name = "attr1", device: str = "cpu") -> None:
        refuse_judges(path)
        super().__init__(path, device)
        if path not in CLASSIFIERS:
            raise unknown("embedded classifier", path, CLASSIFIERS)
        self.network = load_network(path, ARCHITECTURES, device)

    def fingerprint(self) -> str:
        """Return a hash of the files and of this class's version."""
        return content_hash(self.version, weights.digest(self.name))

    def read(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b l"]:
        """Return the network's output."""
        return self.network(to_input_size(images))


def classifier_reads(
    classifier: EmbeddedClassifier, images: Float[Tensor, "b s 3 h w"]
) -> Float[Tensor, "b s f"]:
    """Return the probabilities that a classifier of methods gives, in batches of one size."""
    rows = map_batches(lambda x: classifier.probabilities(x).cpu(), images.flatten(0, 1), READ)
    return rows.unflatten(0, images.shape[:2])
