"""The record of a cell before it is planned, and of one that could not be computed."""

import traceback
from collections.abc import Mapping, Sequence
from dataclasses import replace

from omegaconf import DictConfig, OmegaConf

from latentbench.cells.batch_runner import is_out_of_memory
from latentbench.content import id_of
from latentbench.errors import LatentbenchError, MissingWeights
from latentbench.records import Record, Status, in_words

MAY_PASS = (OSError, ImportError, MemoryError, MissingWeights, SystemExit)


def begun(config: DictConfig, names: Mapping[str, str], overrides: Sequence[str]) -> Record:
    """Return the record of a cell that is not planned yet: its id is that of the bare config.

    Args:
        config: the composed config.
        names: group -> chosen option.
        overrides: the command line's settings besides the choices.
    """
    groups = {group: OmegaConf.to_container(config[group]) for group in (*names, "metric")}
    bare, seed = in_words(groups), config.seed
    return Record(
        id_of(bare, seed), Status.FAILED, dict(names), seed, bare, overrides=tuple(overrides)
    )


def failed(blank: Record, error: BaseException, fail_fast: bool) -> Record:
    """Return the record of an error.

    Args:
        blank: what is known of the cell.
        error: what ended it.
        fail_fast: raise the error instead.
    """
    words = f"{type(error).__name__}: {in_words(error)}"
    if fail_fast:
        if isinstance(error, Exception):
            raise error
        raise LatentbenchError(words) from error  # SystemExit(0) is not a success
    return replace(
        blank,
        reason=words,
        traceback="".join(traceback.format_exception(error)),
        may_pass=isinstance(error, MAY_PASS) or is_out_of_memory(error),
    )
