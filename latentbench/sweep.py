"""Between Hydra and cells: one job is one cell; at the end, table and leaderboard."""

import copy
import inspect
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig, open_dict

from latentbench import commandline, leaderboard, records
from latentbench.boards import boards
from latentbench.progress import display
from latentbench.records import Status

NOTE = "cell"  # file in a job's folder that names its cell


def run_job(config: DictConfig, hydra: Any) -> str:
    """Compute the cell of one Hydra job, tell the tracker, and return the cell's id."""
    from latentbench.cell import cells_folder, run_cell
    from latentbench.identity import GROUPS
    from latentbench.tracking import track

    names = {group: str(hydra.runtime.choices[group]) for group in GROUPS}
    settings = [text for text in hydra.overrides.task if _changes_a_part(text)]
    config, settings = without_foreign(config, settings)
    record, new = run_cell(config, names, settings)
    folder = cells_folder(config) / record.id
    if new:
        track(config.tracker, folder, Path(config.results.dir))
    display.finished(record, f"{sum(record.seconds.values()):.0f} s" if new else "(was there)")
    (Path(hydra.runtime.output_dir) / NOTE).write_text(str(folder))
    return record.id


def without_foreign(config: DictConfig, settings: list[str]) -> tuple[DictConfig, list[str]]:
    """Take settings off a part that lacks them, where another choice of its group has them.

    In a sweep over methods, ``++method.images=64`` reaches every method. One that no choice of the
    group has stays, and is refused when the part is built.
    """
    from latentbench.catalogue import options
    from latentbench.identity import part_class

    config, kept = copy.deepcopy(config), []
    for text in settings:
        group, name = text.lstrip("+").split("=", 1)[0].split(".", 2)[:2]
        part = config[group]
        foreign = text.startswith("++") and "_target_" in part and not _has(part_class(part), name)
        if foreign and any(_has(option.cls, name) for option in options(group).values()):
            with open_dict(part):
                part.pop(name, None)
        else:
            kept.append(text.lstrip("+"))  # as labels and commands show it
    return config, kept


def _has(cls: type[Any], name: str) -> bool:
    return name in inspect.signature(cls).parameters


class Ending(Callback):
    """Shows progress while cells run; at the end, what came out and where it lies."""

    def on_run_start(self, config: DictConfig, **kwargs: object) -> None:
        """Begin with one cell."""
        self._start(1)

    def on_multirun_start(self, config: DictConfig, **kwargs: object) -> None:
        """Begin with as many cells as the sweep has."""
        self._start(commandline.count_cells(config.hydra))

    def on_run_end(self, config: DictConfig, **kwargs: object) -> None:
        """Show the cell's scores."""
        self._end(config, Path(config.hydra.run.dir).glob(NOTE))

    def on_multirun_end(self, config: DictConfig, **kwargs: object) -> None:
        """Show the table of the sweep, and write the leaderboard."""
        notes = Path(config.hydra.sweep.dir).glob(f"*/{NOTE}")
        self._end(config, sorted(notes, key=lambda path: int(path.parent.name)))

    def _start(self, total: int) -> None:
        display.start(total)

    def _end(self, config: DictConfig, notes: Iterable[Path]) -> None:
        display.stop()
        folders = [Path(note.read_text()) for note in notes]
        ended = [(f, record) for f in folders if (record := records.read(f)) is not None]
        commandline.outcome.failed = any(r.status is Status.FAILED for _, r in ended)
        results = Path(config.results.dir)
        leaderboard.show(boards(ended), display.console)
        pages = leaderboard.write(records.list_records(results), results)
        say = lambda words: display.console.print(words, soft_wrap=True, highlight=False)  # noqa: E731
        say(f"leaderboard: {pages[0]}  (also {', '.join(p.name for p in pages[1:])})")
        if (results / "wandb").is_dir():
            say(
                f"W&B runs:    {results / 'wandb'}  (upload: wandb sync {results / 'wandb'}/*run-*)"
            )


def _changes_a_part(text: str) -> bool:
    key = text.split("=", 1)[0].lstrip("+~")
    return "." in key and key.split(".")[0] in ("benchmark", "method", "model", "dataset", "metric")
