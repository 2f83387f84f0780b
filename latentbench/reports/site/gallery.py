"""Galleries: the same images, all methods of a board across, the true answer beside them."""

import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any

import pandas as pd
from PIL import Image

from latentbench.records import EFFECT, HEADLINE, IMAGES, Record
from latentbench.reports.boards import Board, Row
from latentbench.reports.site.contents import Contents, board_slug, slug
from latentbench.reports.site.pieces import Piece
from latentbench.reports.site.templating import render

FOLDER = "pictures"
DIGITS = 4  # of figures that images are ordered by

Key = tuple[str, str]  # id and group of an image


@dataclass(frozen=True)
class Picture:
    """A picture that is a file of the site.

    Args:
        src: path below the site's folder.
        width: pixels.
        height: pixels.
    """

    src: str
    width: int
    height: int


@dataclass(frozen=True)
class Shots:
    """What one method made of one image.

    Args:
        pictures: its reconstruction, if any, then its outputs.
        says: words for each.
        curve: numbers of the pictures from the weakest strength to the largest.
        best: number of the one that the main score is made of.
        matched: number of the one at matched effect, or -1.
        truth: what a perfect method would have made, where there is an answer.
        frames: the pictures of a path, its ends included; empty for what is no path.
        values: figures of this image, in the order of `Gallery.figures`.
    """

    pictures: Sequence[Picture]
    says: Sequence[str]
    curve: Sequence[int]
    best: int
    matched: int
    truth: Picture | None
    frames: Sequence[Picture]
    answers: Sequence[Picture]
    values: Sequence[float | None]


@dataclass(frozen=True)
class Line:
    """One image with what all methods made of it.

    Args:
        key: id and group.
        source: the image before the edit, where there was one.
        region: where the edit may change it, where there is a mask.
        shots: one per method of the gallery; None for one that did not keep this image.
    """

    key: Key
    source: Picture | None
    region: Picture | None
    shots: Sequence[Shots | None]

    @property
    def truth(self) -> Picture | None:
        """The answer, where all methods were asked for the same."""
        found = {shots.truth for shots in self.shots if shots is not None}
        return found.pop() if len(found) == 1 else None

    @property
    def answers(self) -> Sequence[Picture]:
        """The path that was asked for, where all methods were asked for the same."""
        found = {tuple(shots.answers) for shots in self.shots if shots is not None}
        return found.pop() if len(found) == 1 else ()


class Gallery:
    """The kept pictures of a board.

    Args:
        board: its rows; of several seeds the first is shown.
    """

    def __init__(self, board: Board) -> None:
        self.board = board
        self.rows = [row for row in board.rows if is_in(row.first)]

    @cached_property
    def figures(self) -> list[str]:
        """Those that images have values of."""
        return [f for f in self.board.figures if any(_has(row, f) for row in self.rows)]

    @property
    def methods(self) -> list[str]:
        """The methods, from best to worst."""
        return [row.first.label("method") for row in self.rows]

    @cached_property
    def lines(self) -> list[Line]:
        """One per kept image."""
        kept = [self._kept(row) for row in self.rows]
        keys = dict.fromkeys(key for images in kept for key in images)
        found = []
        for key in keys:
            mine = [images.get(key) for images in kept]
            first = next(image for image in mine if image is not None)
            source, region = (_maybe(first[name]) for name in ("source", "region"))
            shots = [None if image is None else image["shots"] for image in mine]
            found.append(Line(key, source, region, shots))
        return found

    @property
    def is_path(self) -> bool:
        """Whether the pictures are frames of paths."""
        return any(shots.frames for line in self.lines for shots in line.shots if shots)

    @property
    def stops(self) -> int:
        """How many places the slider has; 1 where there is nothing to slide over."""
        return max((len(s.curve) for line in self.lines for s in line.shots if s), default=1)

    @property
    def has_matched(self) -> bool:
        """Whether some picture is at matched effect."""
        return any(s.matched >= 0 for line in self.lines for s in line.shots if s)

    def _kept(self, row: Row) -> dict[Key, dict[str, Any]]:
        images = _images(row.folders[0])
        values = _values(row, self.figures)
        found: dict[Key, dict[str, Any]] = {}
        for image in images:
            key = (str(image["id"]), str(image["group"]))
            blank: list[float | None] = [None] * len(self.figures)
            found[key] = {**image, "shots": _shots(image, values.get(key, blank))}
        return found


