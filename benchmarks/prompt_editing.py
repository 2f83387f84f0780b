"""Does an edit by a prompt pair change the image where it should, and keep the rest?"""

from dataclasses import replace
from typing import Annotated, Any

import torch

from latentbench.benchmark import Bench, Benchmark, Work
from latentbench.bounds import Count, between
from latentbench.data.dataset import Dataset
from latentbench.types import Capability, Samples

SPLIT = "test"


class PromptEditing(Benchmark):
    """PIE-Bench's protocol: a source prompt, a target prompt and a mask of each image.

    Each method works at its own settings: the last native strength, `max_strength`, makes the
    headline scores, the reconstruction at strength 0 is given with it. There is no rendered answer,
    and nothing is matched, so a method that changes less keeps more, and by the background one that
    does nothing is first: the main score is the direction of the change, which it has not. Where
    the weights behind it are absent there is no ranking. As in PIE-Bench, methods are not given the
    mask unless `give_masks` says so. Groups are the kinds of edit; headline scores are plain means
    over all images.

    Source: Ju et al., "PnP Inversion: Boosting Diffusion-based Editing with 3 Lines of Code",
    section "PIE-Bench".

    Args:
        n: images per kind of edit, or all where there are fewer; PIE-Bench's largest kind has 140.
        strengths: number of native strengths, evenly spaced up to `max_strength`.
        give_masks: hand the mask to the method: no longer comparable with those that are not
            given it.
    """

    question = "Does an edit by a prompt pair change the image where it should, and keep the rest?"
    version = 2
    verbs = frozenset({"edit"})
    needs = frozenset({Capability.EDITS, Capability.PROMPTS})
    gives = frozenset({Capability.TARGET_PROMPTS})
    main_score = "clip_dir"

    def __init__(
        self,
        *,
        n: Count = 140,
        strengths: Annotated[int, between(1, 1000)] = 1,
        give_masks: bool = False,
    ) -> None:
        self.n, self.strengths, self.give_masks = n, strengths, give_masks
        self.gives = type(self).gives | ({Capability.EDIT_MASKS} if give_masks else set())

    def curve(self, max_strength: float) -> tuple[float, ...]:
        """Return 0 and the native strengths, evenly spaced."""
        return tuple(torch.linspace(0, max_strength, self.strengths + 1).tolist())

    def groups(self, dataset: Dataset) -> tuple[str, ...]:
        """Return the kinds of edit."""
        return dataset.edit_kinds

    def count(self, group: str, dataset: Dataset) -> int:
        """Return how many images of a kind are used."""
        return min(self.n, len(dataset.of_kind(SPLIT, group)))

    def run(self, work: Work, bench: Bench, setup: dict[str, Any]) -> Samples:
        """Return the outputs at each strength, the published edit last."""
        numbers = bench.dataset.of_kind(SPLIT, work.group)
        index = [numbers[k] for k in work.indices]
        batch = bench.dataset.batch(SPLIT, index)
        edit = bench.dataset.edit(SPLIT, index)
        curve = torch.tensor(self.curve(bench.editor.max_strength))
        asked = edit if self.give_masks else replace(edit, masks=None)
        images = bench.editor.edit(batch, asked, curve).clamp(-1, 1).cpu()
        return Samples(
            batch.ids,
            images[:, 1:],
            (work.group,) * len(batch),
            sources=batch.images,
            reconstructions=images[:, 0],
            strengths=curve[1:].expand(len(batch), -1).contiguous(),
            main=self.strengths - 1,
            masks=edit.masks,
            prompts=edit.target_prompts,
            source_prompts=edit.source_prompts,
        )
