"""Trackers: what a record's folder holds, shown elsewhere. A tracker never costs a result."""

import io
import logging
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from hydra.utils import instantiate
from omegaconf import DictConfig
from PIL import Image

from latentbench import records
from latentbench.records import Record, Status
from latentbench.reports import pictures

Mode = Literal["auto", "online", "offline"]
log = logging.getLogger(__name__)


def track(config: DictConfig | None, folder: Path, results: Path) -> bool:
    """Show a finished cell's folder to the configured tracker; return whether it took it.

    Args:
        config: the tracker's settings, or None for no tracking.
        folder: the cell's folder.
        results: where the tracker may write.
    """
    record = records.read(folder)
    if not config or record is None or record.status is not Status.OK:
        return False
    try:
        instantiate(config).log(record, folder, results)
    except Exception as error:  # whatever breaks there, the record stands
        log.warning("tracker failed, the record is safe in %s: %s", folder, error)
        return False
    return True


class WandbTracker:
    """Weights & Biases: one run per cell, grouped by benchmark.

    Args:
        project: name of the project.
        mode: "auto" is online when logged in, else offline; "online"; "offline".
    """

    def __init__(self, *, project: str = "latentbench", mode: Mode = "auto") -> None:
        self.project = project
        self.mode: Mode = mode

    def log(self, record: Record, folder: Path, results: Path) -> None:
        """Write one run: settings, scores in the summary, a table of samples, the grid."""
        import wandb

        logged_in = bool(wandb.setup().settings.api_key)
        automatic: Literal["online", "offline"] = "online" if logged_in else "offline"
        mode = automatic if self.mode == "auto" else self.mode
        run = wandb.init(
            project=self.project,
            group=record.names["benchmark"],
            name=record.title,
            id=f"{record.id}-{record.created.replace(':', '').replace('+', '-')}",
            config={"cell": record.id, **record.names, **record.config},
            dir=results,
            mode=mode,
            settings=wandb.Settings(silent=True),
        )
        try:
            run.summary.update(summary(record))
            run.log({"samples": wandb.Table(dataframe=_with_images(folder, wandb.Image))})
            grid = folder / pictures.GRID
            if grid.is_file():
                run.log({"grid": wandb.Image(Image.open(grid))})
        finally:
            run.finish()


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
    values = pd.read_parquet(folder / records.SAMPLES)
    main = values.groupby(["group", "id"], sort=False)
    heads = main.apply(_headline, include_groups=False).reset_index()
    path = folder / pictures.FILE
    if not path.is_file():
        return heads
    rows = [_decoded(row) for row in pd.read_parquet(path).to_dict("records")]
    merged = heads.merge(pd.DataFrame(rows), on=["group", "id"], how="left")
    return merged.astype(object).where(merged.notna(), None)


def _headline(outputs: pd.DataFrame) -> pd.Series:
    """Return the values of one sample: its headline output, or the mean when all are."""
    chosen = outputs[outputs["headline"]]
    return (chosen if len(chosen) else outputs).drop(columns=["headline", "output"]).mean()


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
