"""`dataset=lsun`: a category of LSUN, exported from its LMDB by LSUN's own script."""

import pandas as pd

from latentbench.bounds import Count, Name, Size
from latentbench.data.folder import ImageFolder
from latentbench.data.image_files import image_files
from latentbench.data.table import SPLIT, deal_official, side_of
from latentbench.errors import BadInput
from latentbench.paths import user_path


class LSUN(ImageFolder):
    """One category (church_outdoor, bedroom ...) as .webp files, `train/` and `val/` if exported.

    Source: "LSUN: Construction of a Large-scale Image Dataset using Deep Learning with Humans in
    the Loop". Training images go to "generator" and "judge", the others to "calibration" and
    "test"; where only one of the two is there, a hash of the name deals it out to all splits.

    Args:
        path: folder of the export; sub-folders are searched as well.
        size: pixels per side; None until a model gives its own.
        limit: only the first images of each split, by name; None for all.
        links: follow links that lead out of the folder.

    Example:
        ``LSUN(path="/data/lsun/church", limit=500)``
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
        packed = next(folder.rglob("data.mdb"), None) if folder.is_dir() else None
        if packed is not None:
            raise BadInput(
                f"{packed} is LSUN's packed form; unpack it with fyu/lsun's script, `python "
                f"data.py export {packed.parent} --out_dir {folder}/train`, and move it away"
            )
        names = image_files(folder, links)
        splits = deal_official(names, [side_of(name) for name in names])
        rows = pd.DataFrame({SPLIT: splits}, index=pd.Index(names))
        super().__init__(folder, rows, size, limit, links)
