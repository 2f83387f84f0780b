"""Which parts go together, read on the classes before any weight is loaded."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from latentbench.benchmark import Benchmark
from latentbench.cells import others
from latentbench.cells.catalogue import sound
from latentbench.data.dataset import Dataset
from latentbench.editor import Editor
from latentbench.model import LatentModel
from latentbench.option import Option
from latentbench.types import Capability
from latentbench.weights import names

OWN = ("latentbench", "methods", "benchmarks")  # packages whose choices are always suggested
SHOWN = 5  # choices of a group that are named; of more, the others are counted


@dataclass(frozen=True)
class Parts:
    """What a cell is made of, as far as it is known without weights.

    Args:
        editor: class of the method.
        settings: the method's settings, which may decide what it requires.
        model: class of the model.
        dataset: data set, or its class.
        benchmark: the benchmark.
        benchmark_settings: the benchmark's settings.
    """

    editor: type[Editor]
    settings: Mapping[str, Any]
    model: type[LatentModel]
    dataset: Dataset | type[Dataset]
    benchmark: Benchmark
    benchmark_settings: Mapping[str, Any] = field(default_factory=dict)

    def packages(self) -> frozenset[str]:
        """Return the packages that the parts come from."""
        parts = (self.editor, self.model, self.dataset, self.benchmark)
        classes = (part if isinstance(part, type) else type(part) for part in parts)
        return frozenset(cls.__module__.partition(".")[0] for cls in classes)

    def misfit(self) -> str | None:
        """Return why these parts do not go together, or None when they do."""
        reasons = (
            self._verbs,
            self._family,
            self._spaces,
            self._needs,
            self._directions,
            self._others,
        )
        return next(filter(None, (reason() for reason in reasons)), None)

    def fits(self) -> bool:
        """Return whether these parts go together; parts that cannot even say so do not."""
        try:
            return self.misfit() is None
        except Exception:
            return False

    def given(self) -> frozenset[Capability]:
        """Return what data, model, benchmark and other parts give.

        Prompts count only where the data set has them and the model takes them.
        """
        data, model, benchmark = self.dataset.gives, self.model.gives, self.benchmark.gives
        named = others.given_by(self.editor, self.settings)
        named |= others.given_by(type(self.benchmark), self.benchmark_settings)
        found = data | model | benchmark | named
        if Capability.PROMPTS in data & model:
            return found
        return found - {Capability.PROMPTS, Capability.TARGET_PROMPTS}

    def _verbs(self) -> str | None:
        missing = self.benchmark.verbs - self.editor.verbs()
        if not missing:
            return None
        who, what = self.editor.__name__, _name(self.benchmark)
        return f"{who} has no verb {_words(missing)}, which {what} calls"

    def _family(self) -> str | None:
        if issubclass(self.model, self.editor.families):
            return None
        kinds = " or ".join(kind.__name__ for kind in self.editor.families)
        return f"{self.editor.__name__} works on a {kinds}, which {self.model.__name__} is not"

    def _spaces(self) -> str | None:
        spaces, _ = self.editor.required(self.benchmark.verbs, self.settings)
        missing = spaces - self.model.spaces
        if not missing:
            return None
        return (
            f"{self.editor.__name__} requires the space {_words(missing)}, which "
            f"{self.model.__name__} lacks; it has {_words(self.model.spaces)}"
        )

    def _needs(self) -> str | None:
        _, needs = self.editor.required(self.benchmark.verbs, self.settings)
        lacking = (needs | self.benchmark.needs) - self.given()
        if not lacking:
            return self._unread(needs)
        who = self.editor.__name__ if lacking & needs else _name(self.benchmark)
        where = f"{_name(self.dataset)} with {self.model.__name__} in {_name(self.benchmark)}"
        return f"{who} needs {_words(lacking)}, which {where} does not give"

    def _unread(self, needs: frozenset[Capability]) -> str | None:
        asked = self.benchmark.must_read
        if not asked or asked & needs:
            return None
        who, what = self.editor.__name__, _name(self.benchmark)
        return f"{who} takes no notice of {_words(asked, ' or ')}, by which {what} asks"

    def _directions(self) -> str | None:
        asked, numbered = self.benchmark.directions, self.editor.numbered
        found = self.editor.directions(self.settings) if asked or numbered else 0
        who, what = self.editor.__name__, _name(self.benchmark)
        if numbered and found and not asked and "edit" in self.benchmark.verbs:
            return f"{who}'s directions have numbers and no names, by which {what} asks"
        if found >= asked:
            return None
        return f"{who} finds {found or 'no'} directions by itself, {what} asks for {asked}"

    def _others(self) -> str | None:
        own = others.named_by(self.editor, self.settings)
        named = others.named_by(type(self.benchmark), self.benchmark_settings)
        return self.editor.misfit(self.model, own) or self.benchmark.misfit(self.model, named)


def reason_to_skip(parts: Parts) -> str | None:
    """Return why a cell cannot run, with the choices that would fit, or None."""
    why = parts.misfit()
    return None if why is None else f"{why}. {suggestions(parts)}"


def suggestions(parts: Parts) -> str:
    """Return which single change of a choice would make the parts fit, in words.

    Embedded models, which need no download, come first. Choices of plug-ins that the cell has
    nothing from are left out: their code is not run for it.
    """
    swaps: dict[str, Callable[[Option], Parts]] = {
        "method": lambda o: replace(parts, editor=o.cls, settings=o.config),
        "model": lambda o: replace(parts, model=o.cls),
        "dataset": lambda o: replace(parts, dataset=o.cls),
        "benchmark": lambda o: replace(parts, benchmark=o.build(), benchmark_settings=o.config),
    }
    found, near, embedded = [], {*OWN, *parts.packages()}, names()
    for group, swap in swaps.items():
        fits = [o for o in sound(group, near).values() if swap(o).fits()]
        fits.sort(key=lambda o: o.config.get("path") not in embedded)
        found += [f"{group}={_choices([o.name for o in fits])}"] if fits else []
    return f"What fits: {'; '.join(found)}" if found else "No other choice of one part fits"


def _choices(fits: list[str]) -> str:
    more = [f"{len(fits) - SHOWN} more"] if len(fits) > SHOWN else []
    return " or ".join([*fits[:SHOWN], *more])


def _words(values: frozenset[str], between: str = ", ") -> str:
    return between.join(sorted(str(v) for v in values))


def _name(thing: object) -> str:
    return thing.__name__ if isinstance(thing, type) else type(thing).__name__
