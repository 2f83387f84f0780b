"""How fast does the image change with the latent?"""

from typing import Annotated, Any

import torch

from latentbench.benchmark import Bench, Benchmark, Work
from latentbench.bounds import Count, above, at_most
from latentbench.data.dataset import Dataset, Split
from latentbench.sampling import linear
from latentbench.types import Capability, Endpoint, Samples


class PathLength(Benchmark):
    """Pairs of images of two noises that are a small step apart on a great-circle path.

    The step starts at the first noise, as in StyleGAN's "end" variant and in torchmetrics. Both
    noises go through the method's `interpolate` as the ends of a path of two frames, so a method
    that shapes paths by their ends is measured, and one that shapes their middle is not.

    Source: Karras et al., "A Style-Based Generator Architecture for Generative Adversarial
    Networks", section 4.1.

    Args:
        n: number of pairs.
        epsilon: step, as a share of the path. 1e-4 in the source; a sampler of many steps in
            float32 needs 1e-2 to 1e-3: check that figures stay flat over one decade.
        split: where the prompts come from.
    """

    question = "How fast does the image change with the latent?"
    verbs = frozenset({"interpolate"})
    main_score = "ppl_lpd_zoo1"

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
        shape, device = bench.model.latent_shape, bench.device
        z1, z2 = (bench.streams.normal("prior", x.ids, shape, device) for x in (a, b))
        step = torch.tensor([0.0, self.epsilon])
        noises = linear.slerp(z1, z2, step).unbind(1)
        prompts = a.prompts if Capability.PROMPTS in bench.model.gives else None
        left, right = (Endpoint(a.ids, noise, prompts) for noise in noises)
        images = bench.editor.interpolate(left, right, 2)
        strengths = step.expand(len(a), -1).contiguous()
        groups = (work.group,) * len(a)
        return Samples(a.ids, images.clamp(-1, 1).cpu(), groups, strengths=strengths)

    def groups(self, dataset: Dataset) -> tuple[str, ...]:
        """Return the one case."""
        return ("steps",)
