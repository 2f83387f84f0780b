"""Settings that are wrong only together, or with the data: refused before a weight is read."""

import copy
from functools import cache

import cells
import pytest
import torch
from hydra import compose
from omegaconf import OmegaConf
from PIL import Image

from latentbench import plugins, records
from latentbench.cells import cell as cell_module
from latentbench.cells.catalogue import options
from latentbench.cells.cell import run_cell
from latentbench.cells.surroundings import check_surroundings
from latentbench.errors import BadInput
from latentbench.models.diffusion_autoencoder import DiffusionAutoencoder
from latentbench.records import Status

NAMES = dict.fromkeys(records.GROUPS, "x")
MODELS = {"faces_ddpm": "pixel", "faces_ldm": "latent"}


@cache
def base():
    with plugins.conf():
        return compose("config", ["tracker=none", "runtime.device=cpu"])


def chosen(config, words):
    """Choose and set as the command line does; composing each case anew would take seconds."""
    for word in sorted(words, key=lambda word: "." in word.partition("=")[0]):
        key, value = word.split("=", 1)
        if key in ("benchmark", "method", "model"):
            one = options(key)[value]
            config[key] = {"_target_": one.target, **one.config}
        elif key == "dataset":
            config[key] = {"_target_": value}
        elif key == "metric":
            config.metric = {name: base_of(name) for name in value.strip("[]").split(",") if name}
        else:
            OmegaConf.update(config, key, OmegaConf.create(f"x: {value}").x, force_add=True)


def base_of(metric):
    one = options("metric")[metric]
    return {"_target_": one.target, **one.config}


@pytest.fixture
def refusal(zoo, tmp_path, monkeypatch):
    """Return a function that runs a cell and returns the record, or fails where it would load."""

    def load(cell):
        raise AssertionError("a model would be loaded")

    monkeypatch.setattr(cell_module, "load", load)

    def run(words):
        config = copy.deepcopy(base())
        chosen(config, words.split())
        config.model.path = str(zoo / MODELS[config.model.path])
        if "adapter" in config.model:
            config.model.adapter = None
        config.results.dir, config.results.cache = str(tmp_path), None
        return run_cell(config, NAMES)[0]

    return run


LDM = "model=faces_ldm"
WRONG = {
    # steps that the schedule has no room for
    "method.steps=1000 model=faces_ldm": "no room for 1000 sampling steps, at most for 999",
    "model.steps=1000 model=faces_ldm": "no room for 1000 sampling steps, at most for 999",
    "method.steps=5 model.steps=1000 model=faces_ldm": "at most for 999",
    "benchmark=generation method=consistency model=faces_lcm method.steps=51": "at most for 50",
    "benchmark=generation method=plain model=faces_ldm method.steps=1000": "at most for 999",
    # steps that a setting leaves out or asks for
    "method.forward_steps=6 model.steps=5": "forward_steps=6 is more than the 5 sampling steps",
    "method.forward_steps=60 method.steps=50": "forward_steps=60 is more than the 50 sampling",
    "method=edit_friendly_ddpm method.skip=5 model.steps=5": "skip=5 leaves out 5 of 5 sampling",
    "method=cycle_diffusion method.skip=9 method.steps=4": "skip=9 leaves out 9 of 4 sampling",
    "method=cycle_diffusion method.eta=[.1,.2] model.steps=3": "eta has 2 values for 3 sampling",
    "method=edit_friendly_ddpm method.eta=[]": "eta has 0 values for 50 sampling steps",
    f"benchmark=attribute_editing {LDM} method=cycle_diffusion method.target_model=faces_ldm "
    "method.skip=3 method.steps=5": "strength 0.333333 is not 1 to 2 of 2 steps; use 0.5 to 1",
    f"benchmark=attribute_editing {LDM} method=sdedit method.steps=2":
        "strength 0.333333 is 0 of 2 sampling steps, strengths start at 0.5",
    f"benchmark=attribute_editing {LDM} method=sdedit method.max_strength=.01":
        "is 0 of 50 sampling steps",
    f"benchmark=attribute_editing {LDM} method=hspace method.start=.9 model.steps=5":
        "none of the 5 sampling steps lies between method.start=0.9 and method.stop=1",
    f"benchmark=attribute_editing {LDM} method=hspace method.start=.41 method.stop=.59 "
    "method.steps=5": "none of the 5 sampling steps lies between",
    f"benchmark=interpolation_prompt {LDM} method=aid method.warmup=.1 method.steps=5":
        "warmup=0.1 is 0 of 5 sampling steps; give 0 for none, 0.2 or more",
    # settings that each other's values refuse
    f"benchmark=attribute_editing {LDM} method=hspace_pca method.components=95":
        "95 components need 97 images, got 96",
    f"benchmark=attribute_editing {LDM} method=hspace method.balance=[hat] method.extremes=31":
        "31 extremes cannot be balanced over 2 classes",
    # names that the data do not have
    "benchmark=attribute_editing method=hspace benchmark.attributes=[glases+]":
        "unknown attribute 'glases'; did you mean glasses?",
    "benchmark=local_editing method=hspace benchmark.attributes=[hat+,hatt-]":
        "unknown attribute 'hatt'; did you mean hat?",
    "benchmark=attribute_editing method=hspace method.balance=[smyle]":
        "unknown attribute 'smyle'; did you mean smile?",
    "benchmark=attribute_editing method=hspace method.orthogonal=[bear]":
        "unknown attribute 'bear'; did you mean beard?",
    # nothing to measure
    "metric=[]": "no metric is chosen",
}  # fmt: skip


