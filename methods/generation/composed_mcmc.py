"""Composed diffusion with annealed MCMC: at every level, steps that keep the composed density."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from latentbench.bounds import Count, Guidance, NotNegative, Positive, Steps, below, between
from latentbench.sampling.loop import Intervention, Step
from latentbench.types import Concept
from methods.generation.composed import ComposedDiffusion

Score = Callable[[Tensor], Tensor]
Kernel = Literal["ula", "mala", "uhmc", "hmc"]


@dataclass(frozen=True)
class Draws:
    """Random numbers of one level's steps, first axis the steps.

    Args:
        normal: one per entry of x, of momentum or of the proposal.
        log_uniform: one per image, of the acceptance.
    """

    normal: Float[Tensor, "k b ..."]
    log_uniform: Float[Tensor, "k b"]


class AnnealedMCMC(Intervention):
    """Takes steps of a kernel that leaves the composed density of the level just reached invariant.

    "Reduce, Reuse, Recycle: Compositional Generation with Energy-Based Diffusion Models and MCMC",
    section 4 and appendix. With g the score -eps / sigma and h = c sigma^2:

    ula: x <- x + h g + sqrt(2 h) n. mala: the same as a proposal, accepted with probability A.
    uhmc: v <- d v + sqrt(1 - d^2) n, then L leapfrog steps of size sqrt(h). hmc: the same as a
    proposal; a rejection turns v round.

    Where A asks for the difference of two log densities, it is the integral of the score along the
    proposal's path, by the trapezium rule, so that any denoiser will do.

    Args:
        kernel: which.
        draws: level -> its random numbers.
        c: step size h as a share of the noise's variance.
        leapfrog: leapfrog steps L.
        damping: share d of the momentum that the next step keeps.
        least: noise level below which no steps are taken.

    Attributes:
        acceptance: level -> share of each image's proposals that were accepted.
    """

    def __init__(
        self,
        kernel: Kernel,
        draws: Callable[[int], Draws],
        *,
        c: float,
        leapfrog: int,
        damping: float,
        least: float,
    ) -> None:
        self.kernel, self.draws, self.c = kernel, draws, c
        self.leapfrog, self.damping, self.least = leapfrog, damping, least
        self.acceptance: dict[int, Float[Tensor, " b"]] = {}

    def after_step(self, step: Step, x: Tensor) -> Tensor:
        """Return x after the level's steps."""
        level, sigma = step.reaches, float(step.grid.sigma[step.reaches])
        if level == step.n or sigma < self.least:
            return x
        run = self._langevin if self.kernel in ("ula", "mala") else self._hamiltonian
        score: Score = lambda y: -step.predict(y, level)[1] / sigma  # noqa: E731
        x, self.acceptance[level] = run(x, score, self.c * sigma**2, self.draws(level))
        return x

    def _langevin(
        self, x: Tensor, score: Score, h: float, draws: Draws
    ) -> tuple[Tensor, Float[Tensor, " b"]]:
        """Return x and the share of accepted proposals of (M)ALA or ULA."""
        accepted, g = x.new_zeros(len(x)), None
        for noise, log_u in zip(draws.normal, draws.log_uniform, strict=True):
            g = score(x) if g is None else g
            y = x + h * g + math.sqrt(2 * h) * noise
            if self.kernel == "ula":
                x, g, accepted = y, None, accepted + 1
                continue
            there = score(y)
            log_a = _along(x, y, g, there) + (
                _squared(y - x - h * g) - _squared(x - y - h * there)
            ) / (4 * h)
            taken = log_u < log_a
            x, g, accepted = _where(taken, y, x), _where(taken, there, g), accepted + taken
        return x, accepted / len(draws.normal)

    def _hamiltonian(
        self, x: Tensor, score: Score, h: float, draws: Draws
    ) -> tuple[Tensor, Float[Tensor, " b"]]:
        """Return x and the share of accepted proposals of (U-)HMC, of unit mass."""
        accepted, e = x.new_zeros(len(x)), math.sqrt(h)
        v, g, keep = torch.zeros_like(x), score(x), 0.0
        for noise, log_u in zip(draws.normal, draws.log_uniform, strict=True):
            v = keep * v + math.sqrt(1 - keep**2) * noise
            y, w, here, gained = x, v, g, x.new_zeros(len(x))
            for _ in range(self.leapfrog):
                w = w + e / 2 * here
                moved = y + e * w
                there = score(moved)
                gained = gained + _along(y, moved, here, there)
                y, here, w = moved, there, w + e / 2 * there
            taken = log_u < gained - (_squared(w) - _squared(v)) / 2
            if self.kernel == "uhmc":
                taken = torch.ones_like(taken)
            x, g, v = _where(taken, y, x), _where(taken, here, g), _where(taken, w, -v)
            accepted, keep = accepted + taken, self.damping
        return x, accepted / len(draws.normal)


