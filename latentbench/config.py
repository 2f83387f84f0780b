"""The root of a run's configuration, typed; each group's settings are its constructor's."""

from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from omegaconf import MISSING


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


@dataclass(unsafe_hash=True)  # a key of the models that stay loaded
class Execution:
    """How a model's networks compute; float rounding may differ, nothing else.

    Args:
        offload: a network lies on the GPU only while it is in use.
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
        max_failed_share: share of samples that may fail before the cell does.
        fail_fast: raise a cell's error instead of recording it.
        execution: how the model's networks compute.
    """

    device: str = "auto"
    batch_size: int = 32
    threads: int = 2
    order: Order = Order.natural
    max_failed_share: float = 0.0
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

    dir: str = "results"
    cache: str | None = ".cache/latentbench"
    weights_dir: str | None = None
    overwrite: Overwrite = Overwrite.missing
    images: int = 16


@dataclass
class RunConfig:
    """Everything that one cell is made of; only the first six entries are part of its id."""

    benchmark: Any = MISSING
    method: Any = MISSING
    model: Any = MISSING
    dataset: Any = MISSING
    metric: dict[str, Any] = field(default_factory=dict)
    seed: int = 0
    tracker: Any = None
    runtime: Runtime = field(default_factory=Runtime)
    results: Results = field(default_factory=Results)


IDENTITY = ("benchmark", "method", "model", "dataset", "metric", "seed")
