"""How alike are two latent spaces on the same images?"""

from dataclasses import replace
from typing import Any

import torch.nn.functional as F

from latentbench.benchmark import Bench, Benchmark, Work
from latentbench.cells import catalogue
from latentbench.data.dataset import Dataset
from latentbench.editor import Editor
from latentbench.errors import Incompatible, unknown
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

    Raises:
        BadInput: a name is unknown.
        Incompatible: the other method cannot read the other model.
    """

    question = "How alike are two latent spaces on the same images?"
    verbs = frozenset({"represent"})
    main_score = "rel_mrr_at_10"

    def __init__(
        self,
        *,
        n: int = 1024,
        other_method: str = "features",
        other_model: str | None = None,
        other_seed: int = 1,
        split: str = "test",
    ) -> None:
        self.n, self.split = n, split
        self.other_method, self.other_model = other_method, other_model
        self.other_seed = other_seed
        self._other: Editor | None = None

    def groups(self, dataset: Dataset) -> tuple[str, ...]:
        """Return the one case."""
        return ("images",)

    def run(self, work: Work, bench: Bench, setup: dict[str, Any]) -> Samples:
        """Return the images with their codes in both spaces."""
        if self._other is None:
            self._other = self._build(bench)
        batch = bench.dataset.batch(self.split, work.indices)
        return Samples(
            batch.ids,
            batch.images[:, None],
            (work.group,) * len(batch),
            codes=bench.editor.represent(batch).cpu(),
            other_codes=self._other.represent(self._resized(batch)).cpu(),
        )

    def _build(self, bench: Bench) -> Editor:
        """Return the other method on the other model."""
        method, model = _option("method", self.other_method), bench.model
        if self.other_model is not None:
            chosen = _option("model", self.other_model)
            model = chosen.cls(**chosen.config, device=str(bench.device))
        lacking = method.cls.required(self.verbs, method.config)[0] - type(model).spaces
        if lacking or not self.verbs <= method.cls.verbs():
            what = ", ".join(sorted(lacking)) or "the verb represent"
            raise Incompatible(
                f"{self.other_method} cannot read {type(model).__name__}: lacks {what}"
            )
        editor = method.build()
        editor.attach(model, Streams(self.other_seed), bench.cache)
        return editor

    def _resized(self, batch: Batch) -> Batch:
        """Return the images at the size that the other model takes."""
        assert self._other is not None
        size = self._other.model.image_size
        if size == batch.images.shape[-1]:
            return batch
        images = F.interpolate(batch.images, (size, size), mode="bilinear", antialias=True)
        return replace(batch, images=images.clamp(-1, 1))


def _option(group: str, name: str) -> catalogue.Option:
    known = catalogue.options(group)
    if name not in known:
        raise unknown(group, name, known)
    return known[name]
