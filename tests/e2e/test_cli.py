"""Real command lines in processes of their own, on the plug-in package's tiny parts."""

import json
import time

import pytest
from commands import ACME, cells, in_a_fresh_interpreter, run, scores, start


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory):
    """One sweep: two good methods' cells, a broken one, one that does not fit."""
    results = tmp_path_factory.mktemp("sweep")
    words = ("-m", *ACME, "model=acme,acme_double", "method=acme,acme_broken,acme_attending")
    return results, run(results, *words), words


def test_a_failing_cell_does_not_stop_the_sweep_and_the_exit_code_tells(sweep):
    results, done, _ = sweep
    assert done.returncode == 1, done.stderr
    records = [json.loads(body) for body in cells(results).values()]
    status = {(r["names"]["model"], r["names"]["method"]): r["status"] for r in records}
    assert status == {
        ("acme", "acme"): "ok",
        ("acme", "acme_broken"): "failed",
        ("acme", "acme_attending"): "skipped",
        ("acme_double", "acme"): "ok",
        ("acme_double", "acme_broken"): "failed",
        ("acme_double", "acme_attending"): "skipped",
    }


def test_the_sweep_ends_with_a_table_and_the_path_of_the_leaderboard(sweep):
    results, done, _ = sweep
    assert f"leaderboard: {results}/leaderboard.md" in done.stderr
    assert "5/6" in done.stderr  # the sixth is skipped
    assert "always breaks" in done.stderr
    assert "2 cells skipped:\n  acme: requires the space attention: acme_attending" in done.stderr
    assert "acme_mae" in (results / "leaderboard.md").read_text()


def test_each_model_is_loaded_once(sweep):
    _, done, _ = sweep
    assert done.stdout.count("loading Waves") == 2


def test_running_again_computes_nothing_and_changes_no_byte(sweep, tmp_path):
    results, _, words = sweep
    before, log = cells(results), tmp_path / "log"
    done = run(results, *words, log=log)
    assert done.returncode == 1  # the failed cells are still there
    assert cells(results) == before
    assert not log.exists()
    assert "loading" not in done.stdout


def test_a_cell_alone_and_in_another_order_has_the_same_bytes(sweep, tmp_path):
    results, _, _ = sweep
    done = run(tmp_path, *ACME, "model=acme", "method=acme", "runtime.order=reversed")
    assert done.returncode == 0, done.stderr
    ((name, alone),) = scores(tmp_path).items()
    assert scores(results)[name] == alone


def batches(results):
    """The finished batches of unfinished cells."""
    paths = [p for p in results.glob("cells/*/partial/*.sealed") if p.stem != "setup"]
    # a cell whose record is written is finished, though its batches may not be cleared yet
    return [p for p in paths if not (p.parents[1] / "record.json").exists()]


@pytest.mark.slow
def test_a_sweep_killed_in_the_middle_goes_on_where_it_stopped(tmp_path):
    """A finished cell is kept, the running one goes on at its batch, the rest is computed."""
    words = ("-m", *ACME, "model=acme,acme_double", "method=acme", "++method.seconds=0.5")
    whole, cut, log = tmp_path / "whole", tmp_path / "cut", tmp_path / "log"
    assert run(whole, *words).returncode == 0
    process = start(cut, *words, log=log)
    deadline = time.monotonic() + 600
    while process.running() and (not cells(cut) or len(batches(cut)) < 2):
        assert time.monotonic() < deadline, "no batch was finished"
        time.sleep(0.02)
    process.kill()
    done = cells(cut)
    assert len(done) == 1
    finished = len(batches(cut))
    started = log.read_text().splitlines()
    log.unlink()
    assert run(cut, *words, log=log).returncode == 0
    again = log.read_text().splitlines()
    assert len(again) == 6 - finished
    assert "setup" in started
    assert "setup" not in again
    assert done.items() <= cells(cut).items()
    assert scores(cut) == scores(whole)
    for name in ("leaderboard.md", "leaderboard.csv"):
        assert (cut / name).read_bytes() == (whole / name).read_bytes()


