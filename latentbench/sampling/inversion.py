"""DDIM inversion, cached: it belongs to model, images and settings, not to who asked for it."""

from jaxtyping import Float
from torch import Tensor

from latentbench.cache import Cache, content_hash
from latentbench.errors import BadInput
from latentbench.model import Condition, Convention, DiffusionModel
from latentbench.parameterization import Grid
from latentbench.sampling.loop import guided, invert, noise_to_level
from latentbench.types import Batch

VERSION = 2


def ddim_invert(
    model: DiffusionModel,
    batch: Batch,
    cache: Cache,
    *,
    steps: int | None = None,
    condition: Condition | None = None,
    null: Condition | None = None,
    guidance: float = 1.0,
    convention: Convention = "matched",
    forward_noise: Float[Tensor, "b ..."] | None = None,
    forward_steps: int = 0,
) -> Float[Tensor, "b ..."]:
    """Return x_T of images.

    Args:
        model: the denoiser.
        batch: images.
        cache: where the result is kept.
        steps: number of sampling steps; default: the model's.
        condition: what the network receives while inverting; default: the empty condition.
        null: what guidance leads away from; default: the empty condition.
        guidance: scale of classifier-free guidance; 1 is none.
        convention: see `latentbench.sampling.loop.invert`.
        forward_noise: for `forward_steps`.
        forward_steps: replace this many of the first inversion steps (at the clean end) by one
            draw of the forward process ("There and Back Again", the first-steps fix).

    Raises:
        BadInput: more forward steps than steps.
    """
    grid, empty = model.grid(steps), model.unconditional(len(batch))
    if not 0 <= forward_steps <= grid.n:
        raise BadInput(
            f"forward_steps must be 0 to {grid.n}, the sampling steps; got {forward_steps}"
        )
    terms = guided(
        empty if condition is None else condition, empty if null is None else null, guidance
    )
    key = content_hash(
        VERSION, model.fingerprint(), grid.timesteps, batch.images, convention, guidance,
        [term.condition.tensors for term in terms], forward_noise, forward_steps,
    )  # fmt: skip

    def make() -> dict[str, Tensor]:
        x, level = _start(model, grid, batch, forward_noise, forward_steps)
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
