"""Is a hole in an image filled with what belongs there?"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from benchmarks.attributes import Attribute, far_images, goal_of
from benchmarks.holes import box, filled, grown, stroke
from latentbench.benchmark import Bench, Benchmark, Work
from latentbench.bounds import Count, Name, between, distinct, not_empty
from latentbench.data.dataset import Dataset, Split
from latentbench.data.edges import edges
from latentbench.data.masks import changed
from latentbench.errors import BadInput, unknown
from latentbench.types import Batch, Capability, Edit, Samples

DRAWN = {"box": box, "stroke": stroke}
LOOKED_AT = 16  # images at once, of which those are taken that show a part
OWN = "edit"  # mask of data that say where an image is to change, and not what would be there
HOLES = ("box", "stroke", "eyes", "mouth", "hair", "glasses+", "hat+")
Holes = Annotated[Sequence[Name | Attribute], not_empty, distinct]


@dataclass(frozen=True)
class _Whole:
    """Images as they should be, and what is missing of them.

    Args:
        ids: their names.
        images: in [-1, 1]; where the data do not know what should be there, as they were.
        masks: 1 inside the hole.
        prompts: words of the whole image, where there are any.
    """

    ids: tuple[str, ...]
    images: Float[Tensor, "b 3 h w"]
    masks: Float[Tensor, "b h w"]
    prompts: tuple[str, ...] | None


class Inpainting(Benchmark):
    """An image with a hole, the mask of the hole and the words of the whole image.

    The hole that a method is given is a smooth continuation of its surroundings, so that nothing
    of what was there is in the image; labels and part masks are withheld. The main score is the
    distance of the output to the whole image, as a share of that of the image as it was given: 0
    is the true image, 1 is a hole that was left as it was, and what a method changes outside
    counts too. Words leave much of a hole open, so even a perfect sampler of captions is above 0:
    compare methods. Each works at its `max_strength`.

    Holes are "box" and "stroke" (random, the same for all methods), parts of the image by the name
    of their mask, grown by `dilate` pixels, and edits such as "glasses+": the hole is where the
    edit changes the image, the words are those after the edit, and the answer is the rendered
    counterfactual. The hole "edit" is that of data that say where an image is to change, and not
    what would be there (`dataset=pie_bench`, a folder with masks): the truth is known outside
    alone, there is no main score, and it is asked for alone.

    Methods that do not read a mask are skipped: to them nothing is missing.

    Args:
        n: images per hole.
        holes: what is missing.
        dilate: pixels by which the masks of parts and edits grow.
        split: which images.
        give_references: "edges": hand the edges of the whole image to the method as its reference
            images, white on black, as a user would hand in a sketch: no longer comparable with
            methods that are not given them. None: no references.

    Raises:
        BadInput: a part or attribute that the data do not have, "edit" beside other holes or with
            references (raised by `check`); fewer than n images that show a part (raised by
            `setup`).
    """

    question = "Is a hole in an image filled with what belongs there?"
    neutral: ClassVar[Mapping[str, Any]] = {"give_references": None}
    verbs = frozenset({"edit"})
    gives = frozenset({Capability.TARGET_PROMPTS, Capability.EDIT_MASKS})
    must_read = frozenset({Capability.EDIT_MASKS})
    main_score = "restoration_error_image"

    def __init__(
        self,
        *,
        n: Count = 16,
        holes: Holes = HOLES,
        dilate: Annotated[int, between(0, 256)] = 2,
        split: Split = "test",
        give_references: Literal["edges"] | None = None,
    ) -> None:
        self.n, self.holes, self.dilate, self.split = n, tuple(holes), dilate, split
        self.give_references = give_references
        if give_references is not None:
            self.gives = type(self).gives | {Capability.REFERENCES}
        edits = {hole for hole in holes if _is_edit(hole)}
        self.needs = frozenset({Capability.PART_MASKS} if {*holes} - DRAWN.keys() - edits else ())
        self.needs |= {Capability.LABELS, Capability.COUNTERFACTUALS} if edits else set()

    def check(self, dataset: Dataset) -> None:
        """Refuse holes that the data do not have, and too few images for an edit."""
        super().check(dataset)
        for hole in self.holes:
            if _is_edit(hole):
                if hole[:-1] not in dataset.attributes:
                    raise unknown("attribute", hole[:-1], dataset.attributes)
                far_images(dataset, self.split, hole, self.n)
            elif hole not in (*DRAWN, *dataset.parts):
                raise unknown("hole", hole, (*DRAWN, *dataset.parts))
        if OWN in self.holes and len(self.holes) > 1:
            raise BadInput(
                f"benchmark.holes must hold {OWN!r} alone, since what belongs there is not known, "
                f"got {', '.join(self.holes)}; run two cells"
            )

        if OWN in self.holes and self.give_references is not None:
            raise BadInput(
                f"benchmark.give_references={self.give_references} shows what belongs in a hole, "
                f"which is not known of {OWN!r}; set benchmark.give_references=null"
            )

    def curve(self, max_strength: float) -> tuple[float, ...]:
        """Return 0 and the strength of the published edit."""
        return (0.0, max_strength)

    def groups(self, dataset: Dataset) -> Sequence[str]:
        """Return the holes."""
        return self.holes

    def setup(self, bench: Bench) -> dict[str, Any]:
        """Return, for each part, the images that show it."""
        parts = [hole for hole in self.holes if hole not in DRAWN and not _is_edit(hole)]
        return {part: self._showing(bench.dataset, part) for part in parts}

    def run(self, work: Work, bench: Bench, setup: dict[str, Any]) -> Samples:
        """Return one image per hole."""
        shown = setup.get(work.group)
        index = work.indices if shown is None else [shown[k] for k in work.indices]
        whole = self._whole(bench, work.group, index)
        given = filled(whole.images, whole.masks)
        batch = Batch(whole.ids, given, whole.prompts)
        edit = Edit(
            work.group,
            source_prompts=whole.prompts,
            target_prompts=whole.prompts,
            masks=whole.masks,
            references=None if self.give_references is None else 2 * edges(whole.images) - 1,
        )
        strengths = torch.tensor(self.curve(bench.editor.max_strength))
        images = bench.editor.edit(batch, edit, strengths).clamp(-1, 1).cpu()
        return Samples(
            whole.ids,
            images[:, 1:],
            (work.group,) * len(batch),
            sources=given,
            truths=None if work.group == OWN else whole.images[:, None],
            reconstructions=images[:, 0],
            strengths=strengths[1:].expand(len(batch), -1).contiguous(),
            main=0,
            masks=whole.masks,
            prompts=whole.prompts,
        )

    def _showing(self, data: Dataset, part: str) -> list[int]:
        """Return the first n indices whose mask of a part is not empty.

        Raises:
            BadInput: the split has fewer.
        """
        found, size = [], data.size(self.split)
        for start in range(0, size, LOOKED_AT):
            if len(found) >= self.n:
                break
            index = range(start, min(start + LOOKED_AT, size))
            masks = data.batch(self.split, index).masks
            assert masks is not None
            shown = masks[part].flatten(1).amax(1) > 0
            found += [k for k, take in zip(index, shown.tolist(), strict=True) if take]
        if len(found) < self.n:
            raise BadInput(
                f"inpainting asks for {self.n} images that show {part!r}, the split "
                f"{self.split!r} has {len(found)} among its {size}; lower benchmark.n"
            )
        return found[: self.n]

    def _whole(self, bench: Bench, hole: str, index: Sequence[int]) -> _Whole:
        data = bench.dataset
        if _is_edit(hole):
            return self._edited(data, hole, index)
        batch = data.batch(self.split, index)
        prompts, size = batch.prompts, batch.images.shape[-1]
        if hole in DRAWN:
            drawn = [
                DRAWN[hole](size, bench.streams.generator(f"inpainting/{hole}", name))
                for name in batch.ids
            ]
            return _Whole(batch.ids, batch.images, torch.stack(drawn), prompts)
        assert batch.masks is not None
        masks = grown(batch.masks[hole], self.dilate)
        if hole == OWN and Capability.EDITS in data.gives:
            prompts = data.edit(self.split, index).target_prompts
        return _Whole(batch.ids, batch.images, masks, prompts)

    def _edited(self, data: Dataset, hole: str, places: Sequence[int]) -> _Whole:
        """Return what an edit should give, and where it differs from the images before it."""
        numbers = far_images(data, self.split, hole, self.n)
        index, attribute = [numbers[k] for k in places], hole[:-1]
        before, goal = data.batch(self.split, index), torch.full((len(index),), goal_of(hole))
        answer = data.counterfactual(self.split, index, attribute, goal)
        prompts = None
        if before.prompts is not None:
            prompts = data.edited_prompts(self.split, index, attribute, goal)
        return _Whole(before.ids, answer, changed(before.images, answer, self.dilate), prompts)


def _is_edit(hole: str) -> bool:
    return hole.endswith(("+", "-"))
