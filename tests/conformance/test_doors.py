"""Every command line: what its user got wrong is answered in one sentence, never by a traceback.

`commands` finds them by their `if __name__ == "__main__"`; one without a case here fails a test.
"""

import importlib
import os
import subprocess
import sys
from pathlib import Path

import cells
import pytest

from latentbench.command import answered

ROOT = Path(__file__).resolve().parents[2]
CLAIMS, README = "latentbench.reports.claims", "latentbench.reports.readme"
CLI, ZOO = "latentbench.cli", "latentbench.zoo.__main__"
SPEED, OVERHEAD, TIME = "perf.metric_speed", "perf.cell_overhead", "perf.time_to_message"
STARTUP, SITE = "perf.startup", "perf.site_opening"
DENOISER, EDITING = "perf.denoiser_speed", "perf.editing_speed"
SWEEPS, MEMORY = "perf.sweep_speed", "perf.peak_memory"
AGREEMENT = "agreement.__main__"
FOLDERS = (
    "latentbench",
    "agreement",
    "calibration",
    "perf",
    "methods",
    "metrics",
    "benchmarks",
    "tests",
)
SUBPROCESSES = {"runner", "tests.soak.soak"}  # which tests/e2e/test_cli.py runs, and below

# command -> words (FILE and FOLDER and RESULTS stand for some) -> part of the answer
WRONG = {
    CLI: {
        "": "required: command",
        "leaderbord": "invalid choice: 'leaderbord'",
        "leaderboard --out FILE": "--out must be a folder",
        "leaderboard --results RESULTS --out FILE": "--out must be a folder, and",
        "leaderboard --results RESULTS --out FILE/below": "--out must be a folder, and",
        "leaderboard --results RESULTS --out /proc/no": "/proc/no: No such file or directory",
        "leaderboard --results FILE": "no record below",
        "leaderboard --results FOLDER": "make demo",
        "leaderboard --results": "expected one argument",
        "leaderboard --results=": "--results is empty, got ''; give a path",
        "leaderboard more": "unrecognized arguments: more",
        "reproduce": "required: cells",
        "reproduce acme --results RESULTS --sample 0": "must be a whole number of 1 or more",
        "reproduce acmee --results RESULTS": "unknown cell 'acmee'; did you mean acme",
        "reproduce 0000 --results RESULTS": "no cell's id below",
        "reproduce acme --results FOLDER": "no record below",
        "show": "required: cell",
        "show acme --results FOLDER": "no record below",
        "compare acme --results RESULTS": "required: second",
        "compare acme acme --results RESULTS": "nothing but their seed",
        "export --format xls": "invalid choice: 'xls'",
        "export --format hf --results FOLDER": "no record below",
        "export --format csv --results RESULTS --out FILE": "--out must be a folder",
        "site --results RESULTS --serve --json": "give one of them",
        "list --dataset folders": "unknown dataset 'folders'; did you mean folder or two_folders?",
        "track --results FOLDER": "no record below",
        "track --results RESULTS --project a/b": "project must be a name",
        "track --results RESULTS --mode of": "invalid choice: 'of'",
        "weights --dir FILE": "--dir must be a folder, and",
        "new metod mine": "unknown kind of part 'metod'; did you mean method or",
        "new method 1x": "'1x' cannot be the name of a method",
        "new method sdedit": "exists already",
        "new method mine --room editting": "did you mean editing?",
        "new model mine --room x": "leave --room out",
        "check slrep": "unknown method 'slrep'; did you mean slerp or",
        "check": "required: method",
        "zoo": "required: verb",
        "zoo show zoo9": "unknown embedded model 'zoo9'; did you mean zoo",
    },
    "calibration.__main__": {
        "--trials 0": "must be a whole number of 1 or more",
        "--page FOLDER": "--page must be a file with the line",
        "more": "unrecognized arguments: more",
    },
    ZOO: {
        "": "required: verb",
        "shw": "invalid choice: 'shw'",
        "verify zoo9": "unknown embedded model 'zoo9'",
        "verify zoo1 --device gpu": "--device must be text such as auto",
        "verify --device gpu": "--device must be text such as auto",
        "train faces_ldn": "unknown recipe 'faces_ldn'; did you mean faces_ldm",
        "train faces_ldm --steps 0": "must be a whole number of 1 or more, got '0'",
        "train faces_ldm --steps 1.5": "must be a whole number of 1 or more",
        "train faces_ldm --checkpoints FILE": "--checkpoints must be a folder, and",
        "measure zoo1 --n -3": "must be a whole number of 1 or more",
        "measure zoo1 --device gpu": "--device must be text such as auto",
    },
    README: {
        "": "required: results",
        "FOLDER": "leaderboard.csv is missing; `latentbench leaderboard` writes it",
    },
    CLAIMS: {
        "": "required: results",
        "a b": "unrecognized arguments: b",
        "''": "the path is empty",
        "FOLDER": "there is no FOLDER/claims.yaml: claims are a list of entries of says, benchmark",
        "FILE": "there is no FILE/claims.yaml",
        "RESULTS": "there is no RESULTS/claims.yaml",
    },
    AGREEMENT: {
        "--out FOLDER": "--out must be a file, and FOLDER is a folder",
        "--out FILE/x": "the folder of --out must be a folder",
        "more": "unrecognized arguments: more",
    },
    SPEED: {"frechett": "no part 'frechett'; known: frechet", "--repeats 3": "unrecognized"},
    TIME: {"--every 0": "must be a whole number of 1 or more", "--groups seed": "invalid choice"},
    STARTUP: {"--cells 0": "must be a whole number of 1 or more", "more": "unrecognized"},
    SITE: {"--cells 0": "must be a whole number of 1 or more", "more": "unrecognized"},
    DENOISER: {"--batches 0": "must be a whole number of 1 or more", "more": "unrecognized"},
    EDITING: {"cycles": "no part 'cycles'; known: edit_friendly", "--images 0": "must be a whole"},
    SWEEPS: {"workerz": "no part 'workerz'; known: processes", "--seeds 0": "must be a whole"},
    MEMORY: {"--few 0": "must be a whole number of 1 or more", "more": "unrecognized"},
    OVERHEAD: {"modle=faces_ddpm": "unknown setting 'modle'; did you mean model",
               "model.steps=0": "model.steps must be a whole number from 1 to 1000; got 0"},
}  # fmt: skip


