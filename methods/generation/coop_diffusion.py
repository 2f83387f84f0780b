"""Coop-Diffusion: two denoisers, each in a latent space of its own, sample one image together."""

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import interpolate

from latentbench.bounds import Guidance, Name, Share, Steps, above, at_most
from latentbench.data.dataset import Dataset
from latentbench.errors import BadInput
from latentbench.model import DiffusionModel, LatentModel
from latentbench.option import Option
from latentbench.parameterization import Grid, transition, whole_steps
from latentbench.sampling.loop import Term, generate, noise_to_level, plain, predict
from latentbench.types import Capability, Concept, Space
from methods.generation.composed import ComposedDiffusion, composed_terms

DENSE = 200  # steps of the grid from which matching levels are chosen, at least


class CoopDiffusion(ComposedDiffusion):
    """Mixes what two denoisers predict, through the images that both predictions mean.

    Source: "PanGu-Draw: Advancing Resource-Efficient Text-to-Image Synthesis with Time-Decoupled
    Training and Reusable Coop-Diffusion", algorithm of Coop-Diffusion. `mode` "spaces" bridges
    latent spaces: in each step the partner's x0' is decoded, encoded for the model, and
    eps_fuse = d eps~ + (1 - d) eps, which is the same mix of clean predictions; the fused
    prediction goes back to the partner in the same way. "resolutions" bridges resolutions: the
    partner samples until `handover`, its x0' is decoded, resized, encoded and noised again, and the
    model makes the rest of the steps.

    The partner is asked for the last concept, the model for all others; with a single one, both
    are. A partner that takes no prompts samples what it knows.

    Deviations: levels of the two are matched by the ratio of signal to noise, where the source
    assumes one schedule, and the partner's x_T gets the spread of its first matched level, which a
    flow's need not have of itself; x0' is clipped to the range of images before it is encoded; d,
    the window and the handover are this suite's choice, as the source does not state them.

    Args:
        partner: a yaml of conf/model: the other denoiser.
        mode: "spaces" or "resolutions".
        share: d, the partner's part of the clean prediction.
        until: share of the steps after which the model goes on alone, as errors of the autoencoder
            grow towards the clean end.
        handover: share of the steps that the partner makes before the model takes over.
        noise: "own", or "shared": both start from one x_T, where their latents have one shape.
        steps: sampling steps; default: the model's.
        guidance: scale of all weights; default: each model's guidance.

    Raises:
        Incompatible: the partner is no denoiser.
        BadInput: one x_T for latents of two shapes; a concept with a region.

    Example:
        >>> method = CoopDiffusion(partner="faces_mmdit", share=0.5)
        >>> # method.compose(("a",), [Concept(("a cat",)), Concept(("a red hat",))])
    """

    paper = "PanGu-Draw, Coop-Diffusion"
    version = 2
    others: ClassVar[Mapping[str, str]] = {"partner": "model"}
    needs: ClassVar[Mapping[str, frozenset[Capability]]] = {
        verb: frozenset({Capability.PROMPTS, Capability.SECOND_MODEL})
        for verb in ("compose", "mixture")
    }

    def __init__(
        self,
        *,
        partner: Name = "faces_mmdit",
        mode: Literal["spaces", "resolutions"] = "spaces",
        share: Share = 0.5,
        until: Share = 0.7,
        handover: Annotated[float, above(0), at_most(1)] = 0.5,
        noise: Literal["own", "shared"] = "own",
        steps: Steps | None = None,
        guidance: Guidance | None = None,
    ) -> None:
        super().__init__(steps=steps, guidance=guidance)
        self.partner, self.mode, self.share, self.until = partner, mode, share, until
        self.handover, self.noise = handover, noise

    @classmethod
    def misfit(cls, model: type[LatentModel], others: Mapping[str, Option]) -> str | None:
        """Return why the partner cannot take part, or None."""
        partner = others.get("partner")
        if partner is None or issubclass(partner.cls, DiffusionModel):
            return None
        return f"partner={partner.name} ({partner.cls.__name__}) is no denoiser"

    def check(self, data: Dataset, steps: int | None, strengths: Sequence[float]) -> None:
        """Refuse a handover before the first step."""
        super().check(data, steps, strengths)
        if self.mode == "resolutions" and steps is not None:
            if not whole_steps(self.handover, steps):
                raise BadInput(
                    f"method.handover={self.handover} is less than one of {steps} sampling steps; "
                    f"give {1 / steps:g} or more"
                )

    def compose(
        self,
        ids: Sequence[str],
        concepts: Sequence[Concept],
        noise: Float[Tensor, "b ..."] | None = None,
    ) -> Float[Tensor, "b 3 h w"]:
        """Return one image per id, the model's x_T from the id where none is given."""
        if any(one.region is not None for one in concepts):
            raise BadInput("a concept has a region, which two models do not share; use "
                           "method=composed")  # fmt: skip
        model, partner = self.model, self.parts["partner"]
        x = model.prior(self.streams, ids).parts[Space.NOISE] if noise is None else noise
        x, ours = x.to(model.device), self._terms_of(model, concepts[:-1] or concepts, len(ids))
        theirs = self._terms_of(partner, concepts[-1:], len(ids))
        grid = model.grid(self.steps)
        grid_ = matched_grid(partner, grid)
        x_ = self._start_of(partner, ids, x) * spread(grid_)
        if self.mode == "spaces":
            z0 = self._together(x, ours, grid, x_, theirs, grid_)
        else:
            z0 = self._in_turn(ids, ours, grid, x_, theirs, grid_)
        return model.decode(z0)

    def _together(
        self,
        x: Float[Tensor, "b ..."],
        ours: Sequence[Term],
        grid: Grid,
        x_: Float[Tensor, "b ..."],
        theirs: Sequence[Term],
        grid_: Grid,
    ) -> Float[Tensor, "b ..."]:
        """Return clean latents of the model after steps that both make."""
        model, partner, d = self.model, self.parts["partner"], self.share
        both = whole_steps(self.until, grid.n) if d else 0
        for i in range(both):
            x0_, _ = predict(partner, x_, grid_, i, theirs)
            x0, _ = predict(model, x, grid, i, ours)
            x0 = d * carried(x0_, partner, model) + (1 - d) * x0  # z0_fuse
            x0_ = carried(x0, model, partner)
            x, x_ = stepped(grid, i, x, x0), stepped(grid_, i, x_, x0_)
        return generate(model, x, ours, grid=grid, start=both)

    def _in_turn(
        self,
        ids: Sequence[str],
        ours: Sequence[Term],
        grid: Grid,
        x_: Float[Tensor, "b ..."],
        theirs: Sequence[Term],
        grid_: Grid,
    ) -> Float[Tensor, "b ..."]:
        """Return clean latents of the model, which goes on where the partner stops."""
        model, partner = self.model, self.parts["partner"]
        last = whole_steps(self.handover, grid.n)
        x_ = generate(partner, x_, theirs, grid=grid_, stop=last)
        if last < grid.n:
            x_, _ = predict(partner, x_, grid_, last, theirs)
        x0 = carried(x_, partner, model)
        if last == grid.n:
            return x0
        n = self.streams.normal("coop_diffusion/handover", ids, model.latent_shape, model.device)
        return generate(model, noise_to_level(grid, x0, n, last), ours, grid=grid, start=last)

    def _terms_of(
        self, model: DiffusionModel, concepts: Sequence[Concept], rows: int
    ) -> Sequence[Term]:
        """Return a model's own terms, guidance included."""
        if Capability.PROMPTS not in model.gives:
            return plain(model.unconditional(rows))
        return composed_terms(model, concepts, rows, self.guidance)

    def _start_of(
        self, partner: DiffusionModel, ids: Sequence[str], x: Float[Tensor, "b ..."]
    ) -> Float[Tensor, "b ..."]:
        """Return x_T of the partner, of unit spread."""
        if self.noise == "own":
            return self.streams.normal(
                "coop_diffusion/partner", ids, partner.latent_shape, partner.device
            )
        if partner.latent_shape != self.model.latent_shape:
            raise BadInput(
                f"method.noise=shared needs latents of one shape, got {self.model.latent_shape} "
                f"and {partner.latent_shape} of the partner; use method.noise=own"
            )
        return x.to(partner.device)


