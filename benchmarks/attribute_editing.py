"""Does an edit change what was asked and nothing else?"""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from benchmarks.attributes import (
    CHOICE,
    Attributes,
    column_of,
    edit_named,
    far_images,
    general_edit,
    goal_of,
)
from benchmarks.strengths import choose
from benchmarks.trials import Trials
from latentbench.benchmark import Bench, Benchmark, Work
from latentbench.bounds import Count, above, at_most, between, matches
from latentbench.data.dataset import Dataset
from latentbench.errors import unknown
from latentbench.types import Batch, Capability, Edit, Samples
from latentbench.zoo.judges import Judge, JudgeName, load_judge

SCORER = "zoo1"  # judge of the main score

Matcher = Annotated[JudgeName, matches(f"(?!{SCORER}$).+", f"other than {SCORER}, which scores")]
Scored = Literal["generator", "judge", "test"]
EDITS = (
    "smile+", "age+", "yaw-", "light+", "mouth_open-", "shirt+",
    "glasses+", "glasses-", "hat+", "beard-",
)  # fmt: skip


class AttributeEditing(Benchmark):
    """Edits of one attribute on held-out images: how far are they from the answer?

    The answer of a graded factor is the rendered counterfactual at `gain` of the way; that of a
    thing that is there or not (`Dataset.things`) is the whole counterfactual. The main score is
    the distance of the output to it, as a share of the source's (`metrics.edits.edit_error`), at
    the strength that a judge finds best on other images: native strengths differ by orders of
    magnitude between methods.

    Strengths are chosen per method and edit on `calibration_n` images of the calibration split, by
    a judge that does not score: along the curve, then between. The last but one output of every
    row is that of least error, where the main score counts. The last is that of matched effect,
    where the figures count that explain it: the first upward crossing of `gain`, which for a thing
    is the share of images that show it. It counts as reached where the gain is within `tolerance`
    (of a thing, at least one image) by the judge that matched and by the one that scores, and
    where the image has moved towards the true counterfactual.

    Args:
        n: images per attribute.
        attributes: attribute with its direction: "glasses+" puts glasses on.
        gain: share of the asked change: of a graded answer, and at matched effect.
        strengths: number of native strengths of the curve.
        judge: who chooses the strengths; never the judge of the scores.
        calibration_n: images per attribute on which strengths are chosen.
        tolerance: how far from `gain` an effect counts as matched.
        split: which images are scored.

    Raises:
        BadInput: an attribute that the data set does not have, or a split with fewer images far
            from an edit's goal than are asked for (raised by `check`).
    """

    question = "Does an edit change what was asked and nothing else?"
    version = 4
    verbs = frozenset({"edit"})
    needs = frozenset({Capability.LABELS, Capability.COUNTERFACTUALS})
    gives = frozenset({Capability.TARGET_PROMPTS})
    main_score = f"edit_error_{SCORER}"
    fixed_networks = frozenset({SCORER})

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
    ) -> None:
        self.n, self.attributes, self.gain = n, tuple(attributes), gain
        self.strengths, self.judge, self.split = strengths, judge, split
        self.calibration_n, self.tolerance = calibration_n, tolerance

    def check(self, dataset: Dataset) -> None:
        """Refuse attributes that the data do not have, and too few images far from a goal."""
        super().check(dataset)
        for name in self.attributes:
            attribute = str(edit_named(name).attribute)
            if attribute not in dataset.attributes:
                raise unknown("attribute", attribute, dataset.attributes)
            far_images(dataset, self.split, name, self.n)
            far_images(dataset, CHOICE, name, self.calibration_n)

    def curve(self, max_strength: float) -> tuple[float, ...]:
        """Return 0 and the native strengths of the curve, evenly spaced."""
        return tuple(torch.linspace(0, max_strength, self.strengths + 1).tolist())

    def edits(self, dataset: Dataset) -> Sequence[Edit]:
        """Return the edits without prompts, for methods that fit."""
        return [general_edit(dataset, name) for name in self.attributes]

    def groups(self, dataset: Dataset) -> Sequence[str]:
        """Return the edits' names."""
        return self.attributes

    def setup(self, bench: Bench) -> dict[str, Any]:
        """Return, per edit, the curve as the judge reads it, and the two strengths."""
        judges = [load_judge(who, bench.device) for who in (self.judge, SCORER)]
        return {name: self._choose(bench, name, judges) for name in self.attributes}

    def run(self, work: Work, bench: Bench, setup: dict[str, Any]) -> Samples:
        """Return the curve, then the outputs of least error and of matched effect."""
        found = setup[work.group]
        index = self.numbers(bench.dataset, work.group, work.indices)
        batch, edit = self.ask(bench, work.group, self.split, index)
        shown = [*found["strengths"], found["main"], found["matched"]]
        made = sorted({0.0, *shown})  # a strength that is chosen twice is made once
        images = bench.editor.edit(batch, edit, torch.tensor(made)).clamp(-1, 1).cpu()
        assert batch.factors is not None
        wanted = batch.factors.clone()
        wanted[:, column_of(bench.dataset, work.group)] = goal_of(work.group)
        answer = self.answer(bench.dataset, work.group, self.split, index)
        return Samples(
            batch.ids,
            images[:, [made.index(strength) for strength in shown]],
            (work.group,) * len(batch),
            sources=batch.images,
            truths=answer[:, None].expand(-1, len(shown), *answer.shape[1:]),
            reconstructions=images[:, 0],
            strengths=torch.tensor(shown).expand(len(batch), -1).contiguous(),
            main=len(shown) - 2,
            effect=len(shown) - 1,
            matched=torch.full((len(batch),), bool(found["reached"])),
            factors=batch.factors,
            wanted=wanted[:, None].repeat(1, len(shown), 1),
            prompts=edit.target_prompts,
            source_prompts=edit.source_prompts,
        )

    def numbers(self, dataset: Dataset, name: str, places: Sequence[int]) -> list[int]:
        """Return the indices in the data set of the images that are scored."""
        found = far_images(dataset, self.split, name, self.n)
        return [found[k] for k in places]

    def ask(self, bench: Bench, name: str, split: str, index: Sequence[int]) -> tuple[Batch, Edit]:
        """Return these images, and what a method is asked to do with them."""
        batch, edit = bench.dataset.batch(split, index), edit_named(name)
        prompts = None
        if batch.prompts is not None:
            goal = torch.full((len(index),), goal_of(name))
            prompts = bench.dataset.edited_prompts(split, index, str(edit.attribute), goal)
        return batch, Edit(name, edit.attribute, edit.sign, batch.prompts, prompts)

    def answer(
        self, dataset: Dataset, name: str, split: str, index: Sequence[int]
    ) -> Float[Tensor, "b 3 h w"]:
        """Return the images that were asked for."""
        attribute, column = name[:-1], column_of(dataset, name)
        factors = dataset.describe(split, index).factors
        assert factors is not None
        share = 1.0 if attribute in dataset.things else self.gain
        now = factors[:, column]
        return dataset.counterfactual(split, index, attribute, now + share * (goal_of(name) - now))

    def _choose(self, bench: Bench, name: str, judges: Sequence[Judge]) -> dict[str, Any]:
        curve = self.curve(bench.editor.max_strength)
        trials = Trials(self, bench, name, judges)
        one_image = 1 / self.calibration_n if trials.is_thing else 0.0
        tolerance = max(self.tolerance, one_image)
        return choose(trials.read, curve, self.gain, tolerance, bench.editor.effective_strength)
