"""Run one cell, or a sweep of cells.

    python runner.py method=slerp model=faces_ddpm benchmark=interpolation
    python runner.py -m method=lerp,slerp model=faces_ddpm,faces_ldm benchmark=interpolation
    python runner.py -m sweep=demo

Exit code: 0 when every cell is ok or skipped; 1 when a cell failed, or a report could not be
written; 2 when the command is wrong; 130 when it was interrupted.
"""

import os
import sys
import traceback
from pathlib import Path

HERE, TYPED_IN = Path(__file__).resolve().parent, Path.cwd()
os.chdir(HERE)  # methods, metrics and benchmarks import from here, in every launcher's workers
os.environ["HYDRA_FULL_ERROR"] = "1"  # errors reach `run`, which prints them in a few lines

import hydra  # noqa: E402
from hydra.core.hydra_config import HydraConfig  # noqa: E402
from omegaconf import DictConfig  # noqa: E402

from latentbench import paths, plugins  # noqa: E402
from latentbench.cells import command_line  # noqa: E402


@hydra.main(version_base="1.3", config_path="conf", config_name="config")
def main(config: DictConfig) -> str:
    """Compute one composed cell and return its id."""
    from latentbench.cells.sweep import run_job  # late: --help needs no torch

    return run_job(config, HydraConfig.get())


def run() -> int:
    """Run the command line and return the exit code."""
    plugins.register()
    paths.remember_user_folder(TYPED_IN)
    command_line.name_run()
    broken = False
    try:
        command_line.check(sys.argv[1:])
        main()
    except KeyboardInterrupt:
        print("interrupted; finished cells and batches are kept: run it again", file=sys.stderr)
        return 130
    except Exception as error:
        if not command_line.progress.begun and isinstance(error, command_line.REFUSALS):
            print(command_line.explain(error), file=sys.stderr)
            return 2
        traceback.print_exc()
        broken = True
    if command_line.progress.started is not None:
        from latentbench.cells.ending import finish  # outside Hydra, where errors become warnings

        return max(int(broken), finish(command_line.progress.started))
    return int(broken)


if __name__ == "__main__":
    sys.exit(run())
