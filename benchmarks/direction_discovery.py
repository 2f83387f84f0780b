"""What did an unsupervised method find?"""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from statistics import median
from typing import Annotated, Any

import torch
from jaxtyping import Float
from torch import Tensor

from benchmarks.attributes import CHOICE
from latentbench.batching import even_batches
from latentbench.benchmark import Bench, Benchmark, Work
from latentbench.bounds import Count, Positive, at_least, between, matches
from latentbench.content import content_hash
from latentbench.data.dataset import Dataset, Split
from latentbench.editor import Editor
from latentbench.errors import BadInput
from latentbench.types import Batch, Capability, Edit, Samples
from latentbench.zoo.answers import read_factors
from latentbench.zoo.judges import JudgeName, load_judge

SCORER = "zoo1"  # judge of the main score
SPREAD_N = 512  # images on which the spread of the factors is measured

Matcher = Annotated[JudgeName, matches(f"(?!{SCORER}$).+", f"other than {SCORER}, which scores")]


class DirectionDiscovery(Benchmark):
    """Edits along the directions that a method numbers itself, there and back.

    Each direction moves each image by its strength to either side. Half the difference of the two
    images' factors is what the direction does to the image. The same is done by the same method
    with noise of the same norms in the place of what it learned (the control), and by the method
    fitted under other seeds. `metrics.edits.discovery` says what the figures make of it.

    A direction's strength is the smallest at which all factors together move by `size` standard
    deviations, sum of absolute changes, mean over images, as `judge` reads images that are not
    scored; the largest of the curve where none does. Noise is added at the strengths of the
    directions in whose place it stands, another fit at the median strength.

    Source: this suite's own protocol, after the re-scoring of Shen et al., "Interpreting the Latent
    Space of GANs", section 3.2, and the matching of directions over fits of "NoiseCLR".

    Args:
        n: images per direction.
        directions: how many are asked for, numbers 0 and up.
        fits: fits that are compared, the method's own included.
        size: effect at which directions are compared, in standard deviations.
        strengths: native strengths of the curve.
        judge: who chooses the strengths; never the judge of the scores.
        calibration_n: images on which strengths are chosen.
        split: which images are scored.
    """

    question = "What did an unsupervised method find?"
    verbs = frozenset({"edit"})
    needs = frozenset({Capability.LABELS, Capability.COUNTERFACTUALS})
    main_score = f"discovery_{SCORER}"
    fixed_networks = frozenset({SCORER})

    def __init__(
        self,
        *,
        n: Annotated[Count, at_least(2)] = 20,
        directions: Count = 10,
        fits: Annotated[int, between(1, 10)] = 2,
        size: Positive = 2.0,
        strengths: Annotated[int, between(1, 100)] = 3,
        judge: Matcher = "zoo3",
        calibration_n: Count = 6,
        split: Split = "test",
    ) -> None:
        self.n, self.directions, self.fits, self.size = n, directions, fits, size
        self.strengths, self.judge = strengths, judge
        self.calibration_n, self.split = calibration_n, split
        self._others: list[Editor] = []
        self._reconstructions: dict[tuple[str, ...], Tensor] = {}

    def check(self, dataset: Dataset) -> None:
        """Refuse more images than the splits hold."""
        super().check(dataset)
        if self.calibration_n > (there := dataset.size(CHOICE)):
            raise BadInput(
                f"benchmark.calibration_n={self.calibration_n} is more than the {there} images of "
                f"the split {CHOICE!r}; give {there} or fewer"
            )

    def curve(self, max_strength: float) -> tuple[float, ...]:
        """Return 0 and the native strengths of the curve, evenly spaced."""
        return tuple(torch.linspace(0, max_strength, self.strengths + 1).tolist())

    def edits(self, dataset: Dataset) -> Sequence[Edit]:
        """Return one edit per direction."""
        return [Edit(group, component=k) for k, group in enumerate(self.groups(dataset))]

    def groups(self, dataset: Dataset) -> Sequence[str]:
        """Return the directions."""
        return [f"direction {k}" for k in range(self.directions)]

    def setup(self, bench: Bench) -> dict[str, Any]:
        """Return each direction's effect along the curve, and its strength."""
        curve = self.curve(bench.editor.max_strength)[1:]
        chosen: dict[str, Any] = {"curve": list(curve)}
        for group in self.groups(bench.dataset):
            effects = self._effects(bench, group, curve)
            strength = crossing((0.0, *curve), (0.0, *effects), self.size)
            chosen[group] = {"effects": effects, "strength": strength}
        self._fit_others(bench)
        return chosen

    def run(self, work: Work, bench: Bench, setup: dict[str, Any]) -> Samples:
        """Return both sides of the direction, of the control and of the other fits."""
        batch, own = bench.dataset.batch(self.split, work.indices), setup[work.group]["strength"]
        usual = median(setup[group]["strength"] for group in self.groups(bench.dataset))
        control, *refits = self._fit_others(bench)
        makers = [(bench.editor, own), (control, own), *((editor, usual) for editor in refits)]
        outputs = [_both_sides(e, batch, work.group, [g])[:, :, 0] for e, g in makers]
        strengths = torch.tensor([sign * g for _, g in makers for sign in (-1, 1)])
        return Samples(
            batch.ids,
            torch.cat(outputs, 1).cpu(),
            (work.group,) * len(batch),
            sources=batch.images,
            reconstructions=self._reconstructed(bench, batch),
            strengths=strengths.expand(len(batch), -1).contiguous(),
            main=1,
            factors=batch.factors,
        )

    def _fit_others(self, bench: Bench) -> Sequence[Editor]:
        """Return the control and the other fits, made once."""
        if not self._others:
            seed = bench.streams.seed
            editors = [bench.refit(seed + k) for k in range(self.fits)]
            editors[0].randomise(bench.streams)
            self._others = editors
        return self._others

    def _reconstructed(self, bench: Bench, batch: Batch) -> Float[Tensor, "b 3 h w"]:
        """Return the images at strength 0, made once for all directions."""
        if batch.ids not in self._reconstructions:
            made = bench.editor.edit(batch, _edit("direction 0", batch, 1), torch.zeros(1))
            self._reconstructions[batch.ids] = made[:, 0].clamp(-1, 1).cpu()
        return self._reconstructions[batch.ids]

    def _effects(self, bench: Bench, group: str, curve: Sequence[float]) -> list[float]:
        """Return the effect at each strength, over the calibration images."""
        judge, total = load_judge(self.judge, bench.device), torch.zeros(len(curve)).double()
        size = min(SPREAD_N, bench.dataset.size(CHOICE))
        known = bench.dataset.describe(CHOICE, range(size)).factors
        assert known is not None
        for index, kept in even_batches(self.calibration_n, bench.batch_size):

            def make(index: Sequence[int] = index) -> Mapping[str, Tensor]:
                batch = bench.dataset.batch(CHOICE, index)
                images = _both_sides(bench.editor, batch, group, curve)
                read = read_factors(images.flatten(1, 2).to(bench.device), (judge,)).cpu()
                low, high = read.unflatten(1, (2, len(curve))).unbind(1)
                return {"effect": ((high - low).abs() / 2 / known.std(0)).sum(-1).double()}

            key = content_hash(group, index, curve)
            total += bench.kept.get_or_make("effects", key, make)["effect"][:kept].sum(0)
        return (total / self.calibration_n).tolist()


def crossing(strengths: Sequence[float], effects: Sequence[float], size: float) -> float:
    """Return the smallest strength of this effect, linear between the curve's; else the last.

    Example:
        >>> crossing([0.0, 1.0, 2.0], [0.0, 1.0, 5.0], 3.0), crossing([0.0, 1.0], [0.0, 1.0], 3.0)
        (1.5, 1.0)
    """
    for (a, low), (b, high) in pairwise(zip(strengths, effects, strict=True)):
        if low < size <= high:
            return a + (size - low) / (high - low) * (b - a)
    return strengths[-1]


def _edit(group: str, batch: Batch, sign: int) -> Edit:
    number = int(group.removeprefix("direction "))
    return Edit(group, sign=sign, source_prompts=batch.prompts, component=number)


def _both_sides(
    editor: Editor, batch: Batch, group: str, strengths: Sequence[float]
) -> Float[Tensor, "b 2 s 3 h w"]:
    """Return the images moved against the direction and along it."""
    sides = [
        editor.edit(batch, _edit(group, batch, sign), torch.tensor(strengths)) for sign in (-1, 1)
    ]
    return torch.stack(sides, 1).clamp(-1, 1)
