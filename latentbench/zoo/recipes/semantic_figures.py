"""What the cards of models with a semantic code tell: samples, and what z_sem and x_T each hold."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from latentbench.models.semantic import SemanticDiffusion
from latentbench.sampling.loop import Term, generate, invert
from latentbench.streams import Streams
from latentbench.types import Space
from latentbench.zoo.judges import Judge
from latentbench.zoo.measures import (
    device_of,
    in_batches,
    reconstruction_figures,
    set_distance,
    test_faces,
)

BATCH = 64


def _decode(
    model: SemanticDiffusion, x: Float[Tensor, "b 3 h w"], code: Float[Tensor, "b d"]
) -> Float[Tensor, "b 3 h w"]:
    terms = [Term("condition", model.semantic_condition(code))]
    return generate(model, x, terms).clamp(-1, 1).cpu()


def samples(model: SemanticDiffusion, n: int) -> Float[Tensor, "n 3 h w"]:
    """Return n draws of the prior at the model's own number of steps."""
    made = []
    for ids in torch.arange(n).split(BATCH):
        parts = model.prior(Streams(0), [str(int(k)) for k in ids]).parts
        made.append(_decode(model, parts[Space.NOISE], parts[Space.SEMANTIC]))
    return torch.cat(made)


def mean_cosine(judge: Judge, a: Float[Tensor, "n 3 h w"], b: Float[Tensor, "n 3 h w"]) -> float:
    """Return the mean cosine of identity embeddings of image pairs."""
    x, y = (in_batches(judge.identity, v, device_of(judge)) for v in (a, b))
    return round(float((x * y).sum(1).mean()), 4)


@torch.no_grad()
def semantic_figures(
    model: SemanticDiffusion, judges: Sequence[Judge], n: int
) -> dict[str, object]:
    """Return the figures of a card.

    Reconstruction from z_sem with the inverted x_T, and from z_sem with fresh noise; whom an image
    resembles that is made of one face's z_sem and another's x_T.
    """
    images, people = samples(model, n), min(n, BATCH)
    originals = test_faces(0, people, model.image_size)
    code, ids = model.encode_semantic(originals), [str(k) for k in range(people)]
    told = [Term("c", model.semantic_condition(code))]
    x = invert(model, model.encode(originals), told, convention="next")
    fresh = Streams(1).normal("prior", ids, model.latent_shape, model.device)
    whole, alone = _decode(model, x, code), _decode(model, fresh, code)
    swapped = _decode(model, x.roll(1, 0), code)
    return {
        "steps": model.steps,
        "sets": [set_distance(judge, images, model.image_size) for judge in judges],
        "code_and_inverted_noise": reconstruction_figures(originals, whole, judges),
        "code_and_fresh_noise": reconstruction_figures(originals, alone, judges),
        "swapped_noise": {
            judge.name: {
                "like_the_code": mean_cosine(judge, swapped, originals),
                "like_the_noise": mean_cosine(judge, swapped, originals.roll(1, 0)),
            }
            for judge in judges
        },
        "reconstructed": people,
    }
