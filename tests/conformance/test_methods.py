"""Every method of conf/method keeps the laws, and is refused where it cannot run."""

import inspect
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from method_trials import CONF, METHODS, asking, broken_laws, first_of_its_class, parts

from latentbench.cache import Cache
from latentbench.cells.catalogue import option
from latentbench.conformance import toy, toy_models
from latentbench.conformance.declarations import faults
from latentbench.conformance.killing import learns, survivor
from latentbench.conformance.laws import LAWS
from latentbench.conformance.trial import NAMES, Trial, fits, missing, trials
from latentbench.editor import VERBS, Editor
from latentbench.errors import Incompatible
from latentbench.models.latent_diffusion import LatentDiffusion
from latentbench.streams import Streams
from latentbench.types import Capability, Space

ROOT = Path(__file__).parents[2]
every = pytest.mark.parametrize("name", METHODS)


@cache
def all_trials(name: str) -> tuple[Trial, ...]:
    """Every trial of a method."""
    return tuple(trials(option("method", name)))


@cache
def trials_of(name: str) -> tuple[Trial, ...]:
    """A method's trials. On "diffae" a method that reads no code works as it does on "pixel".

    What an image's code is there is seen to below. On "causal" only those are tried that run on
    nothing else.
    """
    found = all_trials(name)
    others = {t.model_name for t in found} - {"causal"}
    return tuple(
        t for t in found
        if (t.model_name != "diffae" or name in READS_CODES)
        and (t.model_name != "causal" or not others)
    )  # fmt: skip


READS_CODES = (
    "plain", "lerp", "slerp", "autoencode", "autoencode_fresh", "features_semantic"
)  # fmt: skip
TRIALS = [(name, str(trial)) for name in METHODS for trial in trials_of(name)]


DEAR = {  # further trials of methods that learn or optimise for seconds in each
    ("asyrp", "edit on pixel"), ("asyrp", "invert on pixel"), ("asyrp", "invert on latent"),
    ("selfdiscovery", "invert on latent"), ("suppress_eot", "invert on latent"),
    ("null_text", "invert on latent"), ("noiseclr", "invert on latent"),
    ("diffattack", "edit on latent"), ("composed_mcmc", "compose on latent"),
    *((name, "mixture on latent") for name in ("attend_and_excite", "composed_mcmc", "conform",
                                               "coop_diffusion", "spatial_temporal_attention")),
    *(("weights2weights", trial) for trial in ("invert on pixel", "invert on latent",
                                               "edit on latent")),
    *(("sliderspace", trial) for trial in ("invert on pixel", "invert on latent",
                                              "generate on latent", "edit on latent")),
    *((name, trial) for name in ("hspace_jacobian", "subspace_edit")
      for trial in ("invert on pixel", "edit on latent", "invert on latent")),
}  # fmt: skip
BY_METHOD = [  # variants of a class that is tried anyway take their time with the slow tests
    pytest.param(
        *pair, marks=() if first_of_its_class(pair[0]) and pair not in DEAR else pytest.mark.slow
    )
    for pair in TRIALS
]


def test_dear_trials_are_trials():
    assert set(TRIALS) >= DEAR


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Cache:
    """Fits and inversions are shared, as in a sweep."""
    return Cache(tmp_path_factory.mktemp("conformance"))


# ---------------------------------------------------------------- what is said about a method


@every
def test_a_method_says_what_it_must(name):
    assert not list(faults(option("method", name)))


@every
def test_the_yamls_values_are_the_constructors_defaults(name):
    """One truth; a variant (a yaml on top of another) may differ."""
    if "defaults:" in (CONF / f"{name}.yaml").read_text():
        return
    method = option("method", name)
    parameters = inspect.signature(method.cls.__init__).parameters
    assert method.config == {k: parameters[k].default for k in method.config}


@every
def test_a_method_has_a_test_file(name):
    module = option("method", name).cls.__module__.split(".")[-1]
    assert (ROOT / "tests" / "unit" / "methods" / f"test_{module}.py").is_file()


