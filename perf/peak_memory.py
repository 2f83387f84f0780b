"""What a longer cell takes in memory: peaks of generation at few and at many images, in one run.

    python -m perf.peak_memory [--few 1000] [--many 20000]

Samples of faces_gan, whose images cost one pass of a small network, with a Frechet distance, each
number of images in a process of its own. Shown are the largest resident memory of each process, its
CPU time, and the ratio of the memories. Both find the features of the reference set in the
checkout's cache. What a process has when it begins its first batch is in both.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from latentbench.command import answered, count
from latentbench.errors import LatentbenchError

ROOT = Path(__file__).resolve().parents[1]
FEATURES = ROOT / ".cache" / "latentbench" / "features"
CELL = ("model=faces_gan", "benchmark=generation", "method=plain", "metric=[frechet]",
        "tracker=none", "results.images=0", "runtime.threads=1", "runtime.device=cpu")  # fmt: skip


def peak(images: int) -> tuple[float, float]:
    """Return the largest resident memory in MiB and the CPU seconds of a cell.

    Raises:
        LatentbenchError: the cell failed.
    """
    with tempfile.TemporaryDirectory() as folder:
        FEATURES.mkdir(parents=True, exist_ok=True)
        cache = Path(folder) / "cache"
        cache.mkdir()
        (cache / "features").symlink_to(FEATURES)
        places = [f"results.dir={folder}/results", f"results.cache={cache}"]
        words = [sys.executable, "runner.py", *CELL, *places, f"benchmark.n={images}"]
        log = Path(folder) / "log"
        with log.open("w") as out:
            process = subprocess.Popen(words, cwd=ROOT, stdout=out, stderr=out)
            _, status, used = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise LatentbenchError(f"{' '.join(words)} failed: {log.read_text()[-1000:]}")
    return used.ru_maxrss / 1024, used.ru_utime + used.ru_stime


def run(few: int, many: int) -> int:
    """Print the table; return the exit code."""
    peaks = []
    for images in (few, many):
        memory, seconds = peak(images)
        peaks.append(memory)
        print(f"generation, {images:6} images {memory:8.0f} MiB {seconds:8.1f} s", flush=True)
    print(f"ratio of the memories {peaks[1] / peaks[0]:.2f}  aim 1.10")
    return 0


def main() -> int:
    parser = argparse.ArgumentParser("python -m perf.peak_memory", description=__doc__)
    parser.add_argument("--few", type=count, default=1000)
    parser.add_argument("--many", type=count, default=20_000)
    given = parser.parse_args()
    return answered(lambda: run(given.few, given.many))


if __name__ == "__main__":
    sys.exit(main())