def commands() -> set[str]:
    """Return the modules that are run as commands."""
    found = [p for folder in FOLDERS for p in (ROOT / folder).rglob("*.py")]
    starts = [
        p
        for p in [*found, ROOT / "runner.py"]
        if "\nif __name__ == " in p.read_text(encoding="utf-8")
    ]
    return {".".join(p.relative_to(ROOT).with_suffix("").parts) for p in starts}


def test_every_command_is_tried():
    assert commands() == WRONG.keys() | SUBPROCESSES


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    folder = tmp_path_factory.mktemp("places")
    (folder / "file").write_text("")
    (folder / "empty").mkdir()
    cells.run(folder / "results")
    return {"FILE": folder / "file", "FOLDER": folder / "empty", "RESULTS": folder / "results"}


def filled(text, places):
    for name, place in places.items():
        text = text.replace(name, str(place))
    return text


def run(module, words, monkeypatch):
    """Run a command in this process and return its exit code."""
    monkeypatch.setattr(sys, "argv", [module, *words])
    command = importlib.import_module(module)
    try:
        if module.startswith("perf."):
            return answered(command.main)
        return command.main(words)
    except SystemExit as end:
        return end.code


@pytest.mark.parametrize(
    ("module", "text"), [(module, text) for module, words in WRONG.items() for text in words]
)
def test_what_is_wrong_is_answered_in_a_sentence(module, text, places, monkeypatch, capsys):
    monkeypatch.setattr("agreement.cases.load_cases", lambda: pytest.fail("work was begun"))
    words = ["" if w == "''" else w for w in filled(text, places).split()]
    code = run(module, words, monkeypatch)
    said = capsys.readouterr()
    assert code in (1, 2), said
    assert filled(WRONG[module][text], places) in said.err
    sentence = said.err.strip().splitlines()
    usage = bool(sentence) and sentence[0].startswith("usage: ")
    assert usage or len(sentence) == 1, said.err
    assert not said.out


BROKEN = {
    "no list": ("a: 1", "must hold a list of claims"),
    "an empty list": ("[]", "must hold a list of claims"),
    "a name twice": ("- {says: x, says: y}", "it says 'says' twice"),
    "no yaml": ("- [", "is no yaml"),
    "a word missing": ("- {says: x}", "claim 1 of"),
    "a number": ("- {says: x, benchmark: b, models: [1], figure: f, first: a, second: b, "
                 "first_is: higher}", "claim 1 of"),
    "no sign": ("- {says: x, benchmark: b, models: [m], figure: f, first: a, second: b, "
                "first_is: better}", "first_is must be higher or lower or same"),
}  # fmt: skip


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_list_of_claims_is_answered_in_a_sentence(case, tmp_path, capsys):
    text, said = BROKEN[case]
    (tmp_path / "claims.yaml").write_text(text)
    assert importlib.import_module(CLAIMS).main([str(tmp_path)]) == 2
    answer = capsys.readouterr().err
    assert said in answer and answer.count("\n") == 1


def test_claims_without_records_are_answered_in_a_sentence(tmp_path, capsys):
    (tmp_path / "claims.yaml").write_text(
        "- {says: x, benchmark: b, models: [m], figure: psnr, first: one, second: two, "
        "first_is: higher}"
    )
    assert importlib.import_module(CLAIMS).main([str(tmp_path)]) == 2
    assert "no record below" in capsys.readouterr().err


def test_a_folder_that_may_not_be_written_to(tmp_path, places, monkeypatch, capsys):
    def refused(*arguments):
        raise PermissionError(13, "Permission denied", str(tmp_path / "leaderboard.md"))

    monkeypatch.setattr("latentbench.reports.as_text.write", refused)
    words = ["leaderboard", "--results", str(places["RESULTS"]), "--out", str(tmp_path)]
    assert run(CLI, words, monkeypatch) == 1
    assert capsys.readouterr().err == f"{tmp_path}/leaderboard.md: Permission denied\n"


def test_a_reader_that_has_seen_enough_is_no_error():
    script = f"from {CLI} import main; raise SystemExit(main(['zoo', 'show', 'faces_ldm']))"
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, stdout=writing, stderr=subprocess.PIPE, text=True
    )
    os.close(writing)
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_the_soak_refuses_wrong_arguments():
    command = [sys.executable, "tests/soak/soak.py", "--seconds", "-1"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2 and "must be a whole number of 1 or more" in done.stderr
