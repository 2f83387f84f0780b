"""`invention_error_<judge>`: is each character one person, each another one, and as asked?"""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from latentbench.content import content_hash
from latentbench.data.dataset import Dataset
from latentbench.metric import Figure, Surroundings
from latentbench.types import Samples, Score
from latentbench.zoo.judges import JudgeName
from metrics.codes.code_metric import Mask, jackknifed
from metrics.jackknife import Array, Rows
from metrics.networks.readings import FactorMetric
from metrics.paths.path_error import undrawn

SMALLEST = 0.02  # of one aim missed altogether: a smaller difference does not matter
PEOPLE, PHOTOS = 128, 4  # held-out people, and photos of each, that say what variances mean
ALIKE = 0.01  # share of pairs of real people who are no further apart than counts as the same
WHO = "who/"  # columns of what was seen


class InventionError(FactorMetric):
    """How far pictures of invented characters are from photos of as many real people.

    Per identity factor, read by the judge: W, the variance within a character, B, that between
    characters' means less what W adds to it, and R, the variance over photos of held-out people.

    * `character_error`: 1 - the lesser of `distinct_share` and mean over factors of
      (B / max(R, B + W)) / (the same of photos of held-out people). 0 is what photos give; 1 is
      somebody else in every picture (B = 0, W = R), and 1 is one face for all (B = W = 0), which a
      share of B + W alone would call perfect.
    * `distinct_share`: mean over pairs of characters of how far they are apart, up to what counts
      as two people. B is the mean over pairs of half the squared difference of two means, less what
      W adds; a pair is as far apart as its own part of B / max(R, B + W), and two people are as far
      apart as all but 1% of the pairs of held-out people. Two faces that take turns have as much B
      as real people, or more, and half of the pairs.
    * `within_share`: mean of W / R; photos have little, as the judge misreads.
    * `between_share`: mean of B / R; about 1 for photos.
    * `prompt_error`: as in `PersonalisationError`.
    * `invention_error`: character error + prompt error.

    Source: this suite; W and B are those of a one-way analysis of variance. The aims are those of
    "CharacterFactory: Sampling Consistent Characters with GANs for Diffusion Models", section 4.

    Intervals: the jackknife over characters, from 20 on.

    Args:
        extractor: the judge.

    Example:
        >>> list(InventionError().figures)[:2]
        ['invention_error_zoo1', 'character_error_zoo1']
    """

    at = "main"
    needs = frozenset({"truths", "factors", "wanted", "sources"})
    fewest = 2
    source = "this suite; one-way analysis of variance of what a judge reads"

    def __init__(self, *, extractor: JudgeName = "zoo1") -> None:
        super().__init__(extractor=extractor)

    @property
    def figures(self) -> dict[str, Figure]:
        """The sum and its parts."""
        by = f"read by {self.extractor}"
        errors = {
            "invention_error": f"character error + prompt error, {by}",
            "character_error": f"1 - share of variance between characters / that of photos, {by}",
            "prompt_error": f"distance to what was asked / the source's, {by}",
        }
        shares = {
            "within_share": (f"variance within a character / that of photos, {by}", False),
            "between_share": (f"variance between characters / that of photos, {by}", None),
            "distinct_share": (f"pairs of characters that are two people, {by}", True),
        }
        return {
            self._named(name): Figure(words, higher_is_better=False, smallest=SMALLEST)
            for name, words in errors.items()
        } | {
            self._named(name): Figure(words, higher_is_better=better, smallest=SMALLEST)
            for name, (words, better) in shares.items()
        }

    def unfed(self, dataset: Dataset) -> str | None:
        """Return why the data set cannot feed it: it draws no faces."""
        return super().unfed(dataset) or undrawn(dataset)

    def prepare(self, surroundings: Surroundings) -> None:
        """Load the judge, and read photos of held-out people."""
        super().prepare(surroundings)
        data = surroundings.dataset
        self.who = [k for k, f in enumerate(data.factor_names) if f not in data.attributes]
        photos = self._photos().numpy()
        within, apart = variances(photos.reshape(-1, len(self.who)), np.arange(PEOPLE), PHOTOS)
        self.whole = within + apart.mean(0)
        pairs = (apart / self.whole).mean(1)
        self.best, self.least = float(pairs.mean()), float(np.quantile(pairs, ALIKE))

    def values(self, samples: Samples) -> dict[str, Tensor]:
        """Return the prompt error of each row ``[b]``, and who is read ``[b, s]``."""
        read = self.reader.factors(samples.outputs)
        found = {self._named("prompt_error"): self.far_from_asked(samples)}
        return found | {f"{WHO}{k}": read[..., k] for k in self.who}

    def compute(self) -> dict[str, Score]:
        """Return the figures of the set."""
        order, seen = self.seen.order(), self.measured()
        ids = [self.seen.ids[k] for k in order]
        read = torch.stack([seen[f"{WHO}{k}"][order] for k in self.who], 2).numpy()
        prompt = seen[self._named("prompt_error")][order].numpy()
        _, number = np.unique(ids, return_inverse=True)

        def statistic(keep: Mask) -> dict[str, float]:
            rows = read[keep]
            within, apart = variances(rows.reshape(-1, rows.shape[2]), number[keep], rows.shape[1])
            between = apart.mean(0)
            pairs = (apart / np.maximum(self.whole, between + within)).mean(1)
            distinct = float((pairs / self.least).clip(0, 1).mean())
            character = 1 - min(float(pairs.mean()) / self.best, distinct)
            asked = float(prompt[keep].mean())
            found = {
                "invention_error": character + asked,
                "character_error": character,
                "prompt_error": asked,
                "within_share": float((within / self.whole).mean()),
                "between_share": float((between / self.whole).mean()),
                "distinct_share": distinct,
            }
            return {self._named(name): value for name, value in found.items()}

        if len(set(ids)) < self.fewest:
            few = Score(None, len(set(ids)), note="1 character, at least 2 needed")
            return dict.fromkeys(self.figures, few)
        return jackknifed(statistic, ids)

    def _photos(self) -> Float[Tensor, "p v f"]:
        """Return who is read on photos of held-out people with others' attributes."""
        data = self.surroundings.dataset
        last = data.size("calibration")
        people = data.describe("calibration", range(last - PEOPLE, last)).factors
        others = data.describe("calibration", range(last - PEOPLE * (PHOTOS + 1), last - PEOPLE))
        assert people is not None and others.factors is not None
        photos = others.factors.unflatten(0, (PEOPLE, PHOTOS)).clone()
        photos[..., self.who] = people[:, None, self.who]
        size = int(data.batch("calibration", [0]).images.shape[-1])

        def make() -> dict[str, Tensor]:
            images = data.render(photos.flatten(0, 1)).unflatten(0, (PEOPLE, PHOTOS))
            return {"read": self.reader.factors(images)}

        key = content_hash(self.reader.digest, "photos of people", data.version, size, photos)
        found = self.surroundings.cache.get_or_make("features", key, make)["read"]
        return found[..., self.who].double()

    def _named(self, name: str) -> str:
        return f"{name}_{self.extractor}"


def variances(rows: Array, number: Rows, each: int) -> tuple[Array, Array]:
    """Return the variance within groups, and how far each two groups are apart, without bias.

    Args:
        rows: values ``[n * each, f]``.
        number: group of each `each` rows ``[n]``.
        each: rows of one entry of `number`.

    Returns:
        Variances ``[f]``, and of each pair of groups half the squared difference of their means
        less what the variance within adds ``[p, f]``; their mean is the variance between groups.

    Example:
        >>> w, apart = variances(np.array([[0.0], [2.0], [4.0], [6.0]]), np.array([0, 1]), 2)
        >>> w.tolist(), apart.tolist()
        ([2.0], [[7.0]])
    """
    labels = np.repeat(number, each)
    groups = [rows[labels == k] for k in np.unique(labels)]
    within = np.mean([group.var(0, ddof=1) for group in groups], 0)
    means = np.stack([group.mean(0) for group in groups])
    added = within / np.array([[len(group)] for group in groups])
    one, other = np.triu_indices(len(groups), 1)
    gap = means[one] - means[other]
    return within, (gap**2 - added[one] - added[other]) / 2
