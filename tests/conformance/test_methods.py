"""Laws that every method keeps: these tests run over every yaml in conf/method."""

import inspect
import re
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import pytest
import safetensors.torch
import torch
import toy
from hydra import compose, initialize_config_dir
from hydra.utils import get_class, instantiate
from omegaconf import OmegaConf

from latentbench.cache import Cache
from latentbench.cells.compatibility import Parts
from latentbench.editor import VERBS, Editor
from latentbench.errors import BadInput, Incompatible
from latentbench.models.diffusion_autoencoder import DiffusionAutoencoder
from latentbench.models.gan import StyleGAN
from latentbench.models.latent_consistency import LatentConsistency
from latentbench.models.latent_diffusion import LatentDiffusion
from latentbench.models.pixel_diffusion import PixelDiffusion
from latentbench.models.vae import VariationalAutoencoder
from latentbench.streams import Streams
from latentbench.types import Batch, Capability, Edit, Endpoint, Samples, Space

ROOT = Path(__file__).parents[2]
CONF = ROOT / "conf"
NAMES = sorted(p.stem for p in (CONF / "method").glob("*.yaml"))
STEPS, SIZE = 5, 3
# what a cell spends on fitting, cut down
SMALL = {"images": 12, "extremes": 4, "components": 4, "steps": STEPS}


@cache
def config(name: str) -> dict[str, Any]:
    """The method's settings as a run would compose them. Shared: leave it as it is."""
    with initialize_config_dir(str(CONF), version_base=None):
        settings = OmegaConf.to_container(compose(overrides=[f"+method={name}"]).method)
    assert isinstance(settings, dict)
    return {str(k): v for k, v in settings.items()}


def editor_class(name: str) -> type[Editor]:
    return get_class(config(name)["_target_"])


@dataclass
class Bench:
    """A toy model with its data and what a benchmark would ask for."""

    model: Any
    data: toy.ToyData
    cache: Cache  # fits and inversions are shared, as in a sweep

    def editor(self, name: str, seed: int = 0, **settings) -> Editor:
        """Build a fitted editor."""
        settings = {k: v for k, v in SMALL.items() if k in config(name)} | settings
        editor = instantiate({**config(name), **settings})
        editor.attach(self.model, Streams(seed), self.cache)
        editor.fit(self.data, self.asked())
        return editor

    def asked(self) -> list[Edit]:
        return [Edit(f"{n}+", n) for n in self.data.attributes]

    def edits(self, indices: list[int]) -> tuple[Batch, Edit]:
        batch = self.data.batch("test", indices)
        targets = self.data.edited_prompts("test", indices, "hat", torch.ones(len(indices)))
        # captions that differ from the source's, also where the hat is on already
        targets = tuple(f"{t} glasses" if t == s else t
                        for t, s in zip(targets, batch.prompts or (), strict=True))  # fmt: skip
        return batch, Edit("hat+", "hat", 1, batch.prompts, targets)

    def ends(self, ids: tuple[str, ...]) -> tuple[Endpoint, Endpoint]:
        return self.end(ids, 0, "glasses"), self.end(ids, 1, "smile")

    def end(self, ids: tuple[str, ...], seed: int, word: str) -> Endpoint:
        prompts = {"a": "a face with hat", "b": "smile", "c": "a face"}
        words = tuple(f"{prompts[i]} {word}" for i in ids) if self.model.gives else None
        parts = self.model.prior(Streams(seed), ids).parts
        return Endpoint(ids, parts[Space.NOISE], words, code=parts.get(Space.SEMANTIC))


MODELS = {
    "pixel": PixelDiffusion,
    "lcm": LatentConsistency,
    "latent": LatentDiffusion,
    "vae": VariationalAutoencoder,
    "gan": StyleGAN,
    "diffae": DiffusionAutoencoder,
}
# the others run on "diffae" as on "pixel"
TOLD = ("plain", "lerp", "slerp", "autoencode", "features_semantic")


