"""What a fit takes of the generators' split."""

from latentbench.data.dataset import Dataset
from latentbench.errors import BadInput


def refuse_too_few(images: int, data: Dataset) -> None:
    """Refuse to fit on more images than the generators' split has.

    Raises:
        BadInput: there are fewer.
    """
    if images > (there := data.size("generator")):
        raise BadInput(
            f"method.images={images} is more than the {there} images of the split "
            f"'generator'; give {there} or fewer, or add images"
        )
