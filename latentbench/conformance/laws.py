"""The laws: what holds for every method, verb and model. Each is a function of a trial.

A law raises `LawBroken` with what came and what is asked; whatever else a method raises is its own
error. `check` runs them over all trials of a method, and the suite's tests over every method.
"""

import random
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any

import numpy as np
import safetensors.torch
import torch
from torch import Tensor

from latentbench.cache import Cache
from latentbench.conformance.killing import learns, survivor
from latentbench.conformance.trial import NAMES, WIDE, Trial
from latentbench.content import content_hash
from latentbench.editor import VERBS, Editor
from latentbench.errors import BadInput, LatentbenchError
from latentbench.streams import Streams
from latentbench.types import Capability, Space

ALL = (0, 1, 2)
ROUNDING = 1e-3  # of images in [-1, 1], between calls of different batch sizes
IMAGES = (
    "generate",
    "invert",
    "edit",
    "interpolate",
    "compose",
    "mixture",
    "personalise",
    "vary",
    "invent",
    "combine",
    "panorama",
)  # verbs whose results can be seen


class LawBroken(LatentbenchError):
    """A method does not keep a law."""


@dataclass(frozen=True)
class Law:
    """One law.

    Args:
        words: what it says, in one line.
        verbs: the verbs that it holds for.
        check: raises `LawBroken` where a trial breaks it.
    """

    words: str
    verbs: tuple[str, ...]
    check: Callable[[Trial], None]


LAWS: dict[str, Law] = {}


def law(words: str, *verbs: str) -> Callable[[Callable[[Trial], None]], Callable[[Trial], None]]:
    """Register a function as a law of these verbs; of all where none is named."""

    def register(check: Callable[[Trial], None]) -> Callable[[Trial], None]:
        LAWS[check.__name__] = Law(words, verbs or VERBS, check)
        return check

    return register


@law("results have the promised shape and dtype, and are finite")
def shape(trial: Trial) -> None:
    """Compare shape and dtype of a result with what its verb promises."""
    found, size = trial.whole, trial.model.image_size
    middle = {"edit": (2,), "interpolate": (4,), "vary": (2,)}.get(trial.verb, ())
    wide = WIDE * size if trial.verb == "panorama" else size
    expected = (3, *middle, 3, size, wide)
    if trial.verb in ("represent", "feature_maps"):
        expected = (3, found.shape[-1]) if found.ndim == 2 else ("3", "d")
    _ask(
        tuple(found.shape) == expected,
        f"returned {list(found.shape)} where {list(expected)} is asked; rows are images, the "
        f"second axis of edit, interpolate and vary are strengths, frames and draws",
    )
    _ask(found.dtype == torch.float32, f"returned {found.dtype} where float32 is asked")
    _ask(bool(torch.isfinite(found).all()), "returned NaN or infinity")


@law("images lie around [-1, 1], not in [0, 1] or 0..255", *IMAGES)
def image_range(trial: Trial) -> None:
    """Look at the range of images."""
    found = trial.whole
    low, high = float(found.min()), float(found.max())
    _ask(low < 0, f"no value is below 0 (range [{low:.3g}, {high:.3g}]): images are in [-1, 1]")
    _ask(max(-low, high) < 16, f"values lie in [{low:.3g}, {high:.3g}]: images are in [-1, 1]")


@dataclass(frozen=True)
class Observation:
    """A fit and a verb from scratch, watched.

    Args:
        result: what came out.
        wrote: whether the verb's arguments were changed.
        touched: what of the process's global state was used or changed.
        changed: what differs in the model's networks afterwards.
        undeclared: the first use of a space that is not required.
    """

    result: Tensor
    wrote: bool
    touched: tuple[str, ...]
    changed: tuple[str, ...]
    undeclared: LawBroken | None


def observed(trial: Trial) -> Observation:
    """Fit and act without a cache, under a global seed; done once per trial."""
    if trial.observation is None:
        trial.observation = _observe(trial)
    return trial.observation


