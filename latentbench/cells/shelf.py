"""The shelf of cells: which record is there, whether it is due, and how a new one is written."""

import datetime
from collections.abc import Mapping
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from latentbench import records, store
from latentbench.cells.lock import NAME as LOCK
from latentbench.cells.lock import Busy, held
from latentbench.cells.places import Places
from latentbench.cells.progress import display
from latentbench.config import Overwrite
from latentbench.errors import BadInput
from latentbench.records import Record, Status

if TYPE_CHECKING:
    from latentbench.cells.working_folder import Partial

PARTIAL = "partial"  # folder of unfinished work, in the cell's own


@dataclass(frozen=True)
class Shelf:
    """One folder per cell, as one process sees and fills it.

    Args:
        cells: the folder of all cells' folders.
        overwrite: which cells are computed.
        runtime: the settings under which this process computes, as JSON values.
    """

    cells: Path
    overwrite: Overwrite
    runtime: Mapping[str, Any]

    @classmethod
    def of(cls, config: DictConfig) -> "Shelf":
        """Return the shelf that a config names."""
        runtime: Any = OmegaConf.to_container(config.runtime, enum_to_str=True)
        return cls(Places.of(config).cells, config.results.overwrite, runtime)

    def folder(self, cell: str) -> Path:
        """Return where a cell's record and its unfinished work lie."""
        return self.cells / cell

    def partial(self, cell: str) -> "Partial":
        """Return a cell's unfinished work."""
        from latentbench.cells.working_folder import Partial  # late: imports torch

        return Partial(self.folder(cell) / PARTIAL, cell)

    def read(self, cell: str) -> Record | None:
        """Return a cell's record, or None where there is none."""
        return records.read(self.folder(cell))

    def held(self, cell: str, wait: bool) -> AbstractContextManager[None]:
        """Own a cell inside the block: one process computes it at a time; see `lock.held`."""
        return held(self.folder(cell), wait, display.tell)

    def is_due(self, old: Record | None) -> bool:
        """Return whether a cell is to be computed: by the overwrite policy, and by what there is.

        Settings of `runtime` are no part of the id, so what they decided is computed again under
        others: a failed cell, and one that left out a larger share of samples than is allowed now.
        """
        if self.overwrite in (Overwrite.always, Overwrite.never):
            return self.overwrite is Overwrite.always
        if old is None or old.status is Status.SKIPPED:
            return True
        if old.status is Status.OK:
            return old.failed_share() > self.runtime["max_failed_share"]
        fail_fast = self.runtime["fail_fast"]
        other = old.sealed and {**old.runtime, "fail_fast": fail_fast} != self.runtime
        return self.overwrite is Overwrite.failed or old.may_pass or other

    def refuse_newer(self, cell: str) -> None:
        """Refuse to compute a cell whose record only a later version of this code can read.

        Raises:
            BadInput: says which schema it is of.
        """
        schema = records.newer_schema(self.folder(cell))
        if schema is not None:
            raise BadInput(
                f"{self.folder(cell) / records.FILE} has schema {schema}, this code reads "
                f"{records.SCHEMA}: a newer version of latentbench wrote it, and it is left as it "
                f"is; update this one, or give another results.dir"
            )

    def clear(self, cell: str) -> None:
        """Remove a cell's unfinished work."""
        store.remove_folder(self.folder(cell) / PARTIAL)

    def save(self, record: Record) -> Record:
        """Write a new record; of a cell that is ok, the unfinished work is removed then.

        A record that finds no room on disk is reported as failed, not raised; one in the place of
        a record that only a later version of this code can read is reported and not written.
        """
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        record = replace(record, created=now, runtime=dict(self.runtime))
        folder = self.folder(record.id)
        try:
            self.refuse_newer(record.id)
            record = records.write(record, folder)
        except BadInput as error:
            return replace(record, status=Status.FAILED, reason=str(error), may_pass=True)
        except OSError as error:
            reason = (
                f"the record cannot be written to {folder} ({error.strerror or error}); finished "
                f"batches that are on disk are kept: make room, and run the same command again"
            )
            return replace(record, status=Status.FAILED, reason=reason, may_pass=True)
        if record.status is Status.OK:
            store.remove_folder(folder / PARTIAL)
        return record

    def tidy(self, old: Record) -> None:
        """Remove what a process left that was killed right after it had written the record."""
        folder = self.folder(old.id)
        if any((folder / name).exists() for name in (PARTIAL, LOCK)):
            with suppress(Busy), held(folder, False, lambda words: None):
                if old.status is Status.OK:
                    self.clear(old.id)