@every
def test_every_verb_of_a_method_is_tried(name):
    assert not missing(option("method", name))


# ---------------------------------------------------------------- refusals


@every
def test_a_model_that_lacks_a_required_space_is_refused(name):
    method = option("method", name)
    for verb in sorted(method.cls.verbs()):
        spaces, needs = method.cls.required([verb], method.config)
        home = next(c for n, c in reversed(toy_models.CLASSES.items()) if fits(method, n, verb))
        assert parts(name, verb, home).misfit() is None
        for space in spaces:

            class Lacking(home):
                spaces: ClassVar = frozenset(home.spaces - {space})

            assert str(space) in str(parts(name, verb, Lacking).misfit())
        for need in needs:

            class Poor(toy.ToyData):
                gives: ClassVar = frozenset(toy.ToyData.gives - {need})

            class Poorer(home):
                gives: ClassVar = frozenset(home.gives - {need})

            asks = asking(method, verb, set(Capability) - {need})
            alone = {k: v for k, v in method.config.items() if k not in method.cls.others}
            own = parts(name, verb, Poorer)
            poor = replace(own, settings=alone, dataset=Poor(), benchmark=asks)
            assert need in (poor.misfit() or "")


@every
def test_a_missing_verb_says_which_there_are(name, unchecked):
    editor = option("method", name).build()
    two = ("generate", "compose", "vary")
    three = ("edit", "interpolate", "personalise", "invent", "combine", "panorama", "mixture")
    has = sorted(type(editor).verbs())[0]
    for verb in set(VERBS) - type(editor).verbs():
        with pytest.raises(Incompatible, match=f"no verb '{verb}'; it has: {has}"):
            getattr(editor, verb)(*[None] * (2 if verb in two else 3 if verb in three else 1))


# ---------------------------------------------------------------- laws


@pytest.mark.parametrize(("name", "trial"), BY_METHOD, ids=["-".join(pair) for pair in TRIALS])
def test_a_method_keeps_every_law(name, trial, store):
    found = next(t for t in trials_of(name) if str(t) == trial)
    assert not broken_laws(replace(found, cache=store), leaving=("resumed",))  # seen to below


LEARNING = [(name, trial) for name in METHODS for trial in all_trials(name) if learns(trial)]
FIRST = {name: str(trial) for name, trial in reversed(LEARNING)}  # the others take their time
DEAR_KILLS = (
    "asyrp", "concept_distillation", "hspace_jacobian", "neti", "one_actor", "p_plus",
    "selfdiscovery", "subspace_edit",
)  # fmt: skip
KILLS = [
    pytest.param(
        name, trial, id=f"{name}-{trial}",
        marks=() if str(trial) == FIRST[name] and name not in DEAR_KILLS else pytest.mark.slow,
    )
    for name, trial in LEARNING
]  # fmt: skip
ONE_PASS = {  # a fit without iterations -> what it does instead
    "boundary_diffusion": "inverts images once, and separates their codes by a linear machine",
    "code_algebra": "solves linear equations",
    "hspace": "reads h of images once, and takes means",
    "hspace_annotated": "reads h of samples once, and takes means",
    "hspace_asymmetric": "reads h of images once, and takes means",
    "hspace_pca": "reads h of images once, and takes principal components",
    "hubness": "draws a pool, and counts neighbours",
    "matrix_subspace_projection": "solves linear equations",
    "noise_direction": "inverts images once, and takes means",
    "relative_stitching": "solves linear equations",
    "simplicial": "draws a pool, and takes a quantile",
    "subspace_edit_text": "learns nothing: each text has its own direction",
    "truncation": "draws a pool, and takes its mean",
}


