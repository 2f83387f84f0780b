"""Does an image take from another one what was asked, and keep all else?"""

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from latentbench.benchmark import Bench, Benchmark, Work
from latentbench.bounds import Count, distinct, not_empty
from latentbench.data.dataset import Dataset, Split
from latentbench.errors import BadInput
from latentbench.types import Batch, Capability, Edit, Samples

OPERATORS = {"accessory": ("glasses", "hat"), "pose": ("yaw", "light")}  # what is taken of b
FAR = 0.5  # by more than this the two images differ in one of these factors, and not in all
TRIED = 64  # images that are looked at in search of such a partner

Operators = Annotated[Sequence[Literal["accessory", "pose"]], not_empty, distinct]


class Recombination(Benchmark):
    """Two images and an operator in, one image out: the first, with what the operator takes of b.

    "accessory" takes glasses and hat, "pose" the turn of the head and the light. The answer is
    drawn: the factors of the first image but for those, which are the second's. The score is that
    of `AttributeEditing`, the distance to the answer as a share of the first image's: 0 is the
    answer, 1 the first image given back; the second image, a mixture of the two and anybody else
    are worse (`metrics.edits.edit_error`). `metrics.edits.taken` says which half is missed.

    The partner of image k is the first image from number n + k on that differs by half of the range
    in one of the factors and not in the other: there is always something to take, and who turns
    everything into its opposite, without a look at the second image, is wrong as often as right.
    Pixels are all that a method is given of both.

    Args:
        n: pairs for each operator.
        operators: which.
        split: of both images.

    Raises:
        BadInput: a split without enough images, or without such a partner (the first raised by
            `check`).
    """

    question = "Does an image take from another one what was asked, and keep all else?"
    verbs = frozenset({"combine"})
    needs: ClassVar[frozenset[Capability]] = frozenset(
        {Capability.LABELS, Capability.COUNTERFACTUALS}
    )
    main_score = "edit_error_zoo1"

    def __init__(
        self, *, n: Count = 32, operators: Operators = ("accessory", "pose"), split: Split = "test"
    ) -> None:
        self.n, self.operators, self.split = n, tuple(operators), split

    def check(self, dataset: Dataset) -> None:
        """Refuse unknown factors, and fewer images than pairs need."""
        super().check(dataset)
        for name in self.operators:
            missing = [f for f in OPERATORS[name] if f not in dataset.factor_names]
            if missing:
                raise BadInput(
                    f"operator {name!r} takes {', '.join(missing)}, which the data set does not "
                    f"have; take benchmark.operators without it, or dataset=faces"
                )
        if (needed := 2 * self.n + TRIED) > dataset.size(self.split):
            raise BadInput(
                f"benchmark.n={self.n} needs {needed} images of the split {self.split!r}, which "
                f"has {dataset.size(self.split)}; lower it"
            )

    def groups(self, dataset: Dataset) -> tuple[str, ...]:
        """Return the operators."""
        return self.operators

    def edits(self, dataset: Dataset) -> Sequence[Edit]:
        """Return what a method may fit on: the operators with the factors that they take."""
        return [Edit(name, factors=OPERATORS[name]) for name in self.operators]

    def run(self, work: Work, bench: Bench, setup: dict[str, Any]) -> Samples:
        """Return one combination per pair."""
        data, taken = bench.dataset, OPERATORS[work.group]
        a = data.batch(self.split, work.indices)
        b = data.batch(self.split, self.partners(data, work.indices, work.group))
        assert a.factors is not None and b.factors is not None
        is_taken = torch.tensor([name in taken for name in data.factor_names])
        wanted = torch.where(is_taken, b.factors, a.factors)
        one, two = (Batch(real.ids, real.images) for real in (a, b))
        edit = Edit(work.group, factors=taken)
        images = bench.editor.combine(one, two, edit).clamp(-1, 1).cpu()
        return Samples(
            a.ids,
            images[:, None],
            (work.group,) * len(a),
            sources=a.images,
            truths=data.render(wanted)[:, None],
            main=0,
            factors=a.factors,
            wanted=wanted[:, None],
        )

    def partners(self, data: Dataset, index: Sequence[int], operator: str) -> list[int]:
        """Return the second image of each pair.

        Raises:
            BadInput: an image has none.
        """
        columns = [data.factor_names.index(name) for name in OPERATORS[operator]]
        found = []
        for k, own in zip(index, self._taken(data, index, columns), strict=True):
            tried = range(self.n + k, self.n + k + TRIED)
            far = (self._taken(data, tried, columns) - own).abs() > FAR
            fits = far.any(1) & ~far.all(1)
            if not bool(fits.any()):
                raise BadInput(
                    f"no image differs from {self.split}/{k} in one of "
                    f"{', '.join(OPERATORS[operator])}, and not in all; take another "
                    f"benchmark.split, or benchmark.operators without {operator!r}"
                )
            found.append(tried[int(fits.int().argmax())])
        return found

    def _taken(
        self, data: Dataset, index: Sequence[int], columns: Sequence[int]
    ) -> Float[Tensor, "n f"]:
        factors = data.describe(self.split, index).factors
        assert factors is not None
        return factors[:, list(columns)]
