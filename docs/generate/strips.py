"""A strip of the pictures that a cell keeps: a few rows of images, as one WebP file."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import UInt8
from PIL import Image

from latentbench.records import IMAGES

Picture = UInt8[np.ndarray, "h w 3"]
SIDE = 128  # pixels per tile
GAP = 4  # pixels between tiles
ROWS = 3  # rows of a strip, of different edits where there are several
ACROSS = 8  # tiles in a row of images that stand alone


def strip(folder: Path, source: str = "source") -> tuple[bytes, str] | None:
    """Return a cell's strip as WebP and what it shows, or None where the cell keeps no images.

    Args:
        folder: the cell's folder.
        source: what the image is that an output was made of.
    """
    file = folder / IMAGES
    if not file.is_file():
        return None
    kept = pd.read_parquet(file)
    rows = kept.drop_duplicates("group").head(ROWS)
    several = len(rows) > 1
    shown = (rows if several else kept.head(ACROSS)).to_dict("records")
    tiles = [_tiles(row, source) for row in shown]
    names = [name for name, _ in tiles[0]]
    lines = [[tile for _, tile in row] for row in tiles]
    if len(names) == 1:  # samples, which stand alone
        return _webp(_joined([[line[0] for line in lines]])), "Samples."
    says = f"From left to right: {', '.join(names)}."
    if several:
        says += f" From top to bottom: {', '.join(rows['group'])}."
    elif "answer" in names:
        says += f" The edit: {rows['group'].iloc[0]}."
    at = [f"{strength:.2g}" for row in shown[:ROWS] for strength in _strength(row)]
    if at:
        says += f" Strength of each row's output: {', '.join(at)}."
    return _webp(_joined(lines[:ROWS])), says


def _strength(row: dict[str, Any]) -> list[float]:
    """Return at which strength the shown output was made, if there are several."""
    strengths = [] if row["strengths"] is None else list(row["strengths"])
    return strengths[row["main"] :][:1] if not len(row["ends"]) and row["main"] >= 0 else []


def _tiles(row: dict[str, Any], source: str) -> list[tuple[str, Picture]]:
    """Return what is shown of a row: a path's frames, an edit with its answer, or an output."""
    outputs = [_read(data) for data in row["outputs"]]
    if len(row["ends"]):
        return [(f"frame {k}", frame) for k, frame in enumerate(outputs, 1)]
    found = [(source, row["source"]), ("reconstruction", row["reconstruction"])]
    tiles = [(name, _read(data)) for name, data in found if data is not None]
    tiles.append(("output", outputs[row["main"]]))
    if len(row["truths"]) and row["main"] >= 0:
        tiles.append(("answer", _read(row["truths"][row["main"]])))
    return tiles


def _read(data: bytes) -> Picture:
    image = Image.open(io.BytesIO(data)).convert("RGB")
    return np.asarray(image.resize((SIDE, SIDE), Image.Resampling.NEAREST))


def _joined(lines: Sequence[Sequence[Picture]]) -> Picture:
    """Return the tiles side by side, a line below another, with white gaps."""
    step = SIDE + GAP
    whole = np.full((step * len(lines) - GAP, step * len(lines[0]) - GAP, 3), 255, np.uint8)
    for i, line in enumerate(lines):
        for j, tile in enumerate(line):
            whole[i * step : i * step + SIDE, j * step : j * step + SIDE] = tile
    return whole


def _webp(picture: Picture) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "WEBP", quality=90)
    return buffer.getvalue()
