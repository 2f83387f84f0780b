"""`latentbench reproduce` on tiny cells: the same is called so, and what is planted is found."""

import json
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import cells
import pytest
from safetensors.torch import load_file, save_file

from latentbench import cli, records
from latentbench.cells import rerun
from latentbench.conformance import toy
from latentbench.content import id_of
from latentbench.errors import LatentbenchError
from latentbench.paths import CHECKOUT
from latentbench.records import Record
from latentbench.reports.reproduce import rule_between


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    results = tmp_path_factory.mktemp("results")
    record, _ = cells.run(results)
    cells.run(results, "seed=1")
    cells.run(results, "method=acme_broken")
    return results, record


@pytest.fixture
def planted(ran, tmp_path):
    """Return a function that writes a changed copy of the record, resealed, under its own id."""

    def plant(**changes) -> Path:
        results, record = ran
        clean = {**record.environment, "git_dirty": False, "git_commit": "f" * 40}
        changed = replace(record, **{"environment": clean, **changes})
        parts = {"config": changed.config, "versions": changed.versions, "weights": changed.weights}
        changed = replace(changed, id=id_of({**parts, **changed.identity}))
        folder = tmp_path / "cells" / changed.id
        shutil.copytree(results / "cells" / record.id, folder, dirs_exist_ok=True)
        records.write(changed, folder)
        return folder

    return plant


def reproduce(capsys, *words):
    """Return the exit code and the answers of the command, one per cell."""
    capsys.readouterr()
    code = cli.main(["reproduce", "--json", *map(str, words)])
    out = capsys.readouterr().out
    return code, json.loads(out)["cells"] if out else []


def test_a_cell_is_computed_again_to_the_byte(planted, capsys):
    code, (told,) = reproduce(capsys, planted())
    assert (code, told["verdict"]) == (0, "identical")
    assert {figure["verdict"] for figure in told["figures"]} == {"identical"}
    assert told["samples"]["verdict"] == "identical"
    assert told["rule"].startswith("every byte")
    changed = {change["what"] for change in told["changes"]}
    assert "git_commit" in changed and not changed & {
        "threads",
        "batch_size",
        "evaluations.forward",
    }


def test_an_edited_figure_is_found(ran, planted, capsys):
    scores = dict(ran[1].scores)
    scores["acme_mae"] = replace(scores["acme_mae"], value=scores["acme_mae"].value * 0.99)
    code, (told,) = reproduce(capsys, planted(scores=scores))
    assert (code, told["verdict"]) == (1, "different")
    odd = [figure["figure"] for figure in told["figures"] if figure["verdict"] != "identical"]
    assert odd == ["acme_mae"]


def test_an_edited_row_of_samples_is_found(planted, capsys):
    folder = planted()
    samples = records.read_samples(folder)
    samples.loc[3, "acme_mae"] += 1e-9
    samples.to_parquet(folder / records.SAMPLES)
    record = Record.from_json((folder / records.FILE).read_bytes())
    records.write(replace(record, files={}), folder)
    code, (told,) = reproduce(capsys, folder)
    assert (code, told["samples"]["verdict"]) == (1, "different")
    assert "acme_mae" in told["samples"]["words"]


@pytest.mark.parametrize("part", ["seed", "setting"])
def test_another_seed_or_setting_gives_other_figures(part, ran, planted, capsys):
    config = json.loads(json.dumps(ran[1].config))
    if part == "seed":
        config["seed"] = 7
        folder = planted(config=config, seed=7)
    else:
        config["method"]["gain"] = 1.01
        folder = planted(config=config)
    code, (told,) = reproduce(capsys, folder)
    assert (code, told["verdict"], told["identity"]) == (1, "different", [])


def test_a_changed_weight_is_found(tmp_path, capsys):
    toy.save_pixel(tmp_path / "toy")
    parts = (
        "model=faces_ddpm",
        "method=ddim_inversion",
        "benchmark=reconstruction",
        "metric=[psnr]",
    )
    settings = (f"model.path={tmp_path}/toy", "model.steps=2", "benchmark.n=2")
    record, _ = cells.run(tmp_path, *parts, *settings)
    assert reproduce(capsys, tmp_path / "cells" / record.id)[1][0]["verdict"] != "different"
    path = next((tmp_path / "toy").rglob("*.safetensors"))
    tensors = load_file(path)
    next(iter(tensors.values())).view(-1)[0] += 0.1
    save_file(tensors, path)
    code, (told,) = reproduce(capsys, tmp_path / "cells" / record.id)
    assert (code, told["verdict"]) == (1, "different")
    assert [change["what"] for change in told["identity"]] == [f"weights.{tmp_path}/toy"]


def test_a_record_from_a_dirty_tree_is_never_called_reproduced(ran, planted, capsys):
    dirty = {**ran[1].environment, "git_dirty": True}
    code, (told,) = reproduce(capsys, planted(environment=dirty))
    assert (code, told["verdict"], told["reproduced"]) == (2, "identical", False)
    assert "dirty tree" in told["why_not"]


