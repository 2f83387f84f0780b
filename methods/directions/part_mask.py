"""Where a part of the image is, for methods that work inside it."""

from jaxtyping import Float
from torch import Tensor

from latentbench.errors import BadInput, unknown
from latentbench.types import Batch


def part_mask(batch: Batch, part: str | None) -> Float[Tensor, "b 1 h w"] | None:
    """Return 1 inside the part of each image; None where no part is asked for.

    Raises:
        BadInput: no such part, or an image that does not show it.
    """
    if part is None:
        return None
    assert batch.masks is not None
    if part not in batch.masks:
        raise unknown("part", part, batch.masks)
    mask = batch.masks[part]
    for name, own in zip(batch.ids, mask, strict=True):
        if not bool(own.any()):
            raise BadInput(
                f"image {name} shows no {part!r}, in which the method would work; give "
                f"method.part a part that all images show, or another seed"
            )
    return mask[:, None].to(batch.images)
