"""Every method runs on the forms of published checkpoints, or says what the form lacks."""

from collections.abc import Callable
from dataclasses import replace

import pytest
from checkpoint_forms import FORMS, load
from method_trials import METHODS, broken_laws, parts

from latentbench.cache import Cache
from latentbench.cells.catalogue import option
from latentbench.conformance.laws import ALL, LAWS, ROUNDING
from latentbench.conformance.trial import Trial
from latentbench.editor import VERBS
from latentbench.errors import NotFinite
from latentbench.model import LatentModel
from latentbench.streams import Streams
from latentbench.types import Space

Cell = tuple[str, str, str]  # method, verb, form
CELLS = [
    (name, verb, form)
    for name in METHODS for verb in VERBS if verb in option("method", name).cls.verbs()
    for form in FORMS
]  # fmt: skip


def misfit(cell: Cell) -> str | None:
    """Return why the runner would skip it."""
    name, verb, form = cell
    return parts(name, verb, FORMS[form]).misfit()


RUN = [cell for cell in CELLS if misfit(cell) is None]
REFUSED = [cell for cell in CELLS if cell not in RUN]
SPACES = {  # cells that stand for all that work in a space, for the quick tests
    Space.NOISE: ("ddim_inversion", "edit", "flux"),
    Space.NOISE_MAPS: ("edit_friendly_ddpm", "edit", "sdxl"),
    Space.VAE: ("features_vae", "represent", "sdxl"),
    Space.BOTTLENECK: ("hspace", "edit", "flux"),
    Space.TEXT: ("textual_inversion", "personalise", "sd15"),
    Space.ATTENTION: ("plug_and_play", "edit", "sd15"),
    Space.TOKEN_MAPS: ("attend_and_excite", "compose", "sd3"),
    Space.WEIGHTS: ("etsdm", "generate", "sd3"),
}
ONES = [*SPACES.values(), ("flow_edit", "edit", "flux"), ("slerp", "interpolate", "sd3")]
OF_ROUNDING = {"batch_size", "strength_0"}  # laws that allow for rounding alone
FAINT = {("selfdiscovery", "edit", form) for form in ("sd15", "sdxl")}  # it learns for 3 steps
LOOKS = ("shape", "image_range", "strength_0", "effect", "batch_size")


def named(cell: Cell) -> str:
    return "-".join(cell)


@pytest.fixture(scope="session")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., LatentModel]:
    """Gives the pipeline of a form, made once for each dtype."""
    made: dict[tuple[str, str], LatentModel] = {}

    def get(form: str, dtype: str = "float32") -> LatentModel:
        if (form, dtype) not in made:
            made[form, dtype] = model = load(form, tmp_path_factory.mktemp(form), dtype)
            model.condition(["a face"], 1)  # transformers hooks a text encoder at its first prompt
        return made[form, dtype]

    return get


@pytest.fixture(scope="session")
def caches(tmp_path_factory: pytest.TempPathFactory) -> Cache:
    """Fits and inversions are shared, as in a sweep."""
    return Cache(tmp_path_factory.mktemp("forms"))


def trial_of(cell: Cell, model: LatentModel, cache: Cache) -> Trial:
    name, verb, form = cell
    return Trial(option("method", name), form, verb, cache, model)


# ---------------------------------------------------------------- what runs


@pytest.mark.slow
@pytest.mark.parametrize("cell", RUN, ids=named)
def test_a_method_keeps_every_law(cell, pipeline, caches):
    trial = trial_of(cell, pipeline(cell[2]), caches)
    broken = {line.partition(":")[0]: line for line in broken_laws(trial)}
    if cell in FAINT and broken.pop("effect", None):
        assert float((trial.curve[:, 0] - trial.curve[:, 1]).abs().max()) > ROUNDING
    if broken.keys() & OF_ROUNDING and grows(trial):
        broken = {law: line for law, line in broken.items() if law not in OF_ROUNDING}
    assert not broken


def grows(trial: Trial) -> bool:
    """Return whether images moved by a change of rounding's size differ by more than is allowed.

    Of an untrained eps-network a few steps of Adam go anywhere, and so does what they lead to.
    """
    if trial.verb not in ("invert", "edit"):
        return False
    batch, *rest = trial.inputs(ALL)
    change = 1e-6 * Streams(0).normal("rounding", batch.ids, batch.images.shape[1:])
    moved = replace(batch, images=(batch.images + change).clamp(-1, 1))
    found = trial.seen(trial.editor, (moved, *rest))
    return float((found - trial.whole).abs().max()) > ROUNDING


@pytest.mark.parametrize("cell", ONES, ids=named)
def test_one_of_each_space_acts_on_any_number_of_images(cell, pipeline, caches):
    trial = trial_of(cell, pipeline(cell[2]), caches)
    for law in LOOKS:
        if trial.verb in LAWS[law].verbs:
            LAWS[law].check(trial)


@pytest.mark.parametrize(("space", "cell"), SPACES.items(), ids=str)
def test_the_ones_work_in_their_spaces(space, cell):
    method = option("method", cell[0])
    assert cell in RUN and space in method.cls.required([cell[1]], method.config)[0]


def test_every_space_of_a_form_has_its_one():
    """No method asks for joint attention alone: those that read it read the prompt's tokens."""
    theirs = frozenset().union(*(model.spaces for model in FORMS.values()))
    assert theirs - SPACES.keys() == {Space.JOINT_ATTENTION}


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("cell", RUN, ids=named)
def test_networks_of_half_precision_go_with_what_methods_hold_in_full(cell, dtype, pipeline):
    trial = trial_of(cell, pipeline(cell[2], dtype), Cache(None))
    try:
        LAWS["shape"].check(trial)
    except NotFinite as error:  # float16 may have no room, which is said
        assert dtype == "float16" and "model.dtype=bfloat16" in str(error)


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize("cell", REFUSED, ids=named)
def test_a_refusal_names_what_the_form_lacks(cell):
    name, verb, form = cell
    method, model, why = option("method", name), FORMS[form], misfit(cell)
    spaces, needs = method.cls.required([verb], method.config)
    families = [kind.__name__ for kind in method.cls.families]
    if not issubclass(model, method.cls.families):
        lacking = families
    else:
        lacking = sorted(
            str(x) for x in spaces - model.spaces or needs - parts(name, verb, model).given()
        )
    assert lacking and model.__name__ in why
    assert all(word in why for word in lacking)
