"""Everything kept is written and read here: whole or not at all, durable, under its own seal.

A place is a folder, or an address of an object store (`paths.place`). There an object is put whole:
S3 and Google's and Azure's stores show all of it or none. On a store that does not (a folder over
sftp), a reader can meet half a file, which does not fit its seal.

A sealed file holds its key and a hash over key and body. What was damaged, cut, or copied over from
elsewhere does not fit its seal: it is reported, removed, and made again when it is asked for.
"""

import contextlib
import hashlib
import json
import logging
import os
import secrets
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from latentbench.processes import Process, current

log = logging.getLogger(__name__)
MARK = b"latentbench sealed 1"
UNFINISHED = ".tmp"
DAY = 86400.0  # seconds after which another machine's unfinished file counts as abandoned
NOT_KEPT = "what it lacks is computed and not kept"  # consequence for a cache
_reported: set[Path] = set()


def write(path: Path, data: bytes) -> str:
    """Write a file so that a reader sees all of it or none, even after a power cut.

    Returns:
        The sha256 of the data, for a seal over this file.

    Raises:
        OSError: it cannot be written; nothing is left behind.
    """
    if not isinstance(path, Path):
        _put(path, data)
        return hashlib.sha256(data).hexdigest()
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_leftovers(path.parent)
    unfinished = path.with_name(_unfinished_name(path.name, current()))
    try:
        with unfinished.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            unfinished.unlink(missing_ok=True)
        raise
    _sync(path.parent)
    return hashlib.sha256(data).hexdigest()


def create(path: Path, data: bytes) -> None:
    """Write a file that is not there yet; of several processes, one does.

    Raises:
        FileExistsError: it is there.
        OSError: it cannot be written.
    """
    if not isinstance(path, Path):
        try:
            _put(path, data, mode="create")
        except OSError as error:  # which one, drivers do not agree on
            if path.exists():
                raise FileExistsError(str(path)) from error
            raise
        return
    with path.open("xb") as file:
        file.write(data)


def remove_folder(folder: Path) -> None:
    """Remove a folder and all that is in it, as far as that can be done."""
    if isinstance(folder, Path):
        shutil.rmtree(folder, ignore_errors=True)
        return
    with contextlib.suppress(OSError), _as_os_errors(folder):
        folder.fs.rm(folder.path, recursive=True)


def write_sealed(path: Path, key: str, body: bytes) -> None:
    """Write a body under its key, with a hash over both.

    Raises:
        OSError: see `write`.
    """
    write(path, b"\n".join((MARK, _seal(key, body), json.dumps(key).encode(), body)))


def read_sealed(path: Path, key: str) -> bytes | None:
    """Return the body that was written under this key, or None where there is none that is whole.

    A file that is damaged or holds another key's body is reported and removed.
    """
    try:
        with _as_os_errors(path):
            data = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        log.warning("%s cannot be read (%s); what it held is made again", path, error)
        return None
    mark, *rest = data.split(b"\n", 3)
    if mark == MARK and len(rest) == 3 and rest[0] == _seal(key, rest[2]):
        return rest[2]
    discard(path, "is damaged, or a copy of another file")
    return None


def discard(path: Path, why: str) -> None:
    """Report a file that cannot be used, and remove it."""
    log.warning("%s %s; what it held is made again", path, why)
    with contextlib.suppress(OSError):
        path.unlink(missing_ok=True)


def report_once(folder: Path, error: OSError, consequence: str) -> None:
    """Report that a folder cannot be written to: once per process, whatever was to be written."""
    if folder not in _reported:
        _reported.add(folder)
        log.warning("cannot write to %s (%s): %s", folder, error.strerror or error, consequence)


def remove_leftovers(folder: Path) -> None:
    """Remove the unfinished files of processes that have ended."""
    with contextlib.suppress(OSError):
        for path in folder.glob(f".*{UNFINISHED}"):
            if _abandoned(path):
                path.unlink(missing_ok=True)


def _put(address: Any, data: bytes, mode: str = "overwrite") -> None:
    """Put an object; "create" refuses one that is there."""
    with _as_os_errors(address):
        try:
            address.fs.pipe_file(address.path, data, mode=mode)
        except FileNotFoundError:  # a store with real folders
            address.parent.mkdir(parents=True, exist_ok=True)
            address.fs.pipe_file(address.path, data, mode=mode)


@contextlib.contextmanager
def _as_os_errors(place: object) -> Iterator[None]:
    """Raise the errors of a store's own as OSError."""
    try:
        yield
    except OSError:
        raise
    except Exception as error:
        raise OSError(f"{place}: {type(error).__name__}: {error}") from error


def _unfinished_name(name: str, writer: Process) -> str:
    machine = hashlib.sha256(writer.host.encode()).hexdigest()[:8]
    words = (machine, str(writer.pid), writer.started or "0", secrets.token_hex(4))
    return f".{name}.{'-'.join(words)}{UNFINISHED}"


def _abandoned(path: Path) -> bool:
    words = path.name.removesuffix(UNFINISHED).rpartition(".")[2].split("-")
    here = current().host
    if len(words) != 4 or not words[1].isdigit():
        return False  # not ours
    if words[0] != hashlib.sha256(here.encode()).hexdigest()[:8]:
        return path.stat().st_mtime < time.time() - DAY
    return not Process(here, int(words[1]), "" if words[2] == "0" else words[2]).alive()


def _seal(key: str, body: bytes) -> bytes:
    sealed = key.encode("utf-8", "surrogatepass") + b"\0" + body
    return hashlib.sha256(sealed).hexdigest().encode()


def _sync(folder: Path) -> None:
    """Make a rename durable, where the system can."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
