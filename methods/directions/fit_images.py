"""What a fit takes of the generators' split."""

from jaxtyping import Bool
from torch import Tensor

from latentbench.data.dataset import Dataset
from latentbench.errors import BadInput


def refuse_too_few(images: int, data: Dataset, setting: str = "images") -> None:
    """Refuse to fit on more images than the generators' split has.

    Args:
        images: how many it needs.
        data: whose split it is.
        setting: of the method, that says how many.

    Raises:
        BadInput: there are fewer.
    """
    if images > (there := data.size("generator")):
        raise BadInput(
            f"method.{setting}={images} is more than the {there} images of the split "
            f"'generator'; give {there} or fewer, or add images"
        )


def refuse_one_sided(name: str, shown: Bool[Tensor, " n"], setting: str = "images") -> None:
    """Refuse to learn an attribute from images that all show it, or none of which does.

    Args:
        name: of the attribute.
        shown: whether each image shows it.
        setting: of the method, that says how many images there are.

    Raises:
        BadInput: the images are of one kind.
    """
    if bool(shown.all()) or not bool(shown.any()):
        which = "all" if bool(shown.all()) else "none"
        raise BadInput(
            f"{which} of the {len(shown)} images that the fit learns from show {name!r}; raise "
            f"method.{setting}"
        )
