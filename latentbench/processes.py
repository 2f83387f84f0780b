"""Who a process is, in words that another process can read, and whether it is still alive."""

import functools
import os
import socket
from dataclasses import dataclass
from pathlib import Path

PROC = Path(
    "/proc"
)  # of Linux; elsewhere a number that was given to another process is not noticed


@dataclass(frozen=True)
class Process:
    """A process that wrote a file.

    Args:
        host: name of the machine and, on Linux, of the process's name space: two containers may
            share a machine's name and not its processes.
        pid: number of the process there.
        started: when it was started, in the kernel's ticks; "" where that is not known.
    """

    host: str
    pid: int
    started: str = ""

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host.partition('/')[0]}"

    def alive(self) -> bool | None:
        """Return whether it runs, or None where it ran on another machine."""
        if self.host != _host():
            return None
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        except OSError:  # somebody else's
            pass
        state, started = _stat(self.pid)
        return state not in ("Z", "X") and started in ("", self.started)


def current() -> Process:
    """Return this process."""
    return Process(_host(), os.getpid(), _stat(os.getpid())[1])


@functools.cache
def _host() -> str:
    try:
        space = (PROC / "self/ns/pid").stat().st_ino
    except OSError:
        space = 0
    return f"{socket.gethostname()}/{space}"


def _stat(pid: int) -> tuple[str, str]:
    """Return (state, start) of a process, or empty strings where that cannot be read."""
    try:
        fields = (PROC / f"{pid}/stat").read_text().rpartition(")")[2].split()
    except (OSError, ValueError):
        return "", ""
    return fields[0], fields[19]
