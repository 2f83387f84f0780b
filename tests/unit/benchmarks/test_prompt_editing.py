"""PIE-Bench's protocol, whole cells: a folder of its layout, a toy text-to-image model; faces."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from hydra import compose
from PIL import Image

from benchmarks.prompt_editing import PromptEditing
from latentbench import plugins
from latentbench.benchmark import Bench, Work
from latentbench.cache import Cache
from latentbench.cells.catalogue import option
from latentbench.cells.cell import run_cell
from latentbench.cells.compatibility import Parts
from latentbench.conformance import toy
from latentbench.data.faces_dataset import FacesDataset
from latentbench.data.pie_bench import PIEBench
from latentbench.editor import Editor
from latentbench.errors import BadInput
from latentbench.metric import Surroundings
from latentbench.records import Status
from latentbench.streams import Streams
from latentbench.zoo.judges import load_judge
from metrics.edits.edit_error import EditError
from metrics.edits.edit_error_image import EditErrorImage
from metrics.pairs.background import Background

FACES = FacesDataset(size=32)
SIDE = 512
KINDS = {"000": "0", "001": "2", "002": "2"}  # key -> type of edit


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Three edits that put glasses on, the mask a square of half the side."""
    root = tmp_path_factory.mktemp("PIE-Bench_v1")
    runs = [n for row in range(128, 384) for n in (row * SIDE + 128, 256)]
    mapping = {}
    for key, kind in KINDS.items():
        path = root / "annotation_images" / f"{kind}_x" / f"{key}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        small = np.random.default_rng(int(key)).integers(0, 255, (16, 16, 3), np.uint8)
        Image.fromarray(small).resize((SIDE, SIDE)).save(path, quality=95)
        mapping[key] = {
            "image_path": f"{kind}_x/{key}.jpg",
            "original_prompt": "a face",
            "editing_prompt": "a face with [glasses]",
            "editing_type_id": kind,
            "mask": runs,
        }
    (root / "mapping_file.json").write_text(json.dumps(mapping))
    return root


def cell(folder, model, results, method, *overrides):
    names = {"benchmark": "prompt_editing", "method": method, "model": "faces_ldm"}
    names["dataset"] = "pie_bench"
    settings = [
        f"dataset.path={folder}",
        f"model.path={model}",
        "model.steps=5",
        f"results.dir={results}",
        "results.cache=null",
        "runtime.batch_size=2",
        "runtime.threads=1",
        "runtime.device=cpu",
    ]
    with plugins.conf():
        config = compose("config", [*(f"{k}={v}" for k, v in names.items()), *settings, *overrides])
    record, _ = run_cell(config, names)
    return record


@pytest.mark.parametrize(
    "method", ["ddim_inversion", "edit_friendly_ddpm", "cycle_diffusion", "sdedit"]
)
def test_text_methods_are_scored_on_a_local_folder(folder, zoo, tmp_path, method):
    record = cell(folder, zoo / "latent", tmp_path, method, "benchmark.strengths=2")
    assert record.status is Status.OK, record.traceback
    assert {"bg_psnr", "bg_mse", "bg_ssim", "bg_psnr_pie", "bg_psnr/add_object"} <= set(
        record.scores
    )
    assert record.scores["bg_psnr"].n == 3 and record.scores["bg_psnr/random"].n == 1
    assert "reconstructions read" in record.scores["bg_psnr"].note
    off = record.switched_off.keys()
    assert {"dino_structure_unscaled", "background_lpips", "clip_score", "clip_score_edit"} <= off
    rows = pd.read_parquet(tmp_path / "cells" / record.id / "samples.parquet")
    assert rows["group"].value_counts().to_dict() == {"random": 2, "add_object": 4}
    assert sorted(set(rows["strength"])) == [0.5, 1.0]


