"""Where a part of the image is, for methods that work inside it."""

from collections.abc import Iterable, Mapping
from typing import Any

from jaxtyping import Float
from torch import Tensor

from latentbench.errors import BadInput, unknown
from latentbench.types import Batch, Capability


def masks_for(verbs: Iterable[str], config: Mapping[str, Any]) -> frozenset[Capability]:
    """Return what a method needs for its option `part`: the parts' masks, where an edit has one."""
    masked = "edit" in verbs and config.get("part") is not None
    return frozenset({Capability.PART_MASKS}) if masked else frozenset()


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
