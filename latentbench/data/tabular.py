"""Tables and documents that describe images: csv, tsv, jsonl, parquet, json, read as written."""

import csv
import io
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from latentbench.data.faults import refuse
from latentbench.errors import BadInput
from latentbench.paths import is_utf8

SEPARATORS = (",", ";", "\t")
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
TRUTHS = {"true": True, "false": False}
UTF16 = (b"\xff\xfe", b"\xfe\xff")  # the marks of its two byte orders
INDEX = "__index_level_0__"  # what pandas calls the row numbers that it writes


@dataclass(frozen=True)
class Table:
    """Rows of a file.

    Args:
        path: the file.
        columns: cells by column: text as written, numbers, bools, other JSON values, None.
        places: what to call each row in messages ("line 3").
        typed: whether the file says which cells are text; in csv and tsv all are.
    """

    path: Path
    columns: Mapping[str, Sequence[Any]]
    places: Sequence[str]
    typed: bool

    def column(self, name: str) -> Sequence[Any]:
        """Return the cells of a column.

        Raises:
            BadInput: no such column; lists those there are.
        """
        if name not in self.columns:
            raise no_column(self.path, name, self.columns)
        return self.columns[name]

    def numbers(self, name: str) -> list[Any]:
        """Return the cells of a column of numbers; those that are none stay as they are."""
        return [_number(cell) if not self.typed else cell for cell in self.column(name)]


def no_column(path: Path, name: str, known: Iterable[str]) -> BadInput:
    """Return the error for a column that a table lacks."""
    return BadInput(f"{path} has no column {name!r}; its columns: {', '.join(known) or 'none'}")


def mostly_numbers(cells: Sequence[Any]) -> bool:
    """Return whether most cells that are not empty are numbers or truth values.

    Example:
        >>> mostly_numbers([0.5, True, "n/a"]), mostly_numbers(["7", "x"]), mostly_numbers([None])
        (True, False, False)
    """
    filled = [cell for cell in cells if cell is not None]
    return 2 * sum(isinstance(cell, int | float | Decimal) for cell in filled) > len(filled)


def is_text(cell: Any) -> bool:
    """Return whether a cell is a text, not blank, of letters that can be written as UTF-8.

    Example:
        >>> is_text("a"), is_text(" "), is_text(chr(0xD800)), is_text(7)
        (True, False, False, False)
    """
    return isinstance(cell, str) and bool(cell.strip()) and is_utf8(cell)


def read_table(path: Path, wanted: Sequence[str] | None = None) -> Table:
    """Return the rows of a csv, tsv, jsonl or parquet file.

    Text is UTF-8. In csv, columns are separated by commas, semicolons or tabs, and every cell is
    text: "007", "NA" and "TRUE" stay as they are, an empty cell is None.

    Args:
        path: the file; its ending, in upper or lower case, says what it is.
        wanted: in parquet, read these columns alone; None for all.

    Raises:
        BadInput: it cannot be read to its end; names the file, and all lines that are wrong.
    """
    ending = path.suffix.lower()
    if ending not in READERS:
        raise BadInput(f"{path} must be a table that ends in {', '.join(READERS)}")
    if not path.is_file():
        raise BadInput(f"no table {path}; give dataset.table=/path/of/a/file, or leave it out")
    return _read_parquet(path, wanted) if ending == ".parquet" else READERS[ending](path)


def read_json(path: Path) -> Any:
    """Return the content of a json file.

    Raises:
        BadInput: it is not there, not UTF-8, not JSON, cut, or names a key twice.
    """
    if not path.is_file():
        raise BadInput(f"no file {path}")
    try:
        return parse_json(utf8(path))
    except ValueError as error:
        raise BadInput(f"{path} is not JSON: {error}; is it cut?") from error


def parse_json(text: str) -> Any:
    """Return a JSON value; NaN, infinity, keys that occur twice and endless nesting are refused.

    Raises:
        ValueError: with the reason.

    Example:
        >>> parse_json('{"a": 1, "a": 2}')
        Traceback (most recent call last):
        ...
        ValueError: key 'a' occurs twice
    """
    try:
        return json.loads(text, object_pairs_hook=_unique, parse_constant=_no_number)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"key {next(k for k in keys if keys.count(k) > 1)!r} occurs twice")
    return found


def _no_number(word: str) -> float:
    raise ValueError(f"{word} is not a number of JSON")