def _observe(trial: Trial) -> Observation:
    spaces, _ = trial.cls.required([trial.verb], trial.method.config)
    inputs, uses = trial.inputs(ALL), []
    given, before = _hash(inputs), _traces(trial.model)
    with _global_seed(1), _guarded(trial.model, spaces, uses):
        process = _process()
        result = trial.seen(trial.fresh().editor, inputs)
        touched = _changed(process, _process())
    changed = _changed(before, _traces(trial.model))
    return Observation(result, _hash(inputs) != given, touched, changed, uses[0] if uses else None)


@law("the images, masks and captions that a method is given are not changed in place")
def inputs_untouched(trial: Trial) -> None:
    """Compare the inputs before and after."""
    wrote = observed(trial).wrote
    _ask(not wrote, "its inputs were changed in place; work on a copy (`x.clone()`)")


@law("the same work done again gives the same bytes, whatever the global seed")
def reproducible(trial: Trial) -> None:
    """Compare a run with cached fits with one from scratch, under another global seed."""
    _ask(
        torch.equal(trial.whole, observed(trial).result),
        "two runs differ; draw from self.streams (one stream per image id), not from torch's "
        "global generator",
    )


@law("the process's global state is not touched: random generators, gradient mode, threads")
def global_state_untouched(trial: Trial) -> None:
    """Look whether a global generator was used, or a global setting of torch changed."""
    touched = observed(trial).touched
    _ask(
        not touched,
        f"it used or changed {', '.join(touched)}; draw from self.streams, and change settings of "
        f"torch in a context manager that restores them",
    )


@law("a row does not depend on its neighbours")
def neighbours(trial: Trial) -> None:
    """An image alone in a padded batch has the same bytes as among others."""
    alone, together = trial.act(trial.editor, (2, 2, 2))[0], trial.whole[2]
    _ask(
        torch.equal(alone, together),
        f"an image comes out differently among copies of itself (by {_gap(alone, together):.2g}); "
        f"no statistic may run over the batch",
    )


@law("the order of the rows changes nothing")
def order(trial: Trial) -> None:
    """Compare two orders of the same images."""
    turned = (2, 0, 1)
    first, second = trial.whole, trial.act(trial.editor, turned)
    _ask(torch.equal(second, first[list(turned)]), "rows come out differently in another order")


@law("another batch size differs by float rounding only")
def batch_size(trial: Trial) -> None:
    """Compare an image alone with the same among others."""
    gap = _gap(trial.act(trial.editor, (1,))[0], trial.whole[1])
    _ask(gap < ROUNDING, f"an image alone differs by {gap:.2g} from the same among three")


@law("strength 0 is the method's own reconstruction", "edit")
def strength_0(trial: Trial) -> None:
    """Compare edits at strength 0 with the reconstruction, in every place on the curve."""
    editor, model = trial.editor, trial.model
    batch, edit = trial.edits(ALL)
    inverts = "invert" in trial.cls.verbs()
    expected = (
        editor.decode(editor.invert(batch)) if inverts else model.decode(model.encode(batch.images))
    )
    what = "decode(invert(images))" if inverts else "the model's decode(encode(images))"
    found = {
        "alone": editor.edit(batch, edit, torch.zeros(1))[:, 0],
        "before the largest": trial.whole[:, 0],
        "between others": trial.curve[:, 1],
    }
    for place, images in found.items():
        gap = _gap(images, expected)
        _ask(gap < ROUNDING, f"strength 0 {place} differs by {gap:.2g} from {what}")


@law("an edit has an effect, and a larger strength another one", "edit")
def effect(trial: Trial) -> None:
    """Compare the edits at three strengths."""
    at = dict(zip((1, 0, 0.5), trial.curve.unbind(1), strict=True))  # by share of max_strength
    for a, b in ((0, 0.5), (0.5, 1), (0, 1)):
        change = (at[a] - at[b]).abs().flatten(1).amax(1)
        _ask(
            float(change.min()) > 1e-2,
            f"images at {a:g} and {b:g} of max_strength are the same: no effect",
        )