def fits(model: str, name: str, verb: str) -> bool:
    """Whether the method can do this on the model, read on the classes as the runner does."""
    cls, model_class = editor_class(name), MODELS[model]
    if not issubclass(model_class, cls.families) or (model == "diffae" and name not in TOLD):
        return False
    spaces, needs = cls.required([verb], config(name))
    return verb in cls.verbs() and not (
        spaces - model_class.spaces
        or needs - {Capability.LABELS, Capability.TARGET_PROMPTS} - model_class.gives
    )


CASES = [(m, n, v) for n in NAMES for v in VERBS for m in MODELS if fits(m, n, v)]


def on(*wanted: str) -> Any:
    """Parametrize over all (model, method, verb) that go together, of these verbs."""
    cases = [c for c in CASES if c[2] in wanted]
    return pytest.mark.parametrize(
        ("bench", "name", "verb"), cases, indirect=["bench"], ids=["-".join(c) for c in cases]
    )


@pytest.fixture
def bench(request, tmp_path_factory) -> Bench:
    store = Cache(tmp_path_factory.getbasetemp() / f"conformance-{request.param}")
    return Bench(request.getfixturevalue(request.param), toy.ToyData(), store)


def act(bench: Bench, editor: Editor, verb: str, order: list[int]) -> torch.Tensor:
    """Do what the verb does for rows in this order; one result per row."""
    ids = tuple("abc"[k] for k in order)
    if verb == "generate":
        words = {"a": "a face with hat", "b": "smile", "c": "glasses"}
        return editor.generate(ids, [words[i] for i in ids] if bench.model.gives else None)
    if verb == "interpolate":
        return editor.interpolate(*bench.ends(ids), 4)
    batch, edit = bench.edits(order)
    if verb == "represent":
        return editor.represent(batch)
    if verb == "invert":
        return editor.decode(editor.invert(batch))
    return editor.edit(batch, edit, torch.tensor([0.0, editor.max_strength]))


every = pytest.mark.parametrize("name", NAMES)


# ---------------------------------------------------------------- what is said about a method


@every
def test_a_method_names_its_paper_and_explains_its_settings(name):
    cls = editor_class(name)
    assert cls.paper and cls.scope in ("image", "global", "model")
    assert cls.verbs(), f"{cls.__name__} overrides no verb"
    documented = set(re.findall(r"^\s+(\w+): ", inspect.getdoc(cls).split("Args:")[1], re.M))
    parameters = inspect.signature(cls.__init__).parameters.values()
    own = {p.name for p in parameters} - {"self"}
    assert own - documented == set(), f"undocumented in {cls.__name__}"
    assert all(p.kind is p.KEYWORD_ONLY for p in parameters if p.name != "self")
    assert all(p.annotation is not p.empty for p in parameters if p.name != "self")


@every
def test_the_yaml_names_every_setting(name):
    """The yaml is what users read: nothing hidden, nothing that the constructor lacks."""
    cls = editor_class(name)
    parameters = set(inspect.signature(cls.__init__).parameters) - {"self"}
    assert set(config(name)) - {"_target_"} == parameters


@every
def test_the_yamls_values_are_the_constructors_defaults(name):
    """One truth; a variant (a yaml on top of another) may differ."""
    if "defaults:" in (CONF / "method" / f"{name}.yaml").read_text():
        return
    parameters = inspect.signature(editor_class(name).__init__).parameters
    settings = {k: v for k, v in config(name).items() if k != "_target_"}
    assert settings == {k: parameters[k].default for k in settings}


@every
def test_a_method_has_a_test_file(name):
    module = editor_class(name).__module__.split(".")[-1]
    assert (ROOT / "tests" / "unit" / "methods" / f"test_{module}.py").is_file()


@every
def test_every_verb_of_a_method_is_tried_below(name):
    tried = {verb for _, method, verb in CASES if method == name}
    assert tried == editor_class(name).verbs()


# ---------------------------------------------------------------- refusals


@every
def test_a_model_that_lacks_a_required_space_is_refused(name):
    cls = editor_class(name)
    for verb in sorted(cls.verbs()):
        home = next(MODELS[m] for m in reversed(MODELS) if (m, name, verb) in CASES)
        spaces, needs = cls.required([verb], config(name))
        assert spaces, f"{name} says nothing of what {verb} requires"
        for space in spaces:

            class Lacking(home):
                spaces: ClassVar = frozenset(home.spaces - {space})

            reason = parts(cls, name, verb, Lacking).misfit()
            assert reason is not None and str(space) in reason
        assert parts(cls, name, verb, home).misfit() is None
        for need in needs:

            class Poor(toy.ToyData):
                gives: ClassVar = frozenset(toy.ToyData.gives - {need})

            asks = toy.Asks(verb=verb, gives=set(Capability) - {need})
            poor = replace(parts(cls, name, verb, home), dataset=Poor(), benchmark=asks)
            assert need in (poor.misfit() or "")