def pieces(contents: Contents) -> Iterator[Piece]:
    """Yield the pictures of each cell, and a gallery per board that has pictures."""
    for board in contents.boards:
        gallery = Gallery(board)
        if not gallery.rows:
            continue
        for row in gallery.rows:
            folder, digest = row.folders[0], row.first.files[IMAGES]
            name = f"{FOLDER}/{slug(row.first.id)}"
            yield Piece(name, digest, lambda folder=folder: files_of(folder))
        page = address(board)
        keys = [contents.keys[row.first.id] for row in board.rows]
        yield Piece(page, keys, lambda page=page, gallery=gallery: {page: _page(gallery)})


def is_in(record: Record) -> bool:
    """Return whether a record kept pictures, which its board's gallery shows."""
    return IMAGES in record.files


def address(board: Board) -> str:
    """Return the path of a board's gallery below the site's folder."""
    return f"boards/{board_slug(board)}-gallery.html"


def files_of(folder: Path) -> dict[str, bytes]:
    """Return the pictures of a cell: path below the site's folder -> WebP.

    They are named by their content, so that a source that many cells have is one file.
    """
    found: dict[str, bytes] = {}
    for image in _images(folder):
        single = [image[name] for name in ("source", "region", "reconstruction")]
        many = [data for name in ("outputs", "truths", "ends") for data in image[name]]
        found |= {_src(data): data for data in (*single, *many) if data is not None}
    return found


def _page(gallery: Gallery) -> bytes:
    page = f"{board_slug(gallery.board)}.html"
    return render("gallery.html", root="../", here="overview", gallery=gallery, page=page)


def _images(folder: Path) -> list[dict[str, Any]]:
    """Return what was kept of each image; by its bytes, as a folder may be an address."""
    table = pd.read_parquet(io.BytesIO((folder / IMAGES).read_bytes()))
    return [{str(name): value for name, value in row.items()} for row in table.to_dict("records")]


def _shots(image: Mapping[str, Any], values: Sequence[float | None]) -> Shots:
    outputs = [_picture(data) for data in image["outputs"]]
    truths = [_picture(data) for data in image["truths"]]
    strengths = [float(strength) for strength in image["strengths"]]
    main, effect = int(image["main"]), int(image["effect"])
    before = [] if image["reconstruction"] is None else [_picture(image["reconstruction"])]
    chosen = {main, effect} if effect >= 0 else set()
    curve = [k for k in range(len(outputs)) if k not in chosen]
    if strengths:
        curve.sort(key=strengths.__getitem__)
    shift, best = len(before), main if main >= 0 else len(outputs) - 1
    words = [f"strength {s:.3g}" for s in strengths] or [""] * len(outputs)
    ends = [_picture(data) for data in image["ends"]]
    return Shots(
        pictures=[*before, *outputs],
        says=[*["reconstruction"] * shift, *words],
        curve=[*range(shift), *(k + shift for k in curve)],
        best=best + shift,
        matched=effect + shift if effect >= 0 and effect != main else -1,
        truth=truths[best] if truths and not ends else None,
        frames=[ends[0], *outputs, ends[1]] if ends else [],
        answers=[ends[0], *truths, ends[1]] if ends and truths else [],
        values=values,
    )


def _has(row: Row, figure: str) -> bool:
    table = row.samples[0]
    return table is not None and figure in table and figure in row.first.scores


def _values(row: Row, figures: Sequence[str]) -> dict[Key, list[float | None]]:
    """Return what each image reads, by figure, on the outputs that count for the figure."""
    table = row.samples[0]
    if table is None:
        return {}
    scores = row.first.scores
    means: dict[str | None, pd.DataFrame] = {}
    for at in (None, HEADLINE, EFFECT):
        if at is None or at in table:
            counted = table if at is None else table[table[at]]
            means[at] = pd.DataFrame(counted.groupby(["id", "group"]).mean(numeric_only=True))
    columns = {
        name: means[None if scores[name].every_row else scores[name].at][name].to_dict()
        for name in figures
        if _has(row, name)
    }
    keys = means[None].index.to_list()
    return {key: [_rounded(columns.get(name, {}).get(key)) for name in figures] for key in keys}


def _rounded(value: float | None) -> float | None:
    return None if value is None or pd.isna(value) else float(f"{value:.{DIGITS}g}")


def _maybe(data: bytes | None) -> Picture | None:
    return None if data is None else _picture(data)


def _picture(data: bytes) -> Picture:
    with Image.open(io.BytesIO(data)) as image:
        return Picture(_src(data), image.width, image.height)


def _src(data: bytes) -> str:
    name = sha256(data).hexdigest()[:20]
    return f"{FOLDER}/{name[:2]}/{name[2:]}.webp"
