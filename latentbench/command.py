"""What all command lines share: what a user can mend is one sentence, not a traceback."""

import argparse
import json
import os
import sys
from collections.abc import Callable
from contextlib import nullcontext, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from latentbench.errors import BadInput, LatentbenchError
from latentbench.paths import place, user_path


def answered(run: Callable[[], int]) -> int:
    """Return a command's exit code; errors it expects, and the system's, are printed.

    Args:
        run: the command; returns its exit code.

    Returns:
        What it returned; 2 where its arguments are wrong, 1 where it failed, 130 where it was
        interrupted.

    Example:
        >>> answered(lambda: 0)
        0
    """
    try:
        return run()
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader has seen enough, as `head` has
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (LatentbenchError, OSError) as error:
        print(in_words(error), file=sys.stderr)
        return 2 if isinstance(error, BadInput) else 1


@dataclass(frozen=True)
class Answer:
    """What a command found.

    Args:
        document: JSON values, for programs.
        show: prints it for people.
        code: the exit code.
    """

    document: Any
    show: Callable[[], None]
    code: int = 0


JSON = argparse.ArgumentParser(add_help=False)  # a parent of every command's parser
JSON.add_argument("--json", action="store_true", help="print one JSON document, and nothing else")


def told(run: Callable[[], Answer], as_json: bool) -> int:
    """Tell a command's answer and return its exit code; see `answered`.

    As JSON, stdout holds the document alone: what else is printed goes to stderr.

    Args:
        run: the command.
        as_json: whether to print the document.

    Example:
        >>> told(lambda: Answer({"models": 2}, lambda: print("two models")), as_json=True)
        {
         "models": 2
        }
        0
    """

    def tell() -> int:
        with redirect_stdout(sys.stderr) if as_json else nullcontext():
            answer = run()
        if as_json:
            print(json.dumps(answer.document, indent=1, allow_nan=False))
        else:
            answer.show()
        return answer.code

    return answered(tell)


def in_words(error: Exception) -> str:
    """Return an error as its user reads it.

    Example:
        >>> in_words(FileNotFoundError(2, "No such file or directory", "/data/x"))
        '/data/x: No such file or directory'
    """
    if isinstance(error, OSError) and error.filename is not None:
        return f"{os.fspath(error.filename)}: {error.strerror}"
    return str(error) or type(error).__name__


def results_place(text: str) -> Path:
    """Return where results lie: a folder or an address; argparse says what is wrong with it."""
    try:
        return place(text, "--results")
    except BadInput as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def path(text: str) -> Path:
    """Return the path that an argument names; argparse says so when it is empty."""
    try:
        return user_path(text, "the path")
    except BadInput as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def count(text: str) -> int:
    """Return the whole number above zero that an argument gives.

    Example:
        >>> count("3")
        3
    """
    if not text.isdecimal() or not 1 <= int(text) <= 2**31:
        raise argparse.ArgumentTypeError(f"must be a whole number of 1 or more, got {text!r}")
    return int(text)


def folder_to_write(folder: Path, option: str) -> Path:
    """Return a folder, made now where it was missing, before any work is done for it.

    Args:
        folder: the folder.
        option: the argument that names it, for messages.

    Raises:
        BadInput: it is a file, or is below one.
        OSError: it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise BadInput(
            f"{option} must be a folder, and {folder} is a file or is below one"
        ) from None
    return folder
