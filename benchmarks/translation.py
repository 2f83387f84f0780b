"""Does an image move to another domain and stay the same thing?"""

from typing import Any

import torch

from latentbench.benchmark import Bench, Benchmark, Work
from latentbench.bounds import Count
from latentbench.data.dataset import Dataset, Split
from latentbench.types import Batch, Capability, Edit, Samples
from latentbench.zoo.answers import is_drawn

NAME = "translation"


class Translation(Benchmark):
    """Unpaired translation: an image of one domain, asked for in the other one.

    A method is given an image, and names a model of the other domain or has learned from images of
    it; no pair of images is known to it. Captions, where there are any, hold in both domains;
    labels and masks are withheld. With `dataset=faces` the second domain is line drawings, and the
    answer is the drawing of the same face: the main score asks for its content and for its style
    (`metrics.pairs.translation_error`). 0 is the true drawing, 1 is the image given back, and what
    the drawing of somebody else gives.

    Data that do not draw both domains (`dataset=two_folders`) have no main score. Left are the
    distance of the outputs to real images of the second domain, and to their own sources: neither
    says much without the other.

    Methods that learn of the other domain neither from a second model nor from its images in the
    generators' split are skipped. Each works at its `max_strength`.

    Args:
        n: images.
        split: which images.
    """

    question = "Does an image move to another domain and stay the same thing?"
    verbs = frozenset({"edit"})
    needs = frozenset({Capability.SECOND_DOMAIN})
    gives = frozenset({Capability.TARGET_PROMPTS})
    must_read = frozenset({Capability.SECOND_MODEL, Capability.SECOND_DOMAIN})
    main_score = "translation_error_zoo1"

    def __init__(self, *, n: Count = 64, split: Split = "test") -> None:
        self.n, self.split = n, split

    def curve(self, max_strength: float) -> tuple[float, ...]:
        """Return 0 and the strength of the published translation."""
        return (0.0, max_strength)

    def groups(self, dataset: Dataset) -> tuple[str, ...]:
        """Return the one case."""
        return ("images",)

    def run(self, work: Work, bench: Bench, setup: dict[str, Any]) -> Samples:
        """Return one translation per image."""
        data = bench.dataset
        real = data.batch(self.split, work.indices)
        batch = Batch(real.ids, real.images, real.prompts)
        edit = Edit(NAME, source_prompts=real.prompts, target_prompts=real.prompts)
        strengths = torch.tensor(self.curve(bench.editor.max_strength))
        images = bench.editor.edit(batch, edit, strengths).clamp(-1, 1).cpu()
        truths = data.second_domain(self.split, work.indices)[:, None] if is_drawn(data) else None
        return Samples(
            real.ids,
            images[:, 1:],
            (work.group,) * len(batch),
            sources=real.images,
            truths=truths,
            reconstructions=images[:, 0],
            strengths=strengths[1:].expand(len(batch), -1).contiguous(),
            main=0,
            prompts=real.prompts,
        )
