"""What is told from records or from the index is told without torch, and quickly."""

import subprocess
import sys

LIGHT = ("latentbench.reports.leaderboard", "latentbench.reports.claims", "latentbench.cells.sweep",
         "latentbench.reports.site.build",
         "latentbench.cells.ending", "latentbench.index", "latentbench.cli",
         "latentbench.cells.rerun", "latentbench.reports.cell_page", "latentbench.reports.duel",
         "latentbench.reports.export")  # fmt: skip
HEAVY = ("torch", "torchmetrics", "transformers", "diffusers", "accelerate", "scipy.stats")
SCRIPT = f"""
import importlib, sys
for name in {LIGHT}:
    importlib.import_module(name)
    heavy = [module for module in {HEAVY} if module in sys.modules]
    if heavy:
        sys.exit(f"{{name}} imports {{', '.join(heavy)}}")
"""


def test_reports_and_cells_that_are_there_need_no_torch():
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True)
    assert not done.stderr, "python -X importtime -c 'import MODULE' shows by which way"
    assert done.returncode == 0


def test_help_and_index_need_neither_hydra_nor_pandas():
    script = "import latentbench.cli, latentbench.index, sys; sys.exit('hydra' in sys.modules or " \
             "'pandas' in sys.modules)"  # fmt: skip
    assert subprocess.run([sys.executable, "-c", script]).returncode == 0


def test_a_leaderboard_that_is_kept_needs_neither_numpy_nor_pydantic():
    script = "import latentbench.cli, latentbench.reports.kept, sys; sys.exit('numpy' in " \
             "sys.modules or 'pydantic' in sys.modules)"  # fmt: skip
    assert subprocess.run([sys.executable, "-c", script]).returncode == 0
