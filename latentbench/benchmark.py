"""The interface of every benchmark: a protocol that turns an editor and data into samples."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch

from latentbench.cache import Cache
from latentbench.data.dataset import Dataset
from latentbench.editor import Editor
from latentbench.errors import BadInput
from latentbench.model import LatentModel
from latentbench.option import Option
from latentbench.streams import Streams
from latentbench.types import Capability, Edit, Samples


@dataclass(frozen=True)
class Bench:
    """All that a protocol works with.

    Args:
        editor: the method, attached to the model and fitted.
        model: the generative model.
        dataset: the images.
        streams: the cell's random streams.
        cache: shared store for inversions and fits.
        device: where networks run.
        batch_size: largest number of images a call.
        parts: the parts that `Benchmark.others` declares, by setting; a method among them is
            built, not attached.
        kept: the cell's own store: what is put there is not made again after a kill; it goes when
            the cell is finished.
        refit: seed -> the method as a cell of that seed would fit it; fits are cached.
        imported: sha256 of the file that the method's fit was imported from, or "".
    """

    editor: Editor
    model: LatentModel
    dataset: Dataset
    streams: Streams
    cache: Cache
    device: torch.device
    batch_size: int
    parts: Mapping[str, Any] = field(default_factory=dict)
    kept: Cache = field(default_factory=lambda: Cache(None))
    refit: Callable[[int], Editor] = field(default=lambda seed: _cannot_refit(), repr=False)
    imported: str = ""


def _cannot_refit() -> Editor:
    raise BadInput("this Bench has no refit; let the runner make it, or give one")


@dataclass(frozen=True)
class Work:
    """One batch of a protocol: the smallest thing that a killed cell does not lose.

    Args:
        group: what case it is (the edit's name, the kind of path).
        indices: image or path numbers, as many in every batch of a group.
        kept: how many of them count; the rest pads the batch.
    """

    group: str
    indices: tuple[int, ...]
    kept: int


class Benchmark(ABC):
    """A protocol.

    The constructor takes settings only. `setup` runs once per cell (calibration, for instance)
    and returns plain numbers that are stored with the record; `run` makes one batch.

    Class attributes:
        question: what it answers, in one line.
        version: raised when figures change meaning; part of every cell's id.
        verbs: editor verbs that it calls.
        needs: what data, model or another part must give.
        gives: what its edits carry besides a name: target prompts, masks, references.
        must_read: of this a method must need something: one that takes no notice is skipped.
        others: setting -> group of conf/ ("model", "method", "scorer", "classifier") of which it
            names an option; `Bench.parts` holds the loaded part under the setting's name.
        main_score: the column that its table is sorted by; see `ranked_by`.
        neutral: settings added later, with their defaults, at which it is what it was without them:
            there they are no part of a cell's id, and older cells keep theirs.
        fixed_networks: embedded networks that it uses whatever its settings; their hashes are part
            of every cell's id.
    """

    question: ClassVar[str]
    version: ClassVar[int] = 1
    verbs: frozenset[str]
    needs: frozenset[Capability] = frozenset()  # a setting may decide
    directions: int = 0  # that the method must have found by itself; a setting may decide
    gives: frozenset[Capability] = frozenset()  # a setting may decide
    must_read: ClassVar[frozenset[Capability]] = frozenset()
    others: ClassVar[Mapping[str, str]] = {}
    main_score: ClassVar[str]
    neutral: ClassVar[Mapping[str, Any]] = {}
    fixed_networks: ClassVar[frozenset[str]] = frozenset()

    n: int
    images_per_row: ClassVar[int] = 1  # two where a row is a path between two images

    def check(self, dataset: Dataset) -> None:
        """Refuse settings that do not fit the data, before a weight is read.

        The runner refuses a cell without rows by itself.

        Args:
            dataset: the images; of no size yet where the model decides it.

        Raises:
            BadInput: it reads more images than the split holds.
        """
        split = getattr(self, "split", None)
        read, there = self.images_per_row * self.n, 0 if split is None else dataset.size(split)
        if split is not None and read > there:
            most = there // self.images_per_row
            raise BadInput(
                f"benchmark.n={self.n} of {type(self).__name__} takes {read} images of the split "
                f"{split!r}, which has {there}; {f'give {most} or fewer, ' if most else ''}add "
                f"images or take another split"
            )

    def ranked_by(self, given: frozenset[Capability]) -> str:
        """Return the column that its table is sorted by; `main_score` by default.

        Args:
            given: what the data set has besides images.
        """
        del given
        return self.main_score

    def curve(self, max_strength: float) -> tuple[float, ...]:
        """Return the native strengths that it asks a method for, 0 first; none by default."""
        del max_strength
        return ()

    def misfit(self, model: type[LatentModel], others: Mapping[str, Option]) -> str | None:
        """Return why its other parts do not go with the model or with each other, or None.

        Args:
            model: class of the cell's model.
            others: the options that its settings name.
        """
        del model, others
        return None

    def edits(self, dataset: Dataset) -> Sequence[Edit]:
        """Return the edits that it will ask for, which a method may fit on; none by default."""
        del dataset
        return ()

    def groups(self, dataset: Dataset) -> Sequence[str]:
        """Return the cases, in a fixed order."""
        del dataset
        return ("all",)

    def count(self, group: str, dataset: Dataset) -> int:
        """Return how many images or paths of a group are used: n, where there are as many."""
        del group, dataset
        return self.n

    def setup(self, bench: Bench) -> dict[str, Any]:
        """Return what must be known before the first batch, as plain JSON values."""
        del bench
        return {}

    @abstractmethod
    def run(self, work: Work, bench: Bench, setup: dict[str, Any]) -> Samples:
        """Return the samples of one batch, one row per index, padding included."""
