"""What is on disk is whole and under its own key; a failed write leaves nothing behind."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from latentbench import store
from latentbench.processes import Process, current

BODY = b"a body\nof two lines\0"


def no_room(*_):
    raise OSError(errno.ENOSPC, "No space left on device")


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_written_with_its_folders_and_its_hash_is_returned(tmp_path):
    digest = store.write(tmp_path / "a" / "b", b"")
    assert (tmp_path / "a" / "b").read_bytes() == b""
    assert digest == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_full_disk_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, step):
    store.write(tmp_path / "x", b"old")
    monkeypatch.setattr(os if step == "fsync" else Path, step, no_room)
    with pytest.raises(OSError, match="No space left"):
        store.write(tmp_path / "x", b"new")
    monkeypatch.undo()
    assert (tmp_path / "x").read_bytes() == b"old"
    assert names(tmp_path) == ["x"]


def test_what_a_killed_process_left_is_removed_by_the_next_write(tmp_path):
    done = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"],
                          capture_output=True, check=True)  # fmt: skip
    dead = Process(current().host, int(done.stdout))
    left, running = (tmp_path / store._unfinished_name("x", who) for who in (dead, current()))
    far = tmp_path / store._unfinished_name("x", Process("elsewhere", 1))
    old = tmp_path / store._unfinished_name("x", Process("elsewhere", 2))
    for path in (left, running, far, old, tmp_path / ".mine.tmp"):
        path.write_bytes(b"half")
    os.utime(old, (0, 0))
    store.write(tmp_path / "y", b"whole")
    assert set(names(tmp_path)) == {running.name, far.name, ".mine.tmp", "y"}


def test_a_number_that_another_process_was_given_is_not_the_process(tmp_path):
    here = current()
    assert here.alive()
    if here.started:
        assert not Process(here.host, here.pid, "1").alive()
    assert Process("elsewhere", here.pid).alive() is None


def test_a_sealed_body_comes_back_under_its_key_alone(tmp_path, caplog):
    path = tmp_path / "x"
    assert store.read_sealed(path, "k") is None
    store.write_sealed(path, "k", BODY)
    assert store.read_sealed(path, "k") == BODY
    assert not caplog.text
    assert store.read_sealed(path, "other") is None
    assert "is damaged, or a copy of another file" in caplog.text
    assert not path.exists()


def test_a_folder_in_its_place_is_reported(tmp_path, caplog):
    (tmp_path / "x").mkdir()
    assert store.read_sealed(tmp_path / "x", "k") is None
    assert "cannot be read" in caplog.text


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.data())
def test_no_damage_goes_unnoticed(tmp_path, data):
    """Cut anywhere, any bit turned, anything put in or behind: never another body."""
    path = tmp_path / "x"
    store.write_sealed(path, "k", BODY)
    whole = path.read_bytes()
    place = data.draw(st.integers(0, len(whole) - 1))
    kind = data.draw(st.sampled_from(["bit", "cut", "added", "zeros"]))
    damaged = {
        "bit": whole[:place]
        + bytes([whole[place] ^ 1 << data.draw(st.integers(0, 7))])
        + whole[place + 1 :],
        "cut": whole[:place],
        "added": whole[:place] + data.draw(st.binary(min_size=1, max_size=4)) + whole[place:],
        "zeros": bytes(len(whole)),
    }[kind]
    path.write_bytes(damaged)
    assert store.read_sealed(path, "k") == (BODY if _same(damaged, whole) else None)


def _same(damaged: bytes, whole: bytes) -> bool:
    """Return whether mark, seal and body are those written; the key is there for people."""
    parts = [text.split(b"\n", 3) for text in (damaged, whole)]
    return len(parts[0]) == 4 and all(parts[0][k] == parts[1][k] for k in (0, 1, 3))


def test_a_folder_that_cannot_be_written_to_is_reported_once(tmp_path, caplog):
    for _ in range(3):
        store.report_once(tmp_path, OSError(errno.EROFS, "Read-only file system"), "so it goes")
    assert caplog.text.count("Read-only file system") == 1
