"""`flip_error_<judge>`: a classifier answers otherwise; is it because of what was asked alone?"""

from dataclasses import replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from latentbench.bounds import NotNegative
from latentbench.data.dataset import Dataset
from latentbench.errors import BadInput
from latentbench.intervals import Kind
from latentbench.metric import Figure, Surroundings
from latentbench.statistics import add_note
from latentbench.types import Samples, Score
from latentbench.zoo.answers import factor_distance
from latentbench.zoo.classifiers import EmbeddedClassifier, classifier_reads
from latentbench.zoo.judges import JudgeName, reliability
from metrics.edits.attack import SECOND, VICTIM, WITNESS, misread, shown
from metrics.edits.edit_error import SMALLEST
from metrics.networks.reader import Reader
from metrics.networks.readings import FactorMetric, targets, things
from metrics.paths.path_error import undrawn

SHARES = 8  # of the way to what is wanted, at which true counterfactuals are rendered
IDLE = "distance of the source to the nearest true counterfactual"
IDLE_IMAGE = "perceptual distance of the source to it"
PERFECT = "factors that true counterfactuals change"


class Flip(FactorMetric):
    """How far counterfactuals of attr1 are from true ones, and what else they change.

    A true counterfactual is the source rendered again with the asked factor alone moved, as far as
    attr1 needs to answer otherwise or further: eight shares of the way to `wanted` are rendered
    (what follows from the asked factor goes as far), those count that flip the answer, and the
    whole way always does. An output is held against the
    nearest of them, so neither a small honest change nor a clear one is wrong.

    * `flip_error_<judge>`: the root mean square over all factors, weighted by how well the judge
      reads them, of the reading minus that of the nearest true counterfactual; summed over images,
      / the same of the untouched sources. 0 is perfect, 1 is doing nothing. Half of the way to a
      thing, such as glasses, counts as nothing, as in `edit_error`. What is no
      counterfactual counts as no nearer than its source: an output that does not change attr1's
      answer where a true one does, and one whose pixels show less than a quarter of the true change
      (its projection on the nearest true one's), which is read and not seen.
    * `flip_image_<judge>`: the root of the perceptual distance to that same true image, likewise.
    * `factors_changed_<judge>`: how many factors that were not asked for are read otherwise than on
      the source, by more than `threshold` times the judge's root mean squared error: sparsity, of
      outputs that change attr1's answer and show a quarter of the true change; what changes nothing
      to speak of is not sparse. The note gives what the nearest true counterfactuals read on the
      same images, since a hat hides hair.
    * `flipped_attr1`: share of images whose answer changes, of those where a true counterfactual
      changes it. `flipped_<judge>`, `flipped_zoo2`: share on which networks agree that methods do
      not see: an attack on attr1 alone is told from a change of the face.

    Source: this suite for the distances, possible since true counterfactuals are known; flip rate
    and mean number of attributes changed (MNAC) are the usual figures for counterfactuals.

    Args:
        extractor: judge that reads the change.
        threshold: changes up to this many of the judge's errors count as none.

    Example:
        >>> list(Flip().figures)[:3]
        ['flip_error_zoo1', 'flip_image_zoo1', 'factors_changed_zoo1']
    """

    version = 3
    at = "main"
    needs = frozenset({"factors", "wanted", "sources"})
    fixed_networks = frozenset({VICTIM, SECOND})
    source = "distance to the nearest rendered counterfactual / that of the source"

    def __init__(self, *, extractor: JudgeName = "zoo1", threshold: NotNegative = 2.0) -> None:
        super().__init__(extractor=extractor)
        self.threshold = threshold

    @property
    def figures(self) -> dict[str, Figure]:
        """Distances, sparsity and flip rates."""
        who = self.extractor
        to = "distance to the nearest true counterfactual / that of the source"
        changed = f"factors changed that were not asked for, read by {who}"
        rates = {
            f"flipped_{name}": Figure(
                f"share of images on which {name} answers otherwise", "", 0.0, 1.0, True, Kind.RATE
            )
            for name in (VICTIM, who, SECOND)
        }
        return {
            f"flip_error_{who}": Figure(f"{to}, factors", "", 0.0, None, False, smallest=SMALLEST),
            f"flip_image_{who}": Figure(f"{to}, image", "", 0.0, None, False, smallest=SMALLEST),
            f"factors_changed_{who}": Figure(changed, "", 0.0, None, False, smallest=0.1),
            **rates,
        }

    @property
    def ratios(self) -> dict[str, str]:
        """Both distances are shares of the sources'."""
        error, image, *_ = self.figures
        return {error: IDLE, image: IDLE_IMAGE}

    def unfed(self, dataset: Dataset) -> str | None:
        """Return why the data set cannot feed it: it draws no faces."""
        return super().unfed(dataset) or undrawn(dataset)

    def prepare(self, surroundings: Surroundings) -> None:
        """Load the judges and the classifier, and how well the judge reads each factor."""
        super().prepare(surroundings)
        self.second = Reader(SECOND, surroundings)
        self.victim = EmbeddedClassifier(path=VICTIM, device=str(surroundings.device))
        self.blur = self.threshold * self.sharpness().rmse
        self.reliability = reliability(self.extractor)

    def values(self, samples: Samples) -> dict[str, Tensor]:
        """Return the figures of each output ``[b, s]``."""
        assert samples.wanted is not None and samples.sources is not None
        if not bool((samples.wanted == samples.wanted[:, :1]).all()):
            raise BadInput("Flip needs one wanted row of factors per image; its outputs differ")
        asked = replace(samples, wanted=samples.wanted[:, :1])
        source, truths = samples.sources[:, None], self._truths(asked)
        victim = [classifier_reads(self.victim, x) for x in (samples.outputs, truths, source)]
        flipped, true = (misread(read, victim[2], asked) for read in victim[:2])
        possible = true.any(1, keepdim=True)
        true[:, -1] = True
        output, answers, before = (
            self.reader.factors(x) for x in (samples.outputs, truths, source)
        )
        thing = things(targets(asked, type(self).__name__), self.surroundings.dataset)
        gap, place = self._nearest(output, answers, before, true, thing)
        idle, idle_place = self._nearest(before, answers, before, true, thing)
        images, idle_images = (_chosen(truths, k) for k in (place, idle_place))
        is_seen = shown(samples.outputs, source, images) >= WITNESS
        counts = (flipped | ~possible) & is_seen

        def scored(distance: Float[Tensor, "b s"], most: Float[Tensor, "b 1"]) -> Tensor:
            return torch.where(counts, distance, torch.maximum(distance, most))

        image, idle_image = self._seen(samples.outputs, images), self._seen(source, idle_images)
        nearest = answers.gather(1, place[..., None].expand(-1, -1, answers.shape[2]))
        mine = (misread(read, read_before, asked) for read, read_before in (
            (output, before),
            (self.second.factors(samples.outputs), self.second.factors(source)),
        ))  # fmt: skip
        rates = (torch.where(possible, flipped.to(gap), torch.nan), *(x.to(gap) for x in mine))
        changed, perfect = (
            torch.where(flipped & is_seen, self._changed(read, before, asked), torch.nan)
            for read in (output, nearest)
        )
        own = (scored(gap, idle), scored(image, idle_image), changed)
        return {
            **dict(zip(self.figures, (*own, *rates), strict=True)),
            IDLE: idle.expand_as(gap),
            IDLE_IMAGE: idle_image.expand_as(gap),
            PERFECT: perfect,
        }

    def compute(self) -> dict[str, Score]:
        """Return the scores; the note of the sparsity gives what true counterfactuals read."""
        scores, name = super().compute(), f"factors_changed_{self.extractor}"
        perfect = self.mean_of(PERFECT).value
        if perfect is not None:
            scores[name] = add_note(scores[name], f"true counterfactuals read {perfect:.3g}")
        return scores

    def _truths(self, asked: Samples) -> Float[Tensor, "b k 3 h w"]:
        """Return the source rendered with the asked factor moved by shares of the way."""
        assert asked.factors is not None and asked.wanted is not None
        shares = torch.arange(1, SHARES + 1)[:, None] / SHARES
        moved = torch.lerp(asked.factors[:, None], asked.wanted, shares)
        return self.surroundings.dataset.render(moved.flatten(0, 1)).unflatten(0, moved.shape[:2])

    def _nearest(
        self,
        read: Float[Tensor, "b s f"],
        answers: Float[Tensor, "b k f"],
        source: Float[Tensor, "b 1 f"],
        true: Bool[Tensor, "b k"],
        thing: Bool[Tensor, "b 1 f"],
    ) -> tuple[Float[Tensor, "b s"], Int[Tensor, "b s"]]:
        """Return the distance to the nearest true counterfactual, and which one that is."""
        gaps = torch.stack(
            [
                factor_distance(read, one.expand_as(read), source, self.reliability, thing)
                for one in answers.split(1, dim=1)
            ],
            -1,
        )
        nearest = torch.where(true[:, None], gaps, torch.inf).min(-1)
        return nearest.values, nearest.indices

    def _seen(
        self, images: Float[Tensor, "b s 3 h w"], truths: Float[Tensor, "b s 3 h w"]
    ) -> Float[Tensor, "b s"]:
        """Return the root of the perceptual distance to true counterfactuals."""
        return self.reader.distance(images, truths).clamp_min(0).sqrt()

    def _changed(
        self, read: Float[Tensor, "b s f"], before: Float[Tensor, "b 1 f"], asked: Samples
    ) -> Float[Tensor, "b s"]:
        """Return how many factors that were not asked for have changed."""
        moved = ((read - before).abs() > self.blur) & ~targets(asked, type(self).__name__)
        return moved.sum(-1).to(read)


def _chosen(images: Float[Tensor, "b k 3 h w"], place: Int[Tensor, "b s"]) -> Tensor:
    return images[torch.arange(len(images))[:, None], place]
