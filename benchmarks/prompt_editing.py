"""Does an edit by a prompt pair change the image where it should, and keep the rest?"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any

import torch

from latentbench.benchmark import Bench, Benchmark, Work
from latentbench.bounds import Count, Name, between, distinct, not_empty
from latentbench.data.dataset import Dataset
from latentbench.errors import unknown
from latentbench.types import Capability, Samples

SPLIT = "test"
ANSWERED = "edit_error_zoo1"  # main score where the answer is known

Kinds = Annotated[Sequence[Name], not_empty, distinct]


class PromptEditing(Benchmark):
    """PIE-Bench's protocol: a source prompt, a target prompt and a mask of each image.

    Each method works at its own settings: the last native strength, `max_strength`, makes the
    headline scores, the reconstruction at strength 0 is given with it. As in PIE-Bench, methods are
    not given the mask unless `give_masks` says so. Groups are the kinds of edit; headline scores
    are over all images.

    Nothing is matched, so a method that changes less keeps more, and by the background one that
    does nothing is first. Where the data set renders the answer, the main score is the distance to
    it in all factors (`edit_error_zoo1`): what is left undone and what else has changed both count.
    `edit_error_image` stands beside it, not first: at one fixed strength, a reconstruction that is
    not exact and a word that is overdone may weigh more there than an edit left undone. For
    photographs there is no answer: there the main score is the direction of the change
    (`clip_dir`), which a method that does nothing has not. Where the weights behind it are absent
    there is no ranking. Methods that take no notice of the target prompt are skipped.

    Source: Ju et al., "PnP Inversion: Boosting Diffusion-based Editing with 3 Lines of Code",
    section "PIE-Bench".

    Args:
        n: images per kind of edit, or all where there are fewer; PIE-Bench's largest kind has 140.
        strengths: number of native strengths, evenly spaced up to `max_strength`.
        give_masks: hand the mask to the method: no longer comparable with those that are not
            given it.
        kinds: of edit, by name; None for all that the data set has.

    Raises:
        BadInput: a kind of which the data set has no edit (raised by `check`).
    """

    question = "Does an edit by a prompt pair change the image where it should, and keep the rest?"
    version = 2
    verbs = frozenset({"edit"})
    needs = frozenset({Capability.EDITS, Capability.PROMPTS})
    gives = frozenset({Capability.TARGET_PROMPTS})
    must_read = frozenset({Capability.TARGET_PROMPTS})
    main_score = "clip_dir"

    def __init__(
        self,
        *,
        n: Count = 140,
        strengths: Annotated[int, between(1, 1000)] = 1,
        give_masks: bool = False,
        kinds: Kinds | None = None,
    ) -> None:
        self.n, self.strengths, self.give_masks = n, strengths, give_masks
        self.kinds = None if kinds is None else tuple(kinds)
        self.gives = type(self).gives | ({Capability.EDIT_MASKS} if give_masks else set())

    def check(self, dataset: Dataset) -> None:
        """Refuse kinds of edit that the data do not have."""
        super().check(dataset)
        for kind in self.kinds or ():
            if kind not in dataset.edit_kinds:
                raise unknown("kind of edit", kind, dataset.edit_kinds)

    def ranked_by(self, given: frozenset[Capability]) -> str:
        """Return the distance to the answer where the data set renders it."""
        return ANSWERED if Capability.COUNTERFACTUALS in given else self.main_score

    def curve(self, max_strength: float) -> tuple[float, ...]:
        """Return 0 and the native strengths, evenly spaced."""
        return tuple(torch.linspace(0, max_strength, self.strengths + 1).tolist())

    def groups(self, dataset: Dataset) -> tuple[str, ...]:
        """Return the kinds of edit."""
        return dataset.edit_kinds if self.kinds is None else self.kinds

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
        samples = Samples(
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
        if Capability.COUNTERFACTUALS not in bench.dataset.gives:
            return samples
        return self._answered(samples, bench.dataset, index)

    def _answered(self, samples: Samples, dataset: Dataset, index: Sequence[int]) -> Samples:
        """Return the samples with what is known of images and answers, for each strength."""
        wanted = dataset.edited_factors(SPLIT, index)
        truths = dataset.render(wanted)
        return replace(
            samples,
            factors=dataset.describe(SPLIT, index).factors,
            wanted=wanted[:, None].repeat(1, self.strengths, 1),
            truths=truths[:, None].expand(-1, self.strengths, *truths.shape[1:]),
        )
