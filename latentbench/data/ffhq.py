"""`dataset=ffhq`: Flickr-Faces-HQ, in the layout of its own download script."""

from pathlib import Path

import pandas as pd

from latentbench.data.folder import ImageFolder
from latentbench.data.sources import image_files
from latentbench.data.table import SPLIT, deal_official
from latentbench.errors import BadInput

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

    Example:
        ``FFHQ(path="/data/ffhq/images1024x1024", limit=500)``
    """

    def __init__(self, *, path: str, size: int | None = None, limit: int | None = None) -> None:
        folder = Path(path).resolve()
        names = image_files(folder)
        odd = [name for name in names if not Path(name).stem.isdigit()]
        if odd:
            raise BadInput(f"{odd[0]} below {folder} is not named by a number, as FFHQ's are; use "
                           f"dataset=folder for other images")  # fmt: skip
        sides = ["train" if int(Path(n).stem) < TRAINING else "held_out" for n in names]
        rows = pd.DataFrame({SPLIT: deal_official(names, sides)}, index=pd.Index(names))
        super().__init__(folder, rows, size, limit)
