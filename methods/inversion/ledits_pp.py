"""LEDITS++: noise maps of a second-order sampler, edited by masked guidance towards a concept."""

import math
from typing import Annotated, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from latentbench.bounds import Positive, Steps, at_least, below
from latentbench.errors import BadInput
from latentbench.model import Condition, DiffusionModel
from latentbench.parameterization import Grid
from latentbench.sampling.loop import Intervention, Step, Term, plain, predict
from latentbench.types import Batch, Edit, Latent
from methods.inversion.edit_friendly_ddpm import draw_independently
from methods.inversion.noise_maps import NoiseMapEditor, Skip


class LEDITSPlusPlus(NoiseMapEditor):
    """eps = eps(null) + s M (eps(concept) - eps(null)), from noise maps of SDE-DPM-Solver++ 2M.

    Source: "LEDITS++: Limitless Image Editing using Text-to-Image Models", section 3. The image is
    inverted without a prompt, each level noised on its own as in `EditFriendlyDDPM`. M keeps the
    places where the concept changes the prediction most. The strength is the paper's s_e: 0 is the
    exact reconstruction, at every number of steps.
    Deviations: where the clean end has no noise the last step is of first order and what it leaves
    is kept (the diffusers port drops it, and the reconstruction with it); the order is the same in
    inversion and edit (the published scheduler lowers it in the last step below 15 steps); M is
    the mask of the predictions, without that of the attention; one concept.

    Args:
        steps: sampling steps; default: the model's.
        skip: how many of the noisiest steps are left out, as a count or as a share of the steps.
        threshold: share of the image that the mask leaves out; 0 is no mask.
        concept: what guides: the caption of the edited image ("target"), or the attribute in words
            after the edit ("words").
        max_strength: largest s_e of a benchmark's curve.

    Example:
        >>> editor = LEDITSPlusPlus(skip=0.15)  # editor.edit(batch, edit, torch.tensor([0.0, 5.0]))
    """

    paper = "LEDITS++: Limitless Image Editing using Text-to-Image Models, section 3"
    version = 1

    def __init__(
        self,
        *,
        steps: Steps | None = None,
        skip: Skip = 0.15,
        threshold: Annotated[float, at_least(0), below(1)] = 0.75,
        concept: Literal["target", "words"] = "target",
        max_strength: Positive = 5.0,
    ) -> None:
        super().__init__(steps=steps, eta=1.0, skip=skip, max_strength=max_strength)
        self.threshold, self.concept = threshold, concept

    def edit(
        self, batch: Batch, edit: Edit, strengths: Float[Tensor, " s"]
    ) -> Float[Tensor, "b s 3 h w"]:
        """Return the codes' images under guidance of these strengths."""
        concept = self.model.condition(self._concepts(batch, edit), len(batch))
        return self._guided(self.invert(batch), concept, strengths)

    def decode(self, latent: Latent) -> Float[Tensor, "b 3 h w"]:
        """Return the images of the codes."""
        null = self.model.unconditional(len(latent))
        return self._guided(latent, null, torch.zeros(1))[:, 0]

    def draw_levels(
        self, grid: Grid, x0: Float[Tensor, "b ..."], batch: Batch, start: int
    ) -> Float[Tensor, "b l ..."]:
        """Return x at levels start..n, each noised on its own."""
        shape = (grid.n - start, *x0.shape[1:])
        return draw_independently(
            grid, x0, self.streams.normal("ledits_pp", batch.ids, shape, x0.device), start
        )

    def higher_order(
        self, grid: Grid, x0: Float[Tensor, "b n ..."], start: int
    ) -> Float[Tensor, "b n ..."]:
        """Return the second-order part of each step's mean."""
        weights = [second_order(grid, i) if i > start else 0.0 for i in range(start, grid.n)]
        change = torch.cat([torch.zeros_like(x0[:, :1]), x0.diff(dim=1)], 1)
        return torch.tensor(weights).to(x0).reshape(-1, *[1] * (x0.dim() - 2)) * change

    def _concepts(self, batch: Batch, edit: Edit) -> tuple[str, ...] | None:
        if self.concept == "target":
            return edit.target_prompts
        if edit.words is None:
            raise BadInput(
                f"method.concept=words, but the edit {edit.name!r} has no words of its own; use "
                f"method.concept=target"
            )
        return (edit.words[1],) * len(batch)

    def _guided(
        self, latent: Latent, concept: Condition, strengths: Float[Tensor, " s"]
    ) -> Float[Tensor, "b s 3 h w"]:
        b, s = len(latent), len(strengths)
        scale = strengths.repeat(b).to(self.model.device)
        towards = MaskedGuidance(self.model, concept.repeat(s), scale, self.threshold)
        terms = plain(self.model.unconditional(b * s))
        images = self._images(self.model, latent, terms, s, [towards, SecondOrder()])
        return images.unflatten(0, (b, s))

    def _terms(
        self,
        model: DiffusionModel,
        latent: Latent,
        target: tuple[str, ...] | None,
        strengths: Float[Tensor, " s"],
    ) -> tuple[Term, ...]:
        """Return the empty condition, which the images are inverted under."""
        return plain(model.unconditional(len(latent) * len(strengths)))