class ComposedMCMC(ComposedDiffusion):
    """Samples the product of the concepts' densities at every level, not only the sum of scores.

    Source: "Reduce, Reuse, Recycle: Compositional Generation with Energy-Based Diffusion Models and
    MCMC", section 4. The noised product is not the product of the noised factors, so summed scores
    belong to no reverse process; they do belong to densities that lead from noise to the product,
    and after each reverse step, MCMC at the level that it reached follows these: Langevin steps
    x <- x + h g + sqrt(2 h) n along the composed score g, accepted or not (MALA) or always (ULA),
    or Hamiltonian ones with momentum. No steps at all are `composed`.

    Deviations: acceptance by integrals of the score in place of an energy model's (as in
    "Metropolis-Hastings corrected" samplers of score models); the reverse step is deterministic;
    the kernel is that of the level just reached (the published image code has that of the level
    before); acceptance is each image's own (there the batch's), with the factor 4 h (there 2 h^2)
    and the momentum at its start (there at its end); the part of a mixture is drawn, as in
    `composed`.

    Args:
        steps: sampling steps; default: the model's.
        guidance: scale of all weights; default: the model's guidance. 1 is the product itself.
        kernel: "ula", "mala", "uhmc" or "hmc".
        k: steps per level; 0 is `composed`.
        c: step size as a share of the noise's variance, h = c sigma^2.
        leapfrog: leapfrog steps of a Hamiltonian step.
        damping: share of the momentum that the next step keeps.
        least: noise level below which no steps are taken.

    Example:
        >>> method = ComposedMCMC(kernel="uhmc", k=3)
        >>> # method.compose(("a",), [Concept(("a hat",)), Concept(("glasses",), -1.0)])
    """

    paper = "Reduce, Reuse, Recycle: Compositional Generation with MCMC, section 4"

    def __init__(
        self,
        *,
        steps: Steps | None = None,
        guidance: Guidance | None = None,
        kernel: Kernel = "uhmc",
        k: Annotated[int, between(0, 1000)] = 3,
        c: Positive = 0.2,
        leapfrog: Count = 3,
        damping: Annotated[float, between(0, 1), below(1)] = 0.5,
        least: NotNegative = 0.1,
    ) -> None:
        super().__init__(steps=steps, guidance=guidance)
        self.kernel: Kernel = kernel
        self.k, self.c, self.leapfrog = k, c, leapfrog
        self.damping, self.least = damping, least

    def interventions(
        self, ids: Sequence[str], concepts: Sequence[Concept]
    ) -> Sequence[Intervention]:
        """Return the kernel."""
        del concepts
        if not self.k:
            return ()

        def draws(level: int) -> Draws:
            stream, device = f"composed_mcmc/{level}", self.model.device
            normal = self.streams.normal(stream, ids, (self.k, *self.model.latent_shape), device)
            uniform = self.streams.normal(f"{stream}/accept", ids, (self.k,), device)
            return Draws(normal.transpose(0, 1), torch.special.log_ndtr(uniform).T)

        return [
            AnnealedMCMC(
                self.kernel, draws, c=self.c, leapfrog=self.leapfrog, damping=self.damping,
                least=self.least,
            )
        ]  # fmt: skip


def _along(x: Tensor, y: Tensor, g: Tensor, there: Tensor) -> Float[Tensor, " b"]:
    """Return log p(y) - log p(x): the score's integral from x to y, by the trapezium rule."""
    return ((g + there) / 2 * (y - x)).flatten(1).sum(1)


def _squared(v: Tensor) -> Float[Tensor, " b"]:
    return v.square().flatten(1).sum(1)


def _where(taken: Tensor, new: Tensor, old: Tensor) -> Tensor:
    return torch.where(taken.reshape(-1, *[1] * (new.dim() - 1)), new, old)
