"""The few images of a cell that are kept: one parquet for tools, one picture for people."""

import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Float, UInt8
from PIL import Image, ImageDraw
from torch import Tensor

from latentbench import store
from latentbench.records import GRID, IMAGES
from latentbench.types import Samples

GRID_ROWS = 8  # in one column; further ones start another
MOST = 16383  # pixels per side that WebP can hold
SMALLEST = 96  # pixels per tile in the grid; smaller images are enlarged
MARGIN = 20  # pixels for words


@dataclass(frozen=True)
class Row:
    """One image with all that was made of it, as uint8 pixels.

    Args:
        id: its name.
        group: what it is a case of.
        source: before the edit, where there was one.
        region: the source where the edit may change it, black elsewhere, where there is a mask.
        reconstruction: the method's own output at strength 0.
        outputs: what the method made.
        truths: what a perfect method would have made, per output.
        strengths: native strength per output.
        main: which output the main score is made of.
        effect: which output is at matched effect, where there is one.
        ends: the two images that a path should run between, where it has them.
    """

    id: str
    group: str
    source: UInt8[np.ndarray, "h w 3"] | None
    region: UInt8[np.ndarray, "h w 3"] | None
    reconstruction: UInt8[np.ndarray, "h w 3"] | None
    outputs: Sequence[UInt8[np.ndarray, "h w 3"]]
    truths: Sequence[UInt8[np.ndarray, "h w 3"]]
    strengths: Sequence[float]
    main: int | None
    effect: int | None
    ends: Sequence[UInt8[np.ndarray, "h w 3"]]


