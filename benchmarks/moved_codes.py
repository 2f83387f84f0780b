"""Does an image move when its code is moved?"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any

import torch
from jaxtyping import Float
from torch import Tensor

from latentbench.benchmark import Bench, Benchmark, Work
from latentbench.bounds import Count, distinct, matches, not_empty
from latentbench.data.dataset import Dataset, Split
from latentbench.errors import BadInput, Incompatible
from latentbench.types import Latent, Samples

Move = Annotated[str, matches(r"flip|shift [1-9]\d*", "'flip', or 'shift' with a number of pixels")]


class MovedCodes(Benchmark):
    """Invert images, flip or shift all maps of their codes, decode, compare with the moved images.

    "flip" mirrors image and code from left to right; "shift 8" moves both by 8 pixels to the right.
    What enters on the left is, in the image, its first column again, and in the code, the code of
    that shifted image. Shifts are whole cells of the model's latents. A caption may say where
    something is, and does not move: there are none, and a model that takes prompts is given the
    empty one. `sources` are the images, `truths` what the model's autoencoder makes of the moved
    ones.

    Source: "An Edit Friendly DDPM Noise Space: Inversion and Manipulations", section 3, which
    shifts and flips noise maps.

    Args:
        n: images per move.
        moves: the cases.
        split: which images.

    Raises:
        BadInput: a shift that is no whole number of cells, or as wide as the image.
        Incompatible: a code that is no map, in which nothing has a place.
    """

    question = "Does an image move when its code is moved?"
    verbs = frozenset({"invert"})
    main_score = "psnr"

    def __init__(
        self,
        *,
        n: Count = 32,
        moves: Annotated[Sequence[Move], not_empty, distinct] = ("flip", "shift 8"),
        split: Split = "test",
    ) -> None:
        self.n, self.moves, self.split = n, tuple(moves), split

    def groups(self, dataset: Dataset) -> tuple[str, ...]:
        """Return the moves."""
        return self.moves

    def run(self, work: Work, bench: Bench, setup: dict[str, Any]) -> Samples:
        """Return the images of moved codes."""
        batch, by = bench.dataset.batch(self.split, work.indices), _pixels(work.group)
        batch = replace(batch, prompts=batch.prompts and ("",) * len(batch))
        images = moved(batch.images, by)
        fresh = bench.editor.invert(replace(batch, images=images)) if by else None
        code = moved_code(bench.editor.invert(batch), by, bench.model.image_size, fresh)
        truths = bench.model.reconstruction_truth(images)
        return Samples(
            batch.ids,
            bench.editor.decode(code).clamp(-1, 1)[:, None].cpu(),
            (work.group,) * len(batch),
            sources=batch.images,
            truths=truths.clamp(-1, 1)[:, None].cpu(),
        )


def moved(images: Float[Tensor, "*b h w"], by: int) -> Float[Tensor, "*b h w"]:
    """Return maps flipped (0), or shifted to the right; the first column fills what enters.

    Example:
        >>> row = torch.tensor([[1.0, 2.0, 3.0]])
        >>> moved(row, 0).tolist(), moved(row, 1).tolist()
        ([[3.0, 2.0, 1.0]], [[1.0, 1.0, 2.0]])
    """
    if by == 0:
        return images.flip(-1)
    entering = images[..., :1].expand(*images.shape[:-1], by)
    return torch.cat([entering, images[..., :-by]], -1)


def moved_code(code: Latent, by: int, size: int, fresh: Latent | None) -> Latent:
    """Return a code whose maps are flipped (0), or shifted with what enters from a fresh code.

    Args:
        code: its parts are maps, ``[b, ..., h, w]``.
        by: pixels of the image.
        size: pixels of the image's width.
        fresh: the code of the shifted image.

    Raises:
        BadInput: a shift that is no whole number of cells, or as wide as the image.
        Incompatible: a part of the code is no map.
    """
    parts = {}
    for space, maps in code.parts.items():
        if maps.dim() < 4:
            raise Incompatible(
                f"the code's part {space} is a vector of {maps[0].numel()}, in which nothing has a "
                f"place to move from; take a method whose code is maps, such as ddim_inversion"
            )
        cells, rest = divmod(by * maps.shape[-1], size)
        if rest or cells >= maps.shape[-1]:
            step = size // maps.shape[-1]
            raise BadInput(
                f"a shift by {by} pixels is not 1 to {maps.shape[-1] - 1} cells of {step} pixels "
                f"of the code's part {space}; give a multiple of {step} below {size}"
            )
        parts[space] = moved(maps, cells)
        if fresh is not None:
            entering = fresh.parts[space].to(maps)[..., :cells]
            parts[space] = torch.cat([entering, parts[space][..., cells:]], -1)
    return replace(code, parts=parts)


def _pixels(move: str) -> int:
    """Return how far a move shifts, 0 for the flip."""
    return 0 if move == "flip" else int(move.split()[1])
