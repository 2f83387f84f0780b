"""What metrics read images with: a network in batches of one size, each image read once."""

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from latentbench.batching import map_batches
from latentbench.content import content_hash
from latentbench.data.dataset import Dataset
from latentbench.errors import NotFinite
from latentbench.metric import Surroundings
from latentbench.records import in_words

BATCH = 16  # images a network sees at once, on every machine
LOADED = 256  # reference images held in memory at once
RECENT = 4  # sets of images whose features are remembered between metrics


@runtime_checkable
class Extractor(Protocol):
    """A network that turns images into features.

    Attributes:
        name: what columns carry; empty for a published network.
        digest: hash of its weights.
    """

    name: str
    digest: str

    def features(self, images: Float[Tensor, "*n 3 h w"]) -> Float[Tensor, "*n d"]:
        """Return the features of images in [-1, 1]."""
        ...


class Reader:
    """A judge that reads images of any number of leading axes, always in batches of one size.

    Args:
        name: the judge's name, "zoo1" for example.
        surroundings: gives the judge and the device.

    Example:
        ``Reader("zoo1", surroundings).factors(samples.outputs)`` is ``[b, s, f]``.
    """

    def __init__(self, name: str, surroundings: Surroundings) -> None:
        self.name, self.device = name, surroundings.device
        self.judge = surroundings.judge(name, surroundings.device)
        self.digest = content_hash(type(self.judge).__name__, self.judge.state_dict())

    def features(self, images: Float[Tensor, "*n 3 h w"]) -> Float[Tensor, "*n d"]:
        """Return features for distances between sets."""
        return self._read(self.judge.features, images)

    def factors(self, images: Float[Tensor, "*n 3 h w"]) -> Float[Tensor, "*n f"]:
        """Return factors in [0, 1], in the order of `latentbench.data.faces.FACTOR_NAMES`."""
        return self._read(self.judge.factors, images)

    def identity(self, images: Float[Tensor, "*n 3 h w"]) -> Float[Tensor, "*n e"]:
        """Return identity embeddings of unit length."""
        return self._read(self.judge.identity, images)

    def style(self, images: Float[Tensor, "*n 3 h w"]) -> Float[Tensor, "*n d"]:
        """Return statistics of the features that do not depend on their places."""
        return self._read(self.judge.style, images)

    def distance(
        self, a: Float[Tensor, "*n 3 h w"], b: Float[Tensor, "*n 3 h w"]
    ) -> Float[Tensor, "*n"]:
        """Return the learned perceptual distance of pairs; `b` may be broadcast."""
        pairs = torch.stack([a, b.expand_as(a)], -4)
        read = self._read(lambda p: self.judge.distance(p[:, 0], p[:, 1])[:, None], pairs, 4)
        return read[..., 0]

    def _read(self, read: Callable[[Tensor], Tensor], images: Tensor, axes: int = 3) -> Tensor:
        rows = images.flatten(0, -axes - 1)
        found = map_batches(lambda part: read(part.to(self.device)).cpu(), rows, BATCH)
        return finite(found, self.name).unflatten(0, images.shape[:-axes])


def finite(found: Float[Tensor, "*n"], name: str) -> Float[Tensor, "*n"]:
    """Return what a network reads on images; a distance of sets would count NaN as some image.

    Raises:
        NotFinite: it holds NaN or infinity.

    Example:
        >>> finite(torch.zeros(2, 1), "zoo1").shape
        torch.Size([2, 1])
    """
    good = found.isfinite().flatten(1).all(1)
    if not bool(good.all()):
        raise NotFinite(
            f"{name or 'a network'} reads NaN or infinity on {int((~good).sum())} of {len(good)} "
            "images; its weights are damaged, or its precision too low for these images"
        )
    return found


def read_once(
    surroundings: Surroundings, extractor: Extractor, images: Float[Tensor, "*n 3 h w"]
) -> Float[Tensor, "*n d"]:
    """Return the features of images, known already where another metric has just read them."""
    key, recent = content_hash(extractor.digest, images), surroundings.recent
    if key not in recent:
        found = extractor.features(images)
        finite(found.flatten(0, images.dim() - 4), extractor.name)
        recent[key] = found
        for old in list(recent)[:-RECENT]:
            del recent[old]
    return recent[key]


def read_split(
    surroundings: Surroundings,
    extractor: Extractor,
    kind: str,
    split: str,
    indices: range,
    second: bool = False,
) -> Tensor:
    """Return what a network reads on images of the data set, from the cache where it is known.

    Args:
        surroundings: data set and cache.
        extractor: who reads.
        kind: "features" or "factors", a method of the extractor.
        split: split of the data set.
        indices: which images.
        second: read images of the data set's second domain.
    """
    data, which = surroundings.dataset, (split, list(map(int, indices)))
    which += ("second domain",) if second else ()
    key = content_hash(extractor.digest, kind, *_contents(data), *which)

    def make() -> dict[str, Tensor]:
        parts = [indices[k : k + LOADED] for k in range(0, len(indices), LOADED)]
        read = getattr(extractor, kind)
        take = data.second_domain if second else lambda *at: data.batch(*at).images
        rows = torch.cat([read(take(split, part)) for part in parts])
        return {kind: finite(rows, extractor.name)}

    return surroundings.cache.get_or_make("features", key, make)[kind]


def _contents(data: Dataset) -> tuple[Any, ...]:
    """Return what a data set's images depend on."""
    kinds = str | int | float | tuple | list | None  # lists are how settings of several values come
    plain = {k: v for k, v in vars(data).items() if isinstance(v, kinds)}
    kind = f"{type(data).__module__}.{type(data).__qualname__}"
    return kind, data.version, data.fingerprint(), in_words(plain)
