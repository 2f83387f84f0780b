"""The plan of a cell: its config read once, its parts built, its id known; no weight is read."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from latentbench.benchmark import Benchmark
from latentbench.cells.identity import identity
from latentbench.cells.others import named_by
from latentbench.cells.parts import Part, check_settings
from latentbench.cells.places import Places
from latentbench.cells.scoring import refuse_clashes
from latentbench.cells.shelf import Shelf
from latentbench.cells.working_folder import Partial
from latentbench.config import Runtime
from latentbench.content import id_of
from latentbench.data.dataset import Dataset
from latentbench.editor import Editor
from latentbench.errors import BadInput
from latentbench.metric import Metric
from latentbench.records import GROUPS, Record

OWN_FIELDS = ("config", "versions", "weights")  # of an identity, that a record has fields for


@dataclass(frozen=True)
class Cell:
    """What is known of a cell before any weight is read.

    Args:
        parts: class and settings of benchmark, method, model and data set.
        others: those of the parts that benchmark and method name, as "method.setting".
        runtime: how to compute.
        places: where its files lie.
        images: rows that are kept as images.
        store: its unfinished work.
        editor: the method, not attached yet.
        benchmark: the protocol.
        dataset: the images; of no size yet where the model decides it.
        metrics: by name, those that can give a figure; not prepared yet.
        switched_off: why the others cannot, by name.
        identity: everything that decides the scores; the id is its hash.
        blank: a record with id, names, seed and settings filled in.
    """

    parts: Mapping[str, Part]
    others: Mapping[str, Part]
    runtime: Runtime
    places: Places
    images: int
    store: Partial
    editor: Editor
    benchmark: Benchmark
    dataset: Dataset
    metrics: Mapping[str, Metric]
    switched_off: Mapping[str, str]
    identity: Mapping[str, Any]
    blank: Record

    @property
    def id(self) -> str:
        """The hash of its identity."""
        return self.blank.id

    @property
    def seed(self) -> int:
        """The seed of all its random streams."""
        return self.blank.seed

    @property
    def card(self) -> dict[str, Any]:
        """Method, model and data with their settings: what is kept beside what it learns."""
        return {
            group: {"name": self.blank.label(group), **self.parts[group].settings}
            for group in ("method", "model", "dataset")
        }

    @property
    def device(self) -> torch.device:
        """Where its networks run."""
        wanted, gpu = self.runtime.device, torch.cuda.is_available()
        return torch.device(("cuda" if gpu else "cpu") if wanted == "auto" else wanted)

    @property
    def batch_size(self) -> int:
        """Images of a call: no more than there are, since a batch is padded to its size."""
        return min(self.runtime.batch_size, self.benchmark.n)


def plan(config: DictConfig, shelf: Shelf, blank: Record) -> Cell:
    """Read the config, check all settings, build the light parts and find the id.

    Raises:
        BadInput: settings are wrong, no metric is chosen, or two of them give one figure.
    """
    parts = {group: Part.of(config[group]) for group in GROUPS}
    scoring = {str(name): Part.of(config.metric[name]) for name in config.metric}
    others = {
        f"{group}.{name}": Part.other(option)
        for group in ("benchmark", "method")
        for name, option in named_by(parts[group].cls, parts[group].settings).items()
    }
    check_settings([*parts.values(), *scoring.values(), *others.values()])
    editor, benchmark, dataset = (parts[g].build() for g in ("method", "benchmark", "dataset"))
    metrics = {name: part.build() for name, part in scoring.items()}
    if not metrics:
        raise BadInput(
            "no metric is chosen, so there is nothing to measure; name one: metric=[psnr]"
        )
    refuse_clashes(metrics)
    places = Places.of(config)
    reasons = {n: m.missing(places.weights) or m.unfed(dataset) for n, m in metrics.items()}
    on = {name: metric for name, metric in metrics.items() if reasons[name] is None}
    off = {name: reason for name, reason in reasons.items() if reason is not None}
    scored = {name: scoring[name] for name in sorted(on)}
    whole = identity(parts, others, scored, config.seed, dataset.fingerprint())
    blank = replace(
        blank,
        id=id_of(whole),
        **{name: whole[name] for name in OWN_FIELDS},
        identity={name: value for name, value in whole.items() if name not in OWN_FIELDS},
        main_score=benchmark.ranked_by(dataset.gives),
    )
    runtime: Any = OmegaConf.to_object(config.runtime)
    return Cell(
        parts, others, runtime, places, config.results.images, shelf.partial(blank.id),
        editor, benchmark, dataset, on, off, whole, blank,
    )  # fmt: skip
