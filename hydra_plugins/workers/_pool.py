"""Workers on Ray: started where there is room, fed from the queue, replaced when they die."""

import contextlib
import logging
import math
import subprocess
from collections import Counter
from collections.abc import Hashable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import ray
from hydra.core.utils import JobReturn
from hydra.errors import HydraException
from ray import cloudpickle
from ray.exceptions import RayError

import hydra_plugins.workers._jobs as by_value
from hydra_plugins.workers._jobs import Job, worker
from hydra_plugins.workers._queue import Queue

log = logging.getLogger(__name__)


class NotEnough(HydraException):
    """A job asks for more than there is."""


@dataclass(frozen=True)
class Need:
    """What a worker holds while it lives.

    Args:
        gpus: part of a card, 0 to 1.
        cpus: cores.
    """

    gpus: float
    cpus: float


@dataclass
class Hand:
    """A worker and what it does.

    Args:
        actor: Ray's handle.
        kind: the kind of its last job.
        need: what it holds.
        job: its job.
    """

    actor: Any
    kind: Hashable
    need: Need
    job: Job


class Actor:
    """Runs jobs in a process of Ray."""

    def run(self, packed: bytes, job: Job) -> JobReturn:
        """Run one job."""
        return worker(packed).run(job)


def run(launcher: Any, jobs: Sequence[Job]) -> dict[int, JobReturn]:
    """Run jobs and return their results by number.

    Args:
        launcher: the `RayLauncher`.
        jobs: the jobs.

    Raises:
        NotEnough: a job asks for more than there is; nothing was started.
    """
    with connected(launcher.address):
        pool = Pool(launcher, jobs)
        try:
            return pool.work()
        finally:
            pool.close()


class Pool:
    """The workers of one sweep.

    Args:
        launcher: the `RayLauncher`.
        jobs: the jobs.
    """

    def __init__(self, launcher: Any, jobs: Sequence[Job]) -> None:
        self.launcher = launcher
        self.needs = needs(launcher, jobs)
        if not any(need.gpus for need in self.needs.values()):
            jobs = launcher.shared_out(jobs, workers(launcher, jobs))
        self.queue = Queue(jobs, lambda job: job.kind(launcher.together))
        self.room = room(launcher, self.needs.values())
        self.packed = ray.put(launcher.packed())
        self.actor = ray.remote(max_restarts=0, max_task_retries=0)(Actor)
        self.busy: dict[Any, Hand] = {}
        self.deaths: Counter[int] = Counter()
        self.results: dict[int, JobReturn] = {}
        self.lost: dict[int, tuple[Job, str]] = {}

    def work(self) -> dict[int, JobReturn]:
        """Run all jobs."""
        self._start_workers()
        while self.busy:
            (ended,), _ = ray.wait(list(self.busy), num_returns=1)
            hand = self.busy.pop(ended)
            try:
                self.results[hand.job.number] = ray.get(ended)
            except RayError as error:
                self._died(hand, error)
            else:
                self._next(hand)
            self._start_workers()
        return self.launcher.give_up_all(self.lost, self.results)

    def close(self) -> None:
        """End all workers, whatever they do."""
        for hand in self.busy.values():
            ray.kill(hand.actor)
        self.busy.clear()

    def _start_workers(self) -> None:
        """Start workers for what waits, as long as there is room."""
        while len(self.queue):
            kinds = self.queue.kinds(hand.kind for hand in self.busy.values())
            kind = next((k for k in kinds if self._has_room(self.needs[k])), None)
            if kind is None:
                return
            need, job = self.needs[kind], self.queue.take(kind)
            assert job is not None
            actor = self.actor.options(num_gpus=need.gpus, num_cpus=need.cpus).remote()
            self._give(Hand(actor, kind, need, job))

    def _has_room(self, need: Need) -> bool:
        held = [hand.need for hand in self.busy.values()]
        if self.launcher.workers is not None and len(held) >= self.launcher.workers:
            return False
        gpus = sum(one.gpus for one in held) + need.gpus
        cpus = sum(one.cpus for one in held) + need.cpus
        return gpus <= self.room.gpus + 1e-6 and cpus <= self.room.cpus + 1e-6

    def _next(self, hand: Hand) -> None:
        """Give a free worker a job of its kind, or of another that holds as much; or end it."""
        kinds = [hand.kind, *self.queue.kinds(other.kind for other in self.busy.values())]
        for kind in kinds:
            job = self.queue.take(kind) if self.needs[kind] == hand.need else None
            if job is not None:
                self._give(Hand(hand.actor, kind, hand.need, job))
                return
        ray.kill(hand.actor)

    def _give(self, hand: Hand) -> None:
        self.busy[hand.actor.run.remote(self.packed, hand.job)] = hand

    def _died(self, hand: Hand, error: RayError) -> None:
        """Try the job of a dead worker again, or count it as lost."""
        with contextlib.suppress(RayError):
            ray.kill(hand.actor)
        job, why = hand.job, in_words(error)
        self.deaths[job.number] += 1
        if self.deaths[job.number] <= self.launcher.retries:
            log.warning("a worker died (%s); another goes on with its job", why)
            self.queue.put_back(job)
            return
        times = self.deaths[job.number]
        self.lost[job.number] = job, f"its worker died {times} times; the last time: {why}"