@law("another attribute or another prompt gives another image", "edit")
def asked_for(trial: Trial) -> None:
    """Compare edits of the same images.

    Attributes may share an unsupervised component: those are asked for by number as well. Who
    translates by a second model is asked for that model's domain, and for more by captions alone.
    """
    _, needs = trial.cls.required(["edit"], trial.settings())
    if Capability.SECOND_MODEL in needs and Capability.PROMPTS not in trial.model.gives:
        return
    editor = trial.editor
    batch, edit = trial.edits(ALL)
    top = torch.tensor([editor.max_strength])
    asked = trial.whole[:, -1:]

    def another(**words: Any) -> bool:
        try:
            images = editor.edit(batch, replace(edit, **words), top)
        except BadInput:  # a method without components
            return False
        return float((images - asked).abs().flatten(1).amax(1).min()) > 1e-3

    names = [name for name in trial.data.attributes if name != edit.attribute]
    _ask(
        any(another(name=f"{n}+", attribute=n, target_prompts=(n,) * len(ALL)) for n in names)
        or any(another(component=k) for k in (0, 1)),
        "two different edits give the same image: the edit is not read",
    )


@law(
    "what was learned, saved and loaded gives equal results",
    "edit",
    "interpolate",
    "generate",
    "invent",
    "combine",
)
def state(trial: Trial) -> None:
    """Act with a method that loads what another one has learned."""
    cls, fitted = type(trial.editor), trial.editor
    if cls.fit is Editor.fit and cls.load_state is Editor.load_state:
        return  # it learns nothing, and `reproducible` has tried another instance
    fresh, learned = trial.attached(), fitted.state()
    data = safetensors.torch.save({k: v.contiguous() for k, v in learned.items()} or _NOTHING)
    found = safetensors.torch.load(data)
    fresh.load_state({k: v for k, v in found.items() if k in learned})
    try:
        same = torch.equal(trial.act(fresh, ALL), trial.whole)
    except BadInput:  # it says that it has not learned
        same = False
    what = "leaves something out" if learned else "is empty"
    _ask(same, f"after load_state(state()) the results are others, or refused: state() {what}")


@law("a fit that is killed in its loops goes on where it stopped, and learns the same")
def resumed(trial: Trial) -> None:
    """Kill a fit in the middle of each of its loops, and compare what it learns in the end."""
    if learns(trial):
        for fault in survivor(trial).faults(trial):
            raise LawBroken(fault)


@law("a method that learns refuses to act before it is fitted", "edit")
def fitted_first(trial: Trial) -> None:
    """Edit without a fit; a variant that learns nothing may, and `state` sees that it does not."""
    if trial.cls.fit is Editor.fit or not trial.editor.state():
        return
    editor = trial.attached()
    batch, edit = trial.edits(ALL)
    try:
        editor.edit(batch, edit, torch.ones(1))
    except BadInput:
        return
    except Exception as error:
        raise LawBroken(
            f"an edit before fit raised {type(error).__name__}; raise BadInput that says what was "
            f"asked for and what is fitted"
        ) from error
    raise LawBroken("an edit before fit went through; raise BadInput")


@law("a method that learns and inverts can be fitted for no edits, and inverts then", "invert")
def nothing_asked(trial: Trial) -> None:
    """Fit as for a benchmark that announces no edits, and invert."""
    if trial.cls.fit is Editor.fit:
        return
    editor = trial.attached()
    try:
        with torch.enable_grad():
            editor.fit(trial.data, ())
        trial.act(editor, ALL)
    except Exception as error:
        raise LawBroken(
            f"a fit for no edits, and an inversion, raised {type(error).__name__}: {error}; learn "
            f"what invert needs, or nothing, where a benchmark such as reconstruction has no edits"
        ) from error


