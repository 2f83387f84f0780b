"""Runs planted methods through the real benchmarks and metrics."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from latentbench.records import Record

sys.path.append(str(Path(__file__).parent))


def run(
    folder: Path,
    benchmark: str,
    method: str,
    metrics: Sequence[str],
    settings: Sequence[str] = (),
    model: str = "planted_editors.Blank",
    dataset: str = "faces",
) -> Record:
    """Return the record of one cell.

    Args:
        folder: where results lie; the cache is shared by all cells of one folder.
        benchmark: option of conf/benchmark.
        method: class and settings, such as "planted_editors.Leaky k=2".
        metrics: options of conf/metric.
        settings: of the benchmark and the data, as on the command line.
        model: class of the model.
        dataset: option of conf/dataset.
    """
    import cells

    from latentbench.cells.cell import run_cell

    chosen = [f"benchmark={benchmark}", f"dataset={dataset}", f"metric=[{','.join(metrics)}]"]
    config = cells.composed(folder, *chosen, *settings, "runtime.batch_size=8", "results.images=0")
    target, *given = method.split()
    values: Any = OmegaConf.to_container(OmegaConf.from_dotlist(given))
    OmegaConf.set_struct(config, False)
    config.method = {"_target_": target, **values}
    config.model = {"_target_": model}
    names = {"benchmark": benchmark, "method": method, "model": model, "dataset": dataset}
    record, _ = run_cell(config, names)
    return record
