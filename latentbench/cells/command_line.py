"""What a command line says, without loading anything heavy: wrong names, values, number of cells.

`check` reads the words before Hydra does. It compares names with conf/ and values with the
constructors as their source files have them, so that a slip costs seconds and no cell.
"""

import datetime
import math
import os
import secrets
import sys
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import yaml
from hydra import compose
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, MissingConfigException
from hydra.utils import get_class
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from latentbench import plugins
from latentbench.annotations import shown
from latentbench.cells.constructors import TARGET, Parameters, of_source, problems
from latentbench.cells.words import Command, Word, quoted, read_command, read_word
from latentbench.config import Results, RunConfig, Runtime, faults
from latentbench.errors import BadInput, WrongCommand, unknown
from latentbench.paths import remember_user_folder

RUN = "LATENTBENCH_RUN"  # variable that names this command's folder of notes, for its workers too
REFUSALS = (HydraException, OmegaConfBaseException, yaml.YAMLError, BadInput, OSError)
SECTIONS = {"runtime": Runtime, "results": Results}
HYDRA, LISTED = "hydra", "metric"  # roots of other kinds: Hydra's own, a list of options
ALONE = ("sweep",)  # groups without settings
HERE = "local"  # the launcher that needs no sweep


@dataclass
class Progress:
    """How far this command has come.

    Args:
        started: the config that it was started with; None before, and where it runs no cell.
        begun: whether a cell was begun.
    """

    started: DictConfig | None = None
    begun: bool = False


progress = Progress()


def begin(typed_in: Path) -> None:
    """Make ready for a command that was typed in a folder."""
    plugins.register()
    remember_user_folder(typed_in)
    name_run()


def name_run() -> None:
    """Give this command a folder of its own, even if another is started in the same second."""
    now = datetime.datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    os.environ[RUN] = f"{now}_{secrets.token_hex(4)}"


def count_cells(hydra: DictConfig) -> int:
    """Return how many cells a sweep has: the product of its choices."""
    given = {text.split("=", 1)[0]: text for text in hydra.overrides.task}
    lines = sweep_lines(hydra) | given
    parsed = OverridesParser.create().parse_overrides(list(lines.values()))
    return math.prod(len(list(o.sweep_string_iterator())) for o in parsed if o.is_sweep_override())


def ended_by(error: BaseException) -> int:
    """Say what ended a command; return the exit code.

    An error says that the command is wrong where it comes before any cell was begun.
    """
    if isinstance(error, KeyboardInterrupt):
        print("interrupted; finished cells and batches are kept: run it again", file=sys.stderr)
        return 130
    if not progress.begun and isinstance(error, REFUSALS):
        print(explain(error), file=sys.stderr)
        return 2
    traceback.print_exception(error)
    return 1


def explain(error: Exception) -> str:
    """Return what is wrong with a command: what `check` says, or in a line what Hydra says."""
    if isinstance(error, BadInput):
        return str(error)
    if isinstance(error, MissingConfigException) and error.missing_cfg_file and error.options:
        group, name = str(error.missing_cfg_file).rsplit("/", 1)
        return str(unknown(group, name, error.options))
    causes = [error] if error.__cause__ is None else [error, error.__cause__]
    texts = [" ".join(str(e).split("\n    full_key")[0].split()) for e in causes]
    return ": ".join(text for text in texts if text)


def check(arguments: Sequence[str]) -> Command:
    """Return what a command says; refuse one whose names or values are wrong.

    Args:
        arguments: the words behind the program's name.

    Raises:
        WrongCommand: one line for each thing that is wrong.
        HydraException: what only composing shows.
    """
    command = read_command(arguments)
    if command.plain:
        with plugins.conf():
            _refuse_all(_wrong_words(command))
            _refuse_all(_wrong_parts(command))
            _refuse_all(_wrong_launch(command))
    return command


def _refuse_all(found: Iterable[str]) -> None:
    lines = list(dict.fromkeys(found))
    if lines:
        raise WrongCommand("\n".join(lines))


# ---------------------------------------------------------------- names


