"""Four numbers per method on a toy model: a change of figures is seen before it ships.

`pytest tests/golden --update-golden` writes them again; a method whose figures changed for a
reason gets a higher `version`.
"""

import json
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate

from latentbench.cache import Cache
from latentbench.conformance import toy
from latentbench.streams import Streams
from latentbench.types import SUBJECT, Capability, Concept, Edit, Endpoint

CONF = Path(__file__).parents[2] / "conf"
FILE = Path(__file__).with_name("methods.json")
NAMES = sorted(p.stem for p in (CONF / "method").glob("*.yaml"))
SMALL = {
    "images": 12, "extremes": 4, "components": 4, "steps": 5, "iterations": 3,
    "rounds": 5, "trials": 2, "batch": 4, "rank": 2, "epochs": 3,
}  # fmt: skip
OWN = {  # where those would be too many or too few
    "pops": {"layers": 1, "width": 16, "prior_steps": 3},
    "pops_instruct": {"layers": 1, "width": 16, "prior_steps": 3},
    "character_factory": {"people": 6, "name_iterations": 3},
    "hubness": {"pool": 200, "share": 0.2},
    "lambda_eclipse": {"layers": 1, "width": 16},
    "relative_stitching": {"anchors": 8},
    "simplicial": {"pool": 200},
    "sliderspace": {"directions": 3, "samples": 8},
    "truncation": {"pool": 100},
    "weights2weights": {"people": 6, "named": 3, "code_iterations": 2},
}
TOLD = {  # which learn from the words of an edit
    "asyrp",
    "concept_distillation",
    "domain_expansion",
    "pops_instruct",
    "selfdiscovery",
}
NUMBERED = {
    "hspace_jacobian",
    "noiseclr",
    "potential_flows",
    "sliderspace",
    "steerable_graph",
    "subspace_edit",
}  # whose directions have no names
HOMES = {  # else "latent"
    "autoencode": "diffae",
    "autoencode_fresh": "diffae",
    "causal_do": "causal",
    "counterfactual_directions": "diffae",
    "delta_edit": "gan",
    "domain_expansion": "gan",
    "lerp_style": "gan",
    "code_algebra": "diffae",
    "code_classifier": "gan",
    "consistency": "lcm",
    "features_style": "gan",
    "hubness": "gan",
    "lambda_eclipse": "diffae",
    "matrix_subspace_projection": "gan",
    "pops": "diffae",
    "pops_instruct": "diffae",
    "potential_flows": "gan",
    "relative_stitching": "gan",
    "steerable_graph": "gan",
    "truncation": "gan",
    "features_semantic": "diffae",
}
IDS = ("a", "b")
TAKEN = Edit("wear", factors=("glasses", "hat"))  # what `combine` is asked for


def output(name: str, model, cache: Cache) -> torch.Tensor:
    with initialize_config_dir(str(CONF), version_base=None):
        config = compose(overrides=[f"+method={name}"]).method
    small = {k: v for k, v in SMALL.items() if k in config} | OWN.get(name, {})
    editor = instantiate({**config, **small})
    data = toy.ToyData()
    toys = {
        "scorer": toy.PatternScorer,
        "classifier": toy.PatternClassifier,
        "model": lambda: model,
    }
    parts = {k: toys[group]() for k, group in editor.others.items() if config.get(k)}
    editor.attach(model, Streams(0), cache, parts)
    words = {"words": ("face", "face hat")} if name in TOLD else {}
    number = {"component": 0} if name in NUMBERED else {}
    asked = [Edit(f"{n}+", n, **words, **number) for n in ("hat", "smile")]
    asked += [TAKEN] * ("combine" in editor.verbs())
    with torch.enable_grad():
        editor.fit(data, asked)
    if "edit" in editor.verbs():
        masked = Capability.EDIT_MASKS in editor.required(["edit"], config)[1]
        masks = torch.ones(2, 16, 16).tril() if masked else None
        target = "hat" if name == "suppress_eot" else "a face with hat"  # which lacks no word
        edit = Edit("hat+", "hat", target_prompts=(target,) * 2, masks=masks, **number)
        strengths = torch.tensor([editor.max_strength])
        return editor.edit(data.batch("test", [0, 1]), edit, strengths)
    if "interpolate" in editor.verbs():
        a, b = (
            Endpoint(
                IDS,
                Streams(k).normal("prior", IDS, model.latent_shape),
                (word,) * 2 if Capability.PROMPTS in model.gives else None,
            )
            for k, word in enumerate(("hat", "smile"))
        )
        return editor.interpolate(a, b, 3)[:, 1]
    if "invert" in editor.verbs():
        batch = data.batch("test", range(2))
        sampled = Capability.TRAJECTORY in editor.required(["invert"], config)[1]
        return editor.decode(editor.invert(toy.sampled(model, batch, 5) if sampled else batch))
    if "represent" in editor.verbs():
        return editor.represent(data.batch("test", range(8)))
    if "compose" in editor.verbs():
        return editor.compose(IDS, [Concept(("hat",) * 2), Concept(("smile",) * 2, -0.5)])
    if "feature_maps" in editor.verbs():
        maps = editor.feature_maps(data.batch("test", range(2)))
        return torch.cat([m.flatten(1) for m in maps.values()], 1)
    if "personalise" in editor.verbs():
        return editor.personalise(data.batch("test", [5, 6]), IDS, [f"a {SUBJECT}"] * 2)
    if "combine" in editor.verbs():
        one, two = (data.batch("test", rows) for rows in ([0, 1], [5, 6]))
        return editor.combine(one, two, TAKEN)
    if "invent" in editor.verbs():
        return editor.invent(("one", "two"), IDS, [f"a {SUBJECT}"] * 2)
    if "panorama" in editor.verbs():
        return editor.panorama(IDS, ("hat", "smile"), 2 * model.image_size)
    return editor.generate(IDS, ("hat", "smile"))


@pytest.mark.parametrize("name", NAMES)
def test_figures_are_what_they_were(name, tmp_path_factory, request):
    cache = Cache(tmp_path_factory.getbasetemp() / "golden")
    x = output(name, request.getfixturevalue(HOMES.get(name, "latent")), cache).double()
    found = [float(v) for v in (x.mean(), x.std(), x.flatten()[100], x.abs().max())]
    golden = json.loads(FILE.read_text()) if FILE.exists() else {}
    same = name in golden and found == pytest.approx(golden[name], rel=2e-3, abs=2e-3)
    if request.config.getoption("--update-golden") and not same:
        golden[name] = [round(v, 5) for v in found]
        FILE.write_text(json.dumps(dict(sorted(golden.items())), indent=2) + "\n")
    assert name in golden, f"no figures of {name}: run pytest tests/golden --update-golden"
    assert found == pytest.approx(golden[name], rel=2e-3, abs=2e-3)
