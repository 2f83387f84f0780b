"""Is the path between two latents smooth, and does it stay on the manifold?"""

from typing import Annotated, Any, Literal

import torch

from latentbench.benchmark import Bench, Benchmark, Work
from latentbench.bounds import Count, between
from latentbench.data.dataset import Dataset, Split
from latentbench.types import Batch, Capability, Description, Endpoint, Samples, Space


class Interpolation(Benchmark):
    """Paths between two generated images, or between two real ones.

    Sources: "Smooth Diffusion", section 4.1 (one prompt, two noises: kind "noise"), and "AID"
    (two prompts, one noise: kind "prompt"). Of kind "image" the ends are real images, which the
    method inverts under their own captions: the path's ends then show what inversion loses.

    Args:
        n: number of paths.
        frames: images per path, ends included; 11 as in the ISTD protocol.
        kind: "noise", "prompt" or "image".
        split: where the prompts and the real images come from.
    """

    question = "Is the path between two latents smooth, and on the manifold?"
    verbs = frozenset({"interpolate"})
    main_score = "istd_cv"
    images_per_row = 2

    def __init__(
        self,
        *,
        n: Count = 32,
        frames: Annotated[int, between(3, 1000)] = 11,
        kind: Literal["noise", "prompt", "image"] = "noise",
        split: Split = "test",
    ) -> None:
        self.n, self.frames, self.kind, self.split = n, frames, kind, split
        self.needs = frozenset({Capability.PROMPTS}) if kind == "prompt" else frozenset()

    def run(self, work: Work, bench: Bench, setup: dict[str, Any]) -> Samples:
        """Return the frames; path k runs between the captions of images 2k and 2k + 1."""
        pairs = [[2 * k + j for k in work.indices] for j in (0, 1)]
        if self.kind == "image":
            real = [bench.dataset.batch(self.split, index) for index in pairs]
            a, b = (batch.description for batch in real)
            left, right = (self._real_end(bench, batch) for batch in real)
            ends = torch.stack([batch.images for batch in real], 1)
        else:
            a, b = (bench.dataset.describe(self.split, index) for index in pairs)
            left = self._end(bench, a, a)
            right = self._end(bench, a, b) if self.kind == "prompt" else self._end(bench, b, a)
            ends = None
        frames = bench.editor.interpolate(left, right, self.frames)
        return Samples(
            a.ids,
            frames.clamp(-1, 1).cpu(),
            (work.group,) * len(a),
            factors=a.factors if self.kind != "noise" else None,
            wanted=self._wanted(a, b) if self.kind != "noise" else None,
            ends=ends,
        )

    def groups(self, dataset: Dataset) -> tuple[str, ...]:
        """Return the kind of path."""
        return (self.kind,)

    def _end(self, bench: Bench, noise: Description, prompts: Description) -> Endpoint:
        parts = bench.model.prior(bench.streams, noise.ids).parts
        prompted = Capability.PROMPTS in bench.model.gives
        words = prompts.prompts if prompted else None
        return Endpoint(noise.ids, parts[Space.NOISE], words, code=parts.get(Space.SEMANTIC))

    def _real_end(self, bench: Bench, batch: Batch) -> Endpoint:
        prompted = Capability.PROMPTS in bench.model.gives
        prompts = batch.prompts if prompted else None
        return Endpoint(batch.ids, prompts=prompts, images=batch.images)

    def _wanted(self, a: Description, b: Description) -> torch.Tensor | None:
        if a.factors is None or b.factors is None:
            return None
        t = torch.linspace(0, 1, self.frames).reshape(1, -1, 1)
        return (1 - t) * a.factors[:, None] + t * b.factors[:, None]
