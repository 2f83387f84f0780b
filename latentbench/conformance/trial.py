"""One method on one toy model, doing one verb: what a law looks at."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from latentbench.cache import Cache
from latentbench.conformance import toy, toy_models
from latentbench.editor import VERBS, Editor
from latentbench.fitting import Fitting
from latentbench.model import LatentModel
from latentbench.option import Option
from latentbench.streams import Streams
from latentbench.types import SUBJECT, Batch, Capability, Concept, Edit, Endpoint, Space

NAMES = ("a", "b", "c")  # ids of what has no image yet
TOYS = {  # what parts give
    "scorer": Capability.SCORER,
    "classifier": Capability.CLASSIFIER,
    "model": Capability.SECOND_MODEL,
}
TAKEN = Edit("wear", factors=("glasses", "hat"))  # what `combine` is asked for
WIDE = 2  # widths of an image in a panorama
WORDS = {"a": "a face with hat", "b": "smile", "c": "glasses"}


@dataclass
class Trial:
    """A method on a toy model, and what a benchmark would ask of it.

    Args:
        method: the method with its settings.
        model_name: which toy model.
        verb: which of the method's verbs.
        cache: where fits and inversions are kept; shared between trials as in a sweep.
        loaded: a model in the toy model's place.
        observation: what the laws have seen of it already.
    """

    method: Option
    model_name: str
    verb: str
    cache: Cache = field(default_factory=lambda: Cache(None))
    loaded: LatentModel | None = None
    observation: Any = None

    def __str__(self) -> str:
        return f"{self.verb} on {self.model_name}"

    @property
    def cls(self) -> type[Editor]:
        """The method's class."""
        return self.method.cls

    @cached_property
    def model(self) -> Any:
        """The toy model, or the one in its place."""
        return self.loaded or toy_models.model(self.model_name)

    @cached_property
    def data(self) -> toy.ToyData:
        """Images with captions and labels."""
        return toy.ToyData(self.model.image_size)

    def settings(self, **more: Any) -> dict[str, Any]:
        """Return the method's settings, made small."""
        return {**self.method.config, **self.cls.small, **more}

    def build(self) -> Editor:
        """Return the method, not attached."""
        return self.cls(**self.settings())

    def attached(self, seed: int = 0, fitting: Fitting | None = None) -> Editor:
        """Return the method with its model, not fitted."""
        editor = self.build()
        editor.attach(self.model, Streams(seed), self.cache, self.parts(), fitting)
        return editor

    def parts(self) -> dict[str, Any]:
        """Return what its settings name: toy networks, and the toy model as a second one."""
        made = {
            "scorer": toy.PatternScorer,
            "classifier": toy.PatternClassifier,
            "model": lambda: self.model,
        }
        config = self.settings()
        return {k: made[group]() for k, group in self.cls.others.items() if config.get(k)}

    @cached_property
    def editor(self) -> Editor:
        """The method, fitted."""
        editor = self.attached()
        with torch.enable_grad():
            editor.fit(self.data, self.asked())
        return editor

    @cached_property
    def whole(self) -> Tensor:
        """What the verb gives for all three rows; of an edit at strength 0 and the largest."""
        return self.act(self.editor, (0, 1, 2))

    @cached_property
    def curve(self) -> Tensor:
        """Edits of all three rows at the largest strength, 0, and half of the largest."""
        batch, edit = self.edits((0, 1, 2))
        top = self.editor.max_strength
        return self.editor.edit(batch, edit, torch.tensor([top, 0.0, top / 2]))

    def asked(self) -> list[Edit]:
        """Return the edits that a fit receives, with numbers where the method has them."""
        return [
            self._numbered(Edit(f"{n}+", n, words=(f"no {n}", n)), k)
            for k, n in enumerate(self.data.attributes)
        ] + [TAKEN] * (self.verb == "combine")

    def edits(self, indices: Sequence[int]) -> tuple[Batch, Edit]:
        """Return images, and an edit whose captions add a word to the images' and lack one."""
        batch = self.data.batch("test", indices)
        goal = torch.ones(len(indices))
        targets = self.data.edited_prompts("test", indices, "hat", goal)
        pairs = zip(targets, batch.prompts or (), strict=True)
        targets = tuple(f"{t} glasses" if t == s else t for t, s in pairs)
        targets = tuple(t.removeprefix("a ") for t in targets)
        _, needs = self.cls.required(["edit"], self.method.config)
        masks = None
        if Capability.EDIT_MASKS in needs:
            masks = torch.zeros(len(indices), *batch.images.shape[-2:])
            masks[..., : masks.shape[-1] // 2] = 1
        return batch, self._numbered(Edit("hat+", "hat", 1, batch.prompts, targets, masks), 0)

    def _numbered(self, edit: Edit, k: int) -> Edit:
        found = self.cls.directions(self.settings())
        return replace(edit, component=k) if found else edit

    def ends(self, ids: Sequence[str]) -> tuple[Endpoint, Endpoint]:
        """Return both ends of a path per id."""
        return self._end(ids, 0, "glasses"), self._end(ids, 1, "smile")

    def _end(self, ids: Sequence[str], seed: int, word: str) -> Endpoint:
        prompted = Capability.PROMPTS in self.model.gives
        words = tuple(f"{WORDS[i]} {word}" for i in ids) if prompted else None
        parts = self.model.prior(Streams(seed), ids).parts
        return Endpoint(tuple(ids), parts[Space.NOISE], words, code=parts.get(Space.SEMANTIC))

    def prompts(self, ids: Sequence[str]) -> list[str] | None:
        """Return a caption per id, where the model takes captions."""
        return [WORDS[i] for i in ids] if Capability.PROMPTS in self.model.gives else None

    def inputs(self, order: Sequence[int]) -> tuple[Any, ...]:
        """Return the arguments of the verb for rows in this order."""
        ids = tuple(NAMES[k] for k in order)
        if self.verb == "generate":
            return ids, self.prompts(ids)
        if self.verb == "panorama":
            return ids, self.prompts(ids), WIDE * self.model.image_size
        if self.verb == "interpolate":
            return (*self.ends(ids), 4)
        if self.verb == "compose":
            prompts = tuple(WORDS[i] for i in ids)
            return ids, [Concept(prompts), Concept(("hat",) * len(ids), -0.5)]
        if self.verb == "mixture":
            prompts = tuple(WORDS[i] for i in ids)
            parts = [Concept((word,) * len(ids)) for word in ("hat", "smile")]
            return ids, [Concept(prompts)], parts
        if self.verb == "personalise":
            references = self.data.batch("test", [5, 6])
            return references, ids, [f"{SUBJECT} {WORDS[i]}" for i in ids]
        if self.verb == "invent":
            prompts = [f"{SUBJECT} {WORDS[i]}" for i in ids]
            return tuple(f"character {i}" for i in ids), ids, prompts
        batch, edit = self.edits(order)
        if self.verb == "combine":
            return batch, self.data.batch("test", [k + 5 for k in order]), TAKEN
        if self.verb == "edit":
            return batch, edit, torch.tensor([0.0, self.build().max_strength])
        if self.verb == "vary":
            return batch, 2
        _, needs = self.cls.required([self.verb], self.method.config)
        if Capability.TRAJECTORY in needs:
            batch = toy.sampled(self.model, batch, self.settings().get("steps"))
        return (batch,)

    def call(self, editor: Editor, inputs: tuple[Any, ...]) -> Any:
        """Return what the verb returns."""
        return getattr(editor, self.verb)(*inputs)

    def act(self, editor: Editor, order: Sequence[int]) -> Tensor:
        """Do what the verb does for rows in this order; codes are decoded."""
        return self.seen(editor, self.inputs(order))

    def seen(self, editor: Editor, inputs: tuple[Any, ...]) -> Tensor:
        """Return what the verb returns, its codes decoded."""
        found = self.call(editor, inputs)
        if self.verb == "feature_maps":
            return torch.cat([maps.flatten(1) for maps in found.values()], 1)
        return editor.decode(found) if self.verb == "invert" else found

    def fresh(self) -> "Trial":
        """Return the same trial without a cache."""
        return replace(self, cache=Cache(None), observation=None)


def fits(method: Option, model_name: str, verb: str) -> bool:
    """Return whether a method can do this on a toy model, as the runner reads it on the classes."""
    cls, model = method.cls, toy_models.CLASSES[model_name]
    if verb not in cls.verbs() or not issubclass(model, cls.families):
        return False
    spaces, needs = cls.required([verb], method.config)
    known = {Capability.LABELS, Capability.COUNTERFACTUALS}
    asked = known | {Capability.TARGET_PROMPTS, Capability.REFERENCES, Capability.TRAJECTORY}
    named = {TOYS[group] for k, group in cls.others.items() if method.config.get(k)}
    given = asked | {Capability.EDIT_MASKS} | model.gives | named
    return not spaces - model.spaces and not needs - given and cls.misfit(model, {}) is None


def trials(method: Option, cache: Cache | None = None) -> list[Trial]:
    """Return every verb of a method on every toy model that goes with it."""
    store = cache or Cache(None)
    return [
        Trial(method, model, verb, store)
        for verb in VERBS
        for model in toy_models.CLASSES
        if fits(method, model, verb)
    ]


def missing(method: Option) -> Mapping[str, str]:
    """Return the verbs that no toy model can try, each with what they lack."""
    tried = {trial.verb for trial in trials(method)}
    found = {}
    for verb in method.cls.verbs() - tried:
        spaces, needs = method.cls.required([verb], method.config)
        found[verb] = ", ".join(sorted(str(x) for x in {*spaces, *needs}))
    return found
