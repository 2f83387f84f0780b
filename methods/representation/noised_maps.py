"""A denoiser's maps of noised images, which vectors and dense features are made of."""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor

from latentbench.errors import Incompatible
from latentbench.model import DiffusionModel
from latentbench.sampling.loop import Recorder, denoise, noise_to_level, plain


def noised_maps(
    model: DiffusionModel,
    x0: Float[Tensor, "b c h w"],
    noises: Float[Tensor, "e c h w"],
    *,
    layers: Sequence[str] = (),
    noise_level: float,
    steps: int | None = None,
) -> dict[str, Float[Tensor, "b ..."]]:
    """Return maps of x_t = alpha_t x_0 + sigma_t eps under the empty condition, mean over noises.

    "Emergent Correspondence from Image Diffusion", section 4.

    Args:
        model: the denoiser.
        x0: clean latents.
        noises: shared by all images, so that maps differ by their images alone.
        layers: feature layers; none means the middle block.
        noise_level: share of the sampler's steps that lie below the level; 1 is x_T, 0 the last
            level that the network receives.
        steps: sampling steps; default: the model's.
    """
    wanted, grid = list(layers) or [_middle(model)], model.grid(steps)
    level = min(round((1 - noise_level) * grid.n), grid.n - 1)
    found: dict[str, list[Tensor]] = {layer: [] for layer in wanted}
    for eps in noises:
        recorder, terms = Recorder(layers=wanted), plain(model.unconditional(len(x0)))
        x = noise_to_level(grid, x0, eps.to(x0).expand_as(x0), level)
        denoise(model, x, terms, grid=grid, level=level, interventions=[recorder])
        for layer in wanted:
            found[layer].append(recorder.maps[layer][level])
    return {layer: sum(maps[1:], maps[0]) / len(maps) for layer, maps in found.items()}


def _middle(model: DiffusionModel) -> str:
    layer = model.middle_layer()
    if layer is None:
        raise Incompatible(f"{type(model).__name__} has no middle block; name other layers")
    return layer
