"""Does an edit stay inside the region that it has to change?"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any, ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from benchmarks.attribute_editing import AttributeEditing, Matcher, Scored
from benchmarks.attributes import Attributes, goal_of
from latentbench.benchmark import Bench, Work
from latentbench.bounds import Count, above, at_most, between
from latentbench.data.dataset import Dataset
from latentbench.data.edges import edges
from latentbench.data.masks import changed
from latentbench.types import Batch, Capability, Edit, Samples

EDITS = ("smile+", "mouth_open-", "shirt+", "glasses+", "glasses-", "hat+", "beard-", "beard+")


class LocalEditing(AttributeEditing):
    """Attribute editing with the exact mask of each edit.

    The mask is where the rendered counterfactual of the whole change differs visibly from the
    source, in any channel, grown by `dilate` pixels; hair that a hat will hide is inside. What is
    outside is the background, which a perfect edit keeps. A method that changes nothing keeps it as
    well: so methods are ranked by the distance to the answer over all factors, of which those of
    the background are some, and the background itself is compared at matched effect.
    `edit_error_image` stands beside it, not first: of an edit as small as its mask, what an
    autoencoder alone loses is half of the way, by which no edit would be ahead of doing nothing.
    Factors that change the whole image (light, yaw) have no background to speak of.

    Args:
        n: images per attribute.
        attributes: attribute with its direction: "glasses+" puts glasses on.
        gain: share of the asked change: of a graded answer, and at matched effect.
        strengths: number of native strengths of the curve.
        judge: who chooses the strengths; never the judge of the scores.
        calibration_n: images per attribute on which strengths are chosen.
        tolerance: how far from `gain` an effect counts as matched.
        split: which images are scored.
        dilate: pixels by which a mask grows in each direction.
        give_masks: hand the mask to the method, which may then copy the source outside it: no
            longer comparable with methods that are not given it.
        give_references: "edges": hand the edges of the answer to the method as its reference
            images, white on black, as a user would hand in a sketch: no longer comparable with
            methods that are not given them. None: no references.
    """

    question = "Does an edit stay inside the region that it has to change?"
    neutral: ClassVar[Mapping[str, Any]] = {"give_references": None}
    version = 3
    main_score = "edit_error_zoo1"

    def __init__(
        self,
        *,
        n: Count = 16,
        attributes: Attributes = EDITS,
        gain: Annotated[float, above(0), at_most(1)] = 0.5,
        strengths: Annotated[int, between(1, 1000)] = 3,
        judge: Matcher = "zoo3",
        calibration_n: Count = 12,
        tolerance: Annotated[float, above(0), at_most(1)] = 0.1,
        split: Scored = "test",
        dilate: Annotated[int, between(0, 256)] = 1,
        give_masks: bool = False,
        give_references: Literal["edges"] | None = None,
    ) -> None:
        super().__init__(
            n=n,
            attributes=attributes,
            gain=gain,
            strengths=strengths,
            judge=judge,
            calibration_n=calibration_n,
            tolerance=tolerance,
            split=split,
        )
        self.dilate, self.give_masks = dilate, give_masks
        self.give_references = give_references
        self.gives = type(self).gives | ({Capability.EDIT_MASKS} if give_masks else set())
        self.gives |= set() if give_references is None else {Capability.REFERENCES}

    def ask(self, bench: Bench, name: str, split: str, index: Sequence[int]) -> tuple[Batch, Edit]:
        """Return these images, and what a method is asked to do with them."""
        batch, edit = super().ask(bench, name, split, index)
        if self.give_masks:
            masks = self._masks(bench.dataset, name, split, index, batch.images)
            edit = replace(edit, masks=masks)
        if self.give_references is not None:
            answer = self.answer(bench.dataset, name, split, index)
            edit = replace(edit, references=2 * edges(answer) - 1)
        return batch, edit

    def run(self, work: Work, bench: Bench, setup: dict[str, Any]) -> Samples:
        """Return the samples of `AttributeEditing` with their masks."""
        samples = super().run(work, bench, setup)
        assert samples.sources is not None
        index = self.numbers(bench.dataset, work.group, work.indices)
        masks = self._masks(bench.dataset, work.group, self.split, index, samples.sources)
        return replace(samples, masks=masks)

    def _masks(
        self,
        dataset: Dataset,
        name: str,
        split: str,
        index: Sequence[int],
        sources: Float[Tensor, "b 3 h w"],
    ) -> Float[Tensor, "b h w"]:
        goal = torch.full((len(index),), goal_of(name))
        whole = dataset.counterfactual(split, index, name[:-1], goal)
        return changed(sources, whole, self.dilate)
