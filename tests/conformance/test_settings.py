"""Wrong values on every option of every yaml: one readable sentence before anything is loaded.

What is wrong is decided here, not read off the annotations: every number must refuse NaN, infinity
and what is absurdly large; zero and negative numbers must be refused but for the settings named
below, each of which means something at that value.
"""

import math
from collections.abc import Iterator
from enum import Enum
from inspect import Parameter
from pathlib import Path
from typing import Any, get_args

import pytest
from hydra import compose
from hydra.utils import get_class
from omegaconf import OmegaConf

from latentbench import plugins
from latentbench.annotations import fits
from latentbench.cells.catalogue import options
from latentbench.cells.constructors import of_class
from latentbench.cells.parts import Part, check_settings
from latentbench.errors import BadInput

CONF = Path(__file__).resolve().parents[2] / "conf"
GROUPS = ("method", "model", "dataset", "metric", "benchmark", "scorer", "classifier", "tracker")
NUMBERS = (math.nan, math.inf, -math.inf, 10**30, -(10**30))
ZERO = {  # settings that mean something at zero; one a line, so that two additions merge
    "alpha",
    "at",
    "attack",
    "attention",
    "auxiliary_weight",
    "average_weight",
    "blend_start",
    "blocks",
    "bypass",
    "clip_strength",
    "context",
    "contrast",
    "control_scale",
    "correlation",
    "cosine",
    "cross_replace",
    "damping",
    "dilate",
    "drop",
    "embedded_guidance",
    "empty_share",
    "entangled",
    "epochs",
    "eta",
    "exclusion",
    "expand",
    "explore",
    "first",
    "forward_steps",
    "gamma",
    "guidance",
    "guidance_source",
    "guidance_target",
    "guided_share",
    "hold",
    "index",
    "inversion_guidance",
    "iterations",
    "k",
    "keep",
    "kept_words",
    "l2",
    "least",
    "local",
    "local_guidance",
    "memory",
    "momentum",
    "moves",
    "nested",
    "noise_level",
    "null_rank",
    "offset",
    "optimised",
    "oracle_from",
    "oracle_steps",
    "other_seed",
    "per_dimension",
    "perceptual",
    "prior_guidance",
    "real_noise",
    "reweight",
    "seed",
    "self_replace",
    "share",
    "skip",
    "skipped",
    "source",
    "source_guidance",
    "start",
    "structure",
    "t5_tokens",
    "t_align",
    "t_boost",
    "t_early",
    "t_edit",
    "tau",
    "tau_attention",
    "tau_f",
    "threshold",
    "tolerance",
    "transfer",
    "types",
    "until",
    "updates",
    "w_class",
    "w_directions",
    "w_distance",
    "w_l1",
    "w_pde",
    "w_sparse",
    "warmup",
    "weight",
    "weight_decay",
    "whole",
    "window_start",
}
NEGATIVE = {"other_seed", "reweight"}
ABOVE_ZERO = {
    ("method", "entry_truncation", "tau"),
    ("method", "cycle_diffusion", "eta"),
    ("method", "cycle_diffusion_selected", "eta"),
    ("method", "edit_friendly_ddpm", "eta"),
    ("method", "edit_friendly_prompt_to_prompt", "eta"),
    ("method", "eim", "share"),
    ("method", "renoise", "iterations"),
}
ANY_TEXT = {"device"}  # which runtime.device decides
INTEGERS = (-1, *(2**k for k in range(13)))  # of which a setting that takes whole numbers takes one


def every_option() -> list[tuple[str, str]]:
    files = [path for group in GROUPS for path in sorted((CONF / group).glob("*.yaml"))]
    return [(path.parent.name, path.stem) for path in files if path.stem != "none"]


def config(group: str, name: str) -> Any:
    """Return an option's settings, with a path where the user must give one."""
    if group == "tracker":
        with plugins.conf():
            return OmegaConf.to_container(compose(plugins.EMPTY, [f"+tracker={name}"]).tracker)
    option = options(group)[name]
    values = {
        k: "somewhere" if v is None and k in ("path", "target") else v
        for k, v in option.config.items()
    }
    return {"_target_": f"{option.cls.__module__}.{option.cls.__qualname__}", **values}