@law("another noise gives another image, and the drawn noise the same one", "generate")
def given_noise(trial: Trial) -> None:
    """Generate from given noises."""
    editor, model = trial.editor, trial.model
    prompts = trial.prompts(NAMES)
    own, other = (model.prior(Streams(s), NAMES).parts[Space.NOISE] for s in (0, 1))
    images = editor.generate(NAMES, prompts)
    same = torch.equal(editor.generate(NAMES, prompts, own), images)
    _ask(same, "the model's prior, given as noise, gives another image than none given")
    moved = editor.generate(NAMES, prompts, other)
    least = float((moved - images).abs().flatten(1).amax(1).min())
    _ask(least > 1e-3, "another noise gives the same image: the given noise is not used")


@law("a concept of negative weight is not one of positive weight", "compose")
def negation(trial: Trial) -> None:
    """Compose with a concept asked for, and asked to be absent."""
    ids, (first, second) = trial.inputs(ALL)
    asked = [first, replace(second, weight=-second.weight)]
    least = float((trial.editor.compose(ids, asked) - trial.whole).abs().flatten(1).amax(1).min())
    _ask(least > 1e-3, "a concept and its negation give the same image: weights are not read")


@law("of several alternatives an image shows one, by its own draw", "mixture")
def one_alternative(trial: Trial) -> None:
    """Mix two alternatives, and each of them by itself."""
    editor = trial.editor
    ids, concepts, alternatives = trial.inputs(ALL)
    images = [editor.mixture(ids, concepts, [one]) for one in alternatives]
    gaps = torch.stack([(trial.whole - i).abs().flatten(1).amax(1) for i in images])
    off = float(gaps.amin(0).max())
    _ask(
        off < ROUNDING,
        f"an image is that of none of its alternatives, the nearest is off by {off:.3g}: draw one "
        f"for each image, do not blend them",
    )
    least = float((images[0] - images[1]).abs().flatten(1).amax(1).min())
    _ask(least > 1e-3, "two alternatives give the same image: alternatives are not read")


@law("other references give other images", "personalise")
def references_read(trial: Trial) -> None:
    """Personalise with other references."""
    _, ids, prompts = trial.inputs(ALL)
    other = trial.data.batch("test", [8, 9])
    found = trial.editor.personalise(other, ids, prompts)
    least = float((found - trial.whole).abs().flatten(1).amax(1).min())
    _ask(least > 1e-3, "other references give the same image: the references are not read")


@law("another character gives another image, and one character one image", "invent")
def characters_read(trial: Trial) -> None:
    """Compare images of one noise: of their characters, of others, of one for all."""
    characters, ids, prompts = trial.inputs(ALL)
    found = trial.editor.invent(characters[1:] + characters[:1], ids, prompts)
    least = float((found - trial.whole).abs().flatten(1).amax(1).min())
    _ask(least > 1e-3, "other characters give the same image: the characters are not read")
    one = trial.editor.invent(characters[:1] * 2, ids[:1] * 2, prompts[:1] * 2)
    _ask(torch.equal(one[0], one[1]), "one character with one noise gives two images")


@law("other images on either side give another combination", "combine")
def both_read(trial: Trial) -> None:
    """Combine with other images on one side."""
    a, b, edit = trial.inputs(ALL)
    other = replace(trial.data.batch("test", [8, 9, 10]), ids=a.ids)  # the noise stays
    for side, pair in (("first", (other, b)), ("second", (a, other))):
        found = trial.editor.combine(*pair, edit)
        least = float((found - trial.whole).abs().flatten(1).amax(1).min())
        _ask(least > 1e-3, f"other {side} images give the same image: they are not read")


@law("every variation is another image", "vary")
def draws_differ(trial: Trial) -> None:
    """Compare the draws of each image."""
    first, second = trial.whole.unbind(1)
    least = float((first - second).abs().flatten(1).amax(1).min())
    _ask(least > 1e-3, "two variations are one image: the draw is not used")


@law("a path moves in every frame", "interpolate")
def path_moves(trial: Trial) -> None:
    """Compare neighbouring frames."""
    frames = trial.whole
    steps = (frames[:, 1:] - frames[:, :-1]).abs().flatten(2).amax(2)
    _ask(float(steps.min()) > 1e-3, "two neighbouring frames are the same")