def utf8(path: Path) -> str:
    """Return a file's text, without the mark that some programs put before it.

    Raises:
        BadInput: it cannot be opened, is empty, or is not UTF-8; says at which byte.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise BadInput(f"{path} cannot be opened ({error.strerror})") from error
    if not data.strip():
        raise BadInput(f"{path} is empty")
    if data.startswith(UTF16) or b"\0" in data:
        kind = "UTF-16" if data.startswith(UTF16) else "not text: it holds zero bytes"
        raise BadInput(f"{path} is {kind}; save it as UTF-8")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        what = f"byte 0x{data[error.start]:02x} in line {line}"
        raise BadInput(f"{path} is not UTF-8: {what}; save it as UTF-8") from error


# ---------------------------------------------------------------- csv


def _read_csv(path: Path) -> Table:
    text = utf8(path)
    header, separator = _header(path, text)
    rows, places, faults = [], [], []
    for place, row in _lines(path, text, separator):
        if len(row) == len(header):
            rows.append(row)
            places.append(place)
        elif row:
            faults.append(f"{place}: {len(row)} cells, the header has {len(header)}")
    refuse(faults, f"lines of {path} cannot be used", "mend them; is the file cut?")
    cells = zip(*rows, strict=True) if rows else [()] * len(header)
    columns = {
        name: [c or None for c in column] for name, column in zip(header, cells, strict=True)
    }
    return Table(path, _without_row_numbers(path, columns), places, typed=False)


def _header(path: Path, text: str) -> tuple[list[str], str]:
    """Return the columns' names and the separator: that by which most columns are found."""
    found = {separator: _first_row(path, text, separator) for separator in SEPARATORS}
    separator = max(SEPARATORS, key=lambda s: len(found[s]))
    header = [name.strip() for name in found[separator]]
    if not header:
        raise BadInput(f"{path} has no names of columns in its first line")
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        raise BadInput(f"{path} has several columns {twice[0]!r}; give each its own name")
    return header, separator


def _first_row(path: Path, text: str, separator: str) -> list[str]:
    """Return the first row under a separator; none where its quotes do not fit."""
    try:
        return next(_parsed(path, text, separator))[1]
    except BadInput:
        return []


def _lines(path: Path, text: str, separator: str) -> Iterator[tuple[str, list[str]]]:
    """Yield (place, cells) of each row below the header."""
    rows = _parsed(path, text, separator)
    next(rows)
    yield from rows


def _parsed(path: Path, text: str, separator: str) -> Iterator[tuple[str, list[str]]]:
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    while True:
        place = f"line {reader.line_num + 1}"
        try:
            yield place, next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise BadInput(
                f"{path}, {place}: {error}; is a quote missing, or the file cut?"
            ) from error


def _without_row_numbers(path: Path, columns: Mapping[str, Sequence[Any]]) -> dict[str, Any]:
    """Leave out a column without a name, which must be empty or numbers of rows."""
    if not all(cell is None or cell.isdigit() for cell in columns.get("", ())):
        raise BadInput(f"{path} has a column without a name; name it in the first line")
    return {name: cells for name, cells in columns.items() if name}


def _number(cell: Any) -> Any:
    """Return a csv cell as the number or truth value that it spells, else as it is.

    Example:
        >>> [_number(cell) for cell in (" 0.5", "TRUE", "1_0", None)]
        [0.5, True, '1_0', None]
    """
    word = cell.strip() if isinstance(cell, str) else ""
    return float(word) if NUMBER.fullmatch(word) else TRUTHS.get(word.lower(), cell)


# ---------------------------------------------------------------- jsonl


def _read_jsonl(path: Path) -> Table:
    rows, places, faults = [], [], []
    for number, line in enumerate(utf8(path).split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = parse_json(line)
        except ValueError as error:
            faults.append(f"line {number}: {error}")
            continue
        if not isinstance(row, dict):
            faults.append(f"line {number}: not an object, but {type(row).__name__}")
            continue
        rows.append(row)
        places.append(f"line {number}")
    refuse(faults, f"lines of {path} cannot be used", "mend them; is the file cut?")
    names = dict.fromkeys(name for row in rows for name in row)
    return Table(path, {n: [row.get(n) for row in rows] for n in names}, places, typed=True)


# ---------------------------------------------------------------- parquet


def _read_parquet(path: Path, wanted: Sequence[str] | None = None) -> Table:
    try:
        names = pq.read_schema(path).names
        if len(set(names)) < len(names):
            raise BadInput(f"{path} has columns of the same name; give each its own")
        for absent in sorted(set(wanted or ()) - set(names)):
            raise no_column(path, absent, names)
        chosen = [n for n in names if n != INDEX and (wanted is None or n in wanted)]
        file = pq.ParquetFile(path)
        table = file.read(chosen)
        columns = {name: table[name].to_pylist() for name in chosen}
    except BadInput:
        raise
    except (OSError, ValueError, pa.ArrowException) as error:
        reason = " ".join(str(error).split())[:200]
        raise BadInput(f"{path} cannot be read as parquet: {reason}; is it cut?") from error
    return Table(path, columns, [f"row {k}" for k in range(file.metadata.num_rows)], typed=True)


READERS: Mapping[str, Callable[[Path], Table]] = {
    ".csv": _read_csv,
    ".tsv": _read_csv,
    ".jsonl": _read_jsonl,
    ".parquet": _read_parquet,
}
