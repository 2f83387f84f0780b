"""A plug-in, a yaml or a class that is broken is so for itself alone."""

import contextlib
import importlib
import sys
from pathlib import Path

import cells
import pytest

from latentbench import cli, plugin_folders
from latentbench.cells.catalogue import fault, option, options, sound
from latentbench.errors import BadInput
from latentbench.records import Status

YAMLS = {
    "method/exits.yaml": "_target_: wreck.exits.Method",
    "method/raises.yaml": "_target_: wreck.raises.Method",
    "method/absent.yaml": "_target_: wreck.no_such_file.Method",
    "method/untyped.yaml": "_target_: pathlib.Path",
    "method/function.yaml": "_target_: os.getcwd",
    "method/targetless.yaml": "steps: 3",
    "method/cut.yaml": "_target_: [wreck\n  steps: {",
    "method/dangling.yaml": "_target_: acme.parts.Shift\ngain: ${nowhere.at_all}",
    "method/lost.yaml": "defaults:\n  - no_such_base\n_target_: acme.parts.Shift",
    "method/binary.yaml": "\x00\x01",
    "method/a_list.yaml": "- 1\n- 2",
    "model/exits.yaml": "_target_: wreck.exits.Model",
    "metric/nameless.yaml": "_target_: acme.parts.Mae",
    "metric/wreck.yaml": "# @package metric.wreck\n_target_: wreck.exits.Metric",
    "benchmark/wreck.yaml": "_target_: wreck.exits.Benchmark",
    "dataset/wreck.yaml": "_target_: wreck.raises.Dataset",
}
CODE = {
    "__init__.py": "raise SystemExit('the whole plug-in is broken')",
    "exits.py": "",
    "raises.py": "",
    "conf/__init__.py": "",
}


@pytest.fixture(scope="module")
def wreck(tmp_path_factory):
    """A plug-in whose code ends the program when it is imported, and whose yamls are broken."""
    root = tmp_path_factory.mktemp("site")
    texts = {f"wreck/{name}": text for name, text in CODE.items()}
    texts |= {f"wreck/conf/{name}": text for name, text in YAMLS.items()}
    points = "[latentbench.conf]\nwreck = wreck.conf\ngone = no_such_package.conf\n"
    texts |= {
        "wreck-1.dist-info/METADATA": "Metadata-Version: 2.1\nName: wreck\nVersion: 1\n",
        "wreck-1.dist-info/entry_points.txt": points,
    }
    for name, text in texts.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    sys.path.append(str(root))
    importlib.invalidate_caches()
    options.cache_clear()
    yield root
    sys.path.remove(str(root))
    importlib.invalidate_caches()
    options.cache_clear()


BROKEN = {
    "exits": "the whole plug-in is broken",
    "raises": "the whole plug-in is broken",
    "absent": "cannot be imported",
    "untyped": "pathlib.Path is not a Editor",
    "function": "os.getcwd cannot be imported",
    "targetless": "no _target_",
    "cut": "Error",
    "dangling": "nowhere",
    "lost": "no_such_base",
    "binary": "Error",
    "a_list": "Error",
}


@pytest.mark.parametrize(("name", "words"), BROKEN.items())
def test_a_broken_method_is_told_to_whoever_asks_for_it(wreck, name, words):
    assert words in fault("method", option("method", name)) or words == "Error"
    assert fault("method", option("method", name))
    if name != "untyped":
        with pytest.raises(BadInput):
            _ = option("method", name).cls


def test_all_others_are_as_they_were(wreck):
    for group in ("method", "model", "metric", "dataset", "benchmark"):
        names = {Path(name).stem for name in YAMLS if name.startswith(group)}
        assert not names & sound(group).keys()
    assert {"acme", "slerp"} <= sound("method").keys()
    assert {"acme", "faces_ddpm"} <= sound("model").keys()
    assert {"acme_mae", "psnr"} <= sound("metric").keys()


def test_cells_of_others_run_and_are_skipped_as_before(wreck, tmp_path):
    assert cells.run(tmp_path)[0].status is Status.OK
    skipped, _ = cells.run(tmp_path, "method=acme_attending")
    assert skipped.status is Status.SKIPPED
    assert "method=acme or " in skipped.reason
    assert "wreck" not in sys.modules


def test_a_setting_of_some_other_method_is_taken_off(wreck, tmp_path):
    from latentbench.cells.sweep import without_foreign

    words = ["++method.images=64"]
    config, kept = without_foreign(cells.composed(tmp_path, *words), words)
    assert "images" not in config.method
    assert kept == []


@pytest.mark.parametrize("choice", ["method=exits", "method=absent", "method=targetless",
                                    "method=function", "model=exits", "dataset=wreck"])  # fmt: skip
def test_the_cell_of_a_broken_option_fails_and_says_why(wreck, tmp_path, choice):
    record, _ = cells.run(tmp_path, choice)
    assert record.status is Status.FAILED
    assert record.reason


@pytest.mark.slow
def test_the_list_names_what_is_broken(wreck, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "400")
    with contextlib.suppress(SystemExit):
        assert cli.main(["list"]) == 0
    told = capsys.readouterr().out
    assert "slerp" in told
    assert "the whole plug-in is broken" in told
    assert "gone (no_such_package.conf)" in told
    for name in BROKEN:
        assert name in told


def test_no_plug_in_is_imported_to_find_its_yamls(wreck):
    assert plugin_folders.folders()["wreck (wreck.conf)"] == wreck / "wreck" / "conf"
    assert "exits" in options("method")
    assert "wreck" not in sys.modules
