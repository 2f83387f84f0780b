"""What a cell costs beside its denoiser: wall time over the bare network's time for the same rows.

    python perf/cell_overhead.py [model=faces_ddpm] [runtime.batch_size=16]

Runs one cell of each benchmark without cache, counts the rows of every network call, times the
bare network on the same numbers of rows within the same process, and prints the ratio. "run" is the
work on images; "whole" adds loading, fitting, calibration and scoring.
"""

import collections
import sys
import tempfile
import time

import torch
from hydra import compose

from latentbench import cell as cells
from latentbench import plugins

CELLS = {
    "generation": "plain",
    "reconstruction": "ddim_inversion",
    "attribute_editing": "hspace",
    "interpolation": "slerp",
}


def seconds_per_call(model, rows: int, repeats: int = 5) -> float:
    x = torch.randn(rows, *model.latent_shape, device=model.device)
    t = torch.full((rows,), 500, device=model.device)
    condition = model.condition(None, rows).tensors
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        model.network(x, t, **condition)
        times.append(time.perf_counter() - start)
    return sorted(times)[repeats // 2]


def measure(benchmark: str, method: str, overrides: list[str], folder: str) -> tuple[float, ...]:
    settings = [
        f"benchmark={benchmark}", f"method={method}", "tracker=none", f"results.dir={folder}",
        "results.cache=null", "runtime.fail_fast=true", *overrides,
    ]  # fmt: skip
    with plugins.conf():
        config = compose("config", settings)
    model = cells.hot_model(cells.OmegaConf.to_yaml(config.model, resolve=True), "cpu")
    calls: dict[int, int] = collections.Counter()
    handle = model.network.register_forward_pre_hook(lambda net, args: calls.update([len(args[0])]))
    names = {"benchmark": benchmark, "method": method, "model": "", "dataset": ""}
    start = time.perf_counter()
    record, _ = cells.run_cell(config, names)
    wall = time.perf_counter() - start
    handle.remove()
    with torch.no_grad():
        per_row = {n: seconds_per_call(model, n) for n in calls}
    bare = sum(per_row[n] * count for n, count in calls.items())
    rows = sum(n * count for n, count in calls.items())
    run = record.seconds["run"] / (bare * record.evaluations["run"]["forward"] / rows)
    return run, wall / bare, bare


def main() -> None:
    overrides = sys.argv[1:] or ["model=faces_ddpm"]
    print(f"{'benchmark':20} {'method':16} {'run':>6} {'whole':>6} {'bare s':>7}")
    with tempfile.TemporaryDirectory() as folder:
        for benchmark, method in CELLS.items():
            run, whole, bare = measure(benchmark, method, overrides, folder)
            print(f"{benchmark:20} {method:16} {run:6.2f} {whole:6.2f} {bare:7.1f}")


if __name__ == "__main__":
    main()
