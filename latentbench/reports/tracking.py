"""Trackers: what a record's folder holds, shown elsewhere. A tracker never costs a result."""

import io
import logging
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any, ClassVar, Literal, get_args

import numpy as np
import pandas as pd
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig
from PIL import Image

from latentbench import records
from latentbench.errors import BadInput, WrongCommand, unknown
from latentbench.records import Record, Status

Mode = Literal["auto", "online", "offline"]
LONGEST = 128  # characters of a project's, a run's or a group's name that the server takes
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
    try:
        build(config).log(record, folder, results)
    except Exception as error:  # whatever breaks there, the record is on disk
        log.warning("tracker failed, the record is safe in %s: %s", folder, error)
        return False
    return True


class WandbTracker:
    """Weights & Biases: one run per cell, grouped by benchmark.

    A server that does not answer is not asked again in this process: the runs are written offline.

    Args:
        project: name of the project.
        mode: "auto" is online when logged in, else offline; "online"; "offline".

    Raises:
        BadInput: no such mode, or a name that the server does not take.
    """

    away: ClassVar[bool] = False  # whether the server has failed to answer

    def __init__(self, *, project: str = "latentbench", mode: Mode = "auto") -> None:
        if mode not in get_args(Mode):
            raise unknown("mode", str(mode), get_args(Mode))
        name, odd = str(project), sorted(set(FORBIDDEN) & set(str(project)))
        if odd or not name.strip() or len(name) > LONGEST:
            raise BadInput(
                f"project must be a name of 1 to {LONGEST} characters, none of them of "
                f"{FORBIDDEN}, got {name!r}"
            )
        self.project, self.mode = name, mode

    def log(self, record: Record, folder: Path, results: Path) -> None:
        """Write one run: settings, scores in the summary, a table of samples, the grid."""
        import wandb

        run = self._begin(record, results)
        try:
            run.summary.update(summary(record))
            run.log({"samples": wandb.Table(dataframe=_with_images(folder, wandb.Image))})
            grid = folder / records.GRID
            if grid.is_file():
                run.log({"grid": wandb.Image(Image.open(grid))})
        finally:
            run.finish()

    def _begin(self, record: Record, results: Path) -> Any:
        import wandb

        settings = wandb.setup().settings
        online = self.mode == "online" or (self.mode == "auto" and bool(settings.api_key))
        if online and not WandbTracker.away:
            try:
                answer(settings.base_url)
                return self._run(record, results, "online")
            except (OSError, wandb.Error) as error:
                WandbTracker.away = True
                wandb.teardown()  # forgets the run that could not be begun
                reason = str(error).partition("\n")[0]
                log.warning(
                    "W&B does not take runs (%s): this one and all further ones are written "
                    "offline; upload them with `wandb sync`",
                    reason,
                )
        return self._run(record, results, "offline")

    def _run(self, record: Record, results: Path, mode: Literal["online", "offline"]) -> Any:
        import wandb

        return wandb.init(
            project=self.project,
            group=cut(record.names["benchmark"]),
            name=cut(record.title),
            id=f"{record.id}-{record.created.replace(':', '').replace('+', '-')}",
            config={"cell": record.id, **record.names, **record.config},
            dir=results,
            mode=mode,
            settings=wandb.Settings(silent=True, init_timeout=PATIENCE),
        )


def answer(url: str) -> None:
    """Ask a server for any answer at all.

    Raises:
        OSError: there is none within `PATIENCE`.
    """
    try:
        urllib.request.urlopen(url, timeout=PATIENCE).close()
    except urllib.error.HTTPError:  # an answer, if not a friendly one
        return


def cut(name: str) -> str:
    """Return a name that is no longer than the server takes.

    Example:
        >>> len(cut("x" * 200)), cut("slerp")
        (128, 'slerp')
    """
    return name if len(name) <= LONGEST else name[: LONGEST - 1] + "…"


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


def _with_images(folder: Path, image: Any) -> pd.DataFrame:
    table = sample_table(folder)
    return table.map(lambda value: image(value) if isinstance(value, np.ndarray) else value)
