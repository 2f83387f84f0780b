import importlib.metadata
import subprocess

import cells
import pytest

from latentbench.cells import environment
from latentbench.records import Status


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    def git(*words):
        subprocess.run(
            ["git", "-c", "user.name=a", "-c", "user.email=a@b", *words], cwd=tmp_path, check=True
        )

    for name in ("runner.py", "results/record.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("1")
    git("init", "-q")
    git("add", ".")
    git("commit", "-qm", "first")
    monkeypatch.setattr(environment, "ROOT", tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("path", "dirty"),
    [
        ("results/record.json", False),
        ("results/new.json", False),
        ("runner.py", True),
        ("new.py", True),
    ],
)
def test_a_checkout_is_dirty_when_what_can_change_a_figure_was_changed(checkout, path, dirty):
    assert environment._git()["git_dirty"] is False
    (checkout / path).write_text("2")
    assert environment._git()["git_dirty"] is dirty


def test_outside_a_repository_nothing_is_known(tmp_path, monkeypatch):
    monkeypatch.setattr(environment, "ROOT", tmp_path)
    assert environment._git() == {"git_commit": None, "git_dirty": None}


def test_an_engine_that_is_not_installed_is_left_out(monkeypatch):
    required = ["torch>=2", "no-such-engine>=1; extra == 'engine'"]
    monkeypatch.setattr(importlib.metadata, "requires", lambda name: required)
    assert environment._packages().keys() == {"torch", "latentbench"}


def test_one_that_cannot_be_read_costs_no_work(tmp_path, monkeypatch):
    def unreadable():
        raise OSError("no /proc")

    environment.environment.cache_clear()
    monkeypatch.setattr(environment, "_cpu", unreadable)
    monkeypatch.setenv("ACME_LOG", str(tmp_path / "work"))
    record, _ = cells.run(tmp_path)
    assert (record.status, record.reason) == (Status.FAILED, "OSError: no /proc")
    assert not (tmp_path / "work").exists()
    monkeypatch.undo()
    record, _ = cells.run(tmp_path)
    assert record.status is Status.OK and record.environment["cpu"]
