"""Does an edit stay inside the region that it has to change?"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import max_pool2d

from benchmarks.attribute_editing import AttributeEditing, Attributes, goal_of
from latentbench.benchmark import Bench, Work
from latentbench.bounds import Count, above, at_most, between
from latentbench.data.dataset import Split
from latentbench.types import Batch, Capability, Edit, Samples
from latentbench.zoo.judges import JudgeName

VISIBLE = 2 / 255  # change of a value in [0, 1] above which a pixel belongs to the mask


class LocalEditing(AttributeEditing):
    """Attribute editing at matched gain, with the exact mask of each edit.

    The mask is where the rendered counterfactual of the whole change differs visibly from the
    source, in any channel, grown by `dilate` pixels; hair that a hat will hide is inside. What is
    outside is the background, which a perfect edit keeps. A method that changes nothing keeps it as
    well: hence the matched gain. Factors that change the whole image (light, yaw) have no
    background to speak of.

    Args:
        n: images per attribute.
        attributes: attribute with its direction: "glasses+" puts glasses on.
        gain: share of the asked change at which methods are compared.
        strengths: number of native strengths of the curve.
        judge: who reads the gain that is matched; never the judge of the scores.
        split: which images are edited.
        dilate: pixels by which a mask grows in each direction.
        give_masks: hand the mask to the method, which may then copy the source outside it: no
            longer comparable with methods that are not given it.
    """

    question = "Does an edit stay inside the region that it has to change?"
    version = 1
    main_score = "bg_psnr"

    def __init__(
        self,
        *,
        n: Count = 32,
        attributes: Attributes = ("glasses+", "hat+"),
        gain: Annotated[float, above(0), at_most(1)] = 0.5,
        strengths: Annotated[int, between(1, 1000)] = 4,
        judge: JudgeName = "zoo2",
        split: Split = "test",
        dilate: Annotated[int, between(0, 256)] = 1,
        give_masks: bool = False,
    ) -> None:
        super().__init__(
            n=n, attributes=attributes, gain=gain, strengths=strengths, judge=judge, split=split
        )
        self.dilate, self.give_masks = dilate, give_masks
        self.gives = type(self).gives | ({Capability.EDIT_MASKS} if give_masks else set())

    def ask(self, bench: Bench, name: str, index: Sequence[int]) -> tuple[Batch, Edit]:
        """Return these images, and what a method is asked to do with them."""
        batch, edit = super().ask(bench, name, index)
        if self.give_masks:
            goal = torch.full((len(index),), goal_of(name))
            whole = bench.dataset.counterfactual(self.split, index, str(edit.attribute), goal)
            edit = replace(edit, masks=changed(batch.images, whole, self.dilate))
        return batch, edit

    def run(self, work: Work, bench: Bench, setup: dict[str, Any]) -> Samples:
        """Return the samples of `AttributeEditing` with their masks."""
        samples = super().run(work, bench, setup)
        assert samples.sources is not None and samples.truths is not None
        whole = samples.truths[:, 0]  # the curve's truths are the whole change
        return replace(samples, masks=changed(samples.sources, whole, self.dilate))


def changed(
    before: Float[Tensor, "b 3 h w"], after: Float[Tensor, "b 3 h w"], dilate: int
) -> Float[Tensor, "b h w"]:
    """Return 1 where two images in [-1, 1] differ visibly, grown by `dilate` pixels; else 0.

    Example:
        >>> after = torch.zeros(1, 3, 5, 5)
        >>> after[0, 1, 2, 2] = 1
        >>> int(changed(torch.zeros_like(after), after, dilate=1).sum())
        9
    """
    differs = ((after - before).abs().amax(1, keepdim=True) / 2 > VISIBLE).float()
    return max_pool2d(differs, 2 * dilate + 1, stride=1, padding=dilate)[:, 0]