@pytest.mark.parametrize("words", WRONG)
def test_what_does_not_go_together_is_refused_in_a_sentence(words, refusal):
    record = refusal(words)
    assert record.status is Status.FAILED
    assert record.reason.startswith("BadInput: "), record.traceback
    assert WRONG[words] in record.reason
    assert "\n" not in record.reason


@pytest.mark.parametrize("words", [
    "method.forward_steps=5 model.steps=5",
    "method.steps=999 model=faces_ldm",
    "method=edit_friendly_ddpm method.skip=4 model.steps=5",
    f"benchmark=attribute_editing {LDM} method=sdedit method.steps=3",
    f"benchmark=attribute_editing {LDM} method=hspace method.start=.79 model.steps=5",
    f"benchmark=interpolation_prompt {LDM} method=aid method.warmup=.2 method.steps=5",
    f"benchmark=interpolation_prompt {LDM} method=aid method.warmup=0",
    "benchmark=generation method=consistency model=faces_lcm method.steps=50",
])  # fmt: skip
def test_the_last_value_that_fits_is_taken(words, refusal):
    assert "a model would be loaded" in refusal(words).reason


FOLDER = "latentbench.data.folder.Folder"


def test_a_prior_of_more_steps_than_the_schedule_has(zoo):
    own = {"path": str(zoo / "diffae"), "steps": 5, "prior_steps": 1001}
    with pytest.raises(BadInput, match="no room for 1001 sampling steps, at most for 1000"):
        DiffusionAutoencoder.check(own, None)


def photos(folder, count):
    folder.mkdir()
    for k in range(count):
        Image.new("RGB", (20, 20), (k, 9 * k, 77)).save(folder / f"{k:02}.png")
    rows = "\n".join(f"{k:02}.png,test,{k % 2}" for k in range(count))
    (folder / "table.csv").write_text(f"file,split,smile\n{rows}\n")
    return folder


@pytest.mark.parametrize(("benchmark", "method", "said"), [
    ("reconstruction", "ddim_inversion", "n=6 of Reconstruction takes 6 images of the split "
     "'test', which has 5; give 5 or fewer"),
    ("interpolation", "slerp", "n=6 of Interpolation takes 12 images of the split 'test', which "
     "has 5; give 2 or fewer"),
    ("path_length", "slerp", "n=6 of PathLength takes 12 images"),
    ("generation", "plain", "n=6 of Generation takes 6 images"),
    ("robustness", "plain", "n=6 of Robustness takes 6 images"),
    ("probing", "features", "n=6 of Probing takes 6 images"),
    ("latent_similarity", "features", "n=6 of LatentSimilarity takes 6 images"),
])  # fmt: skip
def test_more_images_than_the_split_holds(benchmark, method, said, refusal, tmp_path):
    words = f"benchmark={benchmark} method={method} benchmark.n=6"
    folder = photos(tmp_path / "photos", 5)
    assert said in refusal(f"{words} dataset={FOLDER} dataset.path={folder}").reason