def refusal(group: str, settings: dict[str, Any]) -> str | None:
    """Return what is said of the settings before anything is built, or None."""
    built = OmegaConf.create({group: settings})[group]
    try:
        check_settings([Part.of(built)])
    except BadInput as error:
        return str(error)
    return None


def wrong_values(where: tuple[str, str, str], annotation: Any) -> Iterator[Any]:
    """Yield values that a setting must refuse, whatever bounds its annotation has."""
    yield {"a": 1}
    takes = {kind for kind in (bool, int, float, str) if takes_kind(annotation, kind)}
    if takes_list(annotation):
        yield from ("one", 3) if bool in takes else ("one", 3, True)
        return
    yield ["one"]
    if str not in takes:
        yield from ("", "3", "soon")
    if bool not in takes:
        yield True
    if not takes & {int, float}:
        yield from (0, 1.5)
        return
    yield from NUMBERS
    if float not in takes:
        yield from (1.5, 2.0)
    if where[2] not in NEGATIVE:
        yield -1
    if where[2] not in ZERO or where in ABOVE_ZERO:
        yield 0


def takes_kind(annotation: Any, kind: type) -> bool:
    probes = {bool: (True,), int: INTEGERS, float: (0.5, 0.013, 7.3), str: ("zz", "a+")}
    found = any(fits(value, annotation) for value in probes[kind])
    return found or (kind is str and bool(words(annotation)))


def takes_list(annotation: Any) -> bool:
    return any(fits(value, annotation) for value in ([], ["a"], ["truths"], ["a+"], [1]))


def words(annotation: Any) -> list[str]:
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return list(annotation.__members__)
    inner = [w for member in get_args(annotation) for w in words(member)]
    return [*inner, *(a for a in get_args(annotation) if isinstance(a, str))]


def check(said: str | None, setting: str, value: Any) -> None:
    assert said is not None, f"{setting}={value!r} was accepted"
    assert said.startswith((f"{setting} must be ", f"{setting}[0] must be ")), said
    assert "; got " in said and "\n" not in said


@pytest.fixture(autouse=True)
def nothing_is_built(monkeypatch):
    """Let a part that passes its checks be nothing, so that no weight or image is looked for."""
    monkeypatch.setattr("latentbench.cells.parts.instantiate", lambda *a, **k: None)


@pytest.mark.parametrize(("group", "name"), every_option())
def test_every_wrong_value_is_answered_in_one_sentence(group, name):
    settings = config(group, name)
    assert refusal(group, settings) is None
    parameters = of_class(get_class(settings["_target_"]))
    for setting, parameter in parameters.items():
        if setting in ANY_TEXT:
            continue
        for value in wrong_values((group, name, setting), parameter.annotation):
            check(refusal(group, settings | {setting: value}), f"{group}.{setting}", value)


@pytest.mark.parametrize(("group", "name"), every_option())
def test_every_near_miss_of_a_word_is_answered_with_the_word(group, name):
    settings = config(group, name)
    for setting, parameter in of_class(get_class(settings["_target_"])).items() if settings else ():
        for word in words(parameter.annotation):
            value = [word[:-1]] if takes_list(parameter.annotation) else word[:-1]
            said = refusal(group, settings | {setting: value})
            check(said, f"{group}.{setting}", value)
            assert "did you mean" in str(said) or len(word) < 4, said


@pytest.mark.parametrize(("group", "name"), every_option())
def test_an_unknown_name_is_answered_with_its_neighbours(group, name):
    settings = config(group, name)
    for setting in of_class(get_class(settings["_target_"])).keys() - ANY_TEXT:
        said = str(refusal(group, settings | {f"{setting}s": 1}))
        assert said.startswith(f"unknown setting of {group} '{setting}s'; did you mean"), said
        assert setting in said


@pytest.mark.parametrize(("group", "name"), every_option())
def test_every_default_fits_its_own_annotation(group, name):
    settings = config(group, name)
    for parameter in of_class(get_class(settings["_target_"])).values() if settings else ():
        if parameter.default is not Parameter.empty:
            assert fits(parameter.default, parameter.annotation), parameter
