# The two commands that matter: `make demo` and `make test`. Both install what they need first.
UV_VERSION := 0.13.9
UV := $(shell command -v uv 2>/dev/null || echo .uv/bin/uv)
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3; do \
	$$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null && echo $$p && break; done)
RUN := .venv/bin/python
unexport PYTHONDONTWRITEBYTECODE # where it is set, every process compiles what it imports
REFERENCE := results.dir=results/reference tracker=none runtime.threads=1
SOURCES := latentbench hydra_plugins methods metrics benchmarks agreement calibration docs tests \
	perf conftest.py runner.py
# pytest's testpaths: whose tests run with the shapes and types of all arguments checked, and the rest
SHAPED := $(addprefix tests/unit/,benchmarks methods sampling) benchmarks metrics methods
UNSHAPED := tests latentbench agreement calibration $(patsubst tests/%,--ignore=tests/%,$(filter tests/%,$(SHAPED)))

.PHONY: setup launchers extras docs demo reference test test-slow browser soak calibration perf agreement check format lock clean

setup: .venv/installed ## install everything from the lock file into .venv

.venv/installed: uv.lock pyproject.toml | $(UV)
	$(UV) sync --frozen --python $(PYTHON)
	touch $@

launchers: setup ## install the engines of launch=ray and launch=slurm
	$(UV) sync --frozen --inexact --extra ray --extra slurm

extras: setup ## install all that some target or choice needs, whose types are checked
	$(UV) sync --frozen --inexact --extra ray --extra slurm --group docs --group browser

.uv/bin/uv:
	$(PYTHON) -m venv .uv
	.uv/bin/python -m pip install --quiet uv==$(UV_VERSION)

demo: setup ## several methods x two models x three benchmarks, then the leaderboard
	$(RUN) runner.py -m sweep=demo

reference: setup ## the sweeps behind results/reference, two at a time: some two hours on two cores
	$(RUN) runner.py -m sweep=reference $(REFERENCE) & edits=$$!; \
	for name in reference_paths reference_unguided reference_prompts reference_seeds; do \
		$(RUN) runner.py -m sweep=$$name $(REFERENCE) || exit 1; done; wait $$edits
	$(RUN) -m latentbench.cli leaderboard --results results/reference
	$(RUN) -m latentbench.reports.claims results/reference

test: setup ## all quick tests, and the examples in docstrings
	$(RUN) -m pytest -n 2 --dist worksteal --jaxtyping $(SHAPED)
	$(RUN) -m pytest -n 2 --dist worksteal $(UNSHAPED)

soak: setup ## ten minutes of kills, damage and full disks under a sweep: the same leaderboard
	OMP_NUM_THREADS=1 $(RUN) tests/soak/soak.py --seconds 600

test-slow: setup ## those that take more than a few seconds each
	$(RUN) -m pytest -n 2 --dist worksteal -m slow

browser: setup ## the report site in Chromium (Debian: chromium, chromium-driver); screenshots in build/
	$(UV) sync --frozen --inexact --group browser
	$(RUN) -m pytest -m browser tests/browser

calibration: setup ## simulate intervals and tests; writes the tables of docs/statistics.md
	OMP_NUM_THREADS=1 $(RUN) -m calibration

perf: setup ## measure speed, as ratios within one run; docs/performance.md explains the rows
	for name in startup cell_overhead metric_speed editing_speed sweep_speed peak_memory; do \
		$(RUN) -m perf.$$name || exit 1; done
	$(RUN) -m perf.denoiser_speed $$($(RUN) -c "import torch; torch.cuda.is_available() or print('--small --batches 1 16')")

agreement: setup ## compare figures with reference implementations; writes docs/agreement.md
	$(UV) sync --frozen --inexact --group agreement
	$(RUN) -m agreement

check: extras ## format, lint, types
	.venv/bin/ruff format --check $(SOURCES)
	.venv/bin/ruff check $(SOURCES)
	.venv/bin/pyright

format: setup
	.venv/bin/ruff format $(SOURCES)
	.venv/bin/ruff check --fix $(SOURCES)

docs: setup ## build the documentation as a site: site_docs/index.html, which needs no server
	$(UV) sync --frozen --inexact --group docs
	NO_MKDOCS_2_WARNING=1 $(RUN) -m mkdocs build --quiet
	@echo "open site_docs/index.html"

lock: | $(UV) ## resolve again after a change of pyproject.toml
	$(UV) lock

clean: ## remove caches; results stay
	rm -rf .cache .pytest_cache .ruff_cache .hypothesis
