"""What all denoisers share: images are sampled and inverted by the one loop."""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor

from latentbench.cache import Cache
from latentbench.model import Condition, Convention, DiffusionModel
from latentbench.sampling.inversion import ddim_invert
from latentbench.sampling.loop import Intervention, generate, guided
from latentbench.types import Batch, Latent, Space


class Denoiser(DiffusionModel):
    """A denoiser whose latents become images by the sampling loop, and images latents by DDIM.

    A model with a denoiser of its own derives from this class.
    """

    def sample(
        self,
        latent: Latent,
        *,
        condition: Condition | None = None,
        null: Condition | None = None,
        guidance: float | Float[Tensor, " b"] | None = None,
        steps: int | None = None,
        interventions: Sequence[Intervention] = (),
    ) -> Float[Tensor, "b 3 h w"]:
        """Return the images of latents by the deterministic sampler; see the base class."""
        x = latent.parts[Space.NOISE].to(self.device)
        terms = guided(
            self.condition_of(latent) if condition is None else condition,
            self.unconditional(len(x)) if null is None else null,
            self.guidance if guidance is None else guidance,
        )
        grid = self.grid(steps)
        z0 = generate(self, x, terms, grid=grid, start=latent.start, interventions=interventions)
        return self.decode(z0)

    def invert(
        self,
        batch: Batch,
        cache: Cache,
        *,
        prompts: Sequence[str] | None = None,
        steps: int | None = None,
        convention: Convention = "matched",
    ) -> Latent:
        """Return x_T of images by DDIM inversion under their prompts or their code."""
        words = None if prompts is None else tuple(prompts)
        known = Latent(self.code_of(batch.images).parts, prompts=words)
        condition = self.condition_of(known) if len(known) else None
        x = ddim_invert(self, batch, cache, steps=steps, condition=condition, convention=convention)
        return Latent({Space.NOISE: x, **known.parts}, prompts=words)