def _wrong_words(command: Command) -> Iterator[str]:
    """Yield what is wrong with the words alone."""
    groups = _groups()
    yield from _said_twice(command.words)
    for word in command.words:
        if word.root.split("/")[0] == HYDRA:
            continue
        if word.root not in {*groups, *_roots()}:
            yield str(unknown("setting", word.key, {*groups, *_roots()}))
        elif word.prefix == "~":
            yield _taken_away(word)
        elif len(word.values) > 1 and not command.many:
            yield _ambiguous(word)
        elif word.root in groups:
            yield from _wrong_choice(word, command.many)
        elif word.root in SECTIONS and not word.names:
            known = ", ".join(f"{word.root}.{f.name}" for f in fields(SECTIONS[word.root]))
            yield f"{word.key} holds several settings; set one of {known}"
        else:
            yield from _wrong_values(word)


def _said_twice(words: Sequence[Word]) -> Iterator[str]:
    """Yield the settings that are given two values, of which the last would count."""
    said: dict[str, list[str]] = {}
    for word in words:
        said.setdefault(word.key, []).append(word.text)
    for key, texts in said.items():
        if len(set(texts)) > 1:
            yield f"{key} is set by {' and '.join(dict.fromkeys(texts))}; leave all but one out"


def _roots() -> set[str]:
    return {f.name for f in fields(RunConfig)}


def _taken_away(word: Word) -> str:
    instead = f"{word.key}=none" if word.key == "tracker" else f"{word.key}=VALUE"
    return f"{word.text} takes something away that a cell needs; write {instead}"


def _ambiguous(word: Word) -> str:
    whole = word.text.partition("=")[2]
    return f"{word.text} names several values; add -m to run each, or write one text in quotes: "\
           f"{quoted(word.key, whole)}"  # fmt: skip


def _wrong_choice(word: Word, many: bool) -> Iterator[str]:
    """Yield what is wrong with a word that chooses an option of a group."""
    if word.names:
        if word.root in ALONE:
            yield f"{word.root} has no settings; write {word.root}=NAME"
        return
    options = _loader().get_group_options(word.root)
    if word.prefix:
        yield f"{word.text}: {word.root} has a choice already; write {word.text.lstrip('+')}"
    for value in word.values:
        names = value if isinstance(value, list) and word.root == LISTED else [value]
        if not names:
            yield f"{word.text} leaves nothing to measure; name at least one metric"
        for name in names:
            if not isinstance(name, str) or not name:
                none = "; none is off" if "none" in options else ""
                yield f"{word.root} must be the name of an option; got {shown(name)}{none}; "\
                      f"known: {', '.join(options)}"  # fmt: skip
            elif name not in options:
                yield str(unknown(word.root, name, options))
            elif names.count(name) > 1:
                yield f"{word.text} names {name} twice; name each {word.root} once"
    if word.key == "sweep" and not many and word.values != ("none",):
        yield f"{word.text} names many cells; add -m"
    if word.key == "launch" and len(word.values) > 1:
        yield f"{word.text}: a command has one launcher; write launch=NAME"
    elif word.key == "launch" and not many and word.values != (HERE,):
        yield f"{word.text} starts workers for the cells of a sweep; add -m"


def _wrong_values(word: Word) -> Iterator[str]:
    """Yield what is wrong with a word on `seed`, `runtime` or `results`."""
    for value in word.values:
        nested = value
        for name in reversed(word.names):
            nested = {name: nested}
        yield from faults({word.root: nested})


# ---------------------------------------------------------------- parts


@dataclass(frozen=True)
class _Part:
    """An option that a command chooses: its settings, and what its constructor takes."""

    settings: Mapping[str, Any]
    parameters: Parameters


def _wrong_parts(command: Command) -> Iterator[str]:
    """Yield what is wrong with the settings of all parts that the command runs."""
    words = [*command.words, *_words_of_sweep(command)]
    choices = [word for word in words if not word.names and word.root in _groups()]
    config = compose("config", [word.alternatives[0] for word in choices if word.alternatives])
    typed = OmegaConf.masked_copy(config, ["seed", *SECTIONS])
    values: Any = OmegaConf.to_container(typed, resolve=True, enum_to_str=True)
    yield from faults(values)
    settings = [word for word in words if word.names]
    changing = any(len(w.values) > 1 for w in choices if w.root in ("benchmark", LISTED))
    own = [word for word in settings if word.root == LISTED]
    yield from _wrong_metrics(config.metric, own, changing)
    for group in _groups() - {LISTED, *ALONE}:
        own = [word for word in settings if word.root == group]
        yield from _wrong_settings(group, _chosen(group, config, choices), own)


