"""The identity of a cell: all that decides its scores."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from omegaconf import DictConfig

from latentbench import weights as zoo
from latentbench.cells.others import named_by
from latentbench.cells.parts import part_class, settings
from latentbench.data.dataset import Dataset
from latentbench.option import Option
from latentbench.records import GROUPS

VERSION = 4  # raised when a fix in the runner changes figures


def identity(config: DictConfig, dataset: Dataset, metrics: Sequence[str]) -> dict[str, Any]:
    """Return what a cell's id is a hash of, as JSON values.

    Args:
        config: the composed config.
        dataset: the data set, for the fingerprint of its content.
        metrics: names of the metrics that are switched on.
    """
    chosen = {group: config[group] for group in GROUPS}
    scored = {name: config.metric[name] for name in sorted(metrics)}
    filled: dict[str, Any] = {group: settings(part) for group, part in chosen.items()}
    others = _others(chosen, filled)
    classes = [part_class(part) for part in [*chosen.values(), *scored.values()]]
    fixed = {name for c in classes for name in getattr(c, "fixed_networks", ())}
    classes += [other.cls for other in others.values()]
    models = {"model": filled["model"]} | {k: other.config for k, other in others.items()}
    filled |= {"metric": {n: settings(p) for n, p in scored.items()}, "seed": config.seed}
    filled |= {"others": {k: {"_target_": o.target, **o.config} for k, o in others.items()}}
    return {
        "config": filled,
        "versions": {"latentbench": VERSION}
        | {f"{c.__module__}.{c.__qualname__}": c.version for c in classes},
        "weights": dict(weights_of(filled, list(models.values()), fixed)),
        "data": dataset.fingerprint(),
    }


def _others(chosen: Mapping[str, DictConfig], filled: Mapping[str, Any]) -> dict[str, Option]:
    """Return the other parts that method and benchmark name, as "method.setting"."""
    return {
        f"{group}.{name}": other
        for group in ("benchmark", "method")
        for name, other in named_by(part_class(chosen[group]), filled[group]).items()
    }


def weights_of(
    config: Mapping[str, Any], models: Sequence[Mapping[str, Any]], fixed: Collection[str] = ()
) -> Iterator[tuple[str, str]]:
    """Yield (name, hash) of all weights of a cell: embedded, in a folder, or of a hub.

    Args:
        config: the settings of all parts.
        models: settings of the parts that load a checkpoint.
        fixed: embedded networks that a part uses whatever its settings.
    """
    for text in sorted({*_strings({k: v for k, v in config.items() if k != "model"}), *fixed}):
        if text in zoo.names():
            yield text, zoo.digest(text)
    for path in (model.get(key) for model in models for key in ("path", "vae", "adapter")):
        if path is not None:
            yield path, zoo.hash_of(path)


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from _strings(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _strings(inner)
