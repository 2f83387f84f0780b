"""What is the least honest change of a face after which a classifier answers otherwise?"""

from functools import cache
from typing import Annotated, Any, ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from benchmarks.attack import Attack
from benchmarks.attributes import Attributes, asked_of, column_of
from latentbench.benchmark import Bench, Work
from latentbench.bounds import Count, between
from latentbench.data.dataset import Split
from latentbench.types import Capability, Samples
from latentbench.zoo.classifiers import EmbeddedClassifier, classifier_reads

ASKED = "attr1"  # the classifier whose answer is to change
MIDDLE = 0.5  # its probability at which the answer changes


class Counterfactual(Attack):
    """Counterfactuals of a classifier: it should answer otherwise, because the face has changed.

    It asks what `Attack` asks, of the same classifier attr1, and wants the opposite: "glasses+" is
    not that glasses are read where there are none, but that the face has them, and is otherwise the
    same. The counterfactual of an image is the output of the smallest strength of the curve at
    which attr1 answers as asked, and that of the largest where it never does, or where it answered
    so of the source already, by mistake: no answer can flip there. The classifier chooses per
    image, as in the method's own field, and whoever uses it gains nothing by that. The score is a
    judge's (`metrics.edits.flip`), and the reading of a classifier alone is worth
    nothing there: an attack scores as doing nothing does.

    Every editor takes part that the data can ask; none needs to use the classifier.

    Args:
        n: images per attribute.
        attributes: attribute with the direction in which the answer should change.
        strengths: number of native strengths of the curve.
        split: which images.

    Raises:
        BadInput: an attribute that the data set does not have, or a split with fewer than n images
            on the other side of it (raised by `check`).
    """

    question = "What is the least honest change after which a classifier answers otherwise?"
    must_read: ClassVar[frozenset[Capability]] = frozenset()
    main_score = "flip_error_zoo1"
    fixed_networks = frozenset({ASKED})

    def __init__(
        self,
        *,
        n: Count = 16,
        attributes: Attributes = ("glasses+", "glasses-", "hat+", "beard-", "smile+"),
        strengths: Annotated[int, between(1, 1000)] = 8,
        split: Split = "test",
    ) -> None:
        super().__init__(n=n, attributes=attributes, split=split)
        self.strengths = strengths

    def curve(self, max_strength: float) -> tuple[float, ...]:
        """Return 0 and the native strengths of the curve, evenly spaced."""
        return tuple(torch.linspace(0, max_strength, self.strengths + 1).tolist())

    def run(self, work: Work, bench: Bench, setup: dict[str, Any]) -> Samples:
        """Return each image's counterfactual."""
        batch, edit, wanted = self.ask(bench, work.group, work.indices)
        curve = torch.tensor(self.curve(bench.editor.max_strength))
        images = bench.editor.edit(batch, edit, curve).clamp(-1, 1).cpu()
        column = column_of(bench.dataset, work.group)
        read = torch.cat([batch.images[:, None], images[:, 1:]], 1)
        chosen = first_flip(answers(read, bench.device, column), edit.sign)
        return Samples(
            batch.ids,
            images[torch.arange(len(batch)), chosen][:, None],
            (work.group,) * len(batch),
            sources=batch.images,
            truths=bench.dataset.render(wanted)[:, None],
            reconstructions=images[:, 0],
            strengths=curve[chosen][:, None],
            main=0,
            factors=batch.factors,
            wanted=wanted[:, None],
            asked=asked_of(bench.dataset, [work.group[:-1]], len(batch)),
            prompts=edit.target_prompts,
            source_prompts=edit.source_prompts,
        )


def answers(
    images: Float[Tensor, "b s 3 h w"], device: torch.device, column: int
) -> Bool[Tensor, "b s"]:
    """Return whether the classifier says yes."""
    return classifier_reads(_classifier(str(device)), images)[..., column] > MIDDLE


def first_flip(yes: Bool[Tensor, "b s"], sign: int) -> Tensor:
    """Return the first place of each row where the answer has become the one asked for.

    Args:
        yes: answers, that of the source first.
        sign: the answer asked for: above 0 is yes.

    Returns:
        Places after the source's: the last one where the answer never changes as asked.

    Example:
        >>> first_flip(torch.tensor([[False, True, True], [True, True, True]]), 1).tolist()
        [1, 2]
    """
    asked = yes == (sign > 0)
    flips = asked & ~asked[:, :1]
    return torch.where(flips.any(1), flips.int().argmax(1), yes.shape[1] - 1)


@cache
def _classifier(device: str) -> EmbeddedClassifier:
    return EmbeddedClassifier(path=ASKED, device=device)
