"""How little must change in an image until a network misreads it?"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from benchmarks.attributes import Attributes, asked_of, far_images, general_edit, goal_of
from latentbench.benchmark import Bench, Benchmark, Work
from latentbench.bounds import Count
from latentbench.data.dataset import Dataset, Split
from latentbench.errors import unknown
from latentbench.types import Batch, Capability, Edit, Samples


class Attack(Benchmark):
    """Attacks on a classifier: it should read an attribute on the other side, and no eye see it.

    A method is told which attribute a classifier of its own should misread, and in which direction:
    "glasses+" asks that glasses are read where there are none. The face should stay as it is, and
    judges that no method ever sees say whether the attack transfers to them
    (`metrics.edits.attack`). An honest edit is the trap: it changes what is read because the face
    has changed. So outputs are held against the rendered honest edit, and one that is nearer to it
    than to the source, or shows a quarter of its pixels' change, is no attack.

    Methods that use no classifier are skipped: they attack nothing.

    Args:
        n: images per attribute.
        attributes: attribute with the direction in which it should be misread.
        split: which images.

    Raises:
        BadInput: an attribute that the data set does not have, or a split with fewer than n images
            on the other side of it (raised by `check`).
    """

    question = "How little must change in an image until a network misreads it?"
    verbs = frozenset({"edit"})
    needs = frozenset({Capability.LABELS, Capability.COUNTERFACTUALS})
    gives = frozenset({Capability.TARGET_PROMPTS})
    must_read = frozenset({Capability.CLASSIFIER})
    main_score = "attack_zoo1"

    def __init__(
        self,
        *,
        n: Count = 16,
        attributes: Attributes = ("glasses+", "glasses-", "hat+", "beard-", "smile+"),
        split: Split = "test",
    ) -> None:
        self.n, self.attributes, self.split = n, tuple(attributes), split

    def check(self, dataset: Dataset) -> None:
        """Refuse attributes that the data do not have, and too few images on the other side."""
        super().check(dataset)
        for name in self.attributes:
            if name[:-1] not in dataset.attributes:
                raise unknown("attribute", name[:-1], dataset.attributes)
            far_images(dataset, self.split, name, self.n)

    def curve(self, max_strength: float) -> tuple[float, ...]:
        """Return 0 and the strength of the published attack."""
        return (0.0, max_strength)

    def edits(self, dataset: Dataset) -> Sequence[Edit]:
        """Return what will be asked for, without the captions of single images."""
        return [general_edit(dataset, name) for name in self.attributes]

    def groups(self, dataset: Dataset) -> Sequence[str]:
        """Return the names of what should be misread."""
        return self.attributes

    def run(self, work: Work, bench: Bench, setup: dict[str, Any]) -> Samples:
        """Return one attacked image per face."""
        batch, edit, wanted = self.ask(bench, work.group, work.indices)
        strengths = torch.tensor(self.curve(bench.editor.max_strength))
        images = bench.editor.edit(batch, edit, strengths).clamp(-1, 1).cpu()
        return Samples(
            batch.ids,
            images[:, 1:],
            (work.group,) * len(batch),
            sources=batch.images,
            truths=batch.images[:, None],
            reconstructions=images[:, 0],
            strengths=strengths[1:].expand(len(batch), -1).contiguous(),
            main=0,
            factors=batch.factors,
            wanted=wanted[:, None],
            asked=asked_of(bench.dataset, [work.group[:-1]], len(batch)),
        )

    def ask(
        self, bench: Bench, name: str, places: Sequence[int]
    ) -> tuple[Batch, Edit, Float[Tensor, "b f"]]:
        """Return images, what is asked of them, and the factors that an honest edit would give."""
        data = bench.dataset
        numbers = far_images(data, self.split, name, self.n)
        index = [numbers[k] for k in places]
        batch, edit = data.batch(self.split, index), general_edit(data, name)
        goals = torch.full((len(index),), goal_of(name))
        if batch.prompts is not None:
            told = data.edited_prompts(self.split, index, name[:-1], goals)
            edit = replace(edit, source_prompts=batch.prompts, target_prompts=told)
        return batch, edit, data.with_factors(self.split, index, {name[:-1]: goals})
