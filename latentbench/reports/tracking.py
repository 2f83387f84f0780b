"""Trackers: what a record's folder holds, shown elsewhere. A tracker never costs a result."""

import io
import logging
import shutil
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal, get_args

import numpy as np
import pandas as pd
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig
from PIL import Image

from latentbench import records
from latentbench.content import content_hash
from latentbench.errors import BadInput, WrongCommand, unknown
from latentbench.records import Record, Status
from latentbench.reports import wandb_report

Mode = Literal["auto", "online", "offline"]
LONGEST = 128  # characters of a project's, a run's or a group's name that the server takes
LONGEST_TAG = 64  # of a tag
ROWS = 500  # of samples that are logged at a time
FORBIDDEN = "/\\#?%:"  # in a project's name
PATIENCE = 20.0  # seconds that a server may take to answer
log = logging.getLogger(__name__)


def build(config: DictConfig | None) -> Any:
    """Return the configured tracker, or None for no tracking.

    Raises:
        WrongCommand: its settings are wrong.
    """
    try:
        return instantiate(config) if config else None
    except InstantiationException as error:
        raise WrongCommand(f"the tracker cannot be used: {error.__cause__ or error}") from error


def track(config: DictConfig | None, folder: Path, results: Path) -> bool:
    """Show a finished cell's folder to the configured tracker; return whether it took it.

    Args:
        config: the tracker's settings, or None for no tracking.
        folder: the cell's folder.
        results: where the tracker may write.
    """
    record = records.read(folder) if config else None
    if record is None or record.status is not Status.OK:
        return False
    where = f"the record is safe in {folder}"
    return _told(lambda: build(config).log(record, folder, results), where)


def track_leaderboard(
    config: DictConfig | None, rows: Iterable[Mapping[str, Any]], results: Path
) -> bool:
    """Show the leaderboard to the configured tracker; return whether it took it.

    Args:
        config: the tracker's settings, or None for no tracking.
        rows: a row per method and figure.
        results: where the tracker may write.
    """
    where = f"the leaderboard is safe in {results}"
    return bool(config) and _told(lambda: build(config).log_leaderboard(rows, results), where)


def _told(tell: Callable[[], None], where: str) -> bool:
    """Return whether a tracker took what it was told; whatever breaks there costs nothing."""
    try:
        tell()
    except Exception as error:
        log.warning("tracker failed, %s: %s", where, error)
        return False
    return True


class WandbTracker:
    """Weights & Biases: a run per cell, and a run that holds the leaderboard of all of them.

    The runs of a results folder are one group. A run's id is made of its cell's id, so that a cell
    that is computed again, or logged again, replaces its run. A server that does not answer is not
    asked again in this process: the runs are written offline.

    Args:
        project: name of the project.
        mode: "auto" is online when logged in, else offline; "online"; "offline".
        group: name of the group; None: that of the results folder.

    Raises:
        BadInput: no such mode, or a name that the server does not take.
    """

    away: ClassVar[bool] = False  # whether the server has failed to answer

    def __init__(
        self, *, project: str = "latentbench", mode: Mode = "auto", group: str | None = None
    ) -> None:
        if mode not in get_args(Mode):
            raise unknown("mode", str(mode), get_args(Mode))
        name, odd = str(project), sorted(set(FORBIDDEN) & set(str(project)))
        if odd or not name.strip() or len(name) > LONGEST:
            raise BadInput(
                f"project must be a name of 1 to {LONGEST} characters, none of them of "
                f"{FORBIDDEN}, got {name!r}"
            )
        self.project, self.mode, self.group = name, mode, group

    def log(self, record: Record, folder: Path, results: Path) -> None:
        """Write a cell's run: settings, scores in the summary, samples, grid, and its files."""
        import wandb

        names = [record.names[group] for group in ("benchmark", "method", "model")]
        run = self._begin(
            results,
            id=record.id,
            name=cut(record.title),
            job_type="cell",
            tags=[cut(name, LONGEST_TAG) for name in dict.fromkeys(names)],
            config={"cell": record.id, **record.names, **record.config},
        )
        try:
            run.summary.update(summary(record))
            _log_samples(run, sample_table(folder))
            grid = folder / records.GRID
            if grid.is_file():
                run.log({"grid": wandb.Image(Image.open(grid))})
            artifact = wandb.Artifact(f"cell-{record.id}", type="cell", description=record.title)
            for name in (records.FILE, *record.files):
                artifact.add_file(str(folder / name))
            run.log_artifact(artifact)
        finally:
            run.finish()

    def log_leaderboard(self, rows: Iterable[Mapping[str, Any]], results: Path) -> None:
        """Write the group's run, the leaderboard as a table, and online the group's report.

        Both are replaced each time.

        Args:
            rows: a row per method and figure; see `latentbench.reports.leaderboard.rows`.
            results: where the run may be written.
        """
        import wandb

        group = self._group(results)
        run = self._begin(
            results,
            id=f"leaderboard-{content_hash(group)[:16]}",
            name=cut(f"leaderboard of {group}"),
            job_type="leaderboard",
            tags=["leaderboard"],
            config={},
        )
        try:
            table = pd.DataFrame(rows)
            run.log(
                {
                    "leaderboard": wandb.Table(
                        dataframe=table.astype(object).where(table.notna(), None)
                    )
                }
            )
            run.summary.update({"cells": len({row["cells"] for row in table.to_dict("records")})})
        finally:
            run.finish()
        if not run.offline:
            log.info("W&B report: %s", wandb_report.write(run.entity, self.project, group))

    def _group(self, results: Path) -> str:
        return cut(self.group or results.resolve().name)

    def _begin(self, results: Path, **run: Any) -> Any:
        import wandb

        settings = wandb.setup().settings
        online = self.mode == "online" or (self.mode == "auto" and bool(settings.api_key))
        if online and not WandbTracker.away:
            try:
                answer(settings.base_url)
                return self._run(results, "online", **run)
            except (OSError, wandb.Error) as error:
                WandbTracker.away = True
                wandb.teardown()  # forgets the run that could not be begun
                reason = str(error).partition("\n")[0]
                log.warning(
                    "W&B does not take runs (%s): this one and all further ones are written "
                    "offline; upload them with `wandb sync`",
                    reason,
                )
        _forget(results, run["id"])
        return self._run(results, "offline", **run)

    def _run(self, results: Path, mode: Literal["online", "offline"], **run: Any) -> Any:
        import wandb

        return wandb.init(
            project=self.project,
            group=self._group(results),
            dir=results,
            mode=mode,
            resume="allow" if mode == "online" else None,
            settings=wandb.Settings(silent=True, init_timeout=PATIENCE),
            **run,
        )


