"""Does inversion find the noise that a sample was made from?"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from latentbench.benchmark import Bench, Benchmark, Work
from latentbench.bounds import Count
from latentbench.data.dataset import Dataset, Split
from latentbench.model import DiffusionModel
from latentbench.sampling.loop import Recorder
from latentbench.types import Batch, Capability, Latent, Samples, Space

KEPT = 9  # levels of a trajectory that metrics see: every eighth of the way


class NoiseRecovery(Benchmark):
    """Sample images from known noise without guidance, invert them, compare the two noises.

    `sources` are the samples, `codes` their true x_T, `other_codes` their clean latents, as
    encoded, and `noise` is what inversion finds. The sampler takes the method's steps. Images go
    through the autoencoder of a latent model and are clipped, as a user's are.

    The method gets the images and all levels of the sampler's own way to them
    (`Batch.trajectory`): an oracle reads it, and a method that inverts level by level gives its own
    levels beside them. `trajectory` and `found_trajectory` are both at every eighth of the way, to
    the nearest step.

    Source: "There and Back Again: On the relation between Noise and Image Inversions in Diffusion
    Models", which compares noise, samples and their inversions.

    Args:
        n: number of samples.
        split: whose captions are the prompts, where the model takes any.
    """

    question = "Does inversion find the noise that a sample was made from?"
    version = 2
    verbs = frozenset({"invert"})
    gives = frozenset({Capability.TRAJECTORY})
    main_score = "noise_distance"

    def __init__(self, *, n: Count = 64, split: Split = "test") -> None:
        self.n, self.split = n, split

    def groups(self, dataset: Dataset) -> tuple[str, ...]:
        """Return the one case."""
        return ("samples",)

    def run(self, work: Work, bench: Bench, setup: dict[str, Any]) -> Samples:
        """Return the samples and their reconstructions, with both noises and both ways."""
        model, known = bench.model, bench.dataset.describe(self.split, work.indices)
        prompts = known.prompts if Capability.PROMPTS in model.gives else None
        prior = model.prior(bench.streams, known.ids)
        told, recorder = Latent(prior.parts, prompts=prompts), Recorder()
        seen = [recorder] if isinstance(model, DiffusionModel) else []
        images = model.sample(
            told, guidance=1.0, steps=bench.editor.sampling_steps, interventions=seen
        )
        images = images.clamp(-1, 1).cpu()
        trajectory = recorder.trajectory.cpu() if seen else None
        batch = Batch(known.ids, images, prompts, trajectory=trajectory)
        latent = bench.editor.invert(batch)
        found = latent.parts.get(Space.NOISE) if latent.start == 0 else None
        if found is not None and found.shape != prior.parts[Space.NOISE].shape:
            found = None  # a pair of noises, of which neither is the sample's
        return Samples(
            known.ids,
            bench.editor.decode(latent).clamp(-1, 1)[:, None].cpu(),
            (work.group,) * len(known),
            sources=images,
            truths=images[:, None],
            noise=None if found is None else found.cpu(),
            trajectory=_thinned(trajectory),
            found_trajectory=_thinned(latent.trajectory),
            codes=prior.parts[Space.NOISE].flatten(1).cpu(),
            other_codes=model.encode(images).flatten(1).cpu(),
        )


def _thinned(levels: Float[Tensor, "b l ..."] | None) -> Float[Tensor, "b k ..."] | None:
    """Return x at `KEPT` levels, evenly spread to the nearest one, the ends among them."""
    if levels is None:
        return None
    places = torch.linspace(0, levels.shape[1] - 1, KEPT).round().long()
    return levels[:, places].cpu()
