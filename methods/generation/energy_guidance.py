"""Energy guidance: Langevin dynamics on the noise that a sampler turns into an image."""

from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from latentbench.bounds import Name, NotNegative, Positive, Steps, between
from latentbench.editor import Editor
from latentbench.errors import BadInput
from latentbench.model import DiffusionModel
from latentbench.sampling.loop import generate, plain
from latentbench.types import Capability, Concept, Latent, Space


class EnergyGuidance(Editor[DiffusionModel]):
    """Samples z ~ N(z; 0, I) exp(-lambda E(G(z))), with G the deterministic sampler.

    Source: "Unifying Diffusion Models' Latent Space, with Applications to CycleDiffusion and
    Guidance", section 3.3. With U(z) = lambda E(G(z)) + |z|^2 / 2, each of `iterations` takes
    z <- z - h / 2 grad U + sqrt(h) n. The energy is sum_k w_k (1 - s(x, prompt_k)) over concepts,
    s being the cosine of a scorer, so that a model that takes no prompts can be asked for them; one
    that does samples under the empty prompt, one that takes a code under what its prior draws.

    Deviations: the final image is made by the very chain that gradients ran through, where the
    published code takes more steps, which is another map; the scorer sees the image itself, there
    50 random augmentations of it.

    Args:
        steps: sampling steps of G.
        scorer: a yaml of conf/scorer.
        weight: lambda; a good one makes lambda E vary by 5 to 10 over samples of the prior.
        step_size: h.
        iterations: Langevin steps.
        keep: "best": each image of the lowest energy seen; "last".

    Raises:
        BadInput: a concept has a region.

    Example:
        >>> method = EnergyGuidance(weight=500.0)
        >>> # method.compose(("a",), [Concept(("glasses",)), Concept(("hat",), -1.0)])
    """

    version = 2
    paper = "Unifying Diffusion Models' Latent Space, section 3.3"
    scope = "model"
    small: ClassVar[Mapping[str, int]] = {"iterations": 2, "steps": 2}
    others: ClassVar[Mapping[str, str]] = {"scorer": "scorer"}
    requires: ClassVar[Mapping[str, frozenset[Space]]] = {"compose": frozenset({Space.NOISE})}
    needs: ClassVar[Mapping[str, frozenset[Capability]]] = {
        "compose": frozenset({Capability.SCORER})
    }

    def __init__(
        self,
        *,
        steps: Steps | None = 10,
        scorer: Name = "clip1",
        weight: NotNegative = 500.0,
        step_size: Positive = 0.05,
        iterations: Annotated[int, between(0, 10_000)] = 100,
        keep: Literal["best", "last"] = "best",
    ) -> None:
        self.steps, self.scorer, self.weight = steps, scorer, weight
        self.step_size, self.iterations, self.keep = step_size, iterations, keep

    def compose(
        self,
        ids: Sequence[str],
        concepts: Sequence[Concept],
        noise: Float[Tensor, "b ..."] | None = None,
    ) -> Float[Tensor, "b 3 h w"]:
        """Return one image per id, the chain begun at the noise of that id or a given one."""
        model = self.model
        code = dict(model.prior(self.streams, ids).parts)
        own = code.pop(Space.NOISE)
        z = (own if noise is None else noise).to(model.device)
        return model.decode(self._sampled(self.walk(ids, concepts, z, code), code))

    def walk(
        self,
        ids: Sequence[str],
        concepts: Sequence[Concept],
        z: Float[Tensor, "b ..."],
        code: Mapping[Space, Tensor] | None = None,
    ) -> Float[Tensor, "b ..."]:
        """Return the noise that the chain ends at, or the one of the lowest energy.

        Args:
            ids: one name per image.
            concepts: what is asked for.
            z: the noise that the chain begins at.
            code: what the model takes besides noise; it is not moved.
        """
        told = self._told(concepts)
        best, lowest, h = z, torch.full((len(z),), torch.inf, device=z.device), self.step_size
        for k in range(self.iterations):
            with torch.enable_grad():
                z = z.detach().requires_grad_()
                energy = self.energy(self.model.decode(self._sampled(z, code)), told)
                U = self.weight * energy + z.square().flatten(1).sum(1) / 2
                (slope,) = torch.autograd.grad(U, z, torch.ones_like(U))
            z, energy = z.detach(), energy.detach()
            best = torch.where(_column(energy < lowest, z), z, best)
            lowest = torch.minimum(energy, lowest)
            n = self.streams.normal(f"energy_guidance/{k}", ids, z.shape[1:], z.device)
            z = z - h / 2 * slope + h**0.5 * n
        if self.keep == "last" or not self.iterations:
            return z
        energy = self.energy(self.model.decode(self._sampled(z, code)), told)
        return torch.where(_column(energy < lowest, z), z, best)

    def energy(
        self, images: Float[Tensor, "b 3 h w"], told: Sequence[tuple[float, Tensor]]
    ) -> Float[Tensor, " b"]:
        """Return E of images, from (weight, embedding of the prompts) of each concept."""
        seen = self.parts["scorer"].image(images)
        return torch.stack([w * (1 - (seen * text).sum(1)) for w, text in told]).sum(0)

    def _told(self, concepts: Sequence[Concept]) -> list[tuple[float, Tensor]]:
        if any(one.region is not None for one in concepts):
            raise BadInput("a concept has a region, which a scorer of whole images does not know; "
                           "use method=composed")  # fmt: skip
        return [(one.weight, self.parts["scorer"].text(one.prompts)) for one in concepts]

    def _sampled(
        self, z: Float[Tensor, "b ..."], code: Mapping[Space, Tensor] | None = None
    ) -> Float[Tensor, "b ..."]:
        """Return the clean latents of G."""
        told = self.model.condition_of(Latent({Space.NOISE: z, **(code or {})}))
        return generate(self.model, z, plain(told), grid=self.model.grid(self.steps))


def _column(rows: Tensor, like: Tensor) -> Tensor:
    return rows.reshape(-1, *[1] * (like.dim() - 1))
