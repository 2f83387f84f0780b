"""What methods share that predict an embedding by diffusers' `PriorTransformer`."""

from collections.abc import Callable
from typing import TypeVar

import torch
from diffusers import PriorTransformer, UnCLIPScheduler
from jaxtyping import Float, Int
from torch import Tensor

from latentbench.errors import BadInput
from latentbench.parameterization import scheduled_grid, split_prediction, transition

HEADS = 4
RANGE = 5.0  # predicted embeddings are kept within, in units of their spread
LEVELS = 1000  # of the training schedule

Made = TypeVar("Made")


def refuse_width(width: int) -> None:
    """Refuse a width of the transformer that its heads do not divide.

    Raises:
        BadInput: it is no multiple of their number.
    """
    if width % HEADS:
        raise BadInput(f"a width of {width} is no multiple of the {HEADS} heads")


def seeded(generator: torch.Generator, make: Callable[[], Made]) -> Made:
    """Return networks whose first weights depend on a generator's seed alone."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(generator.initial_seed())
        return make()


def prior(
    layers: int, width: int, size: int, slots: int, pooled: int | None = None
) -> PriorTransformer:
    """Return a transformer over [slots, pooled, t, noisy, learned query], read at the query.

    Args:
        layers: how many.
        width: a multiple of the heads.
        size: numbers of an embedding, and of what a slot holds.
        slots: how many.
        pooled: numbers of the pooled condition; default: `size`.
    """
    return PriorTransformer(
        num_attention_heads=HEADS,
        attention_head_dim=width // HEADS,
        num_layers=layers,
        embedding_dim=size,
        num_embeddings=slots,
        embedding_proj_dim=pooled,
    )


def trained(net: PriorTransformer) -> dict[str, Tensor]:
    """Return the weights that training moves: not the mean and spread that whiten embeddings."""
    return {k: v for k, v in net.named_parameters() if not k.startswith("clip_")}


def predicted(
    net: PriorTransformer,
    noisy: Float[Tensor, "r d"],
    t: Int[Tensor, " r"],
    slots: Float[Tensor, "r k d"],
    pooled: Float[Tensor, "r e"] | None = None,
    mask: Float[Tensor, "r k"] | None = None,
) -> Float[Tensor, "r d"]:
    """Return the clean embeddings that a prior predicts.

    Args:
        net: the prior.
        noisy: embeddings with noise.
        t: timestep index of each.
        slots: conditions.
        pooled: one more condition; default: zeros.
        mask: 1 at the slots that count; default: all.
    """
    if mask is None:  # without any, no causal mask is applied
        mask = torch.ones(slots.shape[:2]).to(slots)
    pooled = torch.zeros_like(noisy) if pooled is None else pooled
    return net(noisy, t, pooled, slots, mask).predicted_image_embedding


def noised(
    clean: Float[Tensor, "r d"], t: Int[Tensor, " r"], eps: Float[Tensor, "r d"]
) -> Float[Tensor, "r d"]:
    """Return sqrt(abar_t) clean + sqrt(1 - abar_t) eps on the cosine schedule."""
    level = UnCLIPScheduler().alphas_cumprod.to(clean)[t][:, None]
    return level.sqrt() * clean + (1 - level).sqrt() * eps


def sampled(
    predict: Callable[[Tensor, Tensor], Tensor],
    start: Float[Tensor, "r d"],
    noise: Callable[[int], Tensor],
    steps: int,
) -> Float[Tensor, "r d"]:
    """Return what the steps of `UnCLIPScheduler` make of noise.

    Args:
        predict: (x_t, t) -> x_0.
        start: noise of the first level.
        noise: of each step, by its number.
        steps: how many.
    """
    grid = scheduled_grid(UnCLIPScheduler(prediction_type="sample"), steps, 1.0)
    x = start
    for i in range(grid.n):
        t = torch.full((len(x),), int(grid.timesteps[i]), device=x.device)
        x0 = predict(x, t).clamp(-RANGE, RANGE)
        kept, eps = split_prediction("sample", x0, x, *grid.levels(i, x))
        mean, std = transition(grid, i, kept, eps, 1.0)
        x = mean + std * noise(i)
    return x


def nearest_map(
    codes: Float[Tensor, "n d"], embeddings: Float[Tensor, "n e"]
) -> Float[Tensor, "f e"]:
    """Return the affine map from codes that is nearest to embeddings in the least squares."""
    told, answer = (v.double().cpu() for v in (with_one(codes), embeddings))
    # On a GPU, `lstsq` takes for granted that no number of a code depends on the others.
    return torch.linalg.lstsq(told, answer).solution.to(codes)


def with_one(codes: Float[Tensor, "b d"]) -> Float[Tensor, "b e"]:
    """Return codes as `nearest_map` reads them: with a 1 behind each."""
    return torch.cat([codes, torch.ones_like(codes[:, :1])], 1)


def spread(embeddings: Float[Tensor, "b e"]) -> Float[Tensor, "b e"]:
    """Return unit embeddings at a spread of about 1 per number, as whitened codes have it."""
    return embeddings * embeddings.shape[1] ** 0.5
