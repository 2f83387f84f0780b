"""What figures, methods and benchmarks are, in words: what pages need besides the records.

Words come from the classes, and classes import torch; so they are looked up elsewhere and handed
over (`latentbench.cells.meanings`). A part that is no longer installed has none, and its pages show
what the records hold.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class FigureWords:
    """What a column is.

    Args:
        says: what it measures, in one line.
        metric: the option of `conf/metric` that gives it.
        about: first sentence of what the metric says of itself.
    """

    says: str
    metric: str = ""
    about: str = ""


@dataclass(frozen=True)
class MethodWords:
    """What a method says of itself.

    Args:
        name: its class.
        idea: what its yaml says at its head, or the first paragraph of its docstring.
        paper: title and section that it follows.
        scope: "image", "global" or "model".
        requires: verb -> spaces that a model must have.
        needs: verb -> what data, model or benchmark must give.
        options: setting -> what it does.
        defaults: setting -> its value where nothing else is said.
    """

    name: str = ""
    idea: str = ""
    paper: str = ""
    scope: str = ""
    requires: Mapping[str, list[str]] = field(default_factory=dict)
    needs: Mapping[str, list[str]] = field(default_factory=dict)
    options: Mapping[str, str] = field(default_factory=dict)
    defaults: Mapping[str, Any] = field(default_factory=dict)

    @property
    def spaces(self) -> list[str]:
        """All spaces that some verb requires."""
        return sorted({space for spaces in self.requires.values() for space in spaces})

    @property
    def wants(self) -> list[str]:
        """All that some verb needs."""
        return sorted({need for needs in self.needs.values() for need in needs})


@dataclass(frozen=True)
class BenchmarkWords:
    """What a benchmark says of itself.

    Args:
        question: what it answers, in one line.
        verbs: what it asks of a method.
    """

    question: str = ""
    verbs: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Meanings:
    """Words by name; names without an entry are not known."""

    figures: Mapping[str, FigureWords] = field(default_factory=dict)
    methods: Mapping[str, MethodWords] = field(default_factory=dict)
    benchmarks: Mapping[str, BenchmarkWords] = field(default_factory=dict)

    def figure(self, name: str) -> FigureWords:
        """Return the words of a figure; that of one group, "psnr/hat+", means the same."""
        return self.figures.get(name.partition("/")[0], FigureWords(""))

    def method(self, name: str) -> MethodWords:
        """Return the words of a method."""
        return self.methods.get(name, MethodWords())

    def benchmark(self, name: str) -> BenchmarkWords:
        """Return the words of a benchmark."""
        return self.benchmarks.get(name, BenchmarkWords())
