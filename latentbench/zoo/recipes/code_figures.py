"""What the cards of models with a semantic code tell of the codes: their moments, and a probe."""

import torch
from jaxtyping import Float
from torch import Tensor

from latentbench.data import faces
from latentbench.models.semantic import SemanticDiffusion
from latentbench.zoo.recipes.code_losses import mmd

LEARNED, FIRST = 4, 700_000  # faces that the probe learns from per face that it is tried on
RIDGE = 1e-2  # per learned face, on standardised codes


def linear_r2(
    codes: Float[Tensor, "n d"], factors: Float[Tensor, "n f"], learned: int
) -> Float[Tensor, " f"]:
    """Return the share of each factor's variance that a linear map of codes explains.

    Args:
        codes: any vectors.
        factors: what is read from them.
        learned: the first rows, by which the map is found; it is tried on the others.
    """
    z = (codes - codes[:learned].mean(0)) / codes[:learned].std(0).clamp(min=1e-6)
    z, y = torch.cat([z, torch.ones(len(z), 1)], 1).double(), factors.double()
    a, b = z[:learned], y[:learned]
    solved = torch.linalg.solve(a.T @ a + RIDGE * learned * torch.eye(z.shape[1]), a.T @ b)
    rest, true = z[learned:] @ solved, y[learned:]
    return 1 - (rest - true).square().mean(0) / true.var(0, correction=0)


@torch.no_grad()
def code_figures(model: SemanticDiffusion, n: int) -> dict[str, object]:
    """Return how near codes of held-out faces are to N(0, I), and how well factors are read."""
    index = torch.arange(FIRST, FIRST + (LEARNED + 1) * n)
    factors = faces.sample_factors("test", index)
    parts = [faces.render(part, model.image_size) for part in factors.split(64)]
    codes = torch.cat([model.encode_semantic(part).cpu() for part in parts])
    held = codes[LEARNED * n :]
    prior = torch.randn(held.shape, generator=torch.Generator().manual_seed(0))
    r2 = linear_r2(codes, factors, LEARNED * n)
    named = zip(faces.FACTOR_NAMES, r2.tolist(), strict=True)
    spread = codes.std(0)
    return {
        "length": model.code_size,
        "largest_mean": round(float(codes.mean(0).abs().max()), 4),
        "spread": [round(float(spread.min()), 4), round(float(spread.max()), 4)],
        "mmd_to_the_prior": round(float(mmd(held, prior)), 4),
        "probe_r2": {name: round(value, 4) for name, value in named}
        | {"mean": round(float(r2.mean()), 4)},
    }
