"""Is the path between two latents smooth, and does it stay on the manifold?"""

from functools import cache
from typing import Annotated, Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from latentbench.benchmark import Bench, Benchmark, Work
from latentbench.bounds import Count, between
from latentbench.content import content_hash
from latentbench.data.dataset import Dataset, Split
from latentbench.types import Batch, Capability, Description, Endpoint, Latent, Samples, Space
from latentbench.zoo.answers import PROJECTORS, is_drawn, read_factors
from latentbench.zoo.judges import Judge, load_judge


class Interpolation(Benchmark):
    """Paths between two generated images, or between two real ones.

    Sources: "Smooth Diffusion", section 4.1 (one prompt, two noises: kind "noise"), and "AID"
    (two prompts, one noise: kind "prompt"). Of kind "image" the ends are real images, which the
    method inverts under their own captions: the path's ends then show what inversion loses.

    The asked ends are what the model itself makes of both noises, or the real images. Where the
    data set draws faces, the answer is known: the even path from one asked end to the other, with
    factors moved in equal steps. Of real images these are known, of generated ones they are the
    mean of what zoo2 and zoo3 read, while zoo1 scores. The main score is the distance to that path,
    as a share of a jump's (`metrics.paths.path_error_image`). Other data have no main score: no
    figure without an answer holds against paths that stand still, jump and fade.

    Args:
        n: number of paths.
        frames: images per path, ends included; 11 as in the ISTD protocol.
        kind: "noise", "prompt" or "image".
        split: where the prompts and the real images come from.
    """

    question = "Is the path between two latents smooth, and on the manifold?"
    version = 2
    verbs = frozenset({"interpolate"})
    main_score = "path_error_image"
    fixed_networks = frozenset(PROJECTORS)
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
            asked = [batch.images for batch in real]
        else:
            a, b = (bench.dataset.describe(self.split, index) for index in pairs)
            left = self._end(bench, a, a)
            right = self._end(bench, a, b) if self.kind == "prompt" else self._end(bench, b, a)
            asked = [self._sampled(bench, end) for end in (left, right)]
        frames = bench.editor.interpolate(left, right, self.frames)
        ends = torch.stack(asked, 1)
        return Samples(
            a.ids,
            frames.clamp(-1, 1).cpu(),
            (work.group,) * len(a),
            truths=self._even(bench, a, b, ends),
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

    def _sampled(self, bench: Bench, end: Endpoint) -> Float[Tensor, "b 3 h w"]:
        """Return what the model itself makes of an end, cached: all methods are asked for it."""
        assert end.noise is not None
        parts = {Space.NOISE: end.noise}
        if end.code is not None:
            parts[Space.SEMANTIC] = end.code
        key = content_hash(bench.model.fingerprint(), parts, end.prompts)

        def make() -> dict[str, Tensor]:
            made = bench.model.sample(Latent(parts, prompts=end.prompts))
            return {"images": made.clamp(-1, 1)}

        return bench.cache.get_or_make("sample", key, make)["images"].cpu()

    def _even(
        self, bench: Bench, a: Description, b: Description, ends: Float[Tensor, "b 2 3 h w"]
    ) -> Float[Tensor, "b t 3 h w"] | None:
        """Return the even path of rendered faces, whose first and last frame are the asked ends."""
        if not is_drawn(bench.dataset):
            return None
        first, last = a.factors, b.factors
        if self.kind != "image":
            judges = _judges(bench.device)
            first, last = read_factors(ends.to(bench.device), judges).cpu().unbind(1)
        assert first is not None and last is not None  # of real images, `is_drawn` says so
        inner = _between(first, last, self.frames)[:, 1:-1]
        drawn = bench.dataset.render(inner.flatten(0, 1)).unflatten(0, inner.shape[:2])
        return torch.cat([ends[:, :1], drawn, ends[:, 1:]], 1)

    def _wanted(self, a: Description, b: Description) -> Tensor | None:
        if a.factors is None or b.factors is None:
            return None
        return _between(a.factors, b.factors, self.frames)


@cache
def _judges(device: torch.device) -> list[Judge]:
    return [load_judge(name, device) for name in PROJECTORS]


def _between(
    a: Float[Tensor, "b f"], b: Float[Tensor, "b f"], frames: int
) -> Float[Tensor, "b t f"]:
    t = torch.linspace(0, 1, frames).reshape(1, -1, 1)
    return (1 - t) * a[:, None] + t * b[:, None]