def in_words(error: RayError) -> str:
    """Return in a line what Ray says of a death."""
    text = str(getattr(error, "error_msg", None) or error)
    return " ".join(text.split())[:300] or type(error).__name__


@contextmanager
def connected(address: str | None) -> Iterator[None]:
    """Be connected to Ray inside the block: to a cluster, or to one that lives as long.

    Args:
        address: see `RayLauncher`.
    """
    cloudpickle.register_pickle_by_value(by_value)
    _init(address)
    try:
        yield
    finally:
        ray.shutdown()
        cloudpickle.unregister_pickle_by_value(by_value)


def _init(address: str | None) -> None:
    """Connect; a Ray of its own gets three tries: it gives up after 30 s on a busy machine."""
    options: dict[str, Any] = {"include_dashboard": False} if address is None else {}
    for left in (2, 1, 0):
        try:
            ray.init(address or "local", logging_level=logging.ERROR, **options)
            return
        except Exception as error:  # Ray has no type for it
            if address is not None or not left or "timed out" not in str(error):
                raise
            log.warning("Ray did not start in time; trying again")
            ray.shutdown()


# ---------------------------------------------------------------- what there is, what is asked for


def needs(launcher: Any, jobs: Sequence[Job]) -> dict[Hashable, Need]:
    """Return what a worker for each kind of jobs must hold: a part of a card, or else its cores.

    Raises:
        NotEnough: no card has so much.
    """
    cards = [] if launcher.device == "cpu" else smallest_cards()
    if launcher.device == "cuda" and not cards:
        raise NotEnough("a GPU is asked for, and Ray sees none")
    first = {job.kind(launcher.together): job for job in reversed(jobs)}
    if not cards:
        return dict.fromkeys(first, Need(0.0, launcher.share_of(workers(launcher, jobs)) or 1))
    memory = {kind: launcher.number(job, launcher.memory) for kind, job in first.items()}
    return {kind: Need(share(gib, min(cards)), 1) for kind, gib in memory.items()}


def workers(launcher: Any, jobs: Sequence[Job]) -> int:
    """Return how many workers share the cores."""
    there = int(ray.cluster_resources().get("CPU", 1))
    return min(launcher.workers or there, len(jobs))


def share(gib: float | None, card: float) -> float:
    """Return the part of a card that a job gets which needs so much memory.

    Args:
        gib: memory of the job in GiB; None: a card of its own.
        card: memory of a card in GiB.

    Raises:
        NotEnough: the card has less.

    Example:
        >>> share(20, 80), share(30, 80), share(None, 80)
        (0.25, 0.5, 1.0)
    """
    if gib is None:
        return 1.0
    if gib > card:
        raise NotEnough(f"a job needs {gib:g} GiB on one card, and the smallest here has {card:g}")
    return 1 / max(1, math.floor(card / gib))


def room(launcher: Any, asked: Iterable[Need]) -> Need:
    """Return what all workers together may hold.

    Raises:
        NotEnough: fewer workers than were asked for have room.
    """
    whole = ray.cluster_resources()
    found = Need(whole.get("GPU", 0.0), whole.get("CPU", 0.0))
    for need in set(asked):
        most = math.floor(1e-6 + (found.gpus / need.gpus if need.gpus else found.cpus / need.cpus))
        wanted: int = 1 if launcher.workers is None else launcher.workers
        if wanted > most:
            each = f"{need.gpus:g} of a card" if need.gpus else f"{need.cpus:g} cores"
            there = f"{found.gpus:g} cards" if need.gpus else f"{found.cpus:g} cores"
            raise NotEnough(f"{wanted} workers with {each} each are asked for; {there} hold {most}")
    return found


def smallest_cards() -> list[float]:
    """Return the memory in GiB of the smallest card of every machine that has cards."""
    asked = []
    for node in (one["Resources"] for one in ray.nodes() if one["Alive"]):
        if node.get("GPU"):
            name = next(key for key in node if key.startswith("node:") and "internal" not in key)
            there = {"num_cpus": 0, "resources": {name: 0.001}}
            asked.append(ray.remote(**there)(card_memory).remote())
    return [min(found) for found in ray.get(asked) if found]


def card_memory() -> list[float]:
    """Return the memory in GiB of each card of this machine."""
    words = ["nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    return [float(line) / 1024 for line in done.stdout.split()]
