"""What there is to choose from: the yamls in conf/ and in plug-ins, with their classes.

An option that is broken (a yaml that cannot be read, a class that cannot be imported) is a fault of
its own: its error is shown to those who ask for it and by `latentbench list`; no other option
changes.
"""

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import takewhile
from typing import Any

from hydra import compose
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf

from latentbench import plugins
from latentbench.benchmark import Benchmark
from latentbench.cells.constructors import FACTS
from latentbench.data.dataset import Dataset
from latentbench.editor import Editor
from latentbench.errors import BadInput, unknown
from latentbench.metric import Metric
from latentbench.model import LatentModel
from latentbench.option import Option
from latentbench.paths import CHECKOUT

BASES: Mapping[str, type[Any]] = {
    "benchmark": Benchmark,
    "method": Editor,
    "model": LatentModel,
    "dataset": Dataset,
    "metric": Metric,
}

LIGHT = ("benchmark", "metric")  # groups whose options are built for what they say of themselves


@functools.cache
def options(group: str) -> Mapping[str, Option]:
    """Return every choice of a group by name, broken ones too; no class is imported."""
    with plugins.conf():
        names = sorted(GlobalHydra.instance().config_loader().get_group_options(group))
        composed = _each(group, names)
    return {name: _read(name, composed[name]) for name in names}


def option(group: str, name: str) -> Option:
    """Return one choice of a group.

    Raises:
        BadInput: no such choice; the message lists those there are.
    """
    known = options(group)
    if name not in known:
        raise unknown(group, name, known)
    return known[name]


def sound(group: str, packages: Iterable[str] | None = None) -> Mapping[str, Option]:
    """Return the choices of a group that are not broken.

    Args:
        group: such as "method".
        packages: only choices whose class comes from one of these; None: all.
    """
    wanted = None if packages is None else set(packages)
    some = {n: o for n, o in options(group).items() if wanted is None or o.package in wanted}
    return {name: one for name, one in some.items() if not fault(group, one)}


def fault(group: str, one: Option) -> str:
    """Return why a choice is broken, or an empty string."""
    base = BASES.get(group, object)
    try:
        if not issubclass(one.cls, base):
            return f"{one.name} is broken: {one.target} is not a {base.__name__}"
        if group in LIGHT:
            one.build()
    except BadInput as error:
        return str(error)
    except Exception as error:
        return f"{one.name} is broken: {one.target}: {type(error).__name__}: {error}"
    return ""


def _each(group: str, names: Sequence[str]) -> dict[str, DictConfig | str]:
    """Return the settings of each choice, or why it has none."""
    found = _or_fault(lambda: _composed(group, names)) if names else {}  # at once: it is slow
    if not isinstance(found, str):
        return found
    half = len(names) // 2  # one of them is broken; which?
    if not half:
        return {names[0]: found}
    return _each(group, names[:half]) | _each(group, names[half:])


def _composed(group: str, names: Sequence[str]) -> dict[str, DictConfig]:
    choices = [f"+{group}@{group}.{name}={name}" for name in names]  # each under its own name
    if group == "metric":  # whose yamls say so themselves
        choices = [f"metric=[{','.join(names)}]"]
    found = compose(plugins.EMPTY, choices)[group]
    # each as in a cell, where it is alone under its group
    return {name: OmegaConf.create({group: found[name]})[group] for name in names}


def _read(name: str, config: DictConfig | str) -> Option:
    found = config if isinstance(config, str) else _or_fault(lambda: _plain(config))
    if isinstance(found, str):
        return Option(name, "", {}, found)
    return Option(name, str(found.pop("_target_")), found)


def _plain(config: DictConfig) -> dict[str, Any]:
    given: Any = OmegaConf.to_container(config, resolve=True)
    if "_target_" not in given:
        raise BadInput("its yaml has no _target_")
    return {str(k): None if v == "???" else v for k, v in given.items() if k not in FACTS}


def heading(group: str, name: str) -> str:
    """Return what the comment at the head of an option's yaml says, in one line.

    Args:
        group: folder of conf/.
        name: of the option; one of a plug-in has no file here, and gives an empty string.
    """
    file = CHECKOUT / "conf" / group / f"{name}.yaml"
    text = file.read_text(encoding="utf-8") if file.is_file() else ""
    lines = takewhile(lambda line: line.startswith("#"), text.splitlines())
    return " ".join(line.lstrip("# ") for line in lines if "@package" not in line)


def _or_fault(make: Callable[[], Any]) -> Any:
    """Return what `make` returns, or its error in one line."""
    try:
        return make()
    except Exception as error:
        return f"{type(error).__name__}: {' '.join(str(error).split())}"