class Painter(Editor):
    """Inverts the colours, within the mask where it knows one."""

    def edit(self, batch, edit, strengths):
        painted = -batch.images
        if edit.masks is not None:
            painted = torch.where(edit.masks[:, None] > 0, painted, batch.images)
        return torch.stack([batch.images, painted], 1)


@pytest.mark.parametrize(("told", "psnr"), [(False, (0, 15)), (True, (100, 100))])
def test_a_method_is_given_the_mask_only_where_that_is_asked(folder, told, psnr):
    data = PIEBench(path=str(folder), size=64)
    model, cache = toy.GaussianModel(), Cache(None)
    bench = Bench(Painter(), model, data, Streams(0), cache, torch.device("cpu"), 2)
    samples = PromptEditing(give_masks=told).run(Work("add_object", (0, 1), 2), bench, {})
    assert samples.prompts == ("a face with glasses",) * 2
    metric = Background()
    metric.update(samples)
    assert psnr[0] <= metric.compute()["bg_psnr"].value <= psnr[1]


def test_n_is_a_number_of_images_per_kind(folder, zoo, tmp_path):
    record = cell(folder, zoo / "latent", tmp_path, "sdedit", "benchmark.n=1")
    assert record.scores["bg_psnr"].n == 2


def test_a_method_that_fits_on_labels_is_skipped(folder, zoo, tmp_path):
    record = cell(folder, zoo / "latent", tmp_path, "hspace")
    assert record.status is Status.SKIPPED
    assert "needs labels" in record.reason and "method=" in record.reason


def test_photographs_are_ranked_by_the_direction_and_have_no_answer(folder, zoo, tmp_path):
    record = cell(folder, zoo / "latent", tmp_path, "sdedit", "benchmark.kinds=[add_object]")
    assert record.main_score == "clip_dir" and record.scores["bg_psnr"].n == 2
    reasons = [record.switched_off[name] for name in ("edit_error", "edit_error_image")]
    assert all("factors of faces" in why or "labels" in why for why in reasons)


def test_a_kind_that_the_data_do_not_have_is_refused():
    with pytest.raises(BadInput, match="add_object"):
        PromptEditing(kinds=["add_objects"]).check(FACES)


class Answer(Editor):
    """Renders what the data set asks for at strength 1, and lifts the image a little below."""

    share = 1.0

    def edit(self, batch, edit, strengths):
        index = [int(name.split("/")[1]) for name in batch.ids]
        answer = FACES.render(FACES.edited_factors("test", index))
        ends = batch.images + 1e-4, answer
        return torch.stack([batch.images, ends[int(self.share)]], 1)


class Idle(Answer):
    share = 0.0


@pytest.mark.parametrize(("editor", "error"), [(Answer(), 0.0), (Idle(), 1.0)])
def test_faces_have_an_answer_and_doing_nothing_is_not_first(editor, error):
    model, cache, kind = toy.GaussianModel(), Cache(None), "add_object"
    bench = Bench(editor, model, FACES, Streams(0), cache, torch.device("cpu"), 2)
    protocol = PromptEditing(kinds=[kind])
    assert (
        protocol.groups(FACES) == (kind,) and protocol.ranked_by(FACES.gives) == "edit_error_zoo1"
    )
    samples = protocol.run(Work(kind, (0, 1), 2), bench, {})
    for metric in (EditError(), EditErrorImage()):
        metric.prepare(Surroundings(FACES, torch.device("cpu"), cache, load_judge))
        metric.update(samples)
        figure = next(iter(metric.figures))
        assert metric.compute()[figure].value == pytest.approx(error, abs=1e-3)


def test_a_method_without_a_prompt_is_skipped_on_faces():
    model = option("model", "faces_ldm").cls
    reason = {
        name: Parts(option("method", name).cls, {}, model, FACES, PromptEditing()).misfit()
        for name in ("hspace", "sdedit")
    }
    said = "takes no notice of target_prompts, by which PromptEditing asks"
    assert said in str(reason["hspace"])
    assert reason["sdedit"] is None
