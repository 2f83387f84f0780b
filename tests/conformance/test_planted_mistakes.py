"""Methods with a planted mistake: each is found by the law that it breaks, and by its table."""

import random
from io import StringIO

import numpy as np
import pytest
import torch
from rich.console import Console

from latentbench import check as checking
from latentbench.conformance.declarations import faults
from latentbench.conformance.laws import LAWS, LawBroken, results
from latentbench.conformance.trial import trials
from latentbench.editor import Editor
from latentbench.model import Condition, DiffusionModel
from latentbench.option import Option
from latentbench.sampling.loop import Recorder, denoise, guided, noise_to_level
from latentbench.types import Latent, Space


class Shift(Editor[DiffusionModel]):
    """Adds a learned shift to the clean latent.

    Args:
        mistake: which mistake to make; none is empty.
    """

    paper = "none, section 1"
    requires = {"invert": frozenset({Space.NOISE}), "edit": frozenset({Space.NOISE})}  # noqa: RUF012

    def __init__(self, *, mistake: str = "") -> None:
        self.mistake = mistake
        self.shifts_ = {}

    def fit(self, data, edits):
        images = data.batch("generator", range(8)).images
        if self.mistake == "takes for granted that an edit is asked for":
            self.first = edits[0]
        for k, edit in enumerate(edits):
            self.shifts_[edit.attribute] = images[k] * 0.2

    def state(self):
        return {} if self.mistake == "empty state" else self.shifts_

    def load_state(self, state):
        self.shifts_ = state

    def invert(self, batch):
        return Latent({Space.NOISE: self.model.encode(batch.images)})

    def decode(self, latent):
        images = self.model.decode(latent.parts[Space.NOISE])
        return (images.clamp(-1, 1) + 1) / 2 if self.mistake == "unit range" else images

    def edit(self, batch, edit, strengths):
        if edit.attribute not in self.shifts_:
            from latentbench.errors import BadInput

            raise BadInput(f"no shift for {edit.attribute}; fitted: none")
        x = self.model.encode(batch.images)[:, None]
        g = strengths.reshape(1, -1, 1, 1, 1)
        found = self.decode(
            Latent({Space.NOISE: (x + g * self.shifts_[edit.attribute]).flatten(0, 1)})
        ).unflatten(0, (len(batch), len(strengths)))
        return self.spoiled(found, batch, g)

    def spoiled(self, found, batch, g):
        if self.mistake == "in place":
            batch.images.mul_(0.9)
        if self.mistake == "strengths in place":
            g.mul_(0.9)
        if self.mistake == "forgets to undo":
            self.model.network.train()
        if self.mistake == "unseeded noise":
            found = found + 0.1 * g * torch.randn_like(found)
        if self.mistake == "seeds the world":
            torch.manual_seed(0)
        if self.mistake == "seeds numpy":
            np.random.seed(0)
        if self.mistake == "draws from Python":
            random.random()
        if self.mistake == "leaves gradients on":
            torch.set_grad_enabled(True)
        if self.mistake == "leaves double as default":
            torch.set_default_dtype(torch.float64)
        if self.mistake == "a generator of its own":
            self.drawn = getattr(self, "drawn", None) or torch.Generator().manual_seed(0)
            found = found + 0.1 * g * torch.randn(found.shape, generator=self.drawn)
        if self.mistake == "rows reversed":
            found = found.flip(0)
        if self.mistake == "strengths sorted":
            found = found[:, g.flatten().argsort()]
        if self.mistake == "strengths added up":
            source = self.model.decode(self.model.encode(batch.images))[:, None]
            found = source + (found - source).cumsum(1)
        if self.mistake == "batch statistics":
            found = found - found.mean(0, keepdim=True)
        if self.mistake == "nan":
            found[0, -1, 0, 0, 0] = torch.nan
        if self.mistake == "no strength axis":
            return found[:, -1]
        if self.mistake == "wrong type":
            return found.double()
        if self.mistake == "no effect":
            return found[:, :1].expand_as(found)
        if self.mistake == "deaf":
            return self.model.decode(self.model.encode(batch.images))[:, None] + 0.3 * g
        if self.mistake == "strength 0":
            return found + 0.1
        if self.mistake == "leaves a mark":
            next(self.model.network.parameters()).data.add_(1e-3)
        if self.mistake == "not contiguous":
            return found.transpose(-1, -2).contiguous().transpose(-1, -2)
        if self.mistake == "undeclared":
            self.peek(batch)
        return found

    def peek(self, batch):
        grid, recorder = self.model.grid(), Recorder(bottleneck=True)
        x = noise_to_level(grid, batch.images, torch.zeros_like(batch.images), 2)
        terms = guided(self.model.condition(None, len(x)), Condition(), 1.0)
        denoise(self.model, x, terms, grid=grid, level=2, interventions=[recorder])