def test_after_a_change_of_batch_size_rounding_is_allowed_and_no_more(ran, planted, capsys):
    scores = {
        name: replace(entry, value=entry.value * (1 + 1e-5))
        for name, entry in ran[1].scores.items()
    }
    code, (told,) = reproduce(capsys, planted(scores=scores, batch_size=2))
    assert (code, told["verdict"]) == (0, "within tolerance")
    assert "batch_size" in told["rule"]
    far = {name: replace(entry, value=entry.value + 0.1) for name, entry in scores.items()}
    code, (told,) = reproduce(capsys, planted(scores=far, batch_size=3))
    assert (code, told["verdict"]) == (1, "different")


def test_another_version_of_a_package_allows_rounding_and_a_further_package_does_not(ran):
    _, record = ran
    packages = {k: v for k, v in record.environment["packages"].items() if k != "rich"}
    fewer = replace(record, environment={**record.environment, "packages": packages})
    assert rule_between(fewer, record).tolerance == 0
    older = {**record.environment, "packages": {**packages, "torch": "2.0"}}
    assert rule_between(replace(record, environment=older), record).tolerance > 0


def test_a_record_that_was_changed_after_it_was_written_is_refused(planted, capsys):
    folder = planted()
    path = folder / records.FILE
    path.write_text(path.read_text().replace('"seed": 0', '"seed": 1', 1))
    assert cli.main(["reproduce", str(folder)]) == 2
    assert "does not fit its seal" in capsys.readouterr().err
    assert cli.main(["reproduce", str(folder.parents[1])]) == 2


def test_a_board_is_asked_by_name_and_a_sample_is_drawn_from_it(ran, capsys):
    results, _ = ran
    _, all_told = reproduce(capsys, "acme/acme/acme", "--results", results)
    assert len(all_told) == 2
    drawn = [
        told["cell"]
        for seed in range(4)
        for told in reproduce(capsys, "acme", "--results", results, "--sample", 1, "--seed", seed)[
            1
        ]
    ]
    assert len(drawn) == 4 and set(drawn) == {told["cell"] for told in all_told}


def test_what_has_no_figures_cannot_be_asked(ran, capsys):
    results, _ = ran
    broken = next(r for _, r in records.list_records(results) if r.status == "failed")
    assert cli.main(["reproduce", broken.id, "--results", str(results)]) == 2
    assert "has no figure" in capsys.readouterr().err


def test_a_person_reads_which_figures_differ(ran, planted, capsys):
    scores = dict(ran[1].scores)
    scores["acme_mae"] = replace(scores["acme_mae"], value=1.0)
    assert cli.main(["reproduce", str(planted(scores=scores))]) == 1
    said = capsys.readouterr().out
    assert (
        "different" in said and "acme_mae" in said and "1 cells: 1 different; 0 reproduced" in said
    )
    assert "git_commit: ffff" in said


@pytest.mark.slow
def test_the_code_of_the_commit_computes_it_and_leaves_nothing_behind(
    ran, planted, capsys, monkeypatch
):
    monkeypatch.setenv("PYTHONPATH", str(cells.PACKAGE))
    head = git("rev-parse", "HEAD").strip()
    clean = {**ran[1].environment, "git_dirty": False, "git_commit": head}
    code, (told,) = reproduce(capsys, planted(environment=clean), "--commit")
    assert (code, told["verdict"]) == (0, "identical"), told
    assert not [line for line in git("worktree", "list").splitlines() if "/latentbench-" in line]


@pytest.mark.slow
def test_another_lock_file_is_installed_into_an_environment_of_its_own(tmp_path, monkeypatch):
    uv = shutil.which("uv") or str(CHECKOUT / ".uv" / "bin" / "uv")
    monkeypatch.setenv("UV_PROJECT_ENVIRONMENT", str(tmp_path / "callers"))
    monkeypatch.setenv("UV_OFFLINE", "1")  # it has no packages to fetch
    checkout = tmp_path / "checkout"
    checkout.mkdir()
    text = '[project]\nname = "other"\nversion = "0"\nrequires-python = ">=3.11"\n'
    (checkout / "pyproject.toml").write_text(text)
    subprocess.run([uv, "lock", "--quiet"], cwd=checkout, check=True)
    python = rerun._python(checkout)
    words = [python, "-c", "import sys; print(sys.prefix)"]
    said = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    assert Path(said.strip()) == checkout / ".venv"
    assert not (tmp_path / "callers").exists()
    (checkout / "uv.lock").write_text("damaged")
    with pytest.raises(LatentbenchError, match="could not be installed"):
        rerun._python(checkout)


def test_a_commit_that_is_not_here_cannot_be_asked(planted, capsys):
    code, (told,) = reproduce(capsys, planted(), "--commit")
    assert (code, told["verdict"]) == (2, "cannot be asked")
    assert "cannot be checked out" in told["why_not"]


def git(*words):
    return subprocess.run(
        ["git", *words], cwd=CHECKOUT, capture_output=True, text=True, check=True
    ).stdout
