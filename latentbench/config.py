"""The root of a run's configuration, typed; each group's settings are its constructor's."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, is_dataclass
from enum import Enum
from typing import Annotated, Any, get_type_hints

from omegaconf import MISSING

from latentbench.annotations import fault
from latentbench.bounds import Count, Name, Seed, at_least, below, between, matches
from latentbench.errors import unknown


class Overwrite(Enum):
    """Which cells are computed: absent ones, failed ones as well, all, or none."""

    missing = "missing"
    failed = "failed"
    always = "always"
    never = "never"


class Order(Enum):
    """In which order the images are worked through; no score depends on it."""

    natural = "natural"
    reversed = "reversed"


class Attention(Enum):
    """Which of torch's attention kernels may run: any of them, or one."""

    auto = "auto"
    math = "math"
    efficient = "efficient"
    flash = "flash"
    cudnn = "cudnn"


Device = Annotated[str, matches(r"auto|cpu|cuda(:\d+)?", "such as auto, cpu, cuda or cuda:1")]


@dataclass(unsafe_hash=True)  # a key of the models that stay loaded
class Execution:
    """How a model's networks compute; float rounding may differ, nothing else.

    Args:
        offload: a network is on the GPU only while it is in use.
        channels_last: memory layout of convolutions.
        compile: torch.compile of the denoiser, where no method looks inside it.
        vae_slicing: one image at a time through the autoencoder.
        attention: kernel of attention.
    """

    offload: bool = False
    channels_last: bool = False
    compile: bool = False
    vae_slicing: bool = False
    attention: Attention = Attention.auto


@dataclass
class Runtime:
    """How to compute. Nothing here changes a score beyond float rounding.

    Args:
        device: "auto" (a GPU where there is one), "cpu", "cuda" or "cuda:1".
        batch_size: images a call; the last batch is padded.
        threads: CPU threads of torch; fixed, since sums depend on their number.
        order: order of the images.
        shards: workers that compute one cell together.
        max_failed_share: share of samples that may fail before the cell does.
        fail_fast: raise a cell's error instead of recording it.
        execution: how the model's networks compute.
    """

    device: Device = "auto"
    batch_size: Count = 32
    threads: Annotated[int, between(1, 1024)] = 2
    order: Order = Order.natural
    shards: Annotated[int, between(1, 1024)] = 1
    max_failed_share: Annotated[float, at_least(0), below(1)] = 0.0
    fail_fast: bool = False
    execution: Execution = field(default_factory=Execution)


@dataclass
class Results:
    """Where things lie; relative paths start from the folder in which the command was typed.

    Args:
        dir: folder of records and leaderboard.
        cache: folder of inversions, fits and reference features; null computes always.
        weights_dir: folder of published weights that switch on `fid`, `lpips_alex` and the like.
        overwrite: which cells are computed.
        images: rows per cell that are kept as images.
    """

    dir: Name = "results"
    cache: Name | None = ".cache/latentbench"
    weights_dir: Name | None = None
    overwrite: Overwrite = Overwrite.missing
    images: Annotated[int, between(0, 100_000)] = 16


@dataclass
class RunConfig:
    """Everything that one cell is made of; only the first six entries are part of its id."""

    benchmark: Any = MISSING
    method: Any = MISSING
    model: Any = MISSING
    dataset: Any = MISSING
    metric: dict[str, Any] = field(default_factory=dict)
    seed: Seed = 0
    tracker: Any = None
    launch: Any = None
    runtime: Runtime = field(default_factory=Runtime)
    results: Results = field(default_factory=Results)


IDENTITY = ("benchmark", "method", "model", "dataset", "metric", "seed")


def faults(values: Mapping[str, Any], cls: type = RunConfig, prefix: str = "") -> Iterator[str]:
    """Yield one sentence per value that the typed root refuses.

    Args:
        values: settings by name, those of a section as a mapping.
        cls: the dataclass that types them.
        prefix: text before their names.

    Example:
        >>> list(faults({"seed": 0, "runtime": {"threads": 0}}))
        ['runtime.threads must be a whole number from 1 to 1024; got 0']
        >>> list(faults({"runtime": {"thread": 1}}))[0][:62]
        "unknown setting of runtime 'thread'; did you mean threads? kno"
    """
    known = get_type_hints(cls, include_extras=True)
    for name, value in values.items():
        if name not in known:
            yield str(unknown(f"setting of {prefix[:-1]}", name, known))
        elif is_dataclass(known[name]) and isinstance(value, Mapping):
            yield from faults(value, known[name], f"{prefix}{name}.")
        elif not is_dataclass(known[name]):
            yield from filter(None, [fault(f"{prefix}{name}", value, known[name])])
        else:
            yield f"{prefix}{name} holds several settings; write {prefix}{name}.NAME=VALUE"
