"""Noise levels and what a network predicts: eps, x0, v or flow velocity.

One convention for every family: x_t = alpha_t x_0 + sigma_t eps. Variance-preserving models have
alpha = sqrt(alpha_bar), sigma = sqrt(1 - alpha_bar); flow models have alpha = 1 - t, sigma = t.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float, Int, Num
from torch import Tensor

from latentbench.errors import BadInput, unknown

Eta = float | Sequence[float]  # stochasticity of a sampler: 0 DDIM, 1 DDPM; or one per step
KINDS = ("epsilon", "sample", "v_prediction", "flow")


def split_prediction(
    kind: str,
    output: Float[Tensor, "b ..."],
    x: Float[Tensor, "b ..."],
    alpha: Float[Tensor, "..."],
    sigma: Float[Tensor, "..."],
) -> tuple[Float[Tensor, "b ..."], Float[Tensor, "b ..."]]:
    """Return (x0, eps) of a network's output.

    Args:
        kind: "epsilon", "sample" (x0), "v_prediction" (alpha eps - sigma x0) or "flow"
            (eps - x0), the words of diffusers' scheduler configs.
        output: what the network returned.
        x: its input x_t.
        alpha: signal level, broadcastable to x.
        sigma: noise level, broadcastable to x.

    Raises:
        BadInput: unknown kind, or eps asked of an x0 where sigma is 0.
    """
    if kind == "epsilon":
        return (x - sigma * output) / alpha, output
    if kind == "sample":
        if bool((sigma == 0).any()):
            raise BadInput(
                "a model that predicts x0 says nothing of eps where sigma is 0; start an inversion "
                "at a level with noise (forward_steps of 1 or more)"
            )
        return output, (x - alpha * output) / sigma
    if kind == "v_prediction":
        scale = alpha**2 + sigma**2
        return (alpha * x - sigma * output) / scale, (sigma * x + alpha * output) / scale
    if kind == "flow":
        scale = alpha + sigma
        return (x - sigma * output) / scale, (x + alpha * output) / scale
    raise unknown("prediction type", kind, KINDS)


def prediction_error(
    kind: str,
    found: tuple[Float[Tensor, "b ..."], Float[Tensor, "b ..."]],
    true: tuple[Float[Tensor, "b ..."], Float[Tensor, "b ..."]],
    alpha: Float[Tensor, "..."],
    sigma: Float[Tensor, "..."],
) -> Float[Tensor, "b ..."]:
    """Return the error of what a network predicts, the one that its kind is trained on.

    At a level without signal x_t is eps, and says it exactly: the error of eps is 0 there, whatever
    a network predicts, while those of v and of a flow's velocity are not.

    Args:
        kind: see `split_prediction`.
        found: (x0, eps) of its output.
        true: (x0, eps) that x_t was made of.
        alpha: signal level, broadcastable to x.
        sigma: noise level, broadcastable to x.

    Raises:
        BadInput: unknown kind.

    Example:
        >>> one, none = torch.ones(1), torch.zeros(1)
        >>> float(prediction_error("flow", (2 * one, one), (one, one), none, one))
        -1.0
    """
    if kind == "epsilon":
        return found[1] - true[1]
    if kind == "sample":
        return found[0] - true[0]
    if kind == "v_prediction":
        return alpha * (found[1] - true[1]) - sigma * (found[0] - true[0])
    if kind == "flow":
        return (found[1] - true[1]) - (found[0] - true[0])
    raise unknown("prediction type", kind, KINDS)


def whole_steps(share: float, n: int) -> int:
    """Return floor(share x n): how many of n steps a share is, rounding of floats apart.

    Example:
        >>> int(0.29 * 100), whole_steps(0.29, 100)
        (28, 29)
    """
    return int(share * n + 1e-6)


@dataclass(frozen=True)
class Grid:
    """The levels that a sampler visits, noisiest first; level n is the clean end.

    Args:
        timesteps: what the network receives at level i, for i = 0..n-1; training indices of a
            DDPM, real numbers of a flow.
        alpha: signal level at 0..n, float64.
        sigma: noise level at 0..n, float64.
    """

    timesteps: Num[Tensor, " n"]
    alpha: Float[Tensor, " n1"]
    sigma: Float[Tensor, " n1"]

    @property
    def n(self) -> int:
        """Number of steps."""
        return len(self.timesteps)

    def levels(
        self, index: int | Int[Tensor, " b"], x: Tensor
    ) -> tuple[Float[Tensor, "#b ..."], Float[Tensor, "#b ..."]]:
        """Return (alpha, sigma) at one level, or one level per row, shaped to broadcast over x."""
        index = torch.as_tensor(index, device="cpu").reshape(-1)
        shape = (-1,) + (1,) * (x.dim() - 1)
        alpha, sigma = self.alpha[index].reshape(shape), self.sigma[index].reshape(shape)
        return alpha.to(x), sigma.to(x)

    def noise_std(self, i: int | Int[Tensor, " b"], eta: Eta, x: Tensor) -> Float[Tensor, "b ..."]:
        """Return s_i, the fresh noise of the step from level i to i + 1.

        "Denoising Diffusion Implicit Models", equation 16:
        s = eta sqrt((1 - a') / (1 - a)) sqrt(1 - a / a'), with a the squared alpha; written with
        sigma, so that it holds for flow levels as well.
        """
        index = torch.as_tensor(i, device="cpu").reshape(-1)
        a, s, a_next, s_next = (
            self.alpha[index],
            self.sigma[index],
            self.alpha[index + 1],
            self.sigma[index + 1],
        )
        inner = (s**2 - (a / a_next) ** 2 * s_next**2).clamp(min=0)
        scale = torch.as_tensor(eta, dtype=torch.float64).expand(self.n)[index]
        std = scale * s_next / s * inner.sqrt()
        return std.reshape((-1,) + (1,) * (x.dim() - 1)).to(x)

    @cached_property
    def straight(self) -> bool:
        """Whether the levels are those of a flow, alpha = 1 - sigma."""
        return bool(torch.allclose(self.alpha + self.sigma, torch.ones_like(self.alpha)))

    def linear_step(self, i: int) -> tuple[float, float]:
        """Return (p, q) of the deterministic step from level i to i + 1, x' = p x + q d.

        See `linear_direction` for d.
        """
        a, s = float(self.alpha[i]), float(self.sigma[i])
        a_next, s_next = float(self.alpha[i + 1]), float(self.sigma[i + 1])
        if self.straight:
            return 1.0, s_next - s
        return (s_next / s, a_next) if a == 0 else (a_next / a, s_next - a_next / a * s)

    def linear_direction(
        self, i: int, x0: Float[Tensor, "b ..."], eps: Float[Tensor, "b ..."]
    ) -> Float[Tensor, "b ..."]:
        """Return the d of `linear_step` at level i: `direction`, or x0 where there is no signal.

        At such a level (zero terminal SNR) x is made of eps alone, and says it exactly.
        """
        no_signal = not self.straight and float(self.alpha[i]) == 0
        return x0 if no_signal else self.direction(x0, eps)

    def direction(
        self, x0: Float[Tensor, "b ..."], eps: Float[Tensor, "b ..."]
    ) -> Float[Tensor, "b ..."]:
        """Return eps, or a flow's velocity eps - x0.

        A flow's first level holds no signal, where eps is all that x is made of.
        """
        return eps - x0 if self.straight else eps


def transition(
    grid: Grid,
    level: int | Int[Tensor, " b"],
    x0: Float[Tensor, "b ..."],
    eps: Float[Tensor, "b ..."],
    eta: Eta,
) -> tuple[Float[Tensor, "b ..."], Float[Tensor, "#b ..."]]:
    """Return mean and standard deviation of x at the next level.

    "Denoising Diffusion Implicit Models", equation 12: mean = alpha' x0 + sqrt(sigma'^2 - s^2) eps.
    """
    index = torch.as_tensor(level).reshape(-1)
    alpha, sigma = grid.levels(index + 1, x0)
    std = grid.noise_std(index, eta, x0)
    return alpha * x0 + (sigma**2 - std**2).clamp(min=0).sqrt() * eps, std


def variance_preserving_grid(
    alphas_cumprod: Float[Tensor, " T"], timesteps: Sequence[int], final_alpha_cumprod: float
) -> Grid:
    """Return the grid of a DDPM/DDIM model on the given timesteps.

    Args:
        alphas_cumprod: the model's training schedule, noise rising with the index.
        timesteps: falling training indices.
        final_alpha_cumprod: alpha_bar of the clean end: 1, or that of index 0 for models with
            `set_alpha_to_one=False`.
    """
    steps = torch.as_tensor(list(timesteps), dtype=torch.long)
    if len(steps) == 0 or bool((steps.diff() >= 0).any()):
        raise BadInput(f"timesteps must fall and not be empty, got {steps.tolist()[:8]}")
    final = torch.tensor([final_alpha_cumprod], dtype=torch.float64)
    a = torch.cat([alphas_cumprod.double().cpu()[steps], final])
    return Grid(steps, a.sqrt(), (1 - a).sqrt())


def scheduled_grid(scheduler: Any, steps: int, final_alpha_cumprod: float) -> Grid:
    """Return the grid of a DDPM/DDIM model on the timesteps that a diffusers scheduler spaces.

    Args:
        scheduler: of diffusers, with `set_timesteps` and `alphas_cumprod`.
        steps: number of steps.
        final_alpha_cumprod: alpha_bar of the clean end.

    Raises:
        BadInput: the schedule has no room for so many steps; says how many it has room for.
    """

    def spaced(n: int) -> Grid | None:
        try:
            scheduler.set_timesteps(n)
            timesteps = scheduler.timesteps.tolist()
            return variance_preserving_grid(
                scheduler.alphas_cumprod, timesteps, final_alpha_cumprod
            )
        except (ValueError, IndexError):  # refused, or spaced beyond the last timestep
            return None

    grid = spaced(steps)
    if grid is None:
        most = next((n for n in range(steps - 1, 0, -1) if spaced(n) is not None), 0)
        raise BadInput(
            f"the model's schedule has no room for {steps} sampling steps, at most for {most}; "
            f"lower method.steps or model.steps"
        )
    return grid


def flow_grid(
    scheduler: Any, steps: int, tokens: int, sigmas: Sequence[float] | None = None
) -> Grid:
    """Return the grid of a flow: sigma = t, alpha = 1 - t, shifted as the scheduler's config says.

    Args:
        scheduler: diffusers' FlowMatchEulerDiscreteScheduler.
        steps: number of steps.
        tokens: image tokens of the network, which decide a resolution-dependent shift.
        sigmas: levels before the shift, the clean end left out; default: the scheduler's spacing.
    """
    config = scheduler.config
    shift = {}
    if config.use_dynamic_shifting:  # linear in the number of tokens
        share = (tokens - config.base_image_seq_len) / (
            config.max_image_seq_len - config.base_image_seq_len
        )
        shift["mu"] = config.base_shift + share * (config.max_shift - config.base_shift)
    scheduler.set_timesteps(steps, sigmas=sigmas, **shift)
    sigma = scheduler.sigmas.double().cpu()
    return Grid(scheduler.timesteps.cpu(), 1 - sigma, sigma)
