"""What do the codes of a model's space know?"""

from typing import Any

from latentbench.benchmark import Bench, Benchmark, Work
from latentbench.bounds import Count
from latentbench.data.dataset import Dataset, Split
from latentbench.types import Capability, Samples


class Probing(Benchmark):
    """Codes of real images with known factors; metrics read them, nothing is generated.

    Source: linear probes and disentanglement scores of learned codes, as in "Diffusion Models
    Beat GANs on Image Classification" and disentanglement_lib.

    Args:
        n: number of images; probes hold out a third of them.
        split: which images.
    """

    question = "What do the codes of a model's space know of the factors?"
    verbs = frozenset({"represent"})
    needs = frozenset({Capability.LABELS})
    main_score = "probe_r2"

    def __init__(self, *, n: Count = 1024, split: Split = "test") -> None:
        self.n, self.split = n, split

    def run(self, work: Work, bench: Bench, setup: dict[str, Any]) -> Samples:
        """Return the images with codes and factors."""
        batch = bench.dataset.batch(self.split, work.indices)
        codes = bench.editor.represent(batch)
        return Samples(
            batch.ids,
            batch.images[:, None],
            (work.group,) * len(batch),
            factors=batch.factors,
            codes=codes.cpu(),
        )

    def groups(self, dataset: Dataset) -> tuple[str, ...]:
        """Return the one case."""
        return ("images",)
