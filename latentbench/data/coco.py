"""`dataset=coco`: COCO's images with captions as prompts."""

import json
from pathlib import Path

import pandas as pd

from latentbench.data.folder import ImageFolder
from latentbench.data.table import PROMPT, SPLIT, deal_official
from latentbench.errors import BadInput
from latentbench.types import Capability

SIDES = {"train": "train", "val": "held_out"}


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

    Example:
        ``COCO(path="/data/coco", limit=500)``
    """

    gives = frozenset({Capability.PROMPTS})

    def __init__(
        self, *, path: str, year: int = 2017, size: int | None = None, limit: int | None = None
    ) -> None:
        folder = Path(path).resolve()
        there = [side for side in SIDES if (folder / f"{side}{year}").is_dir()]
        if not there:
            raise BadInput(f"neither train{year} nor val{year} is a folder in {folder}; give "
                           f"dataset.path=/data/coco, or another dataset.year")  # fmt: skip
        parts = [_captions(folder, side, year) for side in there]
        captions = pd.concat(parts)
        sides = [SIDES[side] for side, part in zip(there, parts, strict=True) for _ in part.index]
        rows = captions.assign(**{SPLIT: deal_official(list(captions.index), sides)})
        super().__init__(folder, rows, size, limit)


def _captions(folder: Path, side: str, year: int) -> pd.DataFrame:
    """Return the first caption of each image of one side."""
    path = folder / "annotations" / f"captions_{side}{year}.json"
    if not path.is_file():
        raise BadInput(f"no file {path}, which holds the captions of {side}{year}")
    content = json.loads(path.read_text(encoding="utf-8"))
    files = {image["id"]: f"{side}{year}/{image['file_name']}" for image in content["images"]}
    first: dict[int, str] = {}
    for note in sorted(content["annotations"], key=lambda note: note["id"]):
        first.setdefault(note["image_id"], " ".join(note["caption"].split()))
    bare = sorted(files.keys() - first.keys())
    if bare:
        raise BadInput(f"{path} has no caption for {files[bare[0]]} ({len(bare)} in all)")
    return pd.DataFrame({PROMPT: [first[k] for k in files]}, index=pd.Index(files.values()))
