"""Seeds as an axis: what no seed enters is made once for all of them."""

import cells

from latentbench.cells.cell import run_cell
from latentbench.records import Status

IMAGES, STEPS = 2, 2


def evaluations(folder, method, *settings):
    """Return the run's evaluations of a cell that inverts images and decodes them."""
    choices = {
        "benchmark": "reconstruction", "method": method, "model": "faces_ddpm", "dataset": "faces",
    }  # fmt: skip
    small = [f"benchmark.n={IMAGES}", f"model.steps={STEPS}", "metric=[psnr]", "results.images=0"]
    chosen = [f"{group}={name}" for group, name in choices.items()]
    record, _ = run_cell(cells.composed(folder, *chosen, *small, *settings), choices)
    assert record.status is Status.OK, record.traceback
    return record.evaluations["run"]


def test_seeds_share_the_inversions_that_no_seed_enters(tmp_path):
    alone = {"forward": IMAGES * 2 * STEPS, "backward": 0, "spared": 0}
    assert evaluations(tmp_path, "ddim_inversion") == alone
    shared = alone | {"spared": IMAGES * STEPS}
    for seed in (1, 2):
        assert evaluations(tmp_path, "ddim_inversion", f"seed={seed}") == shared


def test_where_the_seed_enters_each_has_its_own_and_methods_share_nothing_else(tmp_path):
    settings = ("method.skip=0",)
    alone = {"forward": IMAGES * 2 * STEPS, "backward": 0, "spared": 0}
    for method in ("edit_friendly_ddpm", "cycle_diffusion"):
        for seed in (0, 1):
            assert evaluations(tmp_path, method, *settings, f"seed={seed}") == alone
        again = ("method.guidance_target=9", "seed=1")
        shared = alone | {"spared": IMAGES * STEPS}
        assert evaluations(tmp_path, method, *settings, *again) == shared
