"""What a command shows while its cells run and when they are done."""

from collections.abc import Iterable
from pathlib import Path

from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from latentbench import records
from latentbench.cells import command_line as commandline
from latentbench.cells.progress import display
from latentbench.cells.sweep import NOTE
from latentbench.paths import user_path
from latentbench.records import Status
from latentbench.reports import leaderboard
from latentbench.reports.boards import boards


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
        results = user_path(config.results.dir, "results.dir")
        leaderboard.show(boards(ended), display.console)
        pages = leaderboard.write(records.list_records(results), results)
        say = lambda words: display.console.print(words, soft_wrap=True, highlight=False)  # noqa: E731
        say(f"leaderboard: {pages[0]}  (also {', '.join(p.name for p in pages[1:])})")
        if (results / "wandb").is_dir():
            say(
                f"W&B runs:    {results / 'wandb'}  (upload: wandb sync {results / 'wandb'}/*run-*)"
            )
