"""How alike are two latent spaces on the same images?"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

import torch.nn.functional as F

from latentbench.benchmark import Bench, Benchmark, Work
from latentbench.bounds import Count, Name, Seed
from latentbench.data.dataset import Dataset, Split
from latentbench.model import LatentModel
from latentbench.option import Option
from latentbench.streams import Streams
from latentbench.types import Batch, Samples


class LatentSimilarity(Benchmark):
    """Codes of the same images in the cell's space and in another one.

    The cell's method and model give one space; `other_method` on `other_model` gives the other:
    another model, another space or noise level of one model, or the same under other noise. Where
    the other model takes images of another size, they are resized (bilinear, antialiased).

    Source: Moschella et al., "Relative Representations Enable Zero-Shot Latent Space
    Communication", section 4.1: spaces are compared on the same images.

    Args:
        n: number of images.
        other_method: a yaml of conf/method that can represent.
        other_model: a yaml of conf/model; None is the cell's own model.
        other_seed: seed of the noise that the other codes are read under.
        split: which images.

    """

    question = "How alike are two latent spaces on the same images?"
    verbs = frozenset({"represent"})
    others: ClassVar[Mapping[str, str]] = {"other_method": "method", "other_model": "model"}
    main_score = "rel_mrr_at_10"

    def __init__(
        self,
        *,
        n: Count = 1024,
        other_method: Name = "features",
        other_model: Name | None = None,
        other_seed: Seed = 1,
        split: Split = "test",
    ) -> None:
        self.n, self.split = n, split
        self.other_method, self.other_model = other_method, other_model
        self.other_seed = other_seed

    def groups(self, dataset: Dataset) -> tuple[str, ...]:
        """Return the one case."""
        return ("images",)

    def misfit(self, model: type[LatentModel], others: Mapping[str, Option]) -> str | None:
        """Return why the other method cannot read the other model, or None."""
        method, other = others["other_method"], others.get("other_model")
        read = model if other is None else other.cls
        missing = method.cls.required(self.verbs, method.config)[0] - read.spaces
        if not missing and self.verbs <= method.cls.verbs():
            return None
        what = ", ".join(sorted(missing)) or "the verb represent"
        return f"other_method={method.name} cannot read {read.__name__}: lacks {what}"

    def run(self, work: Work, bench: Bench, setup: dict[str, Any]) -> Samples:
        """Return the images with their codes in both spaces."""
        other = bench.parts["other_method"]
        model = bench.parts.get("other_model", bench.model)
        other.attach(model, Streams(self.other_seed), bench.cache)
        batch = bench.dataset.batch(self.split, work.indices)
        return Samples(
            batch.ids,
            batch.images[:, None],
            (work.group,) * len(batch),
            codes=bench.editor.represent(batch).cpu(),
            other_codes=other.represent(_resized(batch, model.image_size)).cpu(),
        )


def _resized(batch: Batch, size: int) -> Batch:
    """Return the images at the size that the other model takes."""
    if size == batch.images.shape[-1]:
        return batch
    images = F.interpolate(batch.images, (size, size), mode="bilinear", antialias=True)
    return replace(batch, images=images.clamp(-1, 1))
