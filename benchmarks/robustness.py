"""What does a shift of the initial noise do to a model's samples?"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from torch import Tensor

from benchmarks.noise_shifts import SHIFTS, STRENGTH, STRENGTHS, relative_shift
from latentbench.annotations import fault
from latentbench.benchmark import Bench, Benchmark, Work
from latentbench.bounds import Count, Name, distinct, not_empty
from latentbench.data.dataset import Dataset, Split
from latentbench.errors import BadInput, unknown
from latentbench.types import Capability, Samples, Space


class Robustness(Benchmark):
    """Samples of shifted noise against samples of the same noise as it was drawn.

    Each case is a shift with a strength, named "SHIFT STRENGTH"; all cases share seeds and
    captions, so everything is paired. `sources` are the unshifted samples, `noise` the shifted
    x_T, `strengths` the relative shift |S(z) - z| / |z|, an axis that all shifts share.

    Source: the question of "Synthetic Shifts to Initial Seed Vector Exposes the Brittle Nature of
    Latent-Based Diffusion Models" (abstract); shifts, strengths and scores are this suite's own
    design, see `benchmarks.noise_shifts`.

    Args:
        n: seeds, each with a caption where the model takes one.
        shifts: the cases, each "SHIFT STRENGTH"; law-preserving shifts belong in a cell of their
            own, so that they do not enter its scores.
        split: whose captions are the prompts.

    Raises:
        BadInput: unknown shift, a strength that it does not take, or one case in two spellings.
    """

    question = "Does a model keep to its condition when its initial noise is shifted?"
    verbs = frozenset({"generate"})
    main_score = "robustness_zoo1"

    def __init__(
        self,
        *,
        n: Count = 64,
        shifts: Annotated[Sequence[Name], not_empty, distinct] = ("mean 0.1", "mean 0.5"),
        split: Split = "test",
    ) -> None:
        self.n, self.split = n, split
        self.cases = {case: _case(case) for case in shifts}
        _refuse_same(self.cases)
        self._plain: dict[tuple[str, ...], Tensor] = {}

    def groups(self, dataset: Dataset) -> tuple[str, ...]:
        """Return the cases."""
        return tuple(self.cases)

    def run(self, work: Work, bench: Bench, setup: dict[str, Any]) -> Samples:
        """Return the samples of shifted noise."""
        name, strength = self.cases[work.group]
        known, shape = bench.dataset.describe(self.split, work.indices), bench.model.latent_shape
        z = bench.model.prior(bench.streams, known.ids).parts[Space.NOISE].cpu()
        fresh = bench.streams.normal("shift", known.ids, shape)
        shifted = SHIFTS[name](z, fresh, strength)
        prompts = known.prompts if Capability.PROMPTS in bench.model.gives else None
        images = bench.editor.generate(known.ids, prompts, shifted)
        wanted = None if prompts is None or known.factors is None else known.factors[:, None]
        return Samples(
            known.ids,
            images.clamp(-1, 1)[:, None].cpu(),
            (work.group,) * len(known),
            sources=self._unshifted(known.ids, prompts, z, bench),
            strengths=relative_shift(z, shifted)[:, None],
            wanted=wanted,
            noise=shifted,
        )

    def _unshifted(
        self, ids: tuple[str, ...], prompts: Sequence[str] | None, z: Tensor, bench: Bench
    ) -> Tensor:
        """Return the samples of the noise as drawn, made once for all cases."""
        if ids not in self._plain:
            self._plain[ids] = bench.editor.generate(ids, prompts, z).clamp(-1, 1).cpu()
        return self._plain[ids]


def _refuse_same(cases: Mapping[str, tuple[str, float]]) -> None:
    """Refuse two spellings of one case, which would count twice."""
    first: dict[tuple[str, float], str] = {}
    for text, case in cases.items():
        if case in first:
            raise BadInput(
                f"benchmark.shifts: {text!r} is {first[case]!r} once more; leave one of them out"
            )
        first[case] = text


def _case(text: str) -> tuple[str, float]:
    """Return shift and strength of a case."""
    name, _, strength = text.partition(" ")
    if name not in SHIFTS:
        raise unknown("shift", name, SHIFTS)
    try:
        number = int(strength) if strength.lstrip("+-").isdecimal() else float(strength)
    except ValueError:
        raise BadInput(f"a case is 'SHIFT STRENGTH', as 'mean 0.1', got {text!r}") from None
    wrong = fault(f"the strength of {name}", number, STRENGTHS.get(name, STRENGTH))
    if wrong is not None:
        raise BadInput(f"benchmark.shifts: {wrong}")
    return name, float(number)
