"""`dataset=coco`: COCO's images with captions as prompts."""

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from latentbench.bounds import Count, Name, Size
from latentbench.data.faults import refuse
from latentbench.data.folder import ImageFolder
from latentbench.data.table import PROMPT, SPLIT, deal_official
from latentbench.data.tabular import is_text, read_json
from latentbench.errors import BadInput
from latentbench.paths import user_path
from latentbench.types import Capability

SIDES = {"train": "train", "val": "held_out"}
IMAGE = {"id": int, "file_name": str}
NOTE = {"id": int, "image_id": int, "caption": str}


class COCO(ImageFolder):
    """Photos with the first of their five captions: `val2017/*.jpg`, `annotations/captions_*.json`.

    Source: "Microsoft COCO Captions: Data Collection and Evaluation Server". The caption with the
    lowest annotation id is the prompt. Training images go to "generator" and "judge", validation
    images to "calibration" and "test"; where only one of the two is there, to all splits.

    Args:
        path: the folder that holds `annotations` and the folders of images.
        year: 2014 or 2017, COCO's two ways to split the same photos.
        size: pixels per side; None until a model gives its own.
        limit: only the first images of each split, by name; None for all.
        links: follow links that lead out of the folder.

    Raises:
        BadInput: annotations that cannot be used: all of them, by their place in the file.

    Example:
        ``COCO(path="/data/coco", limit=500)``
    """

    gives = frozenset({Capability.PROMPTS})

    def __init__(
        self,
        *,
        path: Name,
        year: Literal[2014, 2017] = 2017,
        size: Size | None = None,
        limit: Count | None = None,
        links: bool = False,
    ) -> None:
        folder = user_path(path, "dataset.path").resolve()
        there = [side for side in SIDES if (folder / f"{side}{year}").is_dir()]
        if not there:
            raise BadInput(f"neither train{year} nor val{year} is a folder in {folder}; give "
                           f"dataset.path=/data/coco, or another dataset.year")  # fmt: skip
        parts = [_captions(folder, f"{side}{year}") for side in there]
        captions = pd.concat(parts)
        sides = [SIDES[side] for side, part in zip(there, parts, strict=True) for _ in part.index]
        rows = captions.assign(**{SPLIT: deal_official(list(captions.index), sides)})
        super().__init__(folder, rows, size, limit, links)


def _captions(folder: Path, side: str) -> pd.DataFrame:
    """Return the first caption of each image of one side ("val2017")."""
    path = folder / "annotations" / f"captions_{side}.json"
    content = read_json(path)
    refuse(
        list(_faults(content)),
        f"entries of {path} cannot be used",
        "fetch the file again, or mend the entries",
    )
    files = {image["id"]: f"{side}/{image['file_name']}" for image in content["images"]}
    first: dict[int, str] = {}
    for note in sorted(content["annotations"], key=lambda note: note["id"]):
        first.setdefault(note["image_id"], " ".join(note["caption"].split()))
    bare = [f"{file}: no caption" for number, file in files.items() if number not in first]
    refuse(bare, f"images of {path} cannot be used", "take them out of it", len(files))
    return pd.DataFrame({PROMPT: [first[k] for k in files]}, index=pd.Index(files.values()))


def _faults(content: Any) -> Iterator[str]:
    """Yield what is wrong with a file of captions."""
    for part, fields in (("images", IMAGE), ("annotations", NOTE)):
        entries = content.get(part) if isinstance(content, dict) else None
        if not isinstance(entries, list):
            yield f"{part}: not a list"
            continue
        for place, entry in enumerate(entries):
            yield from (f"{part}[{place}]: {why}" for why in _odd_fields(entry, fields))
        keys = [_key(entry) for entry in entries if isinstance(entry, dict)]
        twice = [key for key, count in Counter(keys).items() if count > 1]
        yield from (f"{part}: two entries of {key}" for key in twice)


def _key(entry: Mapping[str, Any]) -> str:
    """Return what an image, or a caption of one, must have for itself."""
    of = f", image_id {entry['image_id']}" if "image_id" in entry else ""
    return f"id {entry.get('id')}{of}"


def _odd_fields(entry: Any, fields: Mapping[str, type]) -> Iterator[str]:
    """Yield the fields of an entry that are absent or of another type."""
    if not isinstance(entry, dict):
        yield f"not an object, but {entry!r:.60}"
        return
    for name, kind in fields.items():
        value = entry.get(name)
        if not is_text(value) if kind is str else type(value) is not int:
            yield f"{name} is {value!r:.60}, not {'a number' if kind is int else 'a text'}"
