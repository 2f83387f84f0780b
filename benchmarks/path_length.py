"""How fast does the image change with the latent?"""

from collections.abc import Iterator, Sequence
from typing import Annotated, Any

import torch
from jaxtyping import Float
from torch import Tensor

from latentbench.benchmark import Bench, Benchmark, Work
from latentbench.bounds import Count, above, at_most
from latentbench.data.dataset import Dataset, Split
from latentbench.sampling import linear
from latentbench.types import Capability, Endpoint, Samples, Space


class PathLength(Benchmark):
    """Pairs of images of two latents that are a small step apart on a path.

    Noise moves along a great circle; the code of a model that is conditioned on one moves along a
    straight line, as in `interpolation`. The step starts at the first latent, as in StyleGAN's
    "end" variant and in torchmetrics. Both latents go through the method's `interpolate` as the
    ends of a path of two frames, so a method that shapes paths by their ends is measured, and one
    that shapes their middle is not.

    Source: Karras et al., "A Style-Based Generator Architecture for Generative Adversarial
    Networks", section 4.1.

    Args:
        n: number of pairs.
        epsilon: step, as a share of the path. 1e-4 in the source; a sampler of many steps in
            float32 needs 1e-2 to 1e-3: check that figures stay flat over one decade.
        split: where the prompts come from.
    """

    version = 2
    question = "How fast does the image change with the latent?"
    verbs = frozenset({"interpolate"})
    main_score = "ppl_lpd_zoo1"
    images_per_row = 2

    def __init__(
        self,
        *,
        n: Count = 256,
        epsilon: Annotated[float, above(0), at_most(1)] = 1e-2,
        split: Split = "test",
    ) -> None:
        self.n, self.epsilon, self.split = n, epsilon, split

    def run(self, work: Work, bench: Bench, setup: dict[str, Any]) -> Samples:
        """Return both images of each pair; pair k steps from noise 2k towards noise 2k + 1."""
        pairs = [[2 * k + j for k in work.indices] for j in (0, 1)]
        a, b = (bench.dataset.describe(self.split, index) for index in pairs)
        step = torch.tensor([0.0, self.epsilon])
        prompts = a.prompts if Capability.PROMPTS in bench.model.gives else None
        left, right = self._ends(bench, a.ids, b.ids, step, prompts)
        images = bench.editor.interpolate(left, right, 2)
        strengths = step.expand(len(a), -1).contiguous()
        groups = (work.group,) * len(a)
        return Samples(a.ids, images.clamp(-1, 1).cpu(), groups, strengths=strengths)

    def _ends(
        self,
        bench: Bench,
        a: Sequence[str],
        b: Sequence[str],
        step: Float[Tensor, " t"],
        prompts: tuple[str, ...] | None,
    ) -> Iterator[Endpoint]:
        """Yield the latents of `a` moved towards those of `b` by each step."""
        one, two = (bench.model.prior(bench.streams, ids).parts for ids in (a, b))
        noises = linear.slerp(one[Space.NOISE], two[Space.NOISE], step).unbind(1)
        codes: Sequence[Tensor | None] = [None] * len(step)
        if Space.SEMANTIC in one:
            codes = linear.lerp(one[Space.SEMANTIC], two[Space.SEMANTIC], step).unbind(1)
        for noise, code in zip(noises, codes, strict=True):
            yield Endpoint(tuple(a), noise, prompts, code=code)

    def groups(self, dataset: Dataset) -> tuple[str, ...]:
        """Return the one case."""
        return ("steps",)