FOUND_BY = {
    "in place": "inputs_untouched",
    "unseeded noise": "reproducible",
    "seeds the world": "global_state_untouched",
    "seeds numpy": "global_state_untouched",
    "draws from Python": "global_state_untouched",
    "leaves gradients on": "global_state_untouched",
    "leaves double as default": "global_state_untouched",
    "a generator of its own": "order",
    "rows reversed": "order",
    "strengths in place": "inputs_untouched",
    "strengths sorted": "strength_0",
    "strengths added up": "strength_0",
    "forgets to undo": "no_trace",
    "batch statistics": "neighbours",
    "unit range": "image_range",
    "nan": "shape",
    "no strength axis": "shape",
    "wrong type": "shape",
    "no effect": "effect",
    "deaf": "asked_for",
    "strength 0": "strength_0",
    "empty state": "state",
    "leaves a mark": "no_trace",
    "undeclared": "declared_spaces",
}


def target(cls: type) -> str:
    """Return where a yaml would say that the class is."""
    return f"{cls.__module__}.{cls.__qualname__}"


def broken(mistake: str, verb: str = "edit") -> dict[str, Exception]:
    """Return the laws that a Shift with this mistake breaks when it acts on the pixel model."""
    method = Option("shift", target(Shift), {"mistake": mistake})
    edits = [t for t in trials(method) if str(t) == f"{verb} on pixel"]
    found = {law: error for law, _, error in results(edits) if error is not None}
    edits[0].model.network.eval()  # the toy model is shared
    return found


@pytest.mark.parametrize("harmless", ["", "not contiguous"])
def test_a_method_without_a_mistake_breaks_no_law(harmless):
    assert broken(harmless) == {}


@pytest.mark.parametrize("mistake", FOUND_BY)
def test_a_mistake_is_found_by_its_law(mistake):
    found = broken(mistake)
    assert FOUND_BY[mistake] in found
    assert isinstance(found[FOUND_BY[mistake]], LawBroken)


def test_a_fit_that_needs_an_edit_is_found_where_none_is_asked_for():
    assert "nothing_asked" not in broken("", "invert")
    found = broken("takes for granted that an edit is asked for", "invert")
    assert "IndexError" in str(found["nothing_asked"])


class Given(Shift):
    """A variant that is given its shift: its fit has nothing to learn."""

    def fit(self, data, edits):
        """Learn nothing."""

    def edit(self, batch, edit, strengths):
        self.shifts_ = {edit.attribute: 0.3}
        return super().edit(batch, edit, strengths)


def test_a_variant_that_learns_nothing_needs_no_state_and_no_fit():
    method = Option("given", target(Given), {"mistake": "empty state"})
    (trial,) = (t for t in trials(method) if str(t) == "edit on pixel")
    found = {law for law, _, error in results([trial]) if error is not None}
    assert not found & {"state", "fitted_first"}


