"""The plan of a cell: its parts built and its id known, before any weight is read."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from omegaconf import DictConfig

from latentbench import records
from latentbench.benchmark import Benchmark
from latentbench.cells.identity import identity
from latentbench.cells.parts import build
from latentbench.cells.places import Places
from latentbench.cells.scoring import refuse_clashes
from latentbench.cells.shelf import Shelf
from latentbench.cells.working_folder import Partial
from latentbench.data.dataset import Dataset
from latentbench.editor import Editor
from latentbench.errors import BadInput
from latentbench.metric import Metric
from latentbench.records import Record

OWN_FIELDS = ("config", "versions", "weights")  # of an identity, that a record has fields for


@dataclass(frozen=True)
class Cell:
    """What is known of a cell before any weight is read.

    Args:
        config: the composed config.
        places: where its files lie.
        store: its unfinished work.
        editor: the method, not attached yet.
        benchmark: the protocol.
        dataset: the images; of no size yet where the model decides it.
        metrics: metrics by name, not prepared yet.
        identity: everything that decides the scores; the id is its hash.
        blank: a record with id, names and settings filled in.
    """

    config: DictConfig
    places: Places
    store: Partial
    editor: Editor
    benchmark: Benchmark
    dataset: Dataset
    metrics: Mapping[str, Metric]
    identity: Mapping[str, Any]
    blank: Record

    @property
    def id(self) -> str:
        """The hash of its identity."""
        return self.blank.id

    @property
    def settings(self) -> Mapping[str, Any]:
        """The settings of each part as JSON values, defaults filled in."""
        return self.identity["config"]

    @property
    def device(self) -> torch.device:
        """Where its networks run."""
        wanted, gpu = self.config.runtime.device, torch.cuda.is_available()
        return torch.device(("cuda" if gpu else "cpu") if wanted == "auto" else wanted)

    @property
    def batch_size(self) -> int:
        """Images of a call: no more than there are, since a batch is padded to its size."""
        return min(self.config.runtime.batch_size, self.benchmark.n)


def plan(config: DictConfig, shelf: Shelf, blank: Record) -> Cell:
    """Build the light parts and find the id; no weight is read."""
    editor, benchmark, dataset = (build(config[g]) for g in ("method", "benchmark", "dataset"))
    metrics = {str(name): build(entry) for name, entry in config.metric.items()}
    if not metrics:
        raise BadInput(
            "no metric is chosen, so there is nothing to measure; name one: metric=[psnr]"
        )
    refuse_clashes(metrics)
    places = Places.of(config)
    on = [n for n, m in metrics.items() if not (m.missing(places.weights) or m.unfed(dataset))]
    whole = identity(config, dataset, on)
    blank = replace(
        blank,
        id=records.cell_id(whole),
        **{name: whole[name] for name in OWN_FIELDS},
        identity={name: value for name, value in whole.items() if name not in OWN_FIELDS},
        main_score=benchmark.main_score,
    )
    store = shelf.partial(blank.id)
    return Cell(config, places, store, editor, benchmark, dataset, metrics, whole, blank)