@dataclass
class Pictures:
    """Keeps the first rows of each group.

    Args:
        wanted: rows to keep per cell.
        groups: the cell's groups, which share the rows evenly.
        rows: those kept so far.
    """

    wanted: int
    groups: Sequence[str]
    rows: list[Row] = field(default_factory=list)

    def update(self, samples: Samples) -> None:
        """Take what is still wanted of a chunk."""
        share = -(-self.wanted // max(1, len(self.groups)))
        for k, group in enumerate(samples.groups):
            if sum(row.group == group for row in self.rows) < share:
                self.rows.append(_row(samples, k))

    def save(self, folder: Path) -> dict[str, str]:
        """Write `images.parquet` and `grid.webp`; return the sha256 of each by its name.

        Where no row is kept there are no such files, not even those of an earlier run.
        """
        if not self.rows:
            for name in (IMAGES, GRID):
                (folder / name).unlink(missing_ok=True)
            return {}
        buffer = io.BytesIO()
        pd.DataFrame([_encoded(row) for row in self.rows]).to_parquet(buffer, index=False)
        picture = _webp(thinned(grid(self._spread())))
        return {
            IMAGES: store.write(folder / IMAGES, buffer.getvalue()),
            GRID: store.write(folder / GRID, picture),
        }

    def _spread(self) -> list[Row]:
        """Return rows for the grid, the groups in turn."""
        groups = list(dict.fromkeys(row.group for row in self.rows))
        share = max(1, GRID_ROWS // len(groups))
        return [r for g in groups for r in [x for x in self.rows if x.group == g][:share]]


def grid(rows: Sequence[Row]) -> UInt8[np.ndarray, "h w 3"]:
    """Return one picture: a line per row with source, outputs and truth, words above."""
    lines = [_line(row) for row in rows]
    width = max(line.shape[1] for line in lines)
    parts = [
        np.concatenate([_words(row, line.shape[1], width), _pad(line, line.shape[0], width)])
        for row, line in zip(rows, lines, strict=True)
    ]
    high = -(-len(parts) // -(-len(parts) // GRID_ROWS))  # columns of about the same height
    columns = [np.concatenate(parts[k : k + high]) for k in range(0, len(parts), high)]
    return np.concatenate([_pad(column, columns[0].shape[0], width) for column in columns], 1)


def thinned(picture: UInt8[np.ndarray, "h w 3"], most: int = MOST) -> UInt8[np.ndarray, "h2 w2 3"]:
    """Return every k-th pixel of a picture that is too large for its format; usually all.

    Example:
        >>> thinned(np.zeros((25, 10, 3), np.uint8), most=10).shape
        (9, 4, 3)
    """
    step = -(-max(picture.shape[:2]) // most)
    return picture[::step, ::step]


def pixels(image: Float[Tensor, "3 h w"]) -> UInt8[np.ndarray, "h w 3"]:
    """Return an image in [-1, 1] as uint8 pixels."""
    scaled = ((image.float() + 1) * 127.5).round().clamp(0, 255)
    return scaled.byte().permute(1, 2, 0).cpu().numpy()


def _row(samples: Samples, k: int) -> Row:
    def one(images: Tensor | None) -> UInt8[np.ndarray, "h w 3"] | None:
        return None if images is None else pixels(images[k])

    strengths = [] if samples.strengths is None else samples.strengths[k].tolist()
    truths = [] if samples.truths is None else [pixels(image) for image in samples.truths[k]]
    return Row(
        samples.ids[k],
        samples.groups[k],
        one(samples.sources),
        one(_regions(samples)),
        one(samples.reconstructions),
        [pixels(image) for image in samples.outputs[k]],
        truths,
        strengths,
        samples.main,
        samples.effect,
        [] if samples.ends is None else [pixels(image) for image in samples.ends[k]],
    )


def _regions(samples: Samples) -> Float[Tensor, "b 3 h w"] | None:
    if samples.sources is None or samples.masks is None:
        return None
    return samples.sources.where(samples.masks[:, None] > 0, -1)


def _encoded(row: Row) -> dict[str, object]:
    return {
        "id": row.id,
        "group": row.group,
        "source": None if row.source is None else _webp(row.source),
        "region": None if row.region is None else _webp(row.region),
        "reconstruction": None if row.reconstruction is None else _webp(row.reconstruction),
        "outputs": [_webp(image) for image in row.outputs],
        "truths": [_webp(image) for image in row.truths],
        "strengths": list(row.strengths),
        "main": -1 if row.main is None else row.main,
        "effect": -1 if row.effect is None else row.effect,
        "ends": [_webp(image) for image in row.ends],
    }


def _webp(image: UInt8[np.ndarray, "h w 3"]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "WEBP", lossless=True, method=2)
    return buffer.getvalue()


def _tiles(row: Row) -> list[tuple[str, UInt8[np.ndarray, "h w 3"]]]:
    tiles = [
        *(("from", image) for image in row.ends[:1]),
        *(("source", row.source), ("region", row.region), ("strength 0", row.reconstruction)),
    ]
    strengths = row.strengths or [None] * len(row.outputs)
    chosen = {} if row.effect is None else {row.main: "best ", row.effect: "matched "}
    tiles += [
        ("output" if s is None else f"{chosen.get(k, '')}{s:.3g}", image)
        for k, (s, image) in enumerate(zip(strengths, row.outputs, strict=True))
    ]
    if row.truths and not row.ends:
        tiles.append(("truth", row.truths[row.main if row.main is not None else -1]))
    tiles += [("to", image) for image in row.ends[1:]]
    return [(name, tile) for name, tile in tiles if tile is not None]


def _line(row: Row) -> UInt8[np.ndarray, "h w 3"]:
    tiles = [tile for _, tile in _tiles(row)]
    times = -(-SMALLEST // tiles[0].shape[0])
    return np.concatenate(tiles, 1).repeat(times, 0).repeat(times, 1)


def _words(row: Row, used: int, width: int) -> UInt8[np.ndarray, "h w 3"]:
    """Return two lines of words: what the row is, and each tile's name above the tile."""
    strip = Image.new("RGB", (width, 2 * MARGIN), "white")
    draw, names = ImageDraw.Draw(strip), [name for name, _ in _tiles(row)]
    draw.text((4, 4), f"{row.group}   {row.id}", fill="black")
    for k, name in enumerate(names):
        draw.text((4 + k * used // len(names), MARGIN + 4), name, fill="black")
    return np.asarray(strip)


def _pad(
    picture: UInt8[np.ndarray, "h w 3"], height: int, width: int
) -> UInt8[np.ndarray, "h2 w2 3"]:
    """Return the picture with white below it and to its right."""
    h, w = picture.shape[:2]
    return np.pad(picture, ((0, height - h), (0, width - w), (0, 0)), constant_values=255)
