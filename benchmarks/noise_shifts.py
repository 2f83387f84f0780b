"""Shifts of the initial noise: maps of x_T, most of which leave the law that a sampler expects.

The family is this suite's own, in the spirit of "Synthetic Shifts to Initial Seed Vector Exposes
the Brittle Nature of Latent-Based Diffusion Models", whose list and strengths are not public.
Every map takes x_T, a fresh noise of the same images for those that need one, and a strength r;
maps without a strength ignore it. `LAW_PRESERVING` maps turn normal noise into normal noise: what
they change in a set of outputs is sampling noise, or a fault.
"""

import math
from collections.abc import Callable
from typing import Annotated

import torch
from jaxtyping import Float
from torch import Tensor
from torchvision.transforms.functional import gaussian_blur

from latentbench.bounds import Share, above, at_least, at_most, below, between
from latentbench.errors import BadInput

Noise = Float[Tensor, "b ..."]
Shift = Callable[[Noise, Noise, float], Noise]


def relative_shift(noise: Noise, shifted: Noise) -> Float[Tensor, " b"]:
    """Return |S(z) - z| / |z| of each row: the strength axis that all shifts share.

    Example:
        >>> relative_shift(torch.ones(1, 3), torch.full((1, 3), 1.5))
        tensor([0.5000])
    """
    return (shifted - noise).flatten(1).norm(dim=1) / noise.flatten(1).norm(dim=1)


def _mean(z: Noise, fresh: Noise, r: float) -> Noise:
    return z + r


def _channel_mean(z: Noise, fresh: Noise, r: float) -> Noise:
    shifted = z.clone()
    shifted[:, 0] += r
    return shifted


def _scale(z: Noise, fresh: Noise, r: float) -> Noise:
    return r * z


def _low_frequency(z: Noise, fresh: Noise, r: float) -> Noise:
    """Add a Gaussian blur, sigma H / 8, of the fresh noise, of unit root mean square."""
    return z + r * _unit(_blurred(fresh, _side(z) / 8))


def _gradient(z: Noise, fresh: Noise, r: float) -> Noise:
    """Add a ramp from -1 at the top to 1 at the bottom."""
    return z + r * torch.linspace(-1, 1, _side(z)).to(z)[:, None]


def _blur(z: Noise, fresh: Noise, r: float) -> Noise:
    """Blur with a sigma of r pixels and bring the root mean square back to 1."""
    return _unit(_blurred(z, r))


def _clip(z: Noise, fresh: Noise, r: float) -> Noise:
    return z.clamp(-r, r)


def _clip_rescaled(z: Noise, fresh: Noise, r: float) -> Noise:
    return _unit(z.clamp(-r, r))


def _sparse(z: Noise, fresh: Noise, r: float) -> Noise:
    """Set a share r of the entries to zero: those where the fresh noise is low."""
    return torch.where(_cdf(fresh) < r, 0.0, z)


def _tile(z: Noise, fresh: Noise, r: float) -> Noise:
    """Repeat the first quarter of the map four times."""
    half = _side(z) // 2
    return z[..., :half, :half].tile(2, 2)


def _uniform(z: Noise, fresh: Noise, r: float) -> Noise:
    """Give the entries a uniform law of unit variance, order kept."""
    return math.sqrt(12) * (_cdf(z) - 0.5)


def _laplace(z: Noise, fresh: Noise, r: float) -> Noise:
    """Give the entries a Laplace law of unit variance, order kept."""
    tail = (1 - 2 * (_cdf(z) - 0.5).abs()).clamp(min=1e-12)
    return -z.sign() * tail.log() / math.sqrt(2)


def _sign(z: Noise, fresh: Noise, r: float) -> Noise:
    return z.sign()


def _constant(z: Noise, fresh: Noise, r: float) -> Noise:
    return torch.full_like(z, r)


def _convex(z: Noise, fresh: Noise, r: float) -> Noise:
    """Move towards another seed: sqrt(1 - r) z + sqrt(r) z'."""
    return math.sqrt(1 - r) * z + math.sqrt(r) * fresh


def _rotation(z: Noise, fresh: Noise, r: float) -> Noise:
    """Turn by r radians in the plane of z and of another seed, made orthogonal and as long."""
    u, v = z.flatten(1), fresh.flatten(1)
    v = v - (u * v).sum(1, keepdim=True) / u.square().sum(1, keepdim=True) * u
    v = v * (u.norm(dim=1) / v.norm(dim=1))[:, None]
    return (math.cos(r) * u + math.sin(r) * v).reshape(z.shape)


def _opposite(z: Noise, fresh: Noise, r: float) -> Noise:
    return -z


def _roll(z: Noise, fresh: Noise, r: float) -> Noise:
    """Move the map by r pixels along both sides, around the edges."""
    _side(z)
    return z.roll((int(r), int(r)), (-2, -1))


def _mirror(z: Noise, fresh: Noise, r: float) -> Noise:
    _side(z)
    return z.flip(-1)


def _fresh(z: Noise, fresh: Noise, r: float) -> Noise:
    return fresh


OFF_LAW: dict[str, Shift] = {
    "mean": _mean,
    "channel_mean": _channel_mean,
    "shrink": _scale,
    "stretch": _scale,
    "low_frequency": _low_frequency,
    "gradient": _gradient,
    "blur": _blur,
    "clip": _clip,
    "clip_rescaled": _clip_rescaled,
    "sparse": _sparse,
    "tile": _tile,
    "uniform": _uniform,
    "laplace": _laplace,
    "sign": _sign,
    "constant": _constant,
}
LAW_PRESERVING: dict[str, Shift] = {
    "convex": _convex,
    "rotation": _rotation,
    "opposite": _opposite,
    "roll": _roll,
    "mirror": _mirror,
    "fresh": _fresh,
}
SHIFTS = OFF_LAW | LAW_PRESERVING

STRENGTH = Annotated[float, between(-1000, 1000)]
STRENGTHS = {  # of the shifts that do not take every number
    "blur": Annotated[float, above(0), at_most(100)],
    "clip": Annotated[float, above(0), at_most(1000)],
    "clip_rescaled": Annotated[float, above(0), at_most(1000)],
    "sparse": Annotated[float, at_least(0), below(1)],
    "convex": Share,
    "roll": Annotated[int, between(-1024, 1024)],
}


def _cdf(z: Noise) -> Noise:
    return torch.special.ndtr(z)


def _unit(z: Noise) -> Noise:
    """Return each row with a root mean square of 1."""
    size = z.flatten(1).square().mean(1).sqrt()
    return z / size.reshape(-1, *[1] * (z.dim() - 1))


def _blurred(z: Noise, sigma: float) -> Noise:
    _side(z)
    return gaussian_blur(z, [2 * math.ceil(3 * sigma) + 1] * 2, [sigma] * 2)


def _side(z: Noise) -> int:
    """Return the side of square maps.

    Raises:
        BadInput: the noise is not a square map.
    """
    if z.dim() != 4 or z.shape[-1] != z.shape[-2]:
        raise BadInput(
            f"this shift moves square maps [b, c, h, h], the model's noise is {tuple(z.shape)}; "
            f"leave it out of benchmark.shifts"
        )
    return z.shape[-1]
