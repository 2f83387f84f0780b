"""`variation_error_<judge>`: the same person, as varied as the person's photos?"""

import torch
from jaxtyping import Float
from torch import Tensor

from latentbench.content import content_hash
from latentbench.data.dataset import Dataset
from latentbench.errors import NotMeasurable
from latentbench.metric import Figure, Surroundings
from latentbench.types import Samples
from latentbench.zoo.answers import PROJECTORS
from latentbench.zoo.judges import JudgeName
from metrics.networks.projection import Projector
from metrics.networks.readings import FactorMetric
from metrics.paths.path_error import undrawn

SMALLEST = 0.02  # of what copies give: a smaller difference does not matter
PEOPLE = 32  # held-out faces that say what the distances mean


class VariationError(FactorMetric):
    """How far fresh draws of each image are from photos of the same person.

    zoo2 and zoo3 read the free factors (`Dataset.attributes`) of a draw; the person of the source
    with these factors, drawn, is the photo that the draw should be. Distances are roots of the
    perceptual distance (which is a square).

    * `content_error`: distance of the draws to their photos. 0 is what photos of the person give
      (judges misread, so that it is not nothing), 1 what photos of somebody else give; blur and
      noise are no photos of anybody.
    * `spread_error`: energy distance of these photos to the true ones (`truths`, as many), without
      pairs of an image with itself, / the mean distance of two photos of one person. 0 is a spread
      as that of photos, 1 is what copies of the source give, or of one photo; too much counts too.
    * `variation_error`: the sum. Copies are at 1, and so are photos of somebody else.

    Source: this suite; possible since the data set draws faces. Energy distance: Szekely and Rizzo,
    "Energy statistics: A class of statistics based on distances", as a U-statistic.

    Args:
        extractor: judge whose features give the distances.

    Raises:
        NotMeasurable: fewer than two draws of an image.

    Example:
        >>> list(VariationError().figures)
        ['variation_error_zoo1', 'content_error_zoo1', 'spread_error_zoo1']
    """

    at = "main"
    needs = frozenset({"truths", "factors"})
    fixed_networks = frozenset(PROJECTORS)
    source = "distance of draws to photos of the same person, and energy distance of their spreads"

    def __init__(self, *, extractor: JudgeName = "zoo1") -> None:
        super().__init__(extractor=extractor)

    @property
    def figures(self) -> dict[str, Figure]:
        """The sum and its parts."""
        by = f"perceptual of {self.extractor}"
        words = {
            "variation_error": f"content error + spread error, {by}",
            "content_error": f"distance to the person's photo / that of somebody else's, {by}",
            "spread_error": f"energy distance to the person's photos / that of copies, {by}",
        }
        return {
            f"{name}_{self.extractor}": Figure(
                text, "", None, None, higher_is_better=False, smallest=SMALLEST
            )
            for name, text in words.items()
        }

    def unfed(self, dataset: Dataset) -> str | None:
        """Return why the data set cannot feed it: it draws no faces."""
        return super().unfed(dataset) or undrawn(dataset)

    def prepare(self, surroundings: Surroundings) -> None:
        """Load the judges, and measure photos of held-out faces."""
        super().prepare(surroundings)
        data = surroundings.dataset
        self.free = torch.tensor([name in data.attributes for name in data.factor_names])
        self.projected = Projector(surroundings)
        self.own, self.other, self.apart = self._scale()

    def values(self, samples: Samples) -> dict[str, Tensor]:
        """Return the three errors of each image ``[b]``."""
        content, spread = self.content_and_spread(samples)
        return dict(zip(self.figures, (content + spread, content, spread), strict=True))

    def content_and_spread(
        self, samples: Samples
    ) -> tuple[Float[Tensor, " b"], Float[Tensor, " b"]]:
        """Return both errors of each image.

        Raises:
            NotMeasurable: fewer than two draws of an image.
        """
        assert samples.truths is not None and samples.factors is not None
        if samples.outputs.shape[1] < 2:
            raise NotMeasurable(
                f"{type(self).__name__} needs two draws of each image, got "
                f"{samples.outputs.shape[1]}; raise benchmark.draws"
            )
        photos = self._photos(samples.outputs, samples.factors)
        gap = self._distance(samples.outputs, photos).mean(1)
        content = (gap - self.own) / (self.other - self.own)
        crossed = self._distance(photos[:, :, None], samples.truths[:, None]).mean((1, 2))
        energy = 2 * crossed - self._apart(photos) - self._apart(samples.truths)
        return content, energy / self.apart

    def _photos(
        self, images: Float[Tensor, "b v 3 h w"], people: Float[Tensor, "b f"]
    ) -> Float[Tensor, "b v 3 h w"]:
        """Return the photos of these people that the images should be."""
        read = self.projected.factors(images)
        return self.projected.draw(torch.where(self.free, read, people[:, None]))

    def _apart(self, images: Float[Tensor, "b v 3 h w"]) -> Float[Tensor, " b"]:
        """Return the mean distance of two different images of a row."""
        first, second = torch.combinations(torch.arange(images.shape[1])).unbind(1)
        return self._distance(images[:, first], images[:, second]).mean(1)

    def _distance(
        self, a: Float[Tensor, "*n 3 h w"], b: Float[Tensor, "*m 3 h w"]
    ) -> Float[Tensor, "..."]:
        a, b = torch.broadcast_tensors(a, b)
        return self.reader.distance(a, b).clamp_min(0).sqrt().double()

    def _scale(self) -> tuple[float, float, float]:
        """Return distances: to photos of oneself and of somebody else, between photos of one."""
        data = self.surroundings.dataset
        size = data.size("calibration")
        held = data.batch("calibration", range(max(0, size - PEOPLE), size))
        people = held.factors
        assert people is not None
        others = people.roll(1, 0)
        networks = [self.reader.digest, *(reader.digest for reader in self.projected.readers)]
        key = content_hash("variation", networks, held.images, people)

        def make() -> dict[str, Tensor]:
            images = held.images[:, None]
            another = self.projected.draw(torch.where(self.free, others, people))
            found = {
                "own": self._distance(images, self._photos(images, people)),
                "other": self._distance(images, self._photos(images, others)),
                "apart": self._distance(held.images, another),
            }
            return {name: value.mean() for name, value in found.items()}

        found = self.surroundings.cache.get_or_make("features", key, make)
        return float(found["own"]), float(found["other"]), float(found["apart"])
