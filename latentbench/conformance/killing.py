"""Fits that are killed in the middle of each of their loops, and begun again."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor
from torch.optim.optimizer import register_optimizer_step_post_hook

from latentbench.cache import Cache
from latentbench.conformance.trial import Trial, fits
from latentbench.editor import VERBS, Editor
from latentbench.fitting import Fitting

ROWS = (0, 1, 2)
MOST = 32  # runs of one fit, each of which dies in another loop


class Killed(BaseException):
    """What ends a fit; a method that catches errors does not catch it."""


@dataclass(frozen=True)
class Mortal(Fitting):
    """Keeps every step of a fit, and kills it once in the middle of each of its loops.

    The step in which it dies is lost, as all is that was not yet written.

    Args:
        made: the steps of each loop, over all runs.
        killed: the loops in which it has died.
        inside: the loops that are running.
        loose: the steps of optimizers outside any loop, by class.
    """

    seconds: float = 0.0
    made: dict[str, list[int]] = field(default_factory=dict)
    killed: list[str] = field(default_factory=list)
    inside: list[str] = field(default_factory=list)
    loose: list[str] = field(default_factory=list)

    def steps(
        self,
        name: str,
        count: int,
        tensors: Mapping[str, Tensor],
        optimizer: torch.optim.Optimizer | None = None,
    ) -> Iterator[int]:
        """Yield the steps that are left, and die after one that nothing was kept of."""
        for step in super().steps(name, count, tensors, optimizer):
            self.made.setdefault(name, []).append(step)
            self.inside.append(name)
            try:
                yield step
            finally:
                self.inside.pop()
            if name not in self.killed and step == max(count // 2, 1):
                self.killed.append(name)
                raise Killed

    def count(self, optimizer: torch.optim.Optimizer, *_: object) -> None:
        """Note an optimizer's step that is made outside all loops."""
        if not self.inside:
            self.loose.append(type(optimizer).__name__)


@dataclass(frozen=True)
class Survivor:
    """What became of a fit that was killed in each of its loops.

    Args:
        fitting: what its runs made.
        state: what was learned in the end; none if it did not end.
        result: what the verb gives, where it learns.
    """

    fitting: Mortal
    state: Mapping[str, Tensor] | None
    result: Tensor | None

    def faults(self, trial: Trial) -> Iterator[str]:
        """Yield how it differs from a fit that was not killed, a sentence each."""
        fitting = self.fitting
        if fitting.loose:
            yield (
                f"fit makes {len(fitting.loose)} steps of {fitting.loose[0]} outside of any loop "
                f"over self.fitting.steps, so that a killed fit begins again"
            )
        for name, made in fitting.made.items():
            if any(b not in (a, a + 1) for a, b in pairwise(made)):
                yield (
                    f"the steps of the loop {name!r} were {made} over all runs: what was kept is "
                    f"made again, or left out; give the tensors that change, and one name per loop"
                )
        if self.state is None:
            yield (
                f"the fit had not ended after {MOST} runs, each of which went on from the last: "
                f"the names of its loops differ from run to run, so that nothing is found again"
            )
            return
        words = (
            "give self.fitting.steps all that the steps change, the optimizer too, and each loop a "
            "name of its own; let what a step draws depend on its number alone"
        )
        whole = trial.editor.state()
        if {*whole} != {*self.state}:
            yield f"state() has other names after a fit that was killed; {words}"
        for name in sorted({*whole} & {*self.state}):
            if not torch.equal(whole[name], self.state[name]):
                yield f"a fit that was killed ends with another {name!r}; {words}"
        if self.result is not None and not torch.equal(self.result, trial.whole):
            yield f"what was learned differs after it was killed; {words}"


def learns(trial: Trial) -> bool:
    """Return whether there is a loop to look for here: a fit, or references that are learned.

    A fit is looked at once for each model, under the first of the verbs that go with it.
    """
    if trial.verb == "personalise":
        return True
    first = next(v for v in VERBS if fits(trial.method, trial.model_name, v))
    return trial.cls.fit is not Editor.fit and trial.verb == first


def survivor(trial: Trial) -> Survivor:
    """Fit in as many runs as it takes, in a folder of its own; for references, act as well."""
    with TemporaryDirectory() as folder:
        again = replace(trial, cache=Cache(Path(folder) / "cache"), observation=None)
        fitting = Mortal(Path(folder) / "fit")
        for _ in range(MOST):
            editor, result = again.attached(fitting=fitting), None
            try:
                with register_optimizer_step_post_hook(fitting.count), torch.enable_grad():
                    editor.fit(again.data, again.asked())
                if trial.verb == "personalise":
                    result = again.act(editor, ROWS)
            except Killed:
                continue
            return Survivor(fitting, editor.state(), result)
    return Survivor(fitting, None, None)