@law("codes and features differ between images", "represent", "feature_maps")
def codes_differ(trial: Trial) -> None:
    """Compare the codes of two images."""
    found = trial.whole
    _ask(_gap(found[0], found[1]) > 1e-4, "two images have the same code")


@law("an image is decoded under the code that it was inverted under", "invert", "edit")
def own_code(trial: Trial) -> None:
    """Compare the codes that the network is told of while it inverts and while it decodes."""
    if Space.SEMANTIC not in trial.model.spaces or "invert" not in trial.cls.verbs():
        return
    editor, batch = trial.editor, trial.inputs(ALL)[0]
    kept, editor.cache = editor.cache, Cache(None)  # an inversion that is kept tells nothing
    try:
        with _told(trial.model) as inverting:
            latent = editor.invert(batch)
        with _told(trial.model) as decoding:
            editor.decode(latent)
    finally:
        editor.cache = kept
    if not inverting or not decoding:  # what is drawn has no code yet, what is stored needs none
        return
    _ask(
        max(_apart(decoding, inverting), _apart(inverting, decoding)) < ROUNDING,
        "an image is inverted under one code and decoded under another; keep all that invert gives "
        "(`latent.parts`), and take `model.condition_of(latent)`",
    )


@law(
    "a sample is made of the code that the prior draws with its noise",
    "generate",
    "compose",
    "mixture",
)
def priors_code(trial: Trial) -> None:
    """Look for the prior's codes among those that the network is told of."""
    editor, model = trial.editor, trial.model
    code = model.prior(editor.streams, NAMES).parts.get(Space.SEMANTIC)
    if code is None:
        return
    with _told(model) as told:
        trial.act(editor, ALL)
    _ask(
        _apart([code], told) < ROUNDING,
        "the code of the prior is not used: pass on all that `model.prior` gives, as "
        "method=plain does",
    )


@law("no trace is left in the model: weights, hooks, adapters, attention, gradients")
def no_trace(trial: Trial) -> None:
    """Look at the model's networks after fit and verb."""
    changed = ", ".join(observed(trial).changed)
    _ask(not changed, f"the model's {changed} changed; undo it, or use model.borrowed()")


@law("a method works only in the spaces that it requires")
def declared_spaces(trial: Trial) -> None:
    """Look for uses of inner spaces that the method does not name."""
    undeclared = observed(trial).undeclared
    if undeclared is not None:
        raise undeclared


_NOTHING = {"nothing": torch.zeros(1)}  # safetensors keeps no empty file


def _ask(holds: bool, what: str) -> None:
    if not holds:
        raise LawBroken(what)


def _gap(a: Tensor, b: Tensor) -> float:
    return float((a - b).abs().max())


@contextmanager
def _global_seed(seed: int) -> Iterator[None]:
    """Seed all global generators inside the block, and restore them."""
    states = torch.get_rng_state(), np.random.get_state(), random.getstate()
    torch.manual_seed(seed)
    np.random.seed(seed)
    random.seed(seed)
    try:
        yield
    finally:
        torch.set_rng_state(states[0])
        np.random.set_state(states[1])
        random.setstate(states[2])


@contextmanager
def _same_settings() -> Iterator[None]:
    """Restore torch's settings after the block, in which gradients are off."""
    dtype, threads = torch.get_default_dtype(), torch.get_num_threads()
    try:
        with torch.no_grad():
            yield
    finally:
        torch.set_default_dtype(dtype)
        torch.set_num_threads(threads)


def _hash(value: Any) -> str:
    """Return a hash of all tensors and texts inside tuples, mappings and dataclasses."""
    return content_hash(_plain(value))


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: _plain(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, tuple | list) else value


def _process() -> dict[str, Any]:
    """Return the global state that a method must leave alone."""
    _, keys, *place = np.random.get_state(legacy=True)
    return {
        "torch's global generator": torch.get_rng_state().tolist(),
        "numpy's global generator": (np.asarray(keys).tolist(), place),
        "Python's global generator": random.getstate(),
        "torch's gradient mode": torch.is_grad_enabled(),
        "torch's default dtype": torch.get_default_dtype(),
        "torch's number of threads": torch.get_num_threads(),
    }


