"""What is known of a cell before its classes are imported: its id, and why it is skipped.

Both follow from the config and the code, so that they are kept in the index of the code. A cell
whose data or weights lie outside it is known while their hashes are what they were; one whose data
set has a fingerprint of its own is planned anew each time, as only its class can tell.
"""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from latentbench import index, weights
from latentbench.cells.places import Places
from latentbench.cells.shelf import Shelf
from latentbench.config import IDENTITY
from latentbench.records import Record, Status

TARGET = "_target_"
NO_CONTENT = ""  # fingerprint of data that are a function of the config


@dataclass(frozen=True)
class Known:
    """What a plan found.

    Args:
        id: the cell's id.
        reason: why it is skipped, or None.
        outside: hash of each checkpoint that the code does not hold.
    """

    id: str
    reason: str | None
    outside: Mapping[str, str]

    def holds(self) -> bool:
        """Return whether the checkpoints outside the code are what they were."""
        return all(weights.hash_of(path) == digest for path, digest in self.outside.items())


def recall(config: DictConfig) -> Known | None:
    """Return what is known of a cell, or None where it is to be planned."""
    try:
        given = settings_of(config)
    except OmegaConfBaseException:  # a broken config fails in its own cell
        return None
    return recall_given(given, Places.of(config))


def recall_given(given: Mapping[str, Any], places: Places) -> Known | None:
    """Return what is known of a cell by the JSON values that its id depends on; see `recall`."""
    found = _index(places).find(_question(given, places))
    known = None if found is None else Known(**found)
    return known if known is not None and known.holds() else None


def remember(
    config: DictConfig, cell: str, identity: Mapping[str, Any], reason: str | None
) -> None:
    """Keep what the plan of a cell found, where the code and its checkpoints decide it alone.

    Args:
        config: the composed config.
        cell: the cell's id.
        identity: what the id is a hash of.
        reason: why it is skipped, or None; a cell whose settings are refused is not kept.
    """
    given, places = settings_of(config), Places.of(config)
    packages = {target.partition(".")[0] for target in _targets(given)}
    opened = _index(places)
    if identity["data"] == NO_CONTENT and packages <= opened.packages:
        outside = {k: v for k, v in identity["weights"].items() if k not in _embedded()}
        opened.keep(_question(given, places), asdict(Known(cell, reason, outside)))


def there(config: DictConfig) -> Record | None:
    """Return the record of a cell that is not to be computed, or None where that is not known."""
    known = recall(config)
    return None if known is None else on_shelf(known, Shelf.of(config))


def on_shelf(known: Known, shelf: Shelf) -> Record | None:
    """Return the record of a known cell, or None where it is to be computed."""
    old = shelf.read(known.id)
    if old is None:
        return None
    if known.reason is not None:
        same = (old.status, old.reason) == (Status.SKIPPED, known.reason)
        return old if same else None
    if shelf.is_due(old):
        return None
    shelf.tidy(old)
    return old


def settings_of(config: DictConfig) -> Any:
    """Return the settings that decide what a plan finds."""
    parts = OmegaConf.masked_copy(config, list(IDENTITY))
    return OmegaConf.to_container(parts, resolve=True, enum_to_str=True)


def _question(given: Mapping[str, Any], places: Places) -> Any:
    """Return all that decides what a plan finds, besides the code and what lies outside it."""
    return ["cell", given, _listing(places.weights)]


def _listing(folder: Path | None) -> list[Any]:
    """Return what tells whether published weights have changed: names, sizes and times."""
    if folder is None or not folder.is_dir():
        return []
    files = sorted(path for path in folder.iterdir() if path.is_file())
    return [str(folder), [[p.name, p.stat().st_size, p.stat().st_mtime_ns] for p in files]]


def _targets(value: Any) -> Iterable[str]:
    if isinstance(value, Mapping):
        yield from (str(inner) for key, inner in value.items() if key == TARGET)
    if isinstance(value, Mapping | list):
        for inner in value.values() if isinstance(value, Mapping) else value:
            yield from _targets(inner)


def _index(places: Places) -> index.Index:
    cache = places.cache
    return index.opened(cache if cache is None or isinstance(cache, Path) else index.FOLDER)


@cache
def _embedded() -> frozenset[str]:
    return frozenset(weights.names())
