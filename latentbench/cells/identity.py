"""The identity of a cell: all that decides its scores."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from latentbench import weights as zoo
from latentbench.cells.constructors import OFF
from latentbench.cells.parts import Part

VERSION = 4  # raised when a fix in the runner changes figures
LOADED = ("path", "vae", "adapter", "controlnet")  # settings that name weights of a model


def identity(
    chosen: Mapping[str, Part],
    others: Mapping[str, Part],
    scored: Mapping[str, Part],
    seed: int,
    data: str,
) -> dict[str, Any]:
    """Return what a cell's id is a hash of, as JSON values.

    Args:
        chosen: benchmark, method, model and data set.
        others: the other parts that benchmark and method name, as "method.setting".
        scored: the metrics that are switched on.
        seed: the seed.
        data: fingerprint of the data set's content.
    """
    filled: dict[str, Any] = {group: _on(part.settings, part.cls) for group, part in chosen.items()}
    filled |= {"metric": {name: part.settings for name, part in scored.items()}, "seed": seed}
    filled |= {"others": {name: _on(part.given, part.cls) for name, part in others.items()}}
    classes = [part.cls for part in [*chosen.values(), *scored.values()]]
    fixed = {name for c in classes for name in getattr(c, "fixed_networks", ())}
    classes += [part.cls for part in others.values()]
    loaded = [chosen["model"].settings, *(part.given for part in others.values())]
    versions = {f"{c.__module__}.{c.__qualname__}": c.version for c in classes}
    weights = weights_of(filled, loaded, fixed)
    return {
        "config": filled,
        "versions": {"latentbench": VERSION, **versions},
        "weights": {name: zoo.hash_of(name) for name in weights},
        "data": data,
    }


def weights_of(
    config: Mapping[str, Any], loaded: Sequence[Mapping[str, Any]], fixed: Collection[str] = ()
) -> list[str]:
    """Return the names of all weights of a cell: embedded ones, folders, ids of a hub.

    Args:
        config: the settings of all parts.
        loaded: settings of the parts that load a checkpoint.
        fixed: embedded networks that a part uses whatever its settings.
    """
    texts = {*_strings({k: v for k, v in config.items() if k != "model"}), *fixed}
    paths = (settings.get(key) for settings in loaded for key in LOADED)
    return [*sorted(texts & {*zoo.names()}), *(path for path in paths if path is not None)]


def _on(settings: Mapping[str, Any], cls: type[Any]) -> dict[str, Any]:
    """Return settings without those that are off, so that older cells keep their ids."""
    off = {**dict.fromkeys(OFF), **getattr(cls, "neutral", {})}
    return {k: v for k, v in settings.items() if k not in off or v != off[k]}


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from _strings(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _strings(inner)
