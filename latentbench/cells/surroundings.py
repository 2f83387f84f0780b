"""What is refused of a run's surroundings, whatever the cell; torch is asked for its GPUs alone."""

from typing import Any

from omegaconf import DictConfig, OmegaConf

from latentbench.cells.places import Places
from latentbench.config import Overwrite, faults
from latentbench.errors import BadInput


def check_surroundings(config: DictConfig) -> None:
    """Refuse what is wrong with `seed`, `runtime` or `results`, whatever the cell, before any work.

    Raises:
        BadInput: a value that its type refuses, an empty path, a GPU that is not there.
    """
    typed = OmegaConf.masked_copy(config, ["seed", "runtime", "results"])
    values: Any = OmegaConf.to_container(typed, resolve=True, enum_to_str=True)
    found = list(faults(values))
    if found:
        raise BadInput("; ".join(found))
    if config.runtime.shards > 1 and config.results.overwrite is Overwrite.always:
        raise BadInput(
            f"runtime.shards={config.runtime.shards} with results.overwrite=always: each worker of "
            f"a cell would begin it anew; leave one of the two out, or remove the cell's folder"
        )
    Places.of(config)
    device = str(config.runtime.device)
    if device.startswith("cuda"):
        import torch  # late: takes seconds to import

        number, there = int(device.partition(":")[2] or 0), torch.cuda.device_count()
        if number >= there:
            raise BadInput(
                f"runtime.device={device} is not there: torch {torch.__version__} sees {there} "
                f"GPUs; write runtime.device=cpu, or auto for a GPU where there is one"
            )