def test_too_few_images_far_from_the_goal(refusal, monkeypatch):
    monkeypatch.setattr("latentbench.data.faces_dataset.FacesDataset.size", lambda *_: 4)
    record = refusal("benchmark=attribute_editing method=hspace benchmark.n=4 method.images=4 "
                     "method.extremes=2")  # fmt: skip
    assert "asks for 4 images far from 'smile+', the split 'test' has" in record.reason


def test_more_images_to_fit_on_than_there_are(refusal, monkeypatch):
    monkeypatch.setattr("latentbench.data.faces_dataset.FacesDataset.size", lambda *_: 90)
    assert "images=96 is more than the 90 images of the split 'generator'" in refusal(
        "benchmark=attribute_editing method=hspace benchmark.n=4"
    ).reason  # fmt: skip


def test_a_refused_cell_leaves_the_record_of_the_same_id_alone(tmp_path, monkeypatch):
    record, _ = cells.run(tmp_path)
    before = (tmp_path / "cells" / record.id / "record.json").read_bytes()
    monkeypatch.setattr("acme.parts.Brighten.groups", lambda *_: [])
    refused, _ = cells.run(tmp_path, "results.overwrite=always")
    assert "has no row on Stripes" in refused.reason
    assert (tmp_path / "cells" / record.id / "record.json").read_bytes() == before


def test_a_cell_whose_every_metric_is_off_is_skipped_with_the_reasons(refusal, tmp_path):
    record = refusal("metric=[fid,lpips_alex]")
    assert record.status is Status.SKIPPED
    assert "no metric gives a figure: fid: " in record.reason
    assert "lpips_alex: " in record.reason


@pytest.mark.parametrize("n, metrics, said", [
    (1, "kernel", "of so few images, 1: kernel: needs 2 images; raise benchmark.n"),
    (5, "prdc", "of so few images, 5: prdc: needs 6 images"),
])  # fmt: skip
def test_images_too_few_for_every_metric(n, metrics, said, refusal):
    words = f"benchmark=generation method=plain benchmark.n={n} metric=[{metrics}]"
    assert said in refusal(words).reason


def test_a_cell_without_a_figure_is_not_ok(tmp_path):
    record, _ = cells.run(tmp_path, "metric=[acme_masked]")
    assert record.status is Status.FAILED
    assert "no metric gave a figure: acme_masked: needs noise" in record.reason


def test_a_cell_whose_figures_are_all_undefined_is_not_ok(tmp_path, monkeypatch):
    undefined = torch.full((16, 2), torch.nan)
    monkeypatch.setattr("acme.parts.Mae.values", lambda _, s: {"acme_mae": undefined[: len(s)]})
    record, _ = cells.run(tmp_path, "metric=[acme_mae]")
    assert record.status is Status.FAILED
    assert "no metric gave a figure" in record.reason


@pytest.mark.parametrize(("words", "said"), [
    ("runtime.device=cuda", "runtime.device=cuda is not there: torch"),
    ("runtime.device=cuda:1", "runtime.device=cuda:1 is not there: torch"),
    ("runtime.threads=0", "runtime.threads must be a whole number from 1 to 1024; got 0"),
    ("seed=9223372036854775808", "seed must be a whole number"),
    ("results.images=-1", "results.images must be a whole number from 0"),
    ("results.dir=''", "results.dir must be text that is not empty"),
])  # fmt: skip
def test_what_is_wrong_with_the_surroundings_is_told_before_any_cell(
    words, said, tmp_path, monkeypatch
):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    config = cells.composed(tmp_path, words)
    with pytest.raises(BadInput, match=said.split(" got ")[0].replace("(", ".")):
        check_surroundings(config)
    with pytest.raises(BadInput):
        run_cell(config, cells.NAMES)
    assert not list(tmp_path.rglob("record.json"))


def test_a_gpu_that_is_there_is_taken(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    check_surroundings(cells.composed(tmp_path, "runtime.device=cuda:1"))
