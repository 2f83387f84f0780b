"""Fits are listed, shown, exported and imported; a record says where its cell's came from."""

import json

import cells
import pytest
import torch
from acme.parts import Shift
from safetensors import safe_open
from safetensors.torch import save

from latentbench import cli
from latentbench.cache import Cache
from latentbench.cells import fits
from latentbench.conformance import toy
from latentbench.content import content_hash
from latentbench.metric_state import as_tensor
from latentbench.streams import Streams
from methods.personalisation.textual_inversion import TextualInversion


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
        ({"kind": "../x"}, "its kind is '../x', not one of fit, subject"),
        ({"kind": ["fit"]}, "its kind is ['fit'], not one of fit, subject"),
        ({"kind": "subject"}, "does not list the subjects"),
        ({"kind": "subject", "subjects": "test/0"}, "does not list the subjects"),
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


# ---------------------------------------------------------------- of single subjects

REFERENCES = toy.ToyData().batch("test", [0, 1])
CARD = {group: {"name": f"own {group}"} for group in ("method", "model", "dataset")}


def word(model, folder, card=CARD):
    """Return a method, and the word that it learned of the references or found in a cache."""
    editor, counts = TextualInversion(iterations=2), model.evaluations
    cache = Cache(folder, lambda: (counts.forward, counts.backward))
    editor.attach(model, Streams(3), cache)
    editor.card = card
    return editor, editor.learn(REFERENCES)["word"]


def test_a_learned_word_is_listed_with_its_subject_shown_exported_and_imported(
    latent, capsys, tmp_path
):
    cache, other, file = tmp_path / "cache", tmp_path / "other", tmp_path / "word.safetensors"
    _, learned = word(latent, cache)
    _, listed = answer(capsys, "fits", "list", "--cache", cache)
    (card,) = listed["fits"]
    assert (card["kind"], card["subjects"], card["seed"]) == ("subject", [*REFERENCES.ids], 3)
    assert cli.main(["fits", "list", "--cache", str(cache)]) == 0
    line = "own method on own model, own dataset, seed 3: learned of test/0, test/1"
    assert line in capsys.readouterr().out
    key = card["key"][:8]
    _, shown = answer(capsys, "fits", "show", key, "--cache", cache)
    assert shown["tensors"]["word"]["shape"] == [len(learned)]
    assert shown["evaluations"] == [4, 4]  # two steps, two references
    _, wrote = answer(capsys, "fits", "export", key, "--cache", cache, "--out", file)
    with safe_open(file, "pt") as opened:
        assert list(opened.keys()) == ["word"]
    _, took = answer(capsys, "fits", "import", file, "--cache", other)
    assert took == {"key": card["key"], "sha256": wrote["sha256"]}
    before = latent.evaluations.backward
    editor, found = word(latent, other)
    assert latent.evaluations.backward == before and torch.equal(found, learned)
    assert editor.cache.imported == {wrote["sha256"]} and editor.cache.saved.tolist() == [4, 4]


def test_a_word_that_was_learned_outside_a_cell_is_not_listed(latent, tmp_path):
    _, learned = word(latent, tmp_path, card={})
    assert not list(fits.every(tmp_path))
    editor, found = word(latent, tmp_path)
    assert torch.equal(found, learned) and not editor.cache.imported


@pytest.fixture
def learns_of_each_image(monkeypatch):
    """Let the method of acme learn a brightness of each batch that it edits; what it was."""
    real = Shift.edit

    def edit(self, batch, edit, strengths):
        key = content_hash("brightness", batch.images)
        found = self.remembered(key, batch.ids, lambda: {"mean": batch.images.mean((1, 2, 3))})
        assert found.keys() == {"mean"}
        return real(self, batch, edit, strengths)

    monkeypatch.setattr(Shift, "edit", edit)
    return real


def test_a_record_names_the_files_that_its_subjects_were_imported_from(
    learns_of_each_image, capsys, tmp_path
):
    record, _ = cells.run(tmp_path / "one")
    assert record.imported_subjects == ()
    own = [fit for fit in fits.every(tmp_path / "one" / "cache") if fit.kind != fits.KIND]
    names = {name for fit in own for name in fit.card["subjects"]}
    assert names == {f"test/{k}" for k in range(10)} and len(own) > 1
    files = []
    for number, fit in enumerate(own[:2]):
        file = tmp_path / f"{number}.safetensors"
        files.append(fits.write(fit, file))
        answer(capsys, "fits", "import", file, "--cache", tmp_path / "two" / "cache")
    again, _ = cells.run(tmp_path / "two")
    assert again.imported_subjects == tuple(sorted(files)) and again.imported_fit == ""
    assert again.id == record.id and again.scores == record.scores


def test_what_batches_of_a_killed_cell_had_imported_is_named_as_well(
    learns_of_each_image, capsys, tmp_path, monkeypatch
):
    cells.run(tmp_path / "one")
    own = [fit for fit in fits.every(tmp_path / "one" / "cache") if fit.kind != fits.KIND]
    fit = next(fit for fit in own if "test/0" in fit.card["subjects"])
    digest = fits.write(fit, tmp_path / "file")
    answer(capsys, "fits", "import", tmp_path / "file", "--cache", tmp_path / "two" / "cache")
    real, calls = Shift.disturb, []

    def dies(self, batch):
        calls.append(batch.ids)
        if len(calls) == 6:  # the law of strength 0 is the first; then batches of four
            raise KeyboardInterrupt
        return real(self, batch)

    with monkeypatch.context() as patch:
        patch.setattr(Shift, "disturb", dies)
        with pytest.raises(KeyboardInterrupt):
            cells.run(tmp_path / "two")
    monkeypatch.setattr(Shift, "edit", learns_of_each_image)  # takes nothing any more
    again, _ = cells.run(tmp_path / "two")
    assert len(calls) == 6 and again.imported_subjects == (digest,)
