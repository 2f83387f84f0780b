"""`attack_<judge>`: does an image that looks the same make a network read something else?"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from latentbench.data.dataset import Dataset
from latentbench.intervals import Kind
from latentbench.metric import Figure, Surroundings
from latentbench.types import Samples
from latentbench.zoo.classifiers import EmbeddedClassifier, classifier_reads
from latentbench.zoo.judges import JudgeName
from metrics.networks.reader import Reader
from metrics.networks.readings import FactorMetric, targets
from metrics.paths.path_error import undrawn

VICTIM = "attr1"  # classifier that methods attack
SECOND = "zoo2"  # a further judge that no method sees
EYE = "zoo3"  # judge whose distance says what is seen of an attack
WITNESS = 0.25  # share of a true change of the pixels from which an output shows that change
MIDDLE = 0.5  # of a factor's range: where a reading changes sides
HONEST = "root of the perceptual distance of the honest edit to the source"


class AttackSuccess(FactorMetric):
    """Share of images that a judge misreads, over all permitted visibilities from 0 to 1.

    Visibility is the root of the perceptual distance of the output to the source, as a share of
    that of the rendered honest edit to the source: 0 is the same image, 1 is as visible as the
    edit that would have made the reading right. A network is fooled where it reads the attribute
    on the wrong side, though it read the source rightly and the face has not changed. It has not if

    * the output is no more visible than the honest edit: a picture of something else is no face,
    * it is nearer to the source than to the honest edit, perceptually, and
    * its pixels show less than a quarter of the honest edit: the projection of the output's change
      on the edit's. A weak cross-fade to the edit is near to the source and is the edit, only
      fainter. Noise and a judge's gradient hardly point along the edit. It is the quarter that
      `flip_error` asks of a counterfactual.

    * `attack_<judge>`: the area under the share of fooled images against the visibility that is
      permitted, which is the mean of 1 - visibility over fooled images, 0 for all others.
    * `fooled_<network>`: the share of fooled images, by this judge and by zoo2, to which an attack
      must transfer, and by the classifier attr1, which methods may have attacked: that one says
      whether an attack worked where it was aimed, and is no score.
    * `visibility`: of all images, by zoo3: the sum of the roots / that of the honest edits.

    Source: "Diffusion Models for Imperceptible and Transferable Adversarial Attack", section 4,
    which reports accuracies of other networks beside a distance of images; here as one figure, with
    known honest edits.

    Args:
        extractor: judge that should misread.

    Example:
        >>> list(AttackSuccess().figures)
        ['attack_zoo1', 'fooled_zoo1', 'fooled_zoo2', 'fooled_attr1', 'visibility']
    """

    version = 4
    at = "main"
    needs = frozenset({"factors", "wanted", "sources"})
    fixed_networks = frozenset({VICTIM, SECOND, EYE})
    source = "Imperceptible and Transferable Adversarial Attack, section 4, with honest edits"

    def __init__(self, *, extractor: JudgeName = "zoo1") -> None:
        super().__init__(extractor=extractor)

    @property
    def figures(self) -> dict[str, Figure]:
        """The area, its parts and the share on the attacked classifier."""
        area = f"area of the share fooled, {self.extractor}, against permitted visibility"
        seen = f"distance to the source / that of the honest edit, perceptual of {EYE}"
        shares = {
            f"fooled_{who}": Figure(
                f"share of images on which {who} is fooled", "", 0.0, 1.0, True, Kind.RATE
            )
            for who in (self.extractor, SECOND, VICTIM)
        }
        return {
            f"attack_{self.extractor}": Figure(area, "", 0.0, 1.0, True),
            **shares,
            "visibility": Figure(seen, "", 0.0, None, False, smallest=0.02),
        }

    @property
    def ratios(self) -> dict[str, str]:
        """Visibility is a share of the honest edits'."""
        return {"visibility": HONEST}

    def unfed(self, dataset: Dataset) -> str | None:
        """Return why the data set cannot feed it: it draws no faces."""
        return super().unfed(dataset) or undrawn(dataset)

    def prepare(self, surroundings: Surroundings) -> None:
        """Load the judges and the attacked classifier."""
        super().prepare(surroundings)
        self.second, self.eye = Reader(SECOND, surroundings), Reader(EYE, surroundings)
        self.victim = EmbeddedClassifier(path=VICTIM, device=str(surroundings.device))

    def values(self, samples: Samples) -> dict[str, Tensor]:
        """Return the figures of each output ``[b, s]``."""
        assert samples.wanted is not None and samples.sources is not None
        source, answers = samples.sources[:, None], self._answers(samples.wanted)
        seen, moved, whole = (
            self.eye.distance(a, b).clamp_min(0).sqrt()
            for a, b in (
                (samples.outputs, source), (samples.outputs, answers), (answers, source),
            )
        )  # fmt: skip
        unedited = shown(samples.outputs, source, answers) < WITNESS
        same_face = unedited & (seen < moved) & (seen <= whole)
        reads = {
            self.extractor: self.reader.factors,
            SECOND: self.second.factors,
            VICTIM: lambda images: classifier_reads(self.victim, images),
        }
        fooled = {
            who: misread(read(samples.outputs), read(source), samples) & same_face
            for who, read in reads.items()
        }
        area = torch.where(fooled[self.extractor], 1 - seen / whole, 0.0)
        shares = [one.to(area) for one in fooled.values()]
        return {**dict(zip(self.figures, (area, *shares, seen), strict=True)), HONEST: whole}

    def _answers(self, wanted: Float[Tensor, "b s f"]) -> Float[Tensor, "b s 3 h w"]:
        """Return the rendered honest edits."""
        faces = self.surroundings.dataset.render(wanted.flatten(0, 1))
        return faces.unflatten(0, wanted.shape[:2])


def shown(
    outputs: Float[Tensor, "b s 3 h w"],
    source: Float[Tensor, "b 1 3 h w"],
    truths: Float[Tensor, "b s 3 h w"],
) -> Float[Tensor, "b s"]:
    """Return how much of the true change of the pixels is in the outputs' change.

    Example:
        >>> source, truth = torch.zeros(1, 1, 3, 2, 2), torch.ones(1, 1, 3, 2, 2)
        >>> shown(truth / 2, source, truth)
        tensor([[0.5000]])
    """
    true = truths - source
    return ((outputs - source) * true).sum((2, 3, 4)) / true.square().sum((2, 3, 4))


def misread(
    read: Float[Tensor, "b s f"], before: Float[Tensor, "b 1 f"], samples: Samples
) -> Bool[Tensor, "b s"]:
    """Return where all that was asked for is read of the output, and none of it of the source."""
    assert samples.wanted is not None
    asked, wanted = targets(samples, AttackSuccess.__name__), samples.wanted > MIDDLE
    now, then = (((x > MIDDLE) == wanted) for x in (read, before))
    return torch.where(asked, now, True).all(-1) & ~torch.where(asked, then, False).any(-1)
