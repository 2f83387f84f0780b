"""Every benchmark's defaults on a folder of images, bare or with labels and prompts."""

from pathlib import Path

import pytest
from hydra import compose
from PIL import Image

from latentbench import plugins, records
from latentbench.cells import cell
from latentbench.cells.catalogue import options
from latentbench.cells.cell import run_cell
from latentbench.cells.plan import plan
from latentbench.cells.shelf import Shelf
from latentbench.data.folder import Folder
from latentbench.errors import BadInput
from latentbench.records import Record, Status

BENCHMARKS = sorted(path.stem for path in Path("conf/benchmark").glob("*.yaml"))
METHODS = {"invert": "ddim_inversion", "generate": "plain", "interpolate": "slerp",
           "represent": "features", "edit": "ddim_inversion"}  # fmt: skip
UNFED = {"id_zoo1", "identity_preservation", "identity_preservation_zoo2"}


LABELS, PROMPTS = ("smile", "hat"), ("glasses", "hat")


def photos(folder: Path, count: int, known: str = "") -> Path:
    """Make images; with `known`, a table of what is known of them."""
    folder.mkdir()
    heads, rows = [], [[] for _ in range(count)]
    if "labels" in known:
        heads, rows = [*LABELS], [[f"{k % 5 / 4}", f"{k % 2}"] for k in range(count)]
    if "prompts" in known:
        heads = [*heads, "prompt"]
        rows = [[*row, f"a face with {PROMPTS[k % 2]}"] for k, row in enumerate(rows)]
    for k in range(count):
        Image.new("RGB", (40, 32), (k % 256, 9 * k % 256, 77)).save(folder / f"{k:03}.png")
    if known:
        lines = [["file", *heads], *([f"{k:03}.png", *row] for k, row in enumerate(rows))]
        (folder / "table.csv").write_text("\n".join(map(",".join, lines)) + "\n")
    return folder


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """Sixty images: some fifteen of them are in the split that benchmarks take."""
    return photos(tmp_path_factory.mktemp("photos") / "many", 60)


def composed(benchmark, images, results, zoo, model="faces_ddpm", n=None):
    verbs = options("benchmark")[benchmark].cls.verbs
    n = n or (12 if "represent" in verbs else 3)  # codes are compared from eight images on
    toy = {"faces_ddpm": "pixel", "faces_ldm": "latent"}[model]
    words = [
        f"benchmark={benchmark}", f"benchmark.n={n}", f"method={METHODS[min(verbs)]}",
        f"model={model}", f"model.path={zoo / toy}", "model.steps=2", "dataset=folder",
        f"dataset.path={images}", f"results.dir={results}", f"results.cache={results}/cache",
        "tracker=none", "runtime.threads=1", "runtime.batch_size=4",
    ]  # fmt: skip
    with plugins.conf():
        return compose("config", words)


NAMES: dict[str, str] = {group: "x" for group in records.GROUPS}


@pytest.mark.slow
@pytest.mark.parametrize("known", ["", "labels and prompts"])
@pytest.mark.parametrize("benchmark", BENCHMARKS)
def test_no_benchmark_fails_on_a_folder_with_its_own_metrics(
    benchmark, known, zoo, tmp_path, monkeypatch
):
    """It gives a figure, or it is skipped with the reason before anything is loaded."""
    loaded = []
    monkeypatch.setattr(cell, "load", lambda c, load=cell.load: loaded.append(c) or load(c))
    images = photos(tmp_path / "photos", 60, known)
    model = "faces_ldm" if "prompts" in known else "faces_ddpm"
    record, _ = run_cell(composed(benchmark, images, tmp_path / "r", zoo, model), NAMES)
    assert record.status is not Status.FAILED, record.traceback
    assert (record.status is Status.OK) == bool(loaded)
    if record.status is Status.OK:
        assert any(entry.value is not None for entry in record.scores.values())


@pytest.mark.slow
@pytest.mark.parametrize("benchmark", BENCHMARKS)
def test_the_default_number_of_images_runs_or_is_refused_before_work(
    benchmark, zoo, tmp_path, monkeypatch
):
    monkeypatch.setattr(cell, "load", lambda c: pytest.fail("a model would be loaded"))
    images, n = photos(tmp_path / "photos", 60, "labels"), options("benchmark")[benchmark]
    config = composed(benchmark, images, tmp_path / "r", zoo, n=n.config["n"])
    record, _ = run_cell(config, NAMES)
    why = record.reason
    assert "give" in why or record.status is Status.SKIPPED or "would be loaded" in why, why


def test_what_the_folder_cannot_feed_is_off_before_any_work(many, tmp_path, zoo):
    config = composed("reconstruction", many, tmp_path, zoo)
    planned = plan(config, Shelf.of(config), Record("", Status.FAILED, NAMES, 0, {}))
    on = set(planned.identity["config"]["metric"])
    assert on == set(config.metric) - {"identity_preservation", "identity_preservation_zoo2"}


def test_a_metric_says_why_it_cannot_be_fed(tmp_path):
    few = Folder(path=str(photos(tmp_path / "few", 2)))
    reasons = {name: one.build().unfed(few) for name, one in options("metric").items()}
    assert reasons["identity_preservation"] == "reads the factors of faces, Folder has none"
    assert reasons["dci"] == "needs labels, which Folder does not give"
    assert "prompts" in reasons["clip_score"]
    assert "images of the split" in reasons["kernel"]
    assert reasons["psnr"] is None


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 3, 12])
def test_a_folder_of_few_images_is_refused_or_measured(tmp_path, count, zoo):
    """Whatever a split lacks is reported before or instead of a figure, never by a traceback."""
    images = photos(tmp_path / "few", count)
    record, _ = run_cell(composed("generation", images, tmp_path, zoo), NAMES)
    assert record.status is Status.OK or record.reason.startswith(BadInput.__name__), record.reason
