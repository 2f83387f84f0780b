"""From finished samples to scores and to a table with one row per image and output."""

import io
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from torch import Tensor

from latentbench import store
from latentbench.errors import BadInput, NotMeasurable
from latentbench.intervals import Kind
from latentbench.metric import Metric, Surroundings
from latentbench.records import EFFECT, HEADLINE, SAMPLES, ScoreEntry
from latentbench.statistics import row_score
from latentbench.types import At, Samples, Score

CHUNK = 32  # rows a metric sees at once


def refuse_clashes(metrics: Mapping[str, Metric]) -> None:
    """Refuse two metrics that give one figure.

    Raises:
        BadInput: names both and the figure.
    """
    owner: dict[str, str] = {}
    for name, metric in metrics.items():
        for figure in metric.figures:
            if figure in owner:
                raise BadInput(
                    f"metrics {owner[figure]} and {name} both give {figure}; leave one of them out"
                )
            owner[figure] = name


class Scorer:
    """Feeds samples to metrics, then gives scores, group scores and the table.

    Args:
        metrics: metrics by name.
        surroundings: what they may look at.
        switched_off: why other metrics give no figure, by name; those that turn out to have nothing
            to measure here are added.
    """

    def __init__(
        self,
        metrics: Mapping[str, Metric],
        surroundings: Surroundings,
        switched_off: Mapping[str, str],
    ) -> None:
        self.metrics, self.surroundings = dict(metrics), surroundings
        self.switched_off = dict(switched_off)
        self._chunks: list[Samples] = []
        self.scores: dict[str, ScoreEntry] = {}

    def update(self, samples: Samples) -> None:
        """Give the metrics a chunk of samples, all of one group."""
        first = not self._chunks
        self._chunks.append(_light(samples))
        for name, metric in list(self.metrics.items()):
            try:
                if first:
                    _check_fields(metric, samples)
                    metric.prepare(self.surroundings)
                metric.update(samples)
            except NotMeasurable as error:
                self.switched_off[name] = str(error)
                del self.metrics[name]

    def finish(self, folder: Path) -> dict[str, str]:
        """Compute `scores` and write the table; return its sha256 by its name."""
        self.scores = self._all_scores()
        buffer = io.BytesIO()
        self.table().to_parquet(buffer, index=False)
        return {SAMPLES: store.write(folder / SAMPLES, buffer.getvalue())}

    def _all_scores(self) -> dict[str, ScoreEntry]:
        """Return every figure, and for means over images those of each group as well."""
        found: dict[str, ScoreEntry] = {}
        for metric in self.metrics.values():
            whole = {k for k, v in metric.table().items() if self._whole_rows(v)}
            found |= {
                name: self._entry(metric, name, score, name in whole)
                for name, score in metric.compute().items()
            }
        return self._group_scores() | found

    def _entry(
        self, metric: Metric, name: str, score: Score, every_row: bool = False
    ) -> ScoreEntry:
        figure = metric.figures[name.partition("/")[0]]
        ends = {
            end: float(np.clip(value, figure.low, figure.high))
            for end in ("low", "high")
            if (value := getattr(score, end)) is not None
        }
        says = {
            "unit": figure.unit,
            "higher_is_better": figure.higher_is_better,
            "kind": Kind.SET if score.replicates else figure.kind,
            "range": (figure.low, figure.high),
            "smallest": figure.smallest,
        }
        at = EFFECT if metric.at == "effect" and self._matches_effect() else HEADLINE
        return ScoreEntry(**asdict(score) | ends, every_row=every_row, at=at, **says)

    def _matches_effect(self) -> bool:
        return bool(self._chunks) and self._chunks[0].effect is not None

    def table(self) -> pd.DataFrame:
        """Return one row per image and output, with every per-sample value.

        A value of a whole row is repeated at each of its outputs.
        """
        if not self._chunks:
            return pd.DataFrame()
        parts = [_frame(samples) for samples in self._chunks]
        frame, outputs = pd.concat(parts, ignore_index=True), self._outputs()
        for metric in self.metrics.values():
            for name, values in metric.table().items():
                frame[name] = values.expand(-1, outputs).reshape(-1).numpy()
        return frame

    def _outputs(self) -> int:
        return self._chunks[0].outputs.shape[1]

    def _group_scores(self) -> dict[str, ScoreEntry]:
        groups = np.array([g for samples in self._chunks for g in samples.groups])
        names = [i for samples in self._chunks for i in samples.ids]
        if len(set(groups)) < 2:
            return {}
        found = {}
        for metric in self.metrics.values():
            for figure, values in metric.table().items():
                headline = self._headline(values, metric.at)
                for group in dict.fromkeys(groups.tolist()):
                    rows = np.flatnonzero(groups == group)
                    kind = metric.figures[figure].kind
                    score = row_score(headline[rows], [names[k] for k in rows], kind)
                    found[f"{figure}/{group}"] = self._entry(metric, figure, score)
        return found

    def _whole_rows(self, values: Tensor) -> bool:
        return values.shape[1] < self._outputs()

    def _headline(self, values: Tensor, at: At) -> Tensor:
        """Return the values that count, as `SampleMetric.compute` does; NaN for the others."""
        column = self._chunks[0].column(at)
        if column is None or self._whole_rows(values):
            return values
        counts = torch.cat([samples.counting(at) for samples in self._chunks])
        return torch.where(counts[:, None], values[:, [column]], torch.nan)


def _check_fields(metric: Metric, samples: Samples) -> None:
    """Refuse samples that lack what a metric needs, before its networks are loaded.

    Raises:
        NotMeasurable: names the fields.
    """
    lacking = metric.needs - samples.tensors().keys() - samples.texts().keys()
    if lacking:
        raise NotMeasurable(f"needs {', '.join(sorted(lacking))}, which this cell's samples lack")


def _light(samples: Samples) -> Samples:
    """Return the samples without what fills memory."""
    b, s = samples.outputs.shape[:2]
    return Samples(
        samples.ids,
        torch.zeros(b, s, 3, 0, 0),
        samples.groups,
        strengths=samples.strengths,
        main=samples.main,
        effect=samples.effect,
        matched=samples.matched,
    )


def _frame(samples: Samples) -> pd.DataFrame:
    b, s = samples.outputs.shape[:2]
    strengths = torch.full((b, s), torch.nan) if samples.strengths is None else samples.strengths
    frame = pd.DataFrame(
        {
            "id": np.repeat(np.array(samples.ids, object), s),
            "group": np.repeat(np.array(samples.groups, object), s),
            "output": np.tile(np.arange(s), b),
            "strength": strengths.reshape(-1).numpy(),
        }
    )
    if samples.effect is None:
        return frame.assign(**{HEADLINE: _counting(samples, "effect")})
    columns = {HEADLINE: _counting(samples, "main"), EFFECT: _counting(samples, "effect")}
    return frame.assign(**columns)


def _counting(samples: Samples, at: At) -> npt.NDArray[np.bool_]:
    """Return whether each output of each row counts for figures of this kind."""
    b, s = samples.outputs.shape[:2]
    column = samples.column(at)
    chosen = np.ones(s, bool) if column is None else np.arange(s) == column
    return np.tile(chosen, b) & np.repeat(samples.counting(at).numpy(), s)