def _changed(before: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(name for name in before if before[name] != after[name])


def _traces(model: Any) -> dict[str, Any]:
    """Return all that a method may leave behind in a model's networks."""
    networks = model.networks()
    modules = [(name, m) for net in networks for name, m in net.named_modules()]
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks")
    return {
        "weights": content_hash([net.state_dict() for net in networks]),
        "hooks": [sum(len(getattr(m, kind)) for kind in hooks) for _, m in modules],
        "layers": [(name, type(m).__name__) for name, m in modules],
        "attention": [type(getattr(m, "processor", None)).__name__ for _, m in modules],
        "gradient flags": [p.requires_grad for net in networks for p in net.parameters()],
        "mode": [m.training for _, m in modules],
    }


@contextmanager
def _guarded(model: Any, spaces: frozenset[Space], uses: list[LawBroken]) -> Iterator[None]:
    """Note uses of bottleneck, attention and adapters that the spaces do not name."""

    def note(space: Space) -> None:
        uses.append(LawBroken(f"it works in the space {space}, which `requires` does not name"))

    def inside(x: Tensor, timesteps: Tensor, condition: Any, taps: Any = None) -> None:
        attention = {Space.ATTENTION, Space.JOINT_ATTENTION, Space.TOKEN_MAPS}
        if getattr(taps, "bottleneck", None) is not None and Space.BOTTLENECK not in spaces:
            note(Space.BOTTLENECK)
        if getattr(taps, "attend", None) is not None and not attention & spaces:
            note(Space.ATTENTION)
        if getattr(taps, "low_rank", None) and Space.WEIGHTS not in spaces:
            note(Space.WEIGHTS)

    def only(space: Space) -> Callable[..., None]:
        return lambda *args, **kwargs: None if space in spaces else note(space)

    watched = {
        "forward": inside,
        "add_adapter": only(Space.WEIGHTS),
    }
    present = {name: getattr(model, name) for name in watched if hasattr(model, name)}
    for name, whole in present.items():
        setattr(model, name, _before(whole, watched[name]))
    try:
        yield
    finally:
        for name in present:
            delattr(model, name)


def _before(call: Callable[..., Any], look: Callable[..., None]) -> Callable[..., Any]:
    def watched(*args: Any, **kwargs: Any) -> Any:
        look(*args, **kwargs)
        return call(*args, **kwargs)

    return watched


@contextmanager
def _told(model: Any) -> Iterator[list[Tensor]]:
    """Give the codes that the network is told of inside the block."""
    codes: list[Tensor] = []

    def look(x: Tensor, timesteps: Tensor, condition: Any, taps: Any = None) -> None:
        codes.append(condition.tensors["semantic"].detach())

    model.forward = _before(model.forward, look)
    try:
        yield codes
    finally:
        del model.forward


def _apart(codes: Sequence[Tensor], others: Sequence[Tensor]) -> float:
    """Return how far the farthest code is from the nearest one of the others."""
    if not others:
        return float("inf")
    gaps = torch.cat([*codes])[:, None] - torch.cat([*others])[None]
    return float(gaps.abs().amax(2).amin(1).max())


def results(
    trials: Sequence[Trial], leaving: Collection[str] = ()
) -> Iterator[tuple[str, Trial, Exception | None]]:
    """Yield (law, trial, what broke) of every law that holds for each trial's verb.

    On one CPU thread: with more, a row's rounding may depend on its place in the batch.

    Args:
        trials: what to try.
        leaving: laws that are left out.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for trial in trials:
            with _same_settings(), suppress(Exception):
                observed(trial)  # first of all: what a method changes for good, it changes once
            for name, one in LAWS.items():
                if trial.verb in one.verbs and name not in leaving:
                    yield name, trial, _broken(one, trial)
    finally:
        torch.set_num_threads(threads)


def _broken(one: Law, trial: Trial) -> Exception | None:
    try:
        with _same_settings():
            one.check(trial)
    except Exception as error:  # a method may raise what it likes
        return error
    return None
