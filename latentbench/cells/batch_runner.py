"""Running a benchmark's batches: each is stored when finished, and halved when memory runs out."""

import gc
from collections.abc import Iterable, Mapping
from dataclasses import asdict, replace
from typing import Any

import torch

from latentbench.batching import even_batches, padded_batches
from latentbench.benchmark import Bench, Benchmark, Work
from latentbench.cells.costs import Cost
from latentbench.cells.working_folder import Finished, Partial, join
from latentbench.errors import LatentbenchError, NoEffect, NotFinite
from latentbench.records import in_words
from latentbench.types import Samples


def work_list(counts: Mapping[str, int], size: int, backwards: bool = False) -> list[Work]:
    """Return the batches of all groups: a group's are of one size, at most `size`, the last padded.

    Example:
        >>> [w.indices for w in work_list({"all": 3}, 2, backwards=True)]
        [(2, 1), (0, 0)]
    """
    works, direction = [], -1 if backwards else 1
    for group, n in list(counts.items())[::direction]:
        numbers = range(n)[::direction]
        batches = even_batches(n, size)
        works += [Work(group, tuple(numbers[k] for k in index), kept) for index, kept in batches]
    return works


class BatchRunner:
    """Runs batches of one cell.

    Args:
        benchmark: the protocol.
        bench: what it works with.
        setup: what the protocol's setup returned.
        store: where finished batches lie.
        max_failed_share: share of samples that may fail.

    Attributes:
        imported: sha256 of files that what finished batches took of subjects was imported from.
    """

    def __init__(
        self,
        benchmark: Benchmark,
        bench: Bench,
        setup: dict[str, Any],
        store: Partial,
        max_failed_share: float,
    ) -> None:
        self.benchmark, self.bench, self.setup, self.store = benchmark, bench, setup, store
        self.max_failed_share = max_failed_share
        self.imported: set[str] = set()

    def finish(self, works: Iterable[Work]) -> tuple[Cost, tuple[dict[str, str], ...]]:
        """Run what is not finished yet; return what all batches cost, and the failed samples.

        Raises:
            LatentbenchError: a larger share of samples failed than may.
        """
        cost, failures, count, failed = Cost(), [], 0, []
        for work in works:
            finished = self.finished(work)
            failed += [work] if finished.failures else []
            cost.add(Cost(**finished.cost))
            failures += finished.failures
            self.imported |= {*finished.imported}
            count += work.kept
        if len(failures) > self.max_failed_share * count:
            first = failures[0]
            for work in failed:  # so that the next run tries them again
                self.store.forget(work)
            raise LatentbenchError(
                f"{len(failures)} of {count} samples failed, more than runtime.max_failed_share="
                f"{self.max_failed_share:g} allows; first {first['group']} {first['index']}: "
                f"{first['cause']}"
            )
        return cost, tuple(failures)

    def finished(self, work: Work) -> Finished:
        """Return a finished batch: the stored one, or made now where that is missing or damaged."""
        found = self.store.get(work)
        if found is None:
            found = self._run(work)
            self.store.put(work, found)
        return found

    def _run(self, work: Work) -> Finished:
        cost, failures, indices = Cost(), (), work.indices[: work.kept]
        with cost.measure(self.bench.cache):
            try:
                samples = self._samples(work)
            except (NotFinite, NoEffect):
                if self.max_failed_share == 0:
                    raise
                samples, indices, failures = self._one_by_one(work)
        imported = tuple(sorted(self.bench.cache.imported))
        return Finished(samples, indices, failures, asdict(cost), imported)

    def _one_by_one(
        self, work: Work
    ) -> tuple[Samples | None, tuple[int, ...], tuple[dict[str, str], ...]]:
        """Find the samples that fail: each image alone, in a batch of the same size."""
        good, indices, failures = [], [], []
        for index in work.indices[: work.kept]:
            try:
                alone = Work(work.group, (index,) * len(work.indices), 1)
                good.append(self._samples(alone))
                indices.append(index)
            except (NotFinite, NoEffect) as error:
                cause = f"{type(error).__name__}: {error}"
                failures.append({"group": work.group, "index": str(index), "cause": cause})
        return (join(good) if good else None), tuple(indices), tuple(failures)

    def _samples(self, work: Work) -> Samples:
        """Return the rows that count; out of memory halves the batch, now and from now on."""
        while True:
            try:
                return join([self._call(part) for part in split(work, self.bench.batch_size)])
            except (RuntimeError, MemoryError) as error:
                size = min(len(work.indices), self.bench.batch_size)
                if not is_out_of_memory(error) or size == 1:
                    raise
            self.bench = replace(self.bench, batch_size=size // 2)
            gc.collect()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()

    def _call(self, work: Work) -> Samples:
        samples = self.benchmark.run(work, self.bench, self.setup).rows(range(work.kept))
        check_effect(samples)
        return samples


def split(work: Work, size: int) -> list[Work]:
    """Return a batch as batches of at most a size, the last padded."""
    if len(work.indices) <= size:
        return [work]
    kept = work.indices[: work.kept]
    batches = padded_batches(len(kept), size)
    return [Work(work.group, tuple(kept[k] for k in index), count) for index, count in batches]


def check_effect(samples: Samples) -> None:
    """Refuse edits at a non-zero strength that equal the method's own reconstruction.

    Raises:
        NoEffect: names the images and the strength.
    """
    if samples.strengths is None or samples.reconstructions is None:
        return
    same = (samples.outputs == samples.reconstructions[:, None]).flatten(2).all(2)
    idle = same & (samples.strengths != 0)
    if bool(idle.any()):
        names = [i for i, bad in zip(samples.ids, idle.any(1).tolist(), strict=True) if bad]
        raise NoEffect(
            f"edit {samples.groups[0]!r} at strength {float(samples.strengths[idle][0]):g} changed "
            f"no pixel of {', '.join(names[:5])}; check that the method's direction is not zero "
            f"and that its hooks fire"
        )


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether memory ran out, on a GPU or on the host."""
    text = in_words(error).lower()
    return isinstance(error, MemoryError | torch.cuda.OutOfMemoryError) or (
        "out of memory" in text or "can't allocate memory" in text
    )
