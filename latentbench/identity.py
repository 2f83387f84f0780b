"""Building parts from their settings, and the identity of a cell: all that decides its scores."""

import hashlib
import inspect
import math
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from huggingface_hub.constants import HF_HUB_CACHE
from hydra.errors import InstantiationException
from hydra.utils import get_class, instantiate
from omegaconf import DictConfig, OmegaConf

from latentbench.cache import content_hash
from latentbench.data.dataset import Dataset
from latentbench.errors import unknown
from latentbench.zoo import weights as zoo

VERSION = 2  # raised when a fix in the runner changes figures
GROUPS = ("benchmark", "method", "model", "dataset")
ELSEWHERE = ("device",)  # settings that `runtime` gives


def part_class(config: DictConfig) -> type[Any]:
    """Return the class of a part, without building it."""
    return get_class(config._target_)


def build(config: DictConfig, **extra: Any) -> Any:
    """Build a part from its settings.

    Raises:
        BadInput: a setting that its class does not know; the message lists those there are. What
            the class itself raises comes through as it is.
    """
    known = inspect.signature(part_class(config)).parameters
    for name in [*config, *extra]:
        if name not in known and not str(name).startswith("_"):
            raise unknown(f"setting of {part_class(config).__name__}", str(name), known)
    try:
        return instantiate(config, _convert_="all", **extra)
    except InstantiationException as error:  # Hydra's words around the cause tell nothing more
        raise error.__cause__ or error from None


def settings(config: DictConfig) -> dict[str, Any]:
    """Return a part's settings as JSON values, with its class's defaults filled in."""
    given: Any = OmegaConf.to_container(config, resolve=True)
    parameters = inspect.signature(part_class(config)).parameters.values()
    defaults = {p.name: p.default for p in parameters if p.default is not p.empty}
    merged = {**defaults, **given}
    return {name: _plain(value) for name, value in merged.items() if name not in ELSEWHERE}


def _plain(value: Any) -> Any:
    """Return a setting as a JSON value: numbers that are not finite in words."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, list | tuple) else value


def identity(config: DictConfig, dataset: Dataset, metrics: Sequence[str]) -> dict[str, Any]:
    """Return what a cell's id is a hash of, as JSON values.

    Args:
        config: the composed config.
        dataset: the data set, for the fingerprint of its content.
        metrics: names of the metrics that are switched on.
    """
    chosen = {group: config[group] for group in GROUPS}
    scored = {name: config.metric[name] for name in sorted(metrics)}
    every = [*chosen.values(), *scored.values()]
    classes = [part_class(part) for part in every]
    filled: dict[str, Any] = {group: settings(part) for group, part in chosen.items()}
    filled |= {"metric": {n: settings(p) for n, p in scored.items()}, "seed": config.seed}
    return {
        "config": filled,
        "versions": {"latentbench": VERSION}
        | {f"{c.__module__}.{c.__qualname__}": c.version for c in classes},
        "weights": dict(weights_of(filled)),
        "data": dataset.fingerprint(),
    }


def weights_of(config: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield (name, hash) of all weights that a config names: embedded, in a folder, or of a hub."""
    for text in sorted(set(_strings({k: v for k, v in config.items() if k != "model"}))):
        if text in zoo.names():
            yield text, zoo.digest(text)
    for path in (config["model"].get(key) for key in ("path", "vae", "adapter")):
        if path in zoo.names():
            yield path, zoo.digest(path)
        elif path is not None and Path(path).is_dir():
            yield path, folder_hash(Path(path))
        elif path is not None:
            yield path, _hub_commit(path)


def folder_hash(folder: Path) -> str:
    """Return a hash of all files below a folder, names included."""
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    return content_hash([(str(p.relative_to(folder)), _file_hash(p, *_stamp(p))) for p in files])


@lru_cache(maxsize=4096)
def _file_hash(path: Path, size: int, changed: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _stamp(path: Path) -> tuple[int, int]:
    return path.stat().st_size, path.stat().st_mtime_ns


def _hub_commit(name: str) -> str:
    """Return the downloaded revision of a hub id, or "absent"."""
    ref = Path(HF_HUB_CACHE) / f"models--{name.replace('/', '--')}" / "refs" / "main"
    return ref.read_text().strip() if ref.is_file() else "absent"


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from _strings(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _strings(inner)
