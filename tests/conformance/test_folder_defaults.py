"""Every benchmark's default metrics on a folder of images of which nothing else is known."""

from pathlib import Path

import pytest
from hydra import compose
from PIL import Image

from latentbench import plugins, records
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


def photos(folder: Path, count: int) -> Path:
    folder.mkdir()
    for k in range(count):
        Image.new("RGB", (40, 32), (k % 256, 9 * k % 256, 77)).save(folder / f"{k:03}.png")
    return folder


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """Sixty images: some fifteen of them are in the split that benchmarks take."""
    return photos(tmp_path_factory.mktemp("photos") / "many", 60)


def composed(benchmark, images, results):
    verbs = options("benchmark")[benchmark].cls.verbs
    words = [
        f"benchmark={benchmark}", "benchmark.n=3", f"method={METHODS[min(verbs, default='edit')]}",
        "model=faces_ddpm", "model.steps=2", "dataset=folder", f"dataset.path={images}",
        f"results.dir={results}", f"results.cache={results}/cache", "tracker=none",
        "runtime.threads=1", "runtime.batch_size=4",
    ]  # fmt: skip
    with plugins.conf():
        return compose("config", words)


NAMES = dict.fromkeys(records.GROUPS, "x")


@pytest.mark.slow
@pytest.mark.parametrize("benchmark", BENCHMARKS)
def test_no_benchmark_fails_on_a_folder_with_its_own_metrics(benchmark, many, tmp_path):
    record, _ = run_cell(composed(benchmark, many, tmp_path), NAMES)
    assert record.status is not Status.FAILED, record.traceback
    if record.status is Status.OK:
        assert any(entry.value is not None for entry in record.scores.values())


def test_what_the_folder_cannot_feed_is_off_before_any_work(many, tmp_path):
    config = composed("reconstruction", many, tmp_path)
    cell = plan(config, Shelf.of(config), Record("", Status.FAILED, NAMES, 0, {}))
    on = set(cell.identity["config"]["metric"])
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
def test_a_folder_of_few_images_is_refused_or_measured(tmp_path, count):
    """Whatever a split lacks is told before or instead of a figure, never by a traceback."""
    images = photos(tmp_path / "few", count)
    record, _ = run_cell(composed("generation", images, tmp_path), NAMES)
    assert record.status is Status.OK or record.reason.startswith(BadInput.__name__), record.reason
