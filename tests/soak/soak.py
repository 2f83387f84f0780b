"""Kills, damages and fills the disk at random under a small sweep; the leaderboard stays the same.

    python tests/soak/soak.py [--seconds 600] [--seed 0]     (make soak)

Two processes at a time work through the cells of the plug-in package `acme`. At random moments they
are killed (-9) or find no room for their files, and files of results and cache are cut, emptied,
swapped, deleted, or get a bit turned. After each round no record that is shown may differ from an
undisturbed sweep's; after the last, an undisturbed process finishes what is missing, and the pages
must be the same bytes. Exit code 1 if anything differs.
"""

import argparse
import contextlib
import itertools
import logging
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[k]) for k in (1, 2)]

import cells  # noqa: E402
import torch  # noqa: E402

from latentbench import records  # noqa: E402
from latentbench.cells.cell import run_cell  # noqa: E402
from latentbench.command import count  # noqa: E402
from latentbench.records import Status  # noqa: E402
from latentbench.reports import leaderboard  # noqa: E402
from latentbench.reports.boards import boards  # noqa: E402

CHOICES = [
    [
        *words,
        *(["method.seconds=0.02"] if "method=acme" in words else []),
    ]  # kills find it half done
    for words in itertools.product(
        ("model=acme", "model=acme_double"),
        ("method=acme", "method=acme_attending"),
        ("seed=0", "seed=1", "seed=2"),
    )
]
PAGES = ("leaderboard.md", "leaderboard.csv")
ROOM = (0, 300, 3_000, 30_000)  # bytes that a file may have where the disk is "full"


def sweep(results: Path, order: random.Random | None = None) -> None:
    """Compute all cells in this process."""
    torch.set_num_threads(1)
    works = [*CONFIGS[results]]
    if order is not None:
        order.shuffle(works)
    for config, names in works:
        run_cell(config, names)


def write_pages(results: Path) -> None:
    leaderboard.write(boards(records.list_records(results)), results)


def forked(work: Callable[[], None], room: int | None = None) -> int:
    """Start a child that does the work, and return its number."""
    child = os.fork()
    if child:
        return child
    try:
        quiet = os.open(os.devnull, os.O_WRONLY)
        os.dup2(quiet, 1)
        os.dup2(quiet, 2)
        if room is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (room, room))  # files grow no further
        work()
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def finished(work: Callable[[], None]) -> bool:
    return os.waitpid(forked(work), 0)[1] == 0


def damage(results: Path, dice: random.Random) -> str:
    """Spoil one file of results or cache; return how, or an empty string where there is none."""
    files = [p for p in results.rglob("*") if p.is_file() and p.name not in PAGES]
    if not files:
        return ""
    path, other = dice.choice(files), dice.choice(files)
    how = dice.choice(["bit", "cut", "emptied", "swapped", "deleted", "copied"])
    try:
        body = bytearray(path.read_bytes())
        if how == "deleted":
            path.unlink()
        elif how == "copied":
            shutil.copytree(path.parent, path.parent.with_name(f"{path.parent.name}-copy"),
                            dirs_exist_ok=True)  # fmt: skip
        elif how == "bit" and body:
            body[dice.randrange(len(body))] ^= 1 << dice.randrange(8)
            path.write_bytes(body)
        elif how == "cut":
            path.write_bytes(body[: dice.randrange(len(body) + 1)])
        elif how == "emptied":
            path.write_bytes(b"")
        elif how == "swapped":
            path.write_bytes(other.read_bytes())
    except OSError:  # a process has just removed it
        return ""
    return how


def scores(results: Path) -> dict[str, str]:
    """Return the scores of each finished cell that is shown."""
    found = records.list_records(results)
    return {r.id: str(sorted(r.scores.items())) for _, r in found if r.status is Status.OK}


def disturb(results: Path, dice: random.Random, counts: Counter[str]) -> None:
    """Run two processes on the sweep for a moment, and do them harm."""
    rooms = [dice.choice(ROOM) if dice.random() < 0.25 else None for _ in range(2)]
    orders = [random.Random(dice.random()) for _ in range(2)]
    children = [
        forked(lambda o=o: sweep(results, o), room) for o, room in zip(orders, rooms, strict=True)
    ]
    counts["full disks"] += sum(room is not None for room in rooms)
    for _ in range(dice.randrange(4)):
        time.sleep(dice.random() * 0.5)
        counts["damages"] += bool(damage(results, dice))
    time.sleep(dice.random() * 2)
    for child in children:
        os.kill(child, signal.SIGKILL)
        counts["kills"] += os.waitpid(child, 0)[1] == signal.SIGKILL


def main() -> int:
    """Run the soak and print what happened."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=count, default=600)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    dice, counts = random.Random(arguments.seed), Counter(kills=0, damages=0, wrong=0)
    tally = Tally()
    logging.basicConfig(level=logging.WARNING, handlers=[tally])
    with tempfile.TemporaryDirectory() as folder:
        calm, rough = Path(folder) / "calm", Path(folder) / "rough"
        for results in (calm, rough):
            CONFIGS[results] = [
                (cells.composed(results, *words), names_of(words)) for words in CHOICES
            ]
        assert finished(lambda: sweep(calm)) and finished(lambda: write_pages(calm))
        truth, end = scores(calm), time.monotonic() + arguments.seconds
        while time.monotonic() < end:
            disturb(rough, dice, counts)
            counts["rounds"] += 1
            counts["refused files"] += tally.total()
            counts["wrong"] += sum(truth.get(k) != v for k, v in scores(rough).items())
        done = finished(lambda: sweep(rough)) and finished(lambda: write_pages(rough))
        lost = len(truth.keys() - scores(rough).keys())
        same = done and all((calm / n).read_bytes() == (rough / n).read_bytes() for n in PAGES)
        left = [p for p in rough.rglob("*") if _left_over(p)]
        print("".join(f"left over: {path.relative_to(rough)}\n" for path in left), end="")
    told = [
        f"{counts['rounds']} rounds in {arguments.seconds:g} s, seed {arguments.seed}",
        *(f"{counts[what]} {what}" for what in ("kills", "damages", "full disks", "refused files")),
        f"{counts['wrong']} wrong rows, {lost} lost of {len(truth)}, {len(left)} left over",
        f"pages {'the same bytes' if same else 'DIFFERENT'}",
    ]
    print("\n".join(told))
    return int(bool(counts["wrong"] or lost or left) or not same)


class Tally(logging.Handler):
    """Counts the warnings of this process and its children: files that they refused to read."""

    def __init__(self) -> None:
        super().__init__()
        self.read, self.write = os.pipe()
        for end in (self.read, self.write):
            os.set_blocking(end, False)

    def emit(self, record: logging.LogRecord) -> None:
        """Count one; a full disk is not a refusal of a file."""
        if any(word in record.getMessage() for word in ("made again", "left out")):
            with contextlib.suppress(BlockingIOError):
                os.write(self.write, b".")

    def total(self) -> int:
        """Return how many came since the last call."""
        with contextlib.suppress(BlockingIOError):
            return len(os.read(self.read, 2**16))
        return 0


def _left_over(path: Path) -> bool:
    unfinished = path.name.endswith(".tmp") or path.name in ("lock", "lock.claim", "partial")
    return unfinished and not path.parent.name.endswith("-copy")  # that one was made by `damage`


def names_of(words: list[str]) -> dict[str, str]:
    chosen = dict(word.split("=") for word in words)
    return {group: chosen.get(group, "acme") for group in records.GROUPS}


CONFIGS: dict[Path, list] = {}

if __name__ == "__main__":
    sys.exit(main())