@pytest.mark.parametrize(("name", "trial"), KILLS)
def test_a_killed_fit_goes_on_where_it_stopped(name, trial, store):
    """Killed in each of its loops; a fit that has none takes no gradient either."""
    found = replace(trial, cache=store)
    before = found.model.evaluations.backward
    lived = survivor(found)
    gradients = found.model.evaluations.backward - before
    assert not list(lived.faults(found))
    if name in ONE_PASS:
        assert not lived.fitting.made and not gradients
    else:
        assert lived.fitting.killed


def test_fits_of_one_pass_are_fits():
    assert set(FIRST) >= {*ONE_PASS, *DEAR_KILLS}


READS = frozenset({Space.ATTENTION, Space.TOKEN_MAPS})
READERS = [  # trials of methods that read attention, or change what it reads
    (name, trial) for name, trial in TRIALS
    if trial.endswith("on latent") and first_of_its_class(name)
    and option("method", name).cls.required(
        [trial.partition(" ")[0]], option("method", name).config
    )[0] & READS
]  # fmt: skip
QUICK = (  # the others take longer, or go as these do
    "merge_split_panorama", "p_plus", "pilot", "plug_and_play", "prompt_to_prompt",
    "spatial_temporal_attention"
)  # fmt: skip


@pytest.fixture(scope="module")
def half(tmp_path_factory: pytest.TempPathFactory) -> LatentDiffusion:
    """The text-conditional toy model with weights in half precision."""
    path = toy.save_latent(tmp_path_factory.mktemp("half"), "v_prediction")
    return LatentDiffusion(path=path, steps=3, guidance=3.0, dtype="bfloat16")


@pytest.mark.parametrize(
    ("name", "trial"),
    [pytest.param(*pair, marks=() if pair[0] in QUICK else pytest.mark.slow) for pair in READERS],
    ids=["-".join(pair) for pair in READERS],
)
def test_attention_of_half_precision_goes_with_what_methods_hold_in_full(name, trial, half):
    found = next(t for t in trials_of(name) if str(t) == trial)
    found = replace(found, cache=Cache(None), loaded=half)
    assert found.whole.dtype == torch.float32 and bool(found.whole.isfinite().all())


ON_CODES = ("own_code", "priors_code", "strength_0")


def on_codes(name: str) -> list[Trial]:
    """A method's trials on a model with a code; an edit shows its inversion as well."""
    found = [t for t in all_trials(name) if t.model_name == "diffae" and name not in READS_CODES]
    verbs = {verb for law in ON_CODES for verb in LAWS[law].verbs}
    if any(t.verb == "edit" for t in found):
        verbs.remove("invert")
    return [t for t in found if t.verb in verbs]


CODED = [(name, trial) for name in METHODS for trial in on_codes(name)]


@pytest.mark.parametrize(("name", "trial"), [
    pytest.param(*pair, marks=pytest.mark.slow if pair[0] == "asyrp" else ()) for pair in CODED
], ids=[f"{name}-{trial.verb}" for name, trial in CODED])  # fmt: skip
def test_an_image_keeps_its_code(name, trial, store):
    """Found under it, decoded and changed under it; a drawn one likewise."""
    found = replace(trial, cache=store)
    for law in ON_CODES:
        if trial.verb in LAWS[law].verbs:
            with torch.no_grad():
                LAWS[law].check(found)


PATHS = [pair for pair in TRIALS if pair[1].startswith("interpolate")]


@pytest.mark.parametrize(("name", "trial"), PATHS, ids=["-".join(pair) for pair in PATHS])
def test_ends_of_a_path_are_plain_generation(name, trial, store):
    found = replace(next(t for t in trials_of(name) if str(t) == trial), cache=store)
    a, b = found.ends(NAMES)
    frames = found.editor.interpolate(a, b, 4)
    for frame, end, seed in ((0, a, 0), (-1, b, 1)):
        plain: Editor = option("method", "plain").build()
        plain.attach(found.model, Streams(seed), store)
        expected = plain.generate(end.ids, end.prompts)
        torch.testing.assert_close(frames[:, frame], expected, rtol=1e-3, atol=1e-3)