def _wrong_launch(command: Command) -> Iterator[str]:
    """Yield why the chosen launcher cannot start: what it needs is not there."""
    words = [*command.words, *_words_of_sweep(command)]
    if all(word.root != "launch" for word in words):
        return
    own = [word for word in words if word.root in ("launch", "runtime") and word.alternatives]
    config = compose("config", [word.alternatives[0] for word in own])
    settings: Any = OmegaConf.to_container(config.launch, resolve=True)
    if TARGET in settings:
        yield from get_class(settings.pop(TARGET))(**settings).faults(str(config.runtime.device))


def _words_of_sweep(command: Command) -> list[Word]:
    """Return what a named sweep sets and the command line does not."""
    named = [word.text for word in command.words if word.key == "sweep"]
    if not named:
        return []
    hydra = compose("config", named[-1:], return_hydra_config=True).hydra
    given = {word.key for word in command.words}
    return [read_word(line) for key, line in sweep_lines(hydra).items() if key not in given]


def _chosen(group: str, config: DictConfig, choices: Sequence[Word]) -> list[_Part | None]:
    """Return the options of a group that a command runs."""
    names = next((word.values[1:] for word in choices if word.key == group), ())
    more = [f"+{group}@{group}.{name}={name}" for name in names]
    others = compose(plugins.EMPTY, more)[group].values() if more else ()
    return [_part(part) for part in (config.get(group), *others)]


def _part(config: Any) -> _Part | None:
    """Return what is known of an option; None for one that is off, or that its source hides."""
    if not isinstance(config, DictConfig) or not config.get(TARGET):
        return None
    settings: Any = OmegaConf.to_container(config)
    parameters = of_source(settings[TARGET])
    return None if parameters is None else _Part(settings, parameters)


def _wrong_metrics(
    measured: Mapping[str, Any], words: Sequence[Word], changing: bool
) -> Iterator[str]:
    """Yield what is wrong with settings of metrics: "metric.kid.seed=1" sets kid's seed.

    Args:
        measured: the metrics that are measured.
        words: the settings.
        changing: some cells of the sweep measure others.
    """
    known = _loader().get_group_options(LISTED)
    for word in words:
        name, added = word.names[0], len(word.names) == 1 and word.prefix
        if name not in known and not added:
            yield str(unknown(LISTED, name, known))
        elif name not in measured and not added and not changing:
            there = ",".join(map(str, measured))
            yield f"{word.text}: {name} is not measured; write {LISTED}=[{there},{name}]"
    for name, metric in measured.items():
        own = [word for word in words if word.names[0] == name]
        inner = [replace(word, key=".".join([LISTED, *word.names[1:]])) for word in own]
        yield from _wrong_settings(f"{LISTED}.{name}", [_part(metric)], inner)


def _wrong_settings(
    name: str, parts: Sequence[_Part | None], words: Sequence[Word]
) -> Iterator[str]:
    """Yield what is wrong with settings of the chosen options of a group."""
    known = [part for part in parts if part is not None]
    for part in known:
        own = []
        for word in words:
            setting, *inner = word.names
            if inner:
                if not isinstance(part.settings.get(setting), Mapping):
                    yield f"{word.key}: {name}.{setting} has no settings of its own"
            elif setting in part.parameters or all(setting not in p.parameters for p in known):
                own.append(word)
            elif word.prefix != "++":
                yield _not_everyones(word)
        yield from _wrong_values_of(name, part, own)


def _wrong_values_of(name: str, part: _Part, words: Sequence[Word]) -> Iterator[str]:
    given = {**part.settings, **{w.names[0]: w.values[0] for w in words if w.values}}
    yield from problems(name, given, part.parameters)
    for setting, value in ((w.names[0], value) for w in words for value in w.values[1:]):
        yield from problems(name, {**given, setting: value}, part.parameters)


def _not_everyones(word: Word) -> str:
    return (
        f"{word.key} is not a setting that every {word.root} has; in a sweep over {word.root}, "
        f"write ++{word.key}=..., which gives it to those that have it"
    )


def _groups() -> set[str]:
    """Return the groups of which a command chooses an option."""
    return set(_loader().list_groups("")) & {*_roots(), *ALONE}


def _loader() -> Any:
    return GlobalHydra.instance().config_loader()


def sweep_lines(hydra: DictConfig) -> dict[str, str]:
    """Return what a named sweep varies, as words."""
    params = hydra.sweeper.get("params") or {}
    return {str(key): f"{key}={value}" for key, value in params.items()}
