"""An error as a record: what a cell leaves that could not be computed."""

import traceback
from dataclasses import replace

from omegaconf import DictConfig, OmegaConf

from latentbench.cells.batch_runner import is_out_of_memory
from latentbench.content import content_hash
from latentbench.errors import LatentbenchError, MissingWeights
from latentbench.records import Record, in_words

MAY_PASS = (OSError, ImportError, MemoryError, MissingWeights, SystemExit)


def failed(blank: Record, config: DictConfig, error: BaseException) -> Record:
    """Return the record of an error; before the id is known, an id of the bare config.

    Args:
        blank: what is known of the cell.
        config: the composed config.
        error: what ended it.

    Raises:
        The error itself where `runtime.fail_fast` asks for it.
    """
    words = f"{type(error).__name__}: {in_words(error)}"
    if config.runtime.fail_fast:
        if isinstance(error, Exception):
            raise error
        raise LatentbenchError(words) from error  # SystemExit(0) is not a success
    bare = in_words(
        {group: OmegaConf.to_container(config[group]) for group in (*blank.names, "metric")}
    )
    return replace(
        blank,
        id=blank.id or content_hash(bare, config.seed)[:16],
        config=blank.config or bare,
        reason=words,
        traceback="".join(traceback.format_exception(error)),
        may_pass=isinstance(error, MAY_PASS) or is_out_of_memory(error),
    )
