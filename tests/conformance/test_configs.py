"""Every yaml in conf/ composes, its class exists and takes its settings, and it is documented."""

import importlib
import inspect
import pkgutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from hydra import compose
from omegaconf import OmegaConf

from latentbench import plugins, weights
from latentbench.benchmark import Benchmark
from latentbench.cells.catalogue import options
from latentbench.cells.scoring import refuse_clashes
from latentbench.data.dataset import Dataset
from latentbench.editor import VERBS, Editor
from latentbench.metric import Metric
from latentbench.model import LatentModel
from latentbench.types import Capability, Space

ROOT = Path(__file__).resolve().parents[2]
CONF = ROOT / "conf"
BASES = {
    "method": Editor,
    "model": LatentModel,
    "dataset": Dataset,
    "metric": Metric,
    "benchmark": Benchmark,
}


def names(group: str) -> list[str]:
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


def pairs(*groups: str) -> list[tuple[str, str]]:
    return [(group, name) for group in groups for name in names(group)]


@pytest.mark.parametrize(("group", "name"), pairs(*BASES))
def test_its_class_exists_and_takes_its_settings(group, name):
    option = options(group)[name]
    assert issubclass(option.cls, BASES[group])
    assert not inspect.isabstract(option.cls)
    parameters = inspect.signature(option.cls).parameters
    assert set(option.config) <= set(parameters)
    for parameter in parameters.values():
        assert parameter.kind is parameter.KEYWORD_ONLY, f"{parameter} is not keyword-only"
        assert parameter.annotation is not parameter.empty, f"{parameter} has no type"


@pytest.mark.parametrize(("group", "name"), pairs("method", "benchmark", "metric"))
def test_light_parts_are_built_from_settings_alone(group, name):
    assert options(group)[name].build()


@pytest.mark.parametrize("name", names("method"))
def test_a_method_names_its_paper_verbs_and_needs(name):
    cls = options("method")[name].cls
    assert cls.paper
    assert cls.paper_of(options("method")[name].config)
    assert cls.verbs() <= set(VERBS)
    assert cls.verbs()
    assert cls.requires.keys() <= cls.verbs()
    assert {s for spaces in cls.requires.values() for s in spaces} <= set(Space)
    assert {n for needs in cls.needs.values() for n in needs} <= set(Capability)
    assert inspect.getdoc(cls)


@pytest.mark.parametrize(
    ("name", "title"),
    [
        ("prompt_to_prompt", "Prompt-to-Prompt Image Editing"),
        ("direct_inversion", "PnP Inversion"),
        ("plug_and_play", "Plug-and-Play Diffusion Features"),
        ("direct_inversion_pnp", "PnP Inversion"),
        ("edit_friendly_prompt_to_prompt", "An Edit Friendly DDPM Noise Space"),
        ("cycle_diffusion_selected", "Unifying Diffusion Models' Latent Space"),
        ("hspace_pca", "Discovering Interpretable Directions"),
        ("features", "Emergent Correspondence"),
        ("features_noise", "Denoising Diffusion Implicit Models"),
        ("features_semantic", "Diffusion Autoencoders"),
        ("lerp_style", "baseline; A Style-Based Generator"),
    ],
)
def test_the_settings_of_a_yaml_decide_its_paper(name, title):
    option = options("method")[name]
    assert option.cls.paper_of(option.config).startswith(title)


def test_yamls_of_one_class_that_follow_several_papers_tell_them_apart():
    told = {
        name: options("method")[name].cls.paper_of(options("method")[name].config)
        for name in ("hspace", "hspace_asymmetric", "hspace_pca", "noise_direction")
    }
    assert len(set(told.values())) == len(told)
    assert "Diffusion Models already have a Semantic Latent Space" in told["hspace_asymmetric"]
    assert "x_T" in told["noise_direction"]


@pytest.mark.parametrize("group", ["method", "metric", "benchmark"])
def test_every_class_that_nothing_derives_from_has_a_yaml(group):
    """A class that no yaml names cannot be run."""
    package = f"{group}s"
    found = {c for c in classes(package) if issubclass(c, BASES[group])}
    bases = {base for c in found for base in c.__mro__[1:]}
    targets = {option.cls for option in options(group).values()}
    assert len(found) > 5
    assert found - bases <= targets


def classes(package: str) -> Iterator[type]:
    """Yield every class that a module of the package defines."""
    root = importlib.import_module(package)
    for found in pkgutil.walk_packages(root.__path__, f"{package}."):
        for value in vars(importlib.import_module(found.name)).values():
            if isinstance(value, type) and value.__module__ == found.name:
                yield value


@pytest.mark.parametrize("name", names("metric"))
def test_a_metric_says_where_its_definition_stands(name):
    metric = options("metric")[name].build()
    assert type(metric).source
    assert metric.figures
    for figure in metric.figures.values():
        assert figure.description


@pytest.mark.parametrize("name", names("benchmark"))
def test_a_benchmark_names_known_verbs_and_metrics_that_give_its_main_score(name):
    cls = options("benchmark")[name].cls
    assert cls.question.endswith("?")
    assert cls.verbs <= set(VERBS)
    assert cls.needs <= set(Capability)
    with plugins.conf():
        config = compose(plugins.EMPTY, [f"+benchmark={name}"])
    metrics = {str(metric): options("metric")[str(metric)].build() for metric in config.metric}
    refuse_clashes(metrics)
    assert any(cls.main_score in metric.figures for metric in metrics.values())


@pytest.mark.parametrize(("group", "name"), pairs("launch", "sweep", "tracker"))
def test_ways_to_run_compose(group, name):
    with plugins.conf():
        config = compose("config", [f"{group}={name}"], return_hydra_config=True)
    if group == "sweep" and name != "none":
        params = {key: str(value).split(",") for key, value in config.hydra.sweeper.params.items()}
        chosen = {key: choices for key, choices in params.items() if (CONF / key).is_dir()}
        for key, choices in chosen.items():
            assert {c.strip() for c in choices} <= set(names(key)), f"{name}: {key}"
        with plugins.conf():
            first = compose("config", [f"{key}={choices[0]}" for key, choices in chosen.items()])
        for key in params.keys() - chosen.keys():  # a setting of the chosen options
            assert OmegaConf.select(first, key.lstrip("+")) is not None, f"{name}: {key}"


def test_nothing_is_unset_but_what_the_user_must_say():
    missing = {
        (group, name)
        for group, name in pairs(*BASES)
        if OmegaConf.missing_keys(OmegaConf.load(CONF / group / f"{name}.yaml"))
    }
    drawn = {("dataset", name) for name in ("faces", "faces_causal", "strips")}
    assert missing == set(pairs("dataset")) - drawn  # where a user's images lie


def test_every_file_in_conf_belongs_to_a_group():
    groups = {*BASES, "launch", "sweep", "tracker", "scorer", "classifier", "hydra"}
    assert {p.name for p in CONF.iterdir() if p.is_dir()} == groups


@pytest.mark.parametrize(("group", "name"), pairs("benchmark", "metric"))
def test_networks_that_no_setting_names_are_declared(group, name):
    cls = options(group)[name].cls
    modules = [
        vars(inspect.getmodule(c)) for c in cls.__mro__ if "latentbench." not in c.__module__
    ]
    constants = [v for module in modules for k, v in module.items() if k.isupper()]
    used = {
        text
        for v in constants
        for text in (v if isinstance(v, tuple) else (v,))
        if isinstance(text, str) and text in weights.names()
    }
    assert used <= cls.fixed_networks