def _forget(results: Path, run: str) -> None:
    """Remove what was written offline of a run that is written anew."""
    for folder in (results / "wandb").glob(f"offline-run-*-{run}"):
        shutil.rmtree(folder, ignore_errors=True)


def _log_samples(run: Any, table: pd.DataFrame) -> None:
    """Log the samples as one table, in parts where they are many."""
    import wandb

    many = len(table) > ROWS
    shown = wandb.Table(
        columns=list(table.columns), log_mode="INCREMENTAL" if many else "IMMUTABLE",
        allow_mixed_types=True,
    )  # fmt: skip
    for start in range(0, len(table), ROWS):
        for row in table.iloc[start : start + ROWS].itertuples(index=False):
            shown.add_data(*(wandb.Image(v) if isinstance(v, np.ndarray) else v for v in row))
        run.log({"samples": shown})


def answer(url: str) -> None:
    """Ask a server for any answer at all.

    Raises:
        OSError: there is none within `PATIENCE`.
    """
    try:
        urllib.request.urlopen(url, timeout=PATIENCE).close()
    except urllib.error.HTTPError:  # an answer, if not a friendly one
        return


def cut(name: str, longest: int = LONGEST) -> str:
    """Return a name that is no longer than the server takes.

    Example:
        >>> len(cut("x" * 200)), cut("slerp")
        (128, 'slerp')
    """
    return name if len(name) <= longest else name[: longest - 1] + "…"


def summary(record: Record) -> dict[str, Any]:
    """Return the scores and costs as flat numbers."""
    flat: dict[str, Any] = {}
    for name, entry in record.scores.items():
        flat[name] = entry.value
        if entry.low is not None:
            flat |= {f"{name}.low": entry.low, f"{name}.high": entry.high}
    return flat | {f"evaluations.{way}": record.total(way) for way in ("forward", "backward")}


def sample_table(folder: Path) -> pd.DataFrame:
    """Return one row per sample: values at the headline output, and images as arrays.

    Image columns ("source", "region", "output 0", "truth 0", "from", "to", ...) are None beyond the
    rows that were kept.
    """
    values = records.read_samples(folder)
    if values is None:
        raise BadInput(f"{folder / records.SAMPLES} cannot be read")
    main = values.groupby(["group", "id"], sort=False)
    heads = main.apply(_headline, include_groups=False).reset_index()
    path = folder / records.IMAGES
    if not path.is_file():
        return heads
    rows = [_decoded(row) for row in pd.read_parquet(path).to_dict("records")]
    merged = heads.merge(pd.DataFrame(rows), on=["group", "id"], how="left")
    return merged.astype(object).where(merged.notna(), None)


def _headline(outputs: pd.DataFrame) -> pd.Series:
    """Return the values of one sample: its headline output, or the mean when all are."""
    chosen = outputs[outputs["headline"]]
    flags = ["headline", "output", *outputs.columns.intersection([records.EFFECT])]
    return (chosen if len(chosen) else outputs).drop(columns=flags).mean()


def _decoded(row: dict[str, Any]) -> dict[str, Any]:
    images = {name: row[name] for name in ("source", "region", "reconstruction")}
    images |= dict(zip(("from", "to"), row["ends"], strict=False))  # none, or both
    named = list(row["strengths"]) or range(len(row["outputs"]))
    images |= {f"output {k}": image for k, image in enumerate(row["outputs"])}
    images |= {f"truth {k}": image for k, image in enumerate(row["truths"])}
    arrays = {k: np.asarray(Image.open(io.BytesIO(v))) for k, v in images.items() if v is not None}
    strengths = ", ".join(f"{value:.3g}" for value in named)
    return {"group": row["group"], "id": row["id"], "strengths": strengths, **arrays}
