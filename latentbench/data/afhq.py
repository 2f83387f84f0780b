"""`dataset=afhq`: Animal Faces-HQ, `train/cat/*.png` and `val/` (version 1) or `test/` (2)."""

from pathlib import Path
from typing import Literal

import pandas as pd

from latentbench.bounds import Count, Name, Size
from latentbench.data.faults import refuse
from latentbench.data.folder import ImageFolder
from latentbench.data.image_files import image_files
from latentbench.data.table import SPLIT, deal_official, side_of
from latentbench.paths import user_path
from latentbench.types import Capability

DOMAINS = ("cat", "dog", "wild")


class AFHQ(ImageFolder):
    """Animal faces of 512 px in three domains, which are its factors.

    Source: "StarGAN v2: Diverse Image Synthesis for Multiple Domains", section "AFHQ". Its
    training images go to "generator" and "judge", the others to "calibration" and "test".

    Args:
        path: the folder that holds `train` and `val` or `test`.
        domain: "cat", "dog" or "wild" alone, or None for all three.
        size: pixels per side; None until a model gives its own.
        limit: only the first images of each split, by name; None for all.
        links: follow links that lead out of the folder.

    Example:
        ``AFHQ(path="/data/afhq_v2", domain="cat")``
    """

    gives = frozenset({Capability.LABELS})

    def __init__(
        self,
        *,
        path: Name,
        domain: Literal["cat", "dog", "wild"] | None = None,
        size: Size | None = None,
        limit: Count | None = None,
        links: bool = False,
    ) -> None:
        folder = user_path(path, "dataset.path").resolve()
        names = image_files(folder, links)
        domains = [Path(name).parent.name for name in names]
        odd = [n for n, d in zip(names, domains, strict=True) if d not in DOMAINS or not side_of(n)]
        refuse(
            odd,
            f"images below {folder} are not in train/, val/ or test/ and then in "
            f"{', '.join(DOMAINS)}",
            "give the folder that holds train/",
            len(names),
        )
        sides = [side_of(name) for name in names]
        columns = {d: [float(found == d) for found in domains] for d in DOMAINS}
        rows = pd.DataFrame({SPLIT: deal_official(names, sides), **columns}, index=pd.Index(names))
        if domain is not None:
            rows = rows.loc[rows[domain] == 1, [SPLIT]]
        super().__init__(folder, rows, size, limit, links)
