"""What a record says about where it was computed."""

import functools
import hashlib
import importlib.metadata
import os
import platform
import re
import resource
import subprocess
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
DATA = "results"  # the checkout's folder of records: what a cell adds to it is no change of code


@functools.cache
def environment() -> dict[str, Any]:
    """Return package versions, lock-file hash, git state and hardware; read once per process."""
    import torch  # late: what is there already is told without it

    return {
        "python": platform.python_version(),
        "packages": _packages(),
        "lock_sha256": sha256(ROOT / "uv.lock"),
        **_git(),
        "platform": platform.platform(),
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def peak_memory() -> dict[str, float]:
    """Return the process's largest resident memory so far, and the GPU's since its last reset."""
    import torch  # late, as above

    host = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    scale = 2**20 if platform.system() == "Darwin" else 2**10  # macOS counts bytes, Linux KiB
    gpu = torch.cuda.max_memory_allocated() / 2**20 if torch.cuda.is_available() else 0.0
    return {"host_mib": round(host / scale, 1), "gpu_mib": round(gpu, 1)}


def _packages() -> dict[str, str]:
    """Return the versions of what the suite requires; engines of launchers (extras) left out."""
    every = importlib.metadata.requires("latentbench") or ()
    wanted = [re.split(r"[^\w.-]", r)[0] for r in every if "extra ==" not in r]
    return {name: importlib.metadata.version(name) for name in sorted({*wanted, "latentbench"})}


def sha256(path: Path) -> str | None:
    """Return the hash of a file, or None where there is none."""
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None


def _git() -> dict[str, Any]:
    """Return the commit, and whether anything differs from it that could change a figure.

    Records under results/ could not: a sweep that writes committed ones again stays clean.
    """
    commit = _git_output("rev-parse", "HEAD")
    changes = _git_output("status", "--porcelain", "--", ".", f":!{DATA}")
    return {"git_commit": commit, "git_dirty": None if changes is None else bool(changes)}


def _git_output(*words: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", *words], cwd=ROOT, capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    text = info.read_text() if info.is_file() else ""
    found = re.search(r"model name\s*:\s*(.+)", text)
    return found.group(1) if found else platform.processor()
