"""The configs of all cells of a command, put together from parts that are composed once each.

Hydra composes a whole config per cell, which takes minutes for a thousand. The settings of a group
depend on the words about that group alone, so that a sweep over ten models and twenty methods needs
thirty compositions. `tests/unit/cells/test_composing.py` holds the result against Hydra's own.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from hydra import compose
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf, open_dict

from latentbench.cells.command_line import sweep_lines
from latentbench.cells.sweep import changes_a_part, without_foreign
from latentbench.cells.words import read_command
from latentbench.config import IDENTITY

GROUPS = ("benchmark", "method", "model", "dataset", "metric", "tracker", "launch")
SURROUNDINGS = ("seed", "runtime", "results")
SEED = re.compile("seed=(0|[1-9][0-9]*)")  # a word that needs no composing
Words = tuple[str, ...]


@dataclass(frozen=True)
class Piece:
    """A group of a cell's config, which other cells may share.

    Args:
        config: as Hydra would compose it.
        name: the chosen option.
        plain: JSON values of what a cell is given of it.
        refers: whether these refer to other groups, or to something outside the config.
        settings: the words that set something of it besides its choice, as a record has them.
    """

    config: Any
    name: str
    plain: Any
    refers: bool
    settings: Words

    @classmethod
    def of(cls, whole: DictConfig, group: str, words: Sequence[str]) -> "Piece":
        """Return a group of a whole config, which was composed from these words among others."""
        own = [word for word in words if _root(word) == group and changes_a_part(word)]
        given, settings = without_foreign(OmegaConf.masked_copy(whole, [group]), own)
        plain: Any = OmegaConf.to_container(given, enum_to_str=True)
        name = str(whole.hydra.runtime.choices.get(group, ""))
        return cls(whole[group], name, plain[group], _interpolates(plain), tuple(settings))


@dataclass(frozen=True)
class Composed:
    """One cell of a command.

    Args:
        pieces: its groups.
        rest: a config with its surroundings, but for the seed.
        seed: the seed.
        words: the words that it was composed from.
    """

    pieces: Mapping[str, Piece]
    rest: DictConfig
    seed: int
    words: Words

    @property
    def names(self) -> dict[str, str]:
        """Group -> chosen option."""
        return {group: piece.name for group, piece in self.pieces.items()}

    @property
    def settings(self) -> list[str]:
        """The words that set something of a part besides the choices."""
        return [word for word in self.words if changes_a_part(word)]

    @cached_property
    def config(self) -> DictConfig:
        """The config, as Hydra would compose it."""
        config = OmegaConf.masked_copy(self.rest, list(SURROUNDINGS))
        config.seed = self.seed
        with open_dict(config):
            for group, piece in self.pieces.items():
                config[group] = piece.config
        return config

    @property
    def given(self) -> dict[str, Any] | None:
        """What its id depends on, besides code and weights; None where only `config` can tell."""
        pieces = {group: self.pieces[group] for group in IDENTITY if group != "seed"}
        if any(piece.refers for piece in pieces.values()):
            return None
        return {group: piece.plain for group, piece in pieces.items()} | {"seed": self.seed}


def cells_of(arguments: Sequence[str]) -> Iterator[Composed]:
    """Yield the cells of a command in the order in which a sweep has them; within `plugins.conf`.

    Args:
        arguments: the words behind the program's name, checked by `command_line.check`.
    """
    words = [word.text for word in read_command(arguments).words]
    named = [word for word in words if word.startswith("sweep=")]
    hydra = compose("config", named[-1:], return_hydra_config=True).hydra
    parsed = OverridesParser.create().parse_overrides([*sweep_lines(hydra).values(), *words])
    jobs = BasicSweeper.split_arguments(parsed, None)[0]
    return put_together(jobs, lambda own: compose("config", own, return_hydra_config=True))


def put_together(
    jobs: Sequence[Sequence[str]], whole: Callable[[list[str]], DictConfig]
) -> Iterator[Composed]:
    """Yield the cells of a sweep's jobs; one is composed whole if it has a piece that none had.

    Args:
        jobs: the words of each.
        whole: gives the whole config of some words, with Hydra's own part.
    """
    pieces: dict[tuple[str, Words], Piece] = {}
    rests: dict[Words, DictConfig] = {}
    for job in jobs:
        words = tuple(job)
        keys = _keys(words)
        seeds = [found for word in words if (found := SEED.fullmatch(word))]
        rest = tuple(word for word in words if not (_root(word) in GROUPS or SEED.fullmatch(word)))
        if rest not in rests or any(key not in pieces for key in keys.items()):
            config = whole(list(words))
            rests.setdefault(rest, config)
            for group, own in keys.items():
                if (group, own) not in pieces:
                    pieces[group, own] = Piece.of(config, group, own)
        yield Composed(
            {group: pieces[group, own] for group, own in keys.items()},
            rests[rest],
            int(seeds[-1][1]) if seeds else rests[rest].seed,
            words,
        )


def _keys(words: Words) -> dict[str, Words]:
    """Return group -> the words on which its settings depend."""
    by_root: dict[str, Words] = {}
    for word in words:
        by_root[_root(word)] = (*by_root.get(_root(word), ()), word)
    whole = by_root.get("sweep", ())
    own = {group: (*whole, *by_root.get(group, ())) for group in GROUPS}
    return own | {"metric": own["benchmark"] + own["metric"]}  # chosen by a benchmark, or a user


def _interpolates(value: Any) -> bool:
    """Return whether a value refers to another, or to something outside the config."""
    if isinstance(value, Mapping):
        return any(map(_interpolates, value.values()))
    if isinstance(value, list):
        return any(map(_interpolates, value))
    return isinstance(value, str) and "${" in value


def _root(word: str) -> str:
    return word.lstrip("+~").partition("=")[0].split(".")[0]