def test_a_wrong_name_is_answered_with_near_matches(tmp_path):
    done = run(tmp_path, *ACME, "model=acme", "method=slrep")
    assert done.returncode == 2
    assert done.stderr.startswith("unknown method 'slrep'; did you mean slerp")
    assert "Traceback" not in done.stderr


def test_a_wrong_name_stops_a_sweep_before_any_cell(tmp_path):
    done = run(tmp_path, "-m", *ACME, "model=acme", "method=acme,acmee")
    assert done.returncode == 2
    assert "unknown method 'acmee'; did you mean acme" in done.stderr
    assert not cells(tmp_path)


def test_a_wrong_setting_is_answered_with_the_settings_there_are(tmp_path):
    done = run(tmp_path, *ACME, "model=acme", "method=acme", "method.gian=2")
    assert done.returncode == 2
    assert "unknown setting of method 'gian'; did you mean gain?" in done.stderr


def test_a_wrong_value_is_answered_with_what_is_allowed(tmp_path):
    done = run(tmp_path, *ACME, "model=acme", "method=acme", "runtime.order=random")
    assert done.returncode == 2
    assert done.stderr.startswith("runtime.order must be natural or reversed; got 'random'")
    assert done.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())


def without_torch(*words: str):
    """Run a command and fail unless it did without torch and numpy, which take seconds."""
    code = (
        "import sys, runpy\n"
        f"sys.argv = {['runner.py', *words]!r}\n"
        "try: runpy.run_path('runner.py', run_name='__main__')\n"
        "except SystemExit as end: code = end.code or 0\n"
        "assert 'torch' not in sys.modules and 'numpy' not in sys.modules\n"
        "sys.exit(code)"
    )
    return in_a_fresh_interpreter("-c", code)


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (["metod=acme"], "unknown setting 'metod'; did you mean method"),
        ([*ACME, "model=acme", "method=acme", "method.gain=nan"], "method.gain must be a number"),
        (["dataset=folder", "dataset.path=/a(b"], "quotes: 'dataset.path=\"/a(b\"'"),
        (["--cfg", "job", "-m"], "--cfg and --multirun do not go together"),
    ],
)
def test_a_wrong_command_is_answered_without_torch(words, answer):
    done = without_torch(*words)
    assert done.returncode == 2, done.stderr
    assert answer in done.stderr
    assert done.stderr.count("\n") == 1


def test_help_needs_no_torch():
    done = without_torch("--help")
    assert done.returncode == 0, done.stderr
    assert "method:" in done.stdout
    assert "acme" in done.stdout


# ---------------------------------------------------------------- exit codes, launchers, neighbours


def test_two_sweeps_of_one_second_end_with_their_own_exit_codes(tmp_path):
    started = [
        start(tmp_path, "-m", *ACME, "model=acme", f"method={method}")
        for method in ("acme", "acme_broken")
    ]
    assert [process.wait().returncode for process in started] == [0, 1]
    assert len(list((tmp_path / "runs").iterdir())) == 2


def test_a_page_that_cannot_be_written_is_an_error(tmp_path):
    (tmp_path / "leaderboard.md").mkdir()
    done = run(tmp_path, *ACME, "model=acme", "method=acme")
    assert done.returncode == 1
    assert "the reports could not be made" in done.stderr
    assert len(cells(tmp_path)) == 1


def test_a_wrong_tracker_is_refused_before_any_work(tmp_path):
    words = [word for word in ACME if not word.startswith("tracker")]
    done = run(tmp_path, "-m", *words, "model=acme", "method=acme", "tracker.project=a/b")
    assert done.returncode == 2
    assert "project must be a name" in done.stderr
    assert "Traceback" not in done.stderr
    assert not cells(tmp_path)


def test_a_folder_that_cannot_be_written_to_is_refused_in_a_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    done = run(tmp_path / "file", "-m", *ACME, "model=acme", "method=acme")
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert str(tmp_path / "file") in done.stderr
