"""How good are the model's own samples, at this number of steps?"""

from typing import Any

from latentbench.benchmark import Bench, Benchmark, Work
from latentbench.bounds import Count
from latentbench.data.dataset import Dataset, Split
from latentbench.types import Capability, Samples


class Generation(Benchmark):
    """Fresh samples against held-out real images, with their captions as prompts.

    Args:
        n: number of samples.
        split: where captions come from; metrics name their own reference split.
    """

    question = "How good are the model's own samples?"
    verbs = frozenset({"generate"})
    main_score = "kd_zoo1"

    def __init__(self, *, n: Count = 256, split: Split = "test") -> None:
        self.n, self.split = n, split

    def run(self, work: Work, bench: Bench, setup: dict[str, Any]) -> Samples:
        """Return one sample per index; `factors` are those that the prompt describes."""
        known = bench.dataset.describe(self.split, work.indices)
        prompted = Capability.PROMPTS in bench.model.gives
        images = bench.editor.generate(known.ids, known.prompts if prompted else None)
        return Samples(
            known.ids,
            images.clamp(-1, 1)[:, None].cpu(),
            (work.group,) * len(known),
            wanted=known.factors[:, None] if prompted and known.factors is not None else None,
            prompts=known.prompts if prompted else None,
        )

    def groups(self, dataset: Dataset) -> tuple[str, ...]:
        """Return the one case."""
        return ("samples",)