def carried(
    x0: Float[Tensor, "b ..."], source: DiffusionModel, target: DiffusionModel
) -> Float[Tensor, "b ..."]:
    """Return clean latents of one model as those of another, through the image that they mean."""
    images = source.decode(x0).clamp(-1, 1).to(target.device)
    size = target.image_size
    if images.shape[-1] != size:
        images = interpolate(images, (size, size), mode="bilinear", antialias=True)
    return target.encode(images)


def stepped(
    grid: Grid, i: int, x: Float[Tensor, "b ..."], x0: Float[Tensor, "b ..."]
) -> Float[Tensor, "b ..."]:
    """Return x at the next level, of a clean prediction and the noise that x holds beside it."""
    alpha, sigma = grid.levels(i, x)
    mean, _ = transition(grid, i, x0, (x - alpha * x0) / sigma, 0.0)
    return mean


def spread(grid: Grid) -> float:
    """Return the standard deviation of x at a grid's first level, of clean latents of unit spread.

    sqrt(alpha_0^2 + sigma_0^2): 1 where the model preserves variance, less in the midst of a flow.

    Example:
        >>> spread(Grid(torch.tensor([0]), torch.tensor([3.0, 1.0]), torch.tensor([4.0, 0.0])))
        5.0
    """
    return math.hypot(float(grid.alpha[0]), float(grid.sigma[0]))


def matched_grid(model: DiffusionModel, goal: Grid) -> Grid:
    """Return as many levels of a model as a grid has, each of nearly the same signal to noise.

    The model's own clean end is the last. Where its levels do not reach far enough, the nearest
    ones are taken.
    """
    own = model.grid(max(DENSE, goal.n))
    ratio = torch.log(own.alpha[:-1] / own.sigma[:-1]).clamp(-20, 20)
    wanted = torch.log(goal.alpha[:-1] / goal.sigma[:-1]).clamp(-20, 20)
    index = (wanted[:, None] - ratio).abs().argmin(1)
    ends = torch.cat([index, torch.tensor([own.n])])
    return Grid(own.timesteps[index], own.alpha[ends], own.sigma[ends])