class Trained(Shift):
    """Learns its shifts by descent, in two loops."""

    def fit(self, data, edits):
        images = data.batch("generator", range(8)).images
        self.made = Trained.runs = getattr(Trained, "runs", 0) + 1
        self.drawn = torch.Generator().manual_seed(0)
        for name in ("first", "second"):
            shift = torch.zeros_like(images[0], requires_grad=True)
            adam = torch.optim.Adam([shift], 0.1)
            for step in self.counted(name, shift, adam):
                draw = f"{name}/{step}"
                drawn = self.streams.generator(draw)
                if self.mistake == "one generator for all steps":
                    drawn = self.drawn
                row = int(torch.randint(8, (), generator=drawn))
                adam.zero_grad()
                (shift - images[row]).square().sum().backward()
                adam.step()
            self.shifts_[name] = shift.detach()
        self.shifts_ |= {e.attribute: self.shifts_["first"] for e in edits}

    def counted(self, name, shift, adam):
        if self.mistake == "a loop of its own":
            return range(4)
        if self.mistake == "another name in each run":
            name = f"{name}-{self.made}"
        if self.mistake == "one name for two loops":
            name = "loop"
        tensors = {"shift": shift.clone() if self.mistake == "a copy is kept" else shift}
        kept = None if self.mistake == "no optimizer" else adam
        return self.fitting.steps(name, 4, tensors, kept)


def killed(mistake):
    """Kill a fit with this mistake in its loops."""
    method = Option("trained", target(Trained), {"mistake": mistake})
    (trial,) = (t for t in trials(method) if str(t) == "invert on pixel")
    LAWS["resumed"].check(trial)


def test_a_fit_that_keeps_its_steps_may_be_killed():
    killed("")


@pytest.mark.parametrize(
    ("mistake", "words"),
    [
        ("a loop of its own", "8 steps of Adam outside"),
        ("another name in each run", "differ from run to run"),
        ("one name for two loops", "ends with another 'second'"),
        ("a copy is kept", "ends with another 'first'"),
        ("no optimizer", "ends with another 'first'"),
        ("one generator for all steps", "ends with another 'first'"),
    ],
)
def test_a_fit_that_begins_again_is_found(mistake, words):
    with pytest.raises(LawBroken, match=words):
        killed(mistake)


class Forgetful(Editor[DiffusionModel]):
    """Keeps the noise of an image, or of the prior, and drops the code that goes with it."""

    paper = "none, section 1"
    requires = {v: frozenset({Space.NOISE}) for v in ("invert", "generate")}  # noqa: RUF012

    def invert(self, batch):
        return self.model.invert(batch, self.cache)

    def decode(self, latent):
        return self.model.sample(Latent({Space.NOISE: latent.parts[Space.NOISE]}), guidance=1.0)

    def generate(self, ids, prompts, noise=None):
        x = self.model.prior(self.streams, ids).parts[Space.NOISE] if noise is None else noise
        return self.decode(Latent({Space.NOISE: x}))


@pytest.mark.parametrize(("verb", "law"), [("invert", "own_code"), ("generate", "priors_code")])
def test_a_dropped_code_is_found(verb, law):
    method = Option("forgetful", target(Forgetful), {})
    (trial,) = (t for t in trials(method) if str(t) == f"{verb} on diffae")
    found = {name for name, _, error in results([trial]) if error is not None}
    assert found == {law}


class Silent(Shift):
    """Says nothing of its spaces."""

    paper = ""
    requires = {}  # noqa: RUF012

    def __init__(self, mistake=""):
        super().__init__(mistake=mistake)


def test_what_a_class_does_not_say_is_named():
    said = " ".join(faults(Option("silent", target(Silent), {"mistake": "", "gone": 1})))
    for words in ("names no paper", "no space for the verb edit", "keyword-only and typed",
                  "Args do not explain the setting mistake", "the setting gone"):  # fmt: skip
        assert words in said


@pytest.mark.parametrize(("mistake", "code", "words"), [("", 0, " 0 failed"), ("nan", 1, "NaN")])
def test_the_command_prints_a_table_and_its_exit_code_tells(mistake, code, words, monkeypatch):
    method, out = Option("shift", target(Shift), {"mistake": mistake}), StringIO()
    monkeypatch.setattr(checking, "option", lambda group, name: method)
    monkeypatch.setattr(
        checking, "_trials", lambda m, f: [t for t in trials(m) if str(t) == "edit on pixel"]
    )
    found = checking.check("shift")
    found.show(Console(file=out, width=140))
    assert found.code == code
    assert words in out.getvalue() and "neighbours" in out.getvalue()
