"""Are fresh images of a person still that person, and as varied as photos of one person are?"""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from latentbench.benchmark import Bench, Benchmark, Work
from latentbench.bounds import Count, SetSize
from latentbench.data.dataset import Dataset, Split
from latentbench.errors import BadInput
from latentbench.prompt_tokens import lasting_words
from latentbench.types import Batch, Capability, Description, Samples
from latentbench.zoo.answers import is_drawn

OTHERS = "calibration"  # split whose faces give the true photos their attributes


class Variation(Benchmark):
    """A real image in, several fresh images of what it shows out.

    What an image shows is the person: the factors that no edit asks for, which are the identity of
    a face (head, skin, eyes, hair, nose, brows). All others (`Dataset.attributes`: expression,
    pose, light, background, clothes, age ...) are free: the draws should be as varied as photos of
    one person are. So a method is given the words for the identity alone. The truth is photos of
    the same person, their free factors those of other faces, drawn: as many as there are draws. The
    main score holds the draws against them (`metrics.pairs.variation_error`): 0 is photos of the
    person, 1 is what copies of the image give, and what photos of somebody else give.

    Data that draw no faces have no main score; captions are given as they are.

    Args:
        n: images.
        draws: fresh images of each.
        split: which images.

    Raises:
        BadInput: fewer faces to take free factors from than draws (raised by `check`).
    """

    question = "Are fresh images of a person that person, as varied as the person's photos?"
    verbs = frozenset({"vary"})
    main_score = "variation_error_zoo1"

    def __init__(self, *, n: Count = 16, draws: SetSize = 4, split: Split = "test") -> None:
        self.n, self.draws, self.split = n, draws, split

    def check(self, dataset: Dataset) -> None:
        """Refuse more draws than there are faces to take free factors from."""
        super().check(dataset)
        wanted = self.n * self.draws
        if is_drawn(dataset) and wanted > dataset.size(OTHERS):
            raise BadInput(
                f"benchmark.n={self.n} times benchmark.draws={self.draws} needs {wanted} faces of "
                f"the split {OTHERS!r}, which has {dataset.size(OTHERS)}; lower one of them"
            )

    def groups(self, dataset: Dataset) -> tuple[str, ...]:
        """Return the one case."""
        return ("images",)

    def run(self, work: Work, bench: Bench, setup: dict[str, Any]) -> Samples:
        """Return the draws of each image, and as many true photos."""
        data = bench.dataset
        real = data.batch(self.split, work.indices)
        drawn = is_drawn(data)
        prompts = self._lasting_words(data, work.indices) if drawn else real.prompts
        images = (
            bench.editor.vary(Batch(real.ids, real.images, prompts), self.draws).clamp(-1, 1).cpu()
        )
        return Samples(
            real.ids,
            images,
            (work.group,) * len(real),
            sources=real.images,
            truths=self._photos(data, real.description, work.indices) if drawn else None,
            factors=real.factors,
            prompts=prompts,
        )

    def _photos(
        self, data: Dataset, known: Description, places: Sequence[int]
    ) -> Float[Tensor, "b v 3 h w"]:
        """Return photos of the same people, whose free factors are those of other faces."""
        assert known.factors is not None
        others = [k * self.draws + j for k in places for j in range(self.draws)]
        free = data.describe(OTHERS, others).factors
        assert free is not None
        is_free = torch.tensor([name in data.attributes for name in data.factor_names])
        same = known.factors.repeat_interleave(self.draws, 0)
        return data.render(torch.where(is_free, free, same)).unflatten(0, (-1, self.draws))

    def _lasting_words(self, data: Dataset, index: Sequence[int]) -> tuple[str, ...] | None:
        """Return captions without the words that setting a free factor to one of its ends takes."""
        own = data.describe(self.split, index).prompts
        if Capability.PROMPTS not in data.gives or own is None:
            return None
        edited = [
            data.edited_prompts(self.split, index, attribute, torch.full((len(index),), end))
            for attribute in data.attributes
            for end in (0.0, 1.0)
        ]
        return tuple(lasting_words(*captions) for captions in zip(own, *edited, strict=True))
