"""DDIM inversion, cached: it belongs to model, images and settings, not to who asked for it."""

from typing import Literal

from torch import Tensor

from latentbench.cache import Cache, content_hash
from latentbench.model import Condition, DiffusionModel
from latentbench.models.semantic import SemanticDiffusion
from latentbench.parameterization import Grid
from latentbench.sampling.loop import guided, invert, noise_to_level
from latentbench.types import Batch, Capability

VERSION = 1


def condition_of(
    model: DiffusionModel, prompts: tuple[str, ...] | None, rows: int, code: Tensor | None = None
) -> Condition:
    """Return the condition of a code or of prompts where the model takes them, else the empty one.

    Args:
        model: the denoiser.
        prompts: one caption per row.
        rows: number of images.
        code: z_sem per row, for a model with `Space.SEMANTIC`.
    """
    if code is not None:
        assert isinstance(model, SemanticDiffusion)
        return model.semantic_condition(code)
    return model.condition(prompts if Capability.PROMPTS in model.gives else None, rows)


def ddim_invert(
    model: DiffusionModel,
    batch: Batch,
    cache: Cache,
    *,
    steps: int | None = None,
    prompts: tuple[str, ...] | None = None,
    code: Tensor | None = None,
    convention: Literal["next", "matched"] = "next",
    forward_noise: Tensor | None = None,
    forward_steps: int = 0,
) -> Tensor:
    """Return x_T of images, at guidance 1.

    Args:
        model: the denoiser.
        batch: images.
        cache: where the result is kept.
        steps: number of sampling steps; default: the model's.
        prompts: condition while inverting; None is the empty condition.
        code: z_sem as the condition, ``[b, d]``, for a model with `Space.SEMANTIC`.
        convention: see `latentbench.sampling.loop.invert`.
        forward_noise: for `forward_steps`, ``[b, ...]``.
        forward_steps: replace this many of the first inversion steps (at the clean end) by one
            draw of the forward process ("There and Back Again", the first-steps fix).
    """
    grid = model.grid(steps)
    key = content_hash(
        VERSION, model.fingerprint(), grid.timesteps, batch.images, prompts, convention,
        *(() if forward_noise is None else (forward_noise, forward_steps)),
        *(() if code is None else (code,)),
    )  # fmt: skip

    def make() -> dict[str, Tensor]:
        x, level = _start(model, grid, batch, forward_noise, forward_steps)
        terms = guided(condition_of(model, prompts, len(batch), code), Condition(), 1.0)
        return {"x": invert(model, x, terms, grid=grid, start=level, convention=convention)}

    return cache.get_or_make("inversion", key, make)["x"].to(model.device)


def _start(
    model: DiffusionModel, grid: Grid, batch: Batch, noise: Tensor | None, steps: int
) -> tuple[Tensor, int]:
    x0 = model.encode(batch.images)
    if noise is None or steps == 0:
        return x0, grid.n
    level = grid.n - steps
    return noise_to_level(grid, x0, noise.to(x0), level), level
