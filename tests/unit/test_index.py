import os
import time

import pytest

from latentbench import index
from latentbench.index import Index


@pytest.fixture
def sources(tmp_path, monkeypatch):
    """A checkout of one source file, older than the process."""
    monkeypatch.setattr(index, "CHECKOUT", tmp_path / "checkout")
    (tmp_path / "checkout" / "methods").mkdir(parents=True)
    file = tmp_path / "checkout" / "methods" / "slerp.py"
    file.write_text("version = 1")
    monkeypatch.setattr(index, "STARTED", time.time() + 60)
    return file


def test_an_answer_is_found_again_under_its_question_alone(tmp_path, sources):
    Index(tmp_path).keep(["list", "faces"], {"rows": [1]})
    assert Index(tmp_path).find(["list", "faces"]) == {"rows": [1]}
    assert Index(tmp_path).find(["list", "other"]) is None


@pytest.mark.parametrize("name", ["slerp.py", "new.py"])
def test_a_change_of_the_sources_makes_a_new_index(tmp_path, sources, name):
    Index(tmp_path).keep("which", "old")
    sources.with_name(name).write_text("version = 2")
    changed = Index(tmp_path)
    assert changed.find("which") is None
    changed.keep("which", "new")
    assert changed.find("which") == "new"


def test_two_checkouts_on_one_cache_keep_an_index_each(tmp_path, sources):
    one = Index(tmp_path)
    one.keep("which", "one")
    sources.write_text("version = 2")
    other = Index(tmp_path)
    other.keep("which", "other")
    assert (one.find("which"), other.find("which")) == ("one", "other")


@pytest.mark.parametrize(("used_since", "kept"), [(False, 1), (True, 2)])
def test_an_index_that_is_not_used_for_a_day_goes(tmp_path, sources, used_since, kept):
    one = Index(tmp_path)
    one.keep("which", "one")
    (folder,) = (tmp_path / "index").iterdir()
    long_ago = time.time() - 2 * 86400
    os.utime(folder, (long_ago, long_ago))
    if used_since:
        assert one.find("which") == "one"
    sources.write_text("version = 2")
    Index(tmp_path).keep("which", "other")
    assert len([*(tmp_path / "index").iterdir()]) == kept


def test_a_damaged_entry_is_not_known(tmp_path, sources):
    Index(tmp_path).keep("which", "one")
    (path,) = (tmp_path / "index").glob("*/*")
    path.write_bytes(path.read_bytes().replace(b"one", b"two"))
    assert Index(tmp_path).find("which") is None
    assert not path.exists()


def test_what_was_said_by_sources_that_are_no_more_is_not_kept(tmp_path, sources, monkeypatch):
    opened = Index(tmp_path)
    monkeypatch.setattr(index, "STARTED", time.time() - 60)  # the file is younger than the process
    opened.keep("which", "one")
    assert opened.find("which") is None


def test_without_a_folder_nothing_is_kept(sources):
    Index(None).keep("which", "one")
    assert Index(None).find("which") is None


def test_the_classes_of_a_plug_in_are_read_too():
    import cells  # puts the package on the path

    assert cells.PACKAGE.name == "plugin_package"
    assert {"methods", "acme"} <= Index(None).packages