def parts(cls: type[Editor], name: str, verb: str, model: type) -> Parts:
    return Parts(cls, config(name), model, toy.ToyData(), toy.Asks(verb=verb))


@every
def test_a_missing_verb_says_which_there_are(name, latent):
    editor = instantiate(config(name))
    calls = {
        "generate": lambda: editor.generate(("a",), None),
        "invert": lambda: editor.invert(None),
        "edit": lambda: editor.edit(None, None, None),
        "interpolate": lambda: editor.interpolate(None, None, 2),
        "represent": lambda: editor.represent(None),
    }
    for verb in set(VERBS) - editor.verbs():
        with pytest.raises(
            Incompatible, match=f"no verb '{verb}'; it has: {sorted(editor.verbs())[0]}"
        ):
            calls[verb]()


# ---------------------------------------------------------------- laws


@on("represent")
def test_codes_are_one_finite_vector_per_image(bench, name, verb):
    found = act(bench, bench.editor(name), verb, [0, 1, 2])
    assert found.ndim == 2 and len(found) == 3 and found.dtype == torch.float32
    assert bool(found.isfinite().all()) and float((found[0] - found[1]).abs().max()) > 1e-4


@on("generate")
def test_an_image_can_be_made_from_a_given_noise(bench, name, verb):
    editor, shape = bench.editor(name), bench.model.latent_shape
    own, other = (Streams(seed).normal("prior", ("a", "b", "c"), shape) for seed in (0, 1))
    prompts = ["hat", "smile", "glasses"] if bench.model.gives else None
    images = editor.generate(("a", "b", "c"), prompts)
    assert torch.equal(editor.generate(("a", "b", "c"), prompts, own), images)
    moved = editor.generate(("a", "b", "c"), prompts, other)
    assert float((moved - images).abs().flatten(1).amax(1).min()) > 1e-3  # fresh noise hides x_T


@on(*(v for v in VERBS if v != "represent"))
def test_results_have_a_row_per_image_and_are_finite(bench, name, verb):
    found = act(bench, bench.editor(name), verb, [0, 1, 2])
    size = bench.model.image_size
    middle = {"generate": (), "invert": (), "edit": (2,), "interpolate": (4,)}[verb]
    assert found.shape == (3, *middle, 3, size, size) and found.dtype == torch.float32
    outputs = found if middle else found[:, None]
    Samples(("a", "b", "c"), outputs, ("all",) * 3)  # raises on NaN


@on(*VERBS)
def test_the_same_work_done_again_gives_the_same_bytes(bench, name, verb):
    """Fit and verb from scratch, without a cache, under another global seed."""
    fresh, found = replace(bench, cache=Cache(None)), []
    for seed in (1, 2):
        torch.manual_seed(seed)
        found.append(act(fresh, fresh.editor(name), verb, [0, 1, 2]))
    assert torch.equal(*found)
    assert torch.equal(act(bench, bench.editor(name), verb, [0, 1, 2]), found[0])


@on(*VERBS)
def test_a_row_does_not_depend_on_its_neighbours(bench, name, verb):
    """An image alone in a padded batch has the same bytes as among others."""
    editor = bench.editor(name)
    together = act(bench, editor, verb, [0, 1, 2])
    for k in (0, 2):
        assert torch.equal(act(bench, editor, verb, [k] * SIZE)[0], together[k])


@on(*VERBS)
def test_the_order_of_rows_changes_nothing(bench, name, verb):
    editor = bench.editor(name)
    first, second = (act(bench, editor, verb, order) for order in ([0, 1, 2], [2, 0, 1]))
    assert torch.equal(second, first[[2, 0, 1]])


