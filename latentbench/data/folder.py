"""`dataset=folder`: a user's own images, with labels, prompts or splits from a table."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from latentbench.data.sources import Files, image_files, shortened, stamp
from latentbench.data.table import ImageTable
from latentbench.errors import BadInput

TABLES = (".csv", ".parquet")
FILE = "file"


class ImageFolder(ImageTable):
    """One file per image below a folder; the base of readers of published layouts.

    Args:
        path: the folder.
        rows: see `ImageTable`; its index holds paths within the folder.
        size: pixels per side; None until a model gives its own.
        limit: only the first images of each split.
    """

    def __init__(self, path: Path, rows: pd.DataFrame, size: int | None, limit: int | None) -> None:
        self.path = path
        super().__init__(rows, size, limit)

    def source(self, names: tuple[str, ...]) -> Files:
        """Return the files."""
        return Files(self.path, stamp(self.path, names))


class Folder(ImageFolder):
    """Images below a folder, resized to cover a square and centre-cropped.

    A table may say more: a column `file` (path within the folder), then `prompt`, `split`, and any
    columns of numbers in [0, 1], which become factors. Without a `split` column, a hash of the
    file's name deals images out: half to "generator", a tenth to "judge", 15% to "calibration",
    a quarter to "test"; adding images never moves others.

    Args:
        path: the folder; sub-folders are searched as well.
        table: csv or parquet file; by default the only one that lies in the folder.
        size: pixels per side; None until a model gives its own.
        limit: only the first images of each split, by name; None for all.

    Raises:
        BadInput: at once, before any work: no folder, no image, images that cannot be read (by
            name), a table that does not match them.

    Example:
        ``Folder(path="/data/photos", size=64)``
    """

    def __init__(
        self,
        *,
        path: str,
        table: str | None = None,
        size: int | None = None,
        limit: int | None = None,
    ) -> None:
        folder = Path(path).resolve()
        names = image_files(folder)
        found = _find_table(folder) if table is None else Path(table).resolve()
        rows = pd.DataFrame(index=pd.Index(names)) if found is None else _read_table(found, names)
        super().__init__(folder, rows, size, limit)


def _find_table(folder: Path) -> Path | None:
    found = sorted(p for p in folder.iterdir() if p.suffix.lower() in TABLES)
    if len(found) > 1:
        names = ", ".join(p.name for p in found)
        raise BadInput(f"{folder} holds several tables ({names}); say which: dataset.table=...")
    return found[0] if found else None


def _read_table(path: Path, images: Sequence[str]) -> pd.DataFrame:
    """Return the table with the images' names as its index, one row per image."""
    if path.suffix.lower() not in TABLES or not path.is_file():
        raise BadInput(f"table {path} must be a csv or parquet file that exists")
    rows = pd.read_csv(path) if path.suffix.lower() == ".csv" else pd.read_parquet(path)
    if FILE not in rows:
        raise BadInput(f"{path} has no column {FILE!r}; it has {', '.join(map(str, rows.columns))}")
    index = [c for c in rows if str(c).startswith("Unnamed:")]  # pandas' row numbers in a csv
    rows = rows.set_index(rows[FILE].astype(str)).drop(columns=[FILE, *index])
    for what, names in (
        ("rows twice for", list(rows.index[rows.index.duplicated()])),
        ("rows without an image for", sorted(set(rows.index) - set(images))),
        ("no row for", sorted(set(images) - set(rows.index))),
    ):
        if names:
            raise BadInput(f"{path} has {what} {shortened(names, 5)} ({len(names)} in all)")
    return rows
