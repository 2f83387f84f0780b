"""What a cell costs besides its denoiser: its time over the bare network's time for the same rows.

    python -m perf.cell_overhead [model=faces_ddpm] [model.steps=10] [runtime.batch_size=16]

Runs one cell of each benchmark, on faces_ddpm and on faces_ldm where no model is named. Right after
each network call of the cell, the bare network is called once more on the same rows and timed; its
own time is taken off the cell's. Both sides of the ratio are thus measured at the same moments, at
the same batches, on the same machine noise. CPU time (of all threads) is less disturbed by other
processes than wall time; on a GPU only wall time means anything. "run" is the work on images,
"whole" adds fitting, calibration and scoring. Judges and features of the reference set, which cells
share, are there before: a cell of one sampling step has loaded or made them, and features stay in
the checkout's cache. `benchmark=reconstruction` measures one benchmark alone.
"""

import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[1])]

import torch  # noqa: E402
from hydra import compose  # noqa: E402
from omegaconf import OmegaConf  # noqa: E402

from latentbench import plugins  # noqa: E402
from latentbench.cells import batch_runner as batches  # noqa: E402
from latentbench.cells import command_line  # noqa: E402
from latentbench.cells.cell import run_cell  # noqa: E402
from latentbench.cells.loading import hot_part  # noqa: E402
from latentbench.cells.parts import Part  # noqa: E402
from latentbench.command import answered  # noqa: E402
from latentbench.config import Execution  # noqa: E402
from latentbench.errors import unknown  # noqa: E402
from latentbench.records import Status  # noqa: E402

FEATURES = Path(__file__).resolve().parents[1] / ".cache" / "latentbench" / "features"

CELLS = {
    "generation": ("plain",),
    "reconstruction": ("ddim_inversion",),
    "attribute_editing": (
        "hspace", "benchmark.attributes=[smile+]", "benchmark.calibration_n=16", "method.images=64",
    ),
    "interpolation": ("slerp",),
    "path_length": ("slerp",),
    "robustness": ("plain", "benchmark.shifts=['mean 0.1','mean 0.5']"),
    "composition": ("composed", "benchmark.compositions=['glasses+ hat+']"),
    "probing": ("features",),
}  # fmt: skip
SIZES = ["benchmark.n=16", "runtime.batch_size=16", "runtime.threads=1", "model.steps=10"]
MODELS = ("faces_ddpm", "faces_ldm")


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


def measure(benchmark: str, overrides: list[str], folder: str) -> torch.Tensor | None:
    """Return time over bare time of one cell: rows run and whole, columns wall and CPU.

    None where it is no cell, as of a method that needs prompts on a model without.
    """
    method, *own = CELLS[benchmark]
    settings = [
        f"benchmark={benchmark}", f"method={method}", "tracker=none", f"results.dir={folder}",
        f"results.cache={folder}/cache", "results.overwrite=always", "runtime.fail_fast=true",
        *SIZES, *own, *overrides,
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
        record, _ = run_cell(config, dict.fromkeys(("benchmark", "method", "model", "dataset"), ""))
        whole = torch.stack([now() - start, bare])
    batches.BatchRunner.finish = finish
    if record.status is Status.SKIPPED:
        return None
    return torch.stack([(part[0] - part[1]) / part[1] for part in (run, whole)])


def main() -> int:
    overrides = sys.argv[1:]
    command_line.check([word for word in overrides if word not in ("-h", "--help")])
    if {"-h", "--help"} & {*overrides}:
        print(__doc__)
        return 0
    heads = ("run, CPU", "run, wall", "whole, CPU", "whole, wall")
    print(f"{'model':12} {'benchmark':18} {'method':15}", *(f"{head:>11}" for head in heads))
    benchmarks = chosen(overrides, "benchmark") or [*CELLS]
    for name in benchmarks:
        if name not in CELLS:
            raise unknown("benchmark", name, CELLS)
    rest = [word for word in overrides if not word.startswith(("model=", "benchmark="))]
    with tempfile.TemporaryDirectory() as folder:
        keep_features(Path(folder))
        for model in chosen(overrides, "model") or MODELS:
            for benchmark in benchmarks:
                given = [f"model={model}", *rest]
                measure(benchmark, [*given, "model.steps=1"], folder)
                found = measure(benchmark, given, folder)
                if found is not None:
                    show(model, benchmark, found)
    return 0


def chosen(overrides: Sequence[str], group: str) -> list[str]:
    """Return the options that are named of a group."""
    return [word.partition("=")[2] for word in overrides if word.startswith(f"{group}=")]


def keep_features(folder: Path) -> None:
    """Let an otherwise empty cache have the checkout's features of reference sets."""
    FEATURES.mkdir(parents=True, exist_ok=True)
    (folder / "cache").mkdir()
    (folder / "cache" / "features").symlink_to(FEATURES)


def show(model: str, benchmark: str, ratios: torch.Tensor) -> None:
    """Print a row."""
    (run_wall, run_cpu), (whole_wall, whole_cpu) = ratios.tolist()
    figures = (run_cpu, run_wall, whole_cpu, whole_wall)
    words = f"{model:12} {benchmark:18} {CELLS[benchmark][0]:15}"
    print(words, *(f"{x:11.2f}" for x in figures), flush=True)


if __name__ == "__main__":
    sys.exit(answered(main))
