"""Paths that a user or a table names: where they start from, and what they must not leave."""

import os
import re
from pathlib import Path, PurePosixPath
from typing import Any, cast

from latentbench.errors import BadInput

USER_FOLDER = "LATENTBENCH_USER_FOLDER"  # the folder in which the command was typed
CHECKOUT = Path(__file__).resolve().parents[1]


def remember_user_folder(folder: Path) -> None:
    """Keep the folder in which the command was typed, for this process and all that it starts.

    The runner, which changes to the checkout, notes here where it came from. A worker that starts
    in the checkout keeps what the runner noted.
    """
    if folder != CHECKOUT or USER_FOLDER not in os.environ:
        os.environ[USER_FOLDER] = str(folder)


def user_folder() -> Path:
    """Return the folder in which the command was typed; in a library's use the current one."""
    return Path(os.environ.get(USER_FOLDER) or Path.cwd())


def user_path(given: object, setting: str) -> Path:
    """Return the absolute path that a setting names, seen from where the user is.

    Args:
        given: the path; `~` is the user's home, a relative path starts from `user_folder`.
        setting: its name, for messages ("dataset.path").

    Raises:
        BadInput: no text, an empty text, or the home of an unknown user.

    Example:
        >>> user_path("/data/./photos", "dataset.path").as_posix()
        '/data/photos'
    """
    if not isinstance(given, str | os.PathLike):
        raise BadInput(
            f"{setting} must be a path, got {given!r}; "
            f"write a name of digits alone in quotes: \"{setting}='2024'\""
        )
    text = os.fspath(given)
    if not str(text).strip() or "\0" in str(text):
        raise BadInput(
            f"{setting} is empty, got {text!r}; give a path (is a shell variable in it unset?)"
        )
    if is_address(text):
        raise BadInput(
            f"{setting}={text} is an address; only results.dir and results.cache may lie at one"
        )
    try:
        return user_folder() / Path(text).expanduser()
    except RuntimeError as error:
        raise BadInput(f"{setting}={text}: {error}; write the whole path") from error


def is_address(given: object) -> bool:
    """Return whether a text names a place by a protocol of fsspec: ``s3://bucket/results``."""
    return isinstance(given, str) and "://" in given


def place(given: object, setting: str) -> Path:
    """Return where results or a cache lie: a folder, or an address of an object store.

    An address comes as a `upath.UPath`, which is read, listed and taken apart as a `Path` is, and
    written through `latentbench.store`.

    Args:
        given: a path, see `user_path`, or an address such as ``s3://bucket/results``.
        setting: its name, for messages.

    Raises:
        BadInput: see `user_path`; no such protocol, or its driver is not installed.

    Example:
        >>> place("memory://results/may", "results.dir").name
        'may'
        >>> place("file:///data/results", "results.dir").as_posix()
        '/data/results'
    """
    if not is_address(given):
        return user_path(given, setting)
    import upath  # late: most commands need no object store

    try:
        found: Any = upath.UPath(str(given))
        files = found.fs
    except (ValueError, ImportError) as error:
        raise BadInput(f"{setting}={given} cannot be used: {error}") from error
    if found.protocol in ("file", "local"):
        return user_path(found.path, setting)
    files.dircache.use_listings_cache = False  # other processes write there too
    return cast("Path", found)


def on_this_machine(results: Path) -> Path:
    """Return where what stays here lies, such as logs: beside the records, or in the checkout.

    Args:
        results: what `place` returned.

    Example:
        >>> on_this_machine(place("memory://bucket/may", "results.dir")).name
        'memory_bucket_may'
    """
    if isinstance(results, Path):
        return results
    return CHECKOUT / "results" / re.sub(r"\W+", "_", str(results))


def escape(folder: Path, name: object, links: bool = False) -> str:
    """Return how a file's name leads out of a folder, in words, or an empty string.

    Args:
        folder: the folder, resolved.
        name: path within it, as a table gives it.
        links: accept links that lead out of the folder.

    Example:
        >>> escape(Path("/data"), "../secret.png")
        'the name leads out of the folder by ".."'
        >>> escape(Path("/data"), "a/b.png")
        ''
    """
    if not isinstance(name, str) or not name.strip() or "\0" in name or not is_utf8(name):
        return f"{name!r} is not the name of a file"
    pure = PurePosixPath(name)
    if pure.is_absolute():
        return "the name is an absolute path"
    if ".." in pure.parts:
        return 'the name leads out of the folder by ".."'
    return "" if links else leading_out(folder, folder / name)


def is_utf8(name: str) -> bool:
    """Return whether a name can be written as UTF-8; names of files may hold any bytes."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def leading_out(folder: Path, path: Path) -> str:
    """Return where a path below a folder leads by links, in words; empty when it stays inside.

    Args:
        folder: the folder, resolved.
        path: what is to be read.
    """
    target = Path(os.path.realpath(path))
    inside = target.is_relative_to(allowed_root(folder))
    return "" if inside else f"it is a link out of the folder, to {target}"


def allowed_root(folder: Path) -> Path:
    """Return the folder that links may lead to: itself, or the hub's cache that it is a view of."""
    views = (p.parent for p in folder.parents if p.name == "snapshots")
    return next((view for view in views if (view / "blobs").is_dir()), folder)
