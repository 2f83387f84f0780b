"""The words of a command, read one by one: what each sets, and which quotes it lacks."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, NoReturn

from hydra._internal.utils import get_args_parser
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, ValueType
from hydra.errors import HydraException

from latentbench.errors import WrongCommand

OWN_ROOT = ("config_name", "config_path", "config_dir", "experimental_rerun")
SHOWS = ("help", "hydra_help", "shell_completion", "info")


@dataclass(frozen=True)
class Word:
    """One word of a command, such as ``method.steps=10,20``.

    Args:
        text: as it was typed.
        prefix: "", "+", "++" or "~".
        key: what it sets, "method.steps".
        values: what it sets it to; several in a sweep, none where they cannot be listed.
        alternatives: the words of one value each that it means.
    """

    text: str
    prefix: str
    key: str
    values: tuple[Any, ...] = ()
    alternatives: tuple[str, ...] = ()

    @property
    def root(self) -> str:
        """What comes before the first dot."""
        return self.key.split(".")[0]

    @property
    def names(self) -> list[str]:
        """What comes after it."""
        return self.key.split(".")[1:]


@dataclass(frozen=True)
class Command:
    """A command line.

    Args:
        words: what it sets.
        many: it runs a sweep (`-m`).
        plain: it runs cells, or shows their config, from this suite's own root: it can be checked.
    """

    words: tuple[Word, ...]
    many: bool
    plain: bool

    @property
    def dry(self) -> bool:
        """Whether it only asks what would run."""
        return any(word.key == "launch.dry" and word.values == (True,) for word in self.words)


def read_command(arguments: Sequence[str]) -> Command:
    """Return what a command line says.

    Raises:
        WrongCommand: an unknown flag, or a word that cannot be read; says which quotes it needs.

    Example:
        >>> read_command(["-m", "method=lerp,slerp"]).words[0].values
        ('lerp', 'slerp')
    """
    parser = get_args_parser()
    parser.error = _refuse_flags
    given = parser.parse_args(list(arguments))
    shown = [f"--{n}" for n in ("cfg", "info", "run", "multirun") if getattr(given, n)]
    if len(shown) > 1:
        raise WrongCommand(
            f"{' and '.join(shown)} do not go together; leave all but one of them out"
        )
    plain = not any(getattr(given, name) for name in (*OWN_ROOT, *SHOWS))
    words = tuple(read_word(text) for text in given.overrides) if plain else ()
    return Command(words, given.multirun, plain)


def read_word(text: str) -> Word:
    """Return what one word sets.

    Raises:
        WrongCommand: it cannot be read; says which quotes it needs.

    Example:
        >>> read_word("~model.steps").prefix, read_word("seed=3").values
        ('~', (3,))
    """
    if "=" not in text and not text.startswith("~"):
        raise WrongCommand(f"{text!r} sets nothing; write NAME=VALUE, as in method=slerp")
    try:
        found = _parser().parse_override(text)
    except HydraException:
        raise WrongCommand(_unreadable(text)) from None
    prefix = "~" if found.is_delete() else "+" * (found.is_add() + 2 * found.is_force_add())
    key = found.get_key_element().lstrip("+~")
    if found.is_delete():
        return Word(text, prefix, key)
    if not found.is_sweep_override():
        return Word(text, prefix, key, (found.value(),), (text,))
    alternatives = tuple(f"{prefix}{key}={value}" for value in _listed(found))
    values = tuple(_parser().parse_override(one).value() for one in alternatives)
    return Word(text, prefix, key, values, alternatives)


def quoted(key: str, value: str) -> str:
    """Return a word that sets a text, quoted for Hydra and for the shell.

    Example:
        >>> print(quoted("dataset.path", "/a(b)"))
        'dataset.path="/a(b)"'
    """
    escaped = value.replace("\\", "\\\\") if value.endswith("\\") else value
    return shlex.quote(f'{key}="{escaped.replace(chr(34), chr(92) + chr(34))}"')


@cache
def _parser() -> OverridesParser:
    return OverridesParser.create()


def _listed(found: Override) -> list[str]:
    """Return the values of a sweep; none for an interval or a glob, which others list."""
    glob = found.value_type is ValueType.GLOB_CHOICE_SWEEP
    listed = found.is_discrete_sweep() and not glob
    return list(found.sweep_string_iterator()) if listed else []


def _unreadable(text: str) -> str:
    """Return why a word cannot be read, with the quotes that would make it readable."""
    key, _, value = text.partition("=")
    if not key.lstrip("+~"):
        return f"{text!r} names no setting; write NAME=VALUE, as in method=slerp"
    bare = value.strip("'\"")
    for attempt in (value, bare) if value[:1] not in ("'", '"') else (bare, value):
        try:
            readable = _parser().parse_override(shlex.split(quoted(key, attempt))[0])
        except HydraException:
            continue
        if readable.value() == attempt:
            return f"{text!r} cannot be read; put its value in quotes: {quoted(key, attempt)}"
    return f"{text!r} cannot be read; write NAME=VALUE, as in method=slerp"


def _refuse_flags(message: str) -> NoReturn:
    raise WrongCommand(
        f"{message}; settings are written NAME=VALUE, flags are listed by --hydra-help"
    )
