"""Which parts go together, read on the classes before any weight is loaded."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from latentbench.benchmark import Benchmark
from latentbench.cells import catalogue
from latentbench.data.dataset import Dataset
from latentbench.editor import Editor
from latentbench.model import LatentModel


@dataclass(frozen=True)
class Parts:
    """What a cell is made of, as far as it is known without weights.

    Args:
        editor: class of the method.
        settings: the method's settings, which may decide what it requires.
        model: class of the model.
        dataset: data set, or its class.
        benchmark: benchmark, or its class.
    """

    editor: type[Editor]
    settings: Mapping[str, Any]
    model: type[LatentModel]
    dataset: Dataset | type[Dataset]
    benchmark: Benchmark | type[Benchmark]

    def misfit(self) -> str | None:
        """Return why these parts do not go together, or None when they do."""
        name = self.editor.__name__
        verbs = self.benchmark.verbs - self.editor.verbs()
        if verbs:
            return f"{name} has no verb {_words(verbs)}, which {_name(self.benchmark)} calls"
        if not issubclass(self.model, self.editor.families):
            kinds = " or ".join(kind.__name__ for kind in self.editor.families)
            return f"{name} works on a {kinds}, which {self.model.__name__} is not"
        spaces, needs = self.editor.required(self.benchmark.verbs, self.settings)
        if spaces - self.model.spaces:
            return f"{name} requires the space {_words(spaces - self.model.spaces)}, which "\
                   f"{self.model.__name__} lacks; it has {_words(self.model.spaces)}"  # fmt: skip
        lacking = (needs | self.benchmark.needs) - self.provided()
        if lacking:
            who = name if lacking & needs else _name(self.benchmark)
            return f"{who} needs {_words(lacking)}, which {_name(self.dataset)} with "\
                   f"{self.model.__name__} does not give"  # fmt: skip
        return None

    def provided(self) -> frozenset[str]:
        """Return what data and model give; prompts only where both know them."""
        both = self.dataset.provides & self.model.provides
        either = self.dataset.provides | self.model.provides
        return (either - {"prompts"}) | (both & {"prompts"})


def reason_to_skip(parts: Parts) -> str | None:
    """Return why a cell cannot run, with the choices that would fit, or None."""
    why = parts.misfit()
    return None if why is None else f"{why}. {suggestions(parts)}"


def suggestions(parts: Parts) -> str:
    """Return which single change of a choice would make the parts fit, in words."""
    swaps: dict[str, Callable[[catalogue.Option], Parts]] = {
        "method": lambda o: replace(parts, editor=o.cls, settings=o.config),
        "model": lambda o: replace(parts, model=o.cls),
        "dataset": lambda o: replace(parts, dataset=o.cls),
        "benchmark": lambda o: replace(parts, benchmark=o.build()),
    }
    found = []
    for group, swap in swaps.items():
        fits = [o.name for o in catalogue.options(group).values() if swap(o).misfit() is None]
        found += [f"{group}={' or '.join(fits)}"] if fits else []
    return f"What fits: {'; '.join(found)}" if found else "No other choice of one part fits"


def _words(values: frozenset[str]) -> str:
    return ", ".join(sorted(str(v) for v in values))


def _name(thing: object) -> str:
    return thing.__name__ if isinstance(thing, type) else type(thing).__name__
