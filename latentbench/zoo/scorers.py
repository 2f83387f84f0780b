"""The embedded scorer: a text-image pair for methods, never a judge of what they make."""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor

from latentbench import weights
from latentbench.bounds import Name
from latentbench.content import content_hash
from latentbench.errors import BadInput, unknown
from latentbench.models.scorer import Scorer
from latentbench.zoo.judges import JUDGES
from latentbench.zoo.text_image import JUDGING_PAIRS, load_pair

SCORERS = ("clip1",)


class EmbeddedScorer(Scorer):
    """The text-image pair that travels with the suite and judges nothing.

    Args:
        path: "clip1"; its captions are sets of the faces' words.
        device: where it runs.

    Raises:
        BadInput: a judge's name, or an unknown one.

    Example:
        >>> import torch
        >>> scorer = EmbeddedScorer()
        >>> scorer.similarity(torch.zeros(2, 3, 32, 32), ["hat", "smiling hat"]).shape
        torch.Size([2])
    """

    def __init__(self, *, path: Name = "clip1", device: str = "cpu") -> None:
        refuse_judges(path)
        super().__init__(path, device)
        if path not in SCORERS:
            raise unknown("embedded scorer", path, SCORERS)
        self.pair = load_pair(path, device)

    def fingerprint(self) -> str:
        """Return a hash of the files and of this class's version."""
        return content_hash(self.version, weights.digest(self.name))

    def read_image(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b d"]:
        """Return the image tower's output."""
        return self.pair.image(images)

    def read_text(self, captions: Sequence[str]) -> Float[Tensor, "c d"]:
        """Return the text tower's output."""
        return self.pair.text(captions)


def refuse_judges(name: str) -> None:
    """Raise where a name is a judge's.

    Raises:
        BadInput: the network scores or matches what methods make.

    Example:
        >>> refuse_judges("clip1")
    """
    judges = (*JUDGES, *JUDGING_PAIRS)
    if name in judges:
        raise BadInput(
            f"{name!r} is a judge: it scores what methods make, so no method may look through it "
            f"(judges are {', '.join(judges)}); use 'clip1' as a scorer, 'attr1' as a classifier "
            "or a published network"
        )
