"""Fits are listed, shown, exported and imported; a record says where its cell's came from."""

import json

import cells
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save

from latentbench import cli
from latentbench.cache import Cache
from latentbench.cells import fits
from latentbench.metric_state import as_tensor


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """A cell of a method that learns, with a cache of its own, and its record."""
    folder = tmp_path_factory.mktemp("first")
    return folder, cells.run(folder)[0]


def answer(capsys, *words):
    capsys.readouterr()
    code = cli.main([*map(str, words), "--json"])
    return code, json.loads(capsys.readouterr().out or "null")


def test_a_fit_is_listed_with_what_it_depends_on(first, capsys):
    folder, record = first
    assert record.imported_fit == ""
    _, found = answer(capsys, "fits", "list", "--cache", folder / "cache")
    (fit,) = found["fits"]
    assert fit["method"]["name"] == "acme" and fit["seed"] == 0 and len(fit["key"]) == 64


def test_it_is_shown_by_the_beginning_of_its_key(first, capsys):
    folder, _ = first
    (fit,) = fits.every(folder / "cache")
    _, shown = answer(capsys, "fits", "show", fit.key[:6], "--cache", folder / "cache")
    assert shown["tensors"] == {"shift": {"shape": [], "norm": pytest.approx(0.98, abs=0.1)}}
    assert cli.main(["fits", "show", "none", "--cache", str(folder / "cache")]) == 2
    assert fit.key[:12] in capsys.readouterr().err


def test_an_exported_fit_is_what_another_cache_takes_and_the_record_names_the_file(
    first, capsys, tmp_path
):
    folder, record = first
    (fit,) = fits.every(folder / "cache")
    file = tmp_path / "out" / "fit.safetensors"
    _, wrote = answer(
        capsys, "fits", "export", fit.key[:8], "--cache", folder / "cache", "--out", file
    )
    with safe_open(file, "pt") as opened:
        assert list(opened.keys()) == ["shift"]
        assert torch.equal(opened.get_tensor("shift"), fit.tensors["shift"])
    other = tmp_path / "other"
    _, took = answer(capsys, "fits", "import", file, "--cache", other / "cache")
    assert took == {"key": fit.key, "sha256": wrote["sha256"]}
    again, _ = cells.run(other)
    assert again.imported_fit == wrote["sha256"]
    assert again.id == record.id and again.scores == record.scores
    spared = [one.evaluations["fit"] for one in (again, record)]
    assert spared[0]["forward"] == spared[1]["forward"] > 0  # counted, though spared


def test_what_is_no_fit_is_refused(tmp_path, capsys):
    file = tmp_path / "x.safetensors"
    file.write_bytes(b"no")
    assert cli.main(["fits", "import", str(file), "--cache", str(tmp_path / "cache")]) == 2
    assert "is no exported fit" in capsys.readouterr().err
    file.write_bytes(save({"a": torch.ones(1)}, {"latentbench": '{"key": "../x"}'}))
    assert cli.main(["fits", "import", str(file), "--cache", str(tmp_path / "cache")]) == 2
    assert "lacks" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"model": "acme"}, "does not name method, model and dataset"),
        ({"method": {"gain": 1.0}}, "does not name method, model and dataset"),
        ({"edits": None}, "edits, seed or evaluations are of a wrong type"),
        ({"seed": 1.5}, "edits, seed or evaluations are of a wrong type"),
        ({"seed": float("nan")}, "its card holds NaN"),
        ({"evaluations": [1]}, "edits, seed or evaluations are of a wrong type"),
        ({"evaluations": [2**64, 0]}, "edits, seed or evaluations are of a wrong type"),
        ({"evaluations": ["1", "2"]}, "edits, seed or evaluations are of a wrong type"),
        ({"key": "A" * 64}, "its key is no sha256"),
    ],
)
def test_a_card_of_other_types_is_refused_and_leaves_nothing(first, capsys, tmp_path, change, says):
    (fit,) = fits.every(first[0] / "cache")
    file, cache = tmp_path / "x.safetensors", tmp_path / "cache"
    card = json.dumps({**fit.card, "evaluations": [1, 0], **change})
    file.write_bytes(save(dict(fit.tensors), {"latentbench": card}))
    assert cli.main(["fits", "import", str(file), "--cache", str(cache)]) == 2
    assert says in capsys.readouterr().err and not cache.exists()


def test_a_card_that_an_older_import_has_let_in_does_not_hide_the_others(
    first, capsys, tmp_path, caplog
):
    (fit,) = fits.every(first[0] / "cache")
    for key, card in ((fit.key, fit.card), ("0" * 64, {**fit.card, "model": "acme"})):
        card = {**card, "key": key}
        Cache(tmp_path).put(fits.KIND, key, {fits.CARD: as_tensor(card)}, (0, 0))
    _, found = answer(capsys, "fits", "list", "--cache", tmp_path)
    assert [one["key"] for one in found["fits"]] == [fit.key]
    assert "does not name method" in caplog.text