@on(*VERBS)
def test_another_batch_size_differs_by_rounding(bench, name, verb):
    editor = bench.editor(name)
    alone, together = (act(bench, editor, verb, order) for order in ([1], [0, 1, 2]))
    torch.testing.assert_close(alone[0], together[1], rtol=1e-3, atol=1e-3)


@on("edit")
def test_strength_0_is_the_methods_own_reconstruction(bench, name, verb):
    editor = bench.editor(name)
    batch, edit = bench.edits([0, 1, 2])
    model = bench.model
    if "invert" in editor.verbs():
        expected = editor.decode(editor.invert(batch))
    else:
        expected = model.decode(model.encode(batch.images))
    top = editor.max_strength
    for strengths in ([0.0], [0.0, top], [top, 0.0, top / 2]):
        images = editor.edit(batch, edit, torch.tensor(strengths))
        found = images[:, strengths.index(0.0)]
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)


@on("edit")
def test_an_edit_has_an_effect_that_depends_on_its_strength(bench, name, verb):
    editor = bench.editor(name)
    batch, edit = bench.edits([0, 1, 2])
    top = editor.max_strength
    images = editor.edit(batch, edit, torch.tensor([0.0, top / 2, top]))
    for a, b in ((0, 1), (1, 2), (0, 2)):
        change = (images[:, a] - images[:, b]).abs().flatten(1).amax(1)
        assert float(change.min()) > 1e-2


@on("edit")
def test_what_is_asked_for_matters(bench, name, verb):
    """Another attribute or another prompt gives another image."""
    editor = bench.editor(name)
    batch, edit = bench.edits([0, 1, 2])
    other = replace(edit, attribute="smile", target_prompts=("smile",) * 3)
    one, two = (editor.edit(batch, e, torch.tensor([editor.max_strength])) for e in (edit, other))
    assert float((one - two).abs().flatten(1).amax(1).min()) > 1e-3


@on("edit", "interpolate")
def test_state_saved_and_loaded_gives_equal_results(bench, name, verb):
    fitted = bench.editor(name)
    saved = safetensors.torch.save(fitted.state()) if fitted.state() else None
    fresh = instantiate({**config(name), **{k: v for k, v in SMALL.items() if k in config(name)}})
    fresh.attach(bench.model, Streams(0), bench.cache)
    fresh.load_state(safetensors.torch.load(saved) if saved else {})
    found, expected = (act(bench, editor, verb, [0, 1, 2]) for editor in (fresh, fitted))
    assert torch.equal(found, expected)


@on("edit")
def test_a_method_that_learns_must_be_fitted_first(bench, name, verb):
    if editor_class(name).fit is Editor.fit:  # nothing to learn
        return
    editor = instantiate(config(name))
    editor.attach(bench.model, Streams(0), bench.cache)
    batch, edit = bench.edits([0, 1, 2])
    with pytest.raises(BadInput, match="fitted: none"):
        editor.edit(batch, edit, torch.ones(1))


@on("interpolate")
def test_ends_of_a_path_are_plain_generation(bench, name, verb):
    a, b = bench.ends(("a", "b", "c"))
    frames = bench.editor(name).interpolate(a, b, 4)
    for frame, end, seed in ((0, a, 0), (-1, b, 1)):
        plain = bench.editor("plain", seed).generate(end.ids, end.prompts)
        torch.testing.assert_close(frames[:, frame], plain, rtol=1e-3, atol=1e-3)


@on("interpolate")
def test_a_path_moves_in_every_frame(bench, name, verb):
    frames = bench.editor(name).interpolate(*bench.ends(("a", "b", "c")), 4)
    steps = (frames[:, 1:] - frames[:, :-1]).abs().flatten(2).amax(2)
    assert float(steps.min()) > 1e-3


@on(*VERBS)
def test_no_trace_is_left_in_the_model(bench, name, verb):
    """Hooks, processors, adapters: plain sampling before and after is the same."""
    plain = bench.editor("plain")
    before = act(bench, plain, "generate", [0, 1, 2])
    weights = bench.model.fingerprint()
    act(bench, bench.editor(name), verb, [0, 1, 2])
    assert torch.equal(act(bench, plain, "generate", [0, 1, 2]), before)
    assert bench.model.fingerprint() == weights
