"""Run one cell, or a sweep of cells.

    python runner.py method=slerp model=faces_ddpm benchmark=interpolation
    python runner.py -m method=lerp,slerp model=faces_ddpm,faces_ldm benchmark=interpolation
    python runner.py -m sweep=demo

Exit code: 0 when every cell is ok or skipped; 1 when a cell failed, or a report could not be
written; 2 when the command is wrong; 130 when it was interrupted.
"""

import os
import sys
from pathlib import Path

HERE, TYPED_IN = Path(__file__).resolve().parent, Path.cwd()
os.chdir(HERE)  # methods, metrics and benchmarks import from here, in every launcher's workers
os.environ["HYDRA_FULL_ERROR"] = "1"  # errors reach `run`, which prints them in a few lines

import hydra  # noqa: E402
from omegaconf import DictConfig  # noqa: E402

from latentbench.cells import command_line  # noqa: E402


@hydra.main(version_base="1.3", config_path="conf", config_name="config")
def main(config: DictConfig) -> str:
    """Compute one composed cell and return its id."""
    from latentbench.cells.sweep import run_job  # late: --help needs no torch

    return run_job(config)


def run() -> int:
    """Run the command line and return the exit code."""
    command_line.begin(TYPED_IN)
    code = 0
    try:
        if command_line.check(sys.argv[1:]).dry:
            from latentbench.cells.forecast import tell_cells  # late: it needs torch

            return tell_cells(sys.argv[1:])
        main()
    except (Exception, KeyboardInterrupt) as error:
        code = command_line.ended_by(error)
    if code > 1 or command_line.progress.started is None:
        return code
    from latentbench.cells.ending import finish  # outside Hydra, where errors become warnings

    return max(code, finish(command_line.progress.started))


if __name__ == "__main__":
    sys.exit(run())
