"""One process at a time: a lock file that names its owner, with a heartbeat.

It asks nothing of the file system but that one process only can create a file (O_EXCL), so that it
holds on network file systems as well, where `flock` often does not; and of an object store that it
puts an object only where there is none. The owner writes a new number into it every few seconds. A
lock whose owner has ended, or whose number has not changed for a minute by the waiting process's
own clock, is taken over.

Should two processes ever own one lock (one was suspended for longer than that), both compute the
same bytes, and results are written whole: the lock saves work, no result depends on it.
"""

import contextlib
import json
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from latentbench import store
from latentbench.processes import Process, current

log = logging.getLogger(__name__)
NAME = "lock"
BEAT = 5.0  # seconds between two signs of life
STALE = 60.0  # seconds without one after which the owner counts as gone
POLL = 0.2  # seconds between two looks at a lock that another process owns


class Busy(Exception):
    """Another process owns the lock.

    Args:
        name: what it works on.
        owner: the process.
    """

    def __init__(self, name: str, owner: object) -> None:
        super().__init__(f"{name} is being computed by {owner}")
        self.name = name


@contextmanager
def held(folder: Path, wait: bool, tell: Callable[[str], None]) -> Iterator[None]:
    """Own the lock of a folder inside the block.

    A folder that cannot be written to has no lock: what is computed there cannot be stored anyway.

    Args:
        folder: what one process at a time may work on.
        wait: whether to wait while another process owns the lock.
        tell: is given one line when the lock is waited for or taken over.

    Raises:
        Busy: another process owns it, and `wait` is false.
    """
    lock = _acquire(folder / NAME, wait, tell)
    stop = threading.Event()
    beating = threading.Thread(target=_beat, args=(lock, stop), daemon=True)
    beating.start()
    try:
        yield
    finally:
        stop.set()
        beating.join()
        if lock is not None:
            lock.release()


class FileLock:
    """A lock in a folder: what this process writes stays in the file that it has created.

    Args:
        path: where it is created.

    Raises:
        FileExistsError: another process has it.
        OSError: it cannot be written.
    """

    def __init__(self, path: Path) -> None:
        _refuse_other_kinds(path)
        self.path = path
        self.handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o644)
        try:
            self.beat(_content(0))
        except OSError:  # a full disk; a lock that names nobody would hold others up
            os.close(self.handle)
            path.unlink(missing_ok=True)
            raise

    def beat(self, content: bytes) -> None:
        """Write a sign of life."""
        os.pwrite(self.handle, content, 0)

    def release(self) -> None:
        """Remove the lock, unless it has become another's."""
        with contextlib.suppress(OSError):
            mine, there = os.fstat(self.handle), self.path.stat()
            if (mine.st_dev, mine.st_ino) == (there.st_dev, there.st_ino):
                self.path.unlink()
        os.close(self.handle)


class ObjectLock:
    """A lock in an object store: before it is written again, it is read, and left if another's.

    Between the two another process may take it over, if this one was still for a minute: then both
    compute, see above.

    Args:
        path: its address.

    Raises:
        FileExistsError: another process has it.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.mine = path, _content(0)
        store.create(path, self.mine)

    def beat(self, content: bytes) -> None:
        """Write a sign of life."""
        if self.path.read_bytes() == self.mine:
            store.write(self.path, content)
            self.mine = content

    def release(self) -> None:
        """Remove the lock, unless it has become another's."""
        with contextlib.suppress(OSError):
            if self.path.read_bytes() == self.mine:
                self.path.unlink()


Lock = FileLock | ObjectLock


def _refuse_other_kinds(path: Path) -> None:
    """Make the folder of a lock, where there is no file in its place, nor a folder in the lock's.

    Raises:
        OSError: there is, and nobody will ever take it away; or the folder cannot be made.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:  # which would say that another process has the lock
        raise NotADirectoryError(f"{path.parent} is not a folder") from error
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder")


def _acquire(path: Path, wait: bool, tell: Callable[[str], None]) -> Lock | None:
    """Return the lock, or None where none can be written."""
    make = FileLock if isinstance(path, Path) else ObjectLock
    told, watch = False, Watch(path)
    while True:
        try:
            return make(path)
        except FileExistsError:
            pass
        except OSError as error:
            log.warning("no lock at %s: %s", path, error)
            return None
        owner = watch.owner()
        if watch.stale():
            if _take_away(path, watch.seen):
                tell(f"{path.parent.name} was left by {owner}, which has ended; going on with it")
            continue
        if not wait:
            raise Busy(path.parent.name, owner)
        if not told:
            tell(f"{Busy(path.parent.name, owner)}; waiting for it")
        told = True
        time.sleep(POLL)


class Watch:
    """What a waiting process sees of another's lock."""

    def __init__(self, path: Path) -> None:
        self.path, self.seen, self.since = path, b"", time.monotonic()

    def owner(self) -> Process | str:
        """Look again; return who owns the lock."""
        found = _read(self.path)
        if found != self.seen:
            self.seen, self.since = found, time.monotonic()
        return _owner(found) or "another process"

    def stale(self) -> bool:
        """Return whether the owner has ended, or shows no sign of life."""
        owner = _owner(self.seen)
        dead = owner is not None and owner.alive() is False
        return dead or time.monotonic() - self.since > STALE


def _read(path: Path) -> bytes:
    """Return what is in a lock; nothing where it is gone, or a link to nothing.

    Of a lock that may not be read, another user's, it is the time of its last change, in which its
    owner's beat shows as well.
    """
    with contextlib.suppress(OSError):
        try:
            return path.read_bytes()
        except PermissionError:
            return str(path.stat().st_mtime_ns).encode()
    return b""


def _owner(content: bytes) -> Process | None:
    """Return who wrote a lock, or None where it is not written yet, or damaged."""
    try:
        return Process(**json.loads(content)["owner"])
    except (ValueError, KeyError, TypeError):
        return None


def _content(beat: int) -> bytes:
    return json.dumps({"owner": asdict(current()), "beat": f"{beat:012d}"}).encode()


def _take_away(path: Path, seen: bytes) -> bool:
    """Remove a stale lock; return whether it was this process that did.

    The process that creates the claim may remove the lock, if it is still the one that was seen.
    """
    claim = path.with_name(f"{NAME}.claim")
    try:
        store.create(claim, b"")
    except OSError:
        with contextlib.suppress(OSError):
            if time.time() - claim.stat().st_mtime > STALE:  # its owner was killed in between
                claim.unlink()
        time.sleep(POLL)
        return False
    try:
        with contextlib.suppress(OSError):
            if _read(path) == seen:
                path.unlink()
                return True
        return False
    finally:
        claim.unlink(missing_ok=True)


def _beat(lock: Lock | None, stop: threading.Event) -> None:
    beat = 0
    while lock is not None and not stop.wait(BEAT):
        beat += 1
        with contextlib.suppress(OSError):
            lock.beat(_content(beat))
