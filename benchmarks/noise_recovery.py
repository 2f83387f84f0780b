"""Does inversion find the noise that a sample was made from?"""

from typing import Any

from latentbench.benchmark import Bench, Benchmark, Work
from latentbench.bounds import Count
from latentbench.data.dataset import Dataset, Split
from latentbench.types import Batch, Capability, Latent, Samples, Space


class NoiseRecovery(Benchmark):
    """Sample images from known noise without guidance, invert them, compare the two noises.

    `sources` are the samples, `codes` their true x_T, `other_codes` their clean latents, as
    encoded, and `noise` is what inversion finds. The sampler takes the method's steps. Images go
    through the autoencoder of a latent model and are clipped, as a user's are.

    Source: "There and Back Again: On the relation between Noise and Image Inversions in Diffusion
    Models", which compares noise, samples and their inversions.

    Args:
        n: number of samples.
        split: whose captions are the prompts, where the model takes any.
    """

    question = "Does inversion find the noise that a sample was made from?"
    verbs = frozenset({"invert"})
    main_score = "noise_distance"

    def __init__(self, *, n: Count = 64, split: Split = "test") -> None:
        self.n, self.split = n, split

    def groups(self, dataset: Dataset) -> tuple[str, ...]:
        """Return the one case."""
        return ("samples",)

    def run(self, work: Work, bench: Bench, setup: dict[str, Any]) -> Samples:
        """Return the samples and their reconstructions, with both noises."""
        model, known = bench.model, bench.dataset.describe(self.split, work.indices)
        prompts = known.prompts if Capability.PROMPTS in model.gives else None
        prior = model.prior(bench.streams, known.ids)
        steps = getattr(bench.editor, "steps", None)
        told = Latent(prior.parts, prompts=prompts)
        images = model.sample(told, guidance=1.0, steps=steps).clamp(-1, 1).cpu()
        latent = bench.editor.invert(Batch(known.ids, images, prompts))
        found = latent.parts.get(Space.NOISE) if latent.start == 0 else None
        return Samples(
            known.ids,
            bench.editor.decode(latent).clamp(-1, 1)[:, None].cpu(),
            (work.group,) * len(known),
            sources=images,
            truths=images[:, None],
            noise=None if found is None else found.cpu(),
            codes=prior.parts[Space.NOISE].flatten(1).cpu(),
            other_codes=model.encode(images).flatten(1).cpu(),
        )
