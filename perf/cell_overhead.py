"""What a cell costs besides its denoiser: its time over the bare network's time for the same rows.

    python -m perf.cell_overhead [model=faces_ddpm] [model.steps=10] [runtime.batch_size=16]

Runs one cell of each benchmark, without cache. Right after each network call of the cell, the bare
network is called once more on the same rows and timed; its own time is taken off the cell's. Both
sides of the ratio are thus measured at the same moments, at the same batches, on the same machine
noise. CPU time (of all threads) is less disturbed by other processes than wall time; on a GPU only
wall time means anything. "run" is the work on images, "whole" adds fitting, calibration and
scoring; the medians of three cells are shown.
"""

import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from hydra import compose
from omegaconf import OmegaConf

from latentbench import plugins
from latentbench.cells import batch_runner as batches
from latentbench.cells import command_line
from latentbench.cells.cell import run_cell
from latentbench.cells.loading import hot_part
from latentbench.cells.parts import Part
from latentbench.command import answered
from latentbench.config import Execution

CELLS = {
    "generation": "plain",
    "reconstruction": "ddim_inversion",
    "attribute_editing": "hspace",
    "interpolation": "slerp",
}
SIZES = ["benchmark.n=32", "runtime.batch_size=16", "runtime.threads=1", "model.steps=10"]
REPEATS = 3


def now() -> torch.Tensor:
    """Return (wall, CPU) seconds."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return torch.tensor([time.perf_counter(), time.process_time()], dtype=torch.float64)


@contextmanager
def twins(model) -> Iterator[torch.Tensor]:
    """Follow each network call by a bare one; yields the seconds that those took, (wall, CPU)."""
    forward, spent = model.forward, torch.zeros(2, dtype=torch.float64)

    def both(x, timesteps, condition, taps=None):
        out = forward(x, timesteps, condition, taps)
        start = now()
        model.network(x, timesteps, **condition.tensors)
        spent.add_(now() - start)
        return out

    model.forward = both
    try:
        yield spent
    finally:
        del model.forward


def measure(benchmark: str, overrides: list[str], folder: str) -> torch.Tensor:
    """Return time over bare time of one cell: rows run and whole, columns wall and CPU."""
    settings = [
        f"benchmark={benchmark}", f"method={CELLS[benchmark]}", "tracker=none",
        f"results.dir={folder}", "results.cache=null", "results.overwrite=always",
        "runtime.fail_fast=true", *SIZES, *overrides,
    ]  # fmt: skip
    with plugins.conf():
        config = compose("config", settings)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = hot_part(OmegaConf.to_yaml(Part.of(config.model).given), device, Execution())
    finish, run = batches.BatchRunner.finish, torch.zeros(2, 2, dtype=torch.float64)

    with twins(model) as bare:

        def timed(runner, works):
            start, before = now(), bare.clone()
            result = finish(runner, works)
            run.copy_(torch.stack([now() - start, bare - before]))
            return result

        batches.BatchRunner.finish = timed  # pyright: ignore[reportAttributeAccessIssue]
        start = now()
        run_cell(config, dict.fromkeys(("benchmark", "method", "model", "dataset"), ""))
        whole = torch.stack([now() - start, bare])
    batches.BatchRunner.finish = finish
    return torch.stack([(part[0] - part[1]) / part[1] for part in (run, whole)])


def main() -> int:
    overrides = sys.argv[1:] or ["model=faces_ddpm"]
    command_line.check([word for word in overrides if word not in ("-h", "--help")])
    if {"-h", "--help"} & {*overrides}:
        print(__doc__)
        return 0
    heads = ("run, CPU", "run, wall", "whole, CPU", "whole, wall")
    print(f"{'benchmark':18} {'method':15}", *(f"{head:>11}" for head in heads))
    with tempfile.TemporaryDirectory() as folder:
        for benchmark, method in CELLS.items():
            found = torch.stack([measure(benchmark, overrides, folder) for _ in range(REPEATS)])
            run, whole = (
                [statistics.median(found[:, row, k].tolist()) for k in (1, 0)] for row in (0, 1)
            )
            print(
                f"{benchmark:18} {method:15}", *(f"{x:11.2f}" for x in (*run, *whole)), flush=True
            )

    return 0


if __name__ == "__main__":
    sys.exit(answered(main))