class MaskedGuidance(Intervention):
    """Moves the prediction towards a concept's, where that changes it most.

    Args:
        model: the denoiser.
        concept: one row per image and strength.
        scale: s_e of each row; rows of 0 are not evaluated.
        threshold: share of the places that are left out, those of the least change.
    """

    def __init__(
        self,
        model: DiffusionModel,
        concept: Condition,
        scale: Float[Tensor, " r"],
        threshold: float,
    ) -> None:
        self.model, self.threshold = model, threshold
        self.rows = scale.nonzero().flatten()
        self.concept = concept.rows(self.rows)
        self.scale = scale[self.rows].reshape(-1, 1, 1, 1)

    def prediction(self, step: Step, x: Tensor, x0: Tensor, eps: Tensor) -> tuple[Tensor, Tensor]:
        """Return (x0, eps) with the masked difference of the concept added."""
        if len(self.rows) == 0:
            return x0, eps
        rows, terms = self.rows, plain(self.concept)
        told = predict(self.model, x[rows], step.grid, step.level, terms, step.timestep)
        d_x0, d_eps = told[0] - x0[rows], told[1] - eps[rows]
        size = step.grid.direction(d_x0, d_eps).abs().sum(1, keepdim=True)
        least = size.flatten(1).quantile(self.threshold, dim=1).reshape(-1, 1, 1, 1)
        weight = self.scale * (size >= least)
        return x0.index_add(0, rows, weight * d_x0), eps.index_add(0, rows, weight * d_eps)


class SecondOrder(Intervention):
    """Turns the stochastic sampler (eta 1), which is SDE-DPM-Solver++ of first order, into 2M."""

    def __init__(self) -> None:
        self.seen: list[Tensor] = []

    def prediction(self, step: Step, x: Tensor, x0: Tensor, eps: Tensor) -> tuple[Tensor, Tensor]:
        """Keep x0 of this step and of the one before."""
        self.seen = [*self.seen[-1:], x0]
        return x0, eps

    def after_step(self, step: Step, x: Tensor) -> Tensor:
        """Add the second-order part, from the second step on."""
        if len(self.seen) == 1:
            return x
        return x + second_order(step.grid, step.index) * (self.seen[1] - self.seen[0])


def second_order(grid: Grid, i: int) -> float:
    """Return the factor of the change of x0 in the step from level i: alpha' (1 - e^-2h) h / 2h'.

    "DPM-Solver++", SDE variant of 2M, with h the step in log(alpha / sigma) and h' the one before;
    0 where either is infinite: at a level without noise, or without signal.
    """
    h, before = (
        _log_ratio(grid, i + 1) - _log_ratio(grid, i),
        _log_ratio(grid, i) - _log_ratio(grid, i - 1),
    )
    if math.isinf(h) or math.isinf(before):
        return 0.0
    return float(grid.alpha[i + 1]) * (1 - math.exp(-2 * h)) * h / (2 * before)


def _log_ratio(grid: Grid, i: int) -> float:
    """Return log(alpha / sigma) of a level."""
    alpha, sigma = float(grid.alpha[i]), float(grid.sigma[i])
    if alpha == 0 or sigma == 0:
        return -math.inf if alpha == 0 else math.inf
    return math.log(alpha / sigma)
