"""`dataset=ffhq`: Flickr-Faces-HQ, in the layout of its own download script."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import pandas as pd

from latentbench.bounds import Count, Name, Size
from latentbench.data.faults import refuse
from latentbench.data.folder import ImageFolder
from latentbench.data.image_files import image_files
from latentbench.data.table import SPLIT, deal_official
from latentbench.paths import user_path

TRAINING = 60_000  # the first of the 70,000 images, as its authors appoint


class FFHQ(ImageFolder):
    """70,000 faces named by number, `00000/00000.png` or flat, of any size.

    Source: "A Style-Based Generator Architecture for Generative Adversarial Networks", section
    "FFHQ". Its training images go to "generator" and "judge", its validation images to
    "calibration" and "test".

    Args:
        path: `images1024x1024`, `thumbnails128x128` or a resized copy.
        size: pixels per side; None until a model gives its own.
        limit: only the first images of each split, by name; None for all.
        links: follow links that lead out of the folder.

    Raises:
        BadInput: images that are not named by a number, each once.

    Example:
        ``FFHQ(path="/data/ffhq/images1024x1024", limit=500)``
    """

    def __init__(
        self,
        *,
        path: Name,
        size: Size | None = None,
        limit: Count | None = None,
        links: bool = False,
    ) -> None:
        folder = user_path(path, "dataset.path").resolve()
        names = image_files(folder, links)
        refuse(
            list(_misnamed(names)),
            f"images below {folder} are not named by a number of their own, as FFHQ's are",
            "use dataset=folder for other images",
            len(names),
        )
        sides = ["train" if int(Path(n).stem) < TRAINING else "held_out" for n in names]
        rows = pd.DataFrame({SPLIT: deal_official(names, sides)}, index=pd.Index(names))
        super().__init__(folder, rows, size, limit, links)


def _misnamed(names: Sequence[str]) -> Iterator[str]:
    """Yield the images whose names are not numbers, or are another image's number."""
    first: dict[int, str] = {}
    for name in names:
        stem = Path(name).stem
        if not (stem.isascii() and stem.isdigit()):
            yield name
        elif first.setdefault(int(stem), name) != name:
            yield f"{name}: the number of {first[int(stem)]}"
