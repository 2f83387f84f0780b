"""How faithful is inversion?"""

from typing import Any

from latentbench.benchmark import Bench, Benchmark, Work
from latentbench.bounds import Count
from latentbench.data.dataset import Dataset, Split
from latentbench.types import Samples, Space


class Reconstruction(Benchmark):
    """Invert real images, decode, compare.

    The truth is what the model's autoencoder makes of the image, so that a latent model is not
    blamed for its autoencoder; it is the image itself for a pixel model, and for a VAE or a GAN,
    whose encoder is what is measured. `sources` are the images.

    Args:
        n: number of images.
        split: which images.
    """

    question = "How faithful is inversion?"
    verbs = frozenset({"invert"})
    main_score = "psnr"

    def __init__(self, *, n: Count = 64, split: Split = "test") -> None:
        self.n, self.split = n, split

    def run(self, work: Work, bench: Bench, setup: dict[str, Any]) -> Samples:
        """Return the reconstructions, with the inverted x_T where the code reaches it."""
        batch = bench.dataset.batch(self.split, work.indices)
        latent = bench.editor.invert(batch)
        images = bench.editor.decode(latent)
        ceiling = bench.model.reconstruction_truth(batch.images)
        noise = latent.parts.get(Space.NOISE) if latent.start == 0 else None
        return Samples(
            batch.ids,
            images.clamp(-1, 1)[:, None].cpu(),
            (work.group,) * len(batch),
            sources=batch.images,
            truths=ceiling.clamp(-1, 1)[:, None].cpu(),
            factors=batch.factors,
            noise=None if noise is None else noise.cpu(),
        )

    def groups(self, dataset: Dataset) -> tuple[str, ...]:
        """Return the one case."""
        return ("images",)
