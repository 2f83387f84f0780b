"""The life of a cell, on the plug-in package's tiny parts."""

import re

import cells
import pandas as pd
import pytest
import torch
from acme.parts import Brighten, Doubled, Mae

from latentbench import weights
from latentbench.benchmark import Work
from latentbench.cells import batch_runner as batches
from latentbench.cells import loading
from latentbench.cells.batch_runner import check_effect, split, work_list
from latentbench.cells.working_folder import Finished, Partial, in_order
from latentbench.errors import NoEffect
from latentbench.records import Status
from latentbench.types import Edit, Samples


def scores(record):
    return record.to_json().split('"scores": ')[1].split('"main_score"')[0]


# ---------------------------------------------------------------- what comes out


def test_a_cell_leaves_record_table_and_pictures(tmp_path):
    record, new = cells.run(tmp_path)
    assert record.status is Status.OK, record.traceback
    assert new
    folder = tmp_path / "cells" / record.id
    names = {path.name for path in folder.iterdir()}
    assert names == {"record.json", "samples.parquet", "images.parquet", "grid.webp"}
    assert {"acme_mae", "acme_mae/bright+", "acme_mae/bright-"} == record.scores.keys()
    entry = record.scores["acme_mae"]
    assert entry.n == 10
    assert entry.low < entry.value < entry.high
    assert not entry.higher_is_better


def test_a_data_set_of_another_size_than_the_models_is_refused(tmp_path):
    record, _ = cells.run(tmp_path, "dataset.size=24")
    assert record.status is Status.FAILED
    assert "dataset.size is 24, and the model's images have" in record.reason


def test_the_table_has_a_row_per_image_and_output(tmp_path):
    record, _ = cells.run(tmp_path)
    table = pd.read_parquet(tmp_path / "cells" / record.id / "samples.parquet")
    assert len(table) == 2 * 10 * 2
    assert set(table["strength"]) == {1.0, 2.0}
    heads = table[table["headline"]]
    assert set(heads["output"]) == {1}
    assert heads["acme_mae"].mean() == pytest.approx(record.scores["acme_mae"].value, rel=1e-12)
    ups = heads[heads["group"] == "bright+"]["acme_mae"].mean()
    assert ups == pytest.approx(record.scores["acme_mae/bright+"].value, rel=1e-12)


def test_a_metric_whose_fields_are_missing_is_switched_off_with_the_reason(tmp_path):
    record, _ = cells.run(tmp_path)
    assert "noise" in record.switched_off["acme_masked"]


def test_the_record_says_what_it_took(tmp_path):
    record, _ = cells.run(tmp_path)
    assert record.evaluations["fit"] == {"forward": 16, "backward": 0, "spared": 0}
    # two groups x three batches of 4 x (encode + decode at three strengths)
    assert record.evaluations["run"]["forward"] == 2 * 3 * 4 * (1 + 3)
    assert record.environment["packages"]["torch"]
    assert record.batch_size == 4
    assert set(record.seconds) == {"load", "fit", "setup", "run", "score"}


# ---------------------------------------------------------------- identity


@pytest.mark.parametrize(
    "change", ["seed=1", "method.gain=2", "benchmark.n=11", "metric=[acme_mae]", "model.scale=3"]
)
def test_what_decides_scores_changes_the_id(tmp_path, change):
    assert cells.run(tmp_path)[0].id != cells.run(tmp_path, change)[0].id


@pytest.mark.parametrize(
    "change", ["runtime.order=reversed", "runtime.threads=2", "results.images=3"]
)
def test_how_it_is_computed_does_not_change_the_id(tmp_path, change):
    assert cells.run(tmp_path)[0].id == cells.run(tmp_path, change)[0].id


def test_a_raised_version_changes_the_id(tmp_path, monkeypatch):
    first, _ = cells.run(tmp_path)
    monkeypatch.setattr(Brighten, "version", 2)
    assert cells.run(tmp_path)[0].id != first.id


def test_a_network_that_no_setting_names_is_in_the_id(tmp_path, monkeypatch):
    bare, _ = cells.run(tmp_path / "a")
    monkeypatch.setattr(Mae, "fixed_networks", frozenset({"zoo1"}))
    judged, _ = cells.run(tmp_path / "b")
    assert "zoo1" not in bare.weights
    assert judged.weights["zoo1"] == weights.digest("zoo1")


def test_how_well_a_judge_reads_is_in_its_hash(monkeypatch):
    before = weights.digest("zoo1")
    card = weights.card("zoo1")
    card["measured"][weights.RELIABILITY]["brow"] -= 0.01
    monkeypatch.setattr(weights, "card", lambda name: card)
    assert weights.digest("zoo1") != before


def test_a_default_written_out_is_the_same_cell(tmp_path):
    assert cells.run(tmp_path)[0].id == cells.run(tmp_path, "method.gain=1.0")[0].id


# ---------------------------------------------------------------- the same bytes


def test_order_and_company_change_no_score(tmp_path):
    alone, _ = cells.run(tmp_path / "a")
    cells.run(tmp_path / "b", "method=acme_broken")
    cells.run(tmp_path / "b", "seed=5")
    later, _ = cells.run(tmp_path / "b", "runtime.order=reversed")
    assert later.id == alone.id
    assert scores(later) == scores(alone)


def test_a_cell_goes_on_at_the_batch_where_it_stopped(tmp_path, monkeypatch):
    whole, _ = cells.run(tmp_path / "whole")
    done = []
    real = Brighten.run

    def dies_at_the_fourth(self, work, bench, setup):
        if len(done) == 3:
            raise KeyboardInterrupt
        done.append(work)
        return real(self, work, bench, setup)

    monkeypatch.setattr(Brighten, "run", dies_at_the_fourth)
    with pytest.raises(KeyboardInterrupt):
        cells.run(tmp_path / "cut")
    assert not list((tmp_path / "cut").rglob("record.json"))

    def counts(self, work, bench, setup):
        done.append(work)
        return real(self, work, bench, setup)

    monkeypatch.setattr(Brighten, "run", counts)
    resumed, _ = cells.run(tmp_path / "cut")
    assert len(done) == 6  # three before, three after: none twice
    assert scores(resumed) == scores(whole)
    assert resumed.evaluations["run"] == whole.evaluations["run"]
    assert not list((tmp_path / "cut").rglob("partial"))


def test_learned_state_from_the_cache_gives_the_same_scores(tmp_path):
    first, _ = cells.run(tmp_path)
    second, new = cells.run(tmp_path, "results.overwrite=always")
    assert new
    assert scores(second) == scores(first)
    assert second.evaluations["fit"] == {"forward": 16, "backward": 0, "spared": 16}


@pytest.mark.parametrize("change", ["seed=1", "method.gain=2", "model.scale=2"])
def test_what_a_fit_depends_on_makes_another_fit(tmp_path, change):
    cells.run(tmp_path)
    assert cells.run(tmp_path, change)[0].evaluations["fit"]["spared"] == 0
    assert cells.run(tmp_path, change, "benchmark.n=11")[0].evaluations["fit"]["spared"] == 16


def test_a_fit_for_other_edits_is_another_fit(tmp_path, monkeypatch):
    cells.run(tmp_path)
    for edits in (Edit("bright+", "bright"), Edit("bright-", "bright", -1)), (Edit("b", "bright"),):
        monkeypatch.setattr(Brighten, "edits", lambda self, data, edits=edits: list(edits))
        monkeypatch.setattr(
            Brighten, "groups", lambda self, data, edits=edits: [e.name for e in edits]
        )
        record, _ = cells.run(tmp_path, f"benchmark.n={10 + len(edits)}")
        assert (record.evaluations["fit"]["spared"] == 0) == (len(edits) == 1)


# ---------------------------------------------------------------- overwrite policy


def test_a_finished_cell_is_not_computed_again(tmp_path):
    record, _ = cells.run(tmp_path)
    path = tmp_path / "cells" / record.id / "record.json"
    before = path.read_bytes()
    again, new = cells.run(tmp_path)
    assert (again, new) == (record, False)
    assert path.read_bytes() == before


def test_a_failed_cell_is_computed_again_only_when_asked(tmp_path):
    broken = "method=acme_broken"
    assert cells.run(tmp_path, broken)[1]
    assert not cells.run(tmp_path, broken)[1]
    assert cells.run(tmp_path, broken, "results.overwrite=failed")[1]


def test_a_record_of_a_newer_schema_is_left_as_it_is(tmp_path, monkeypatch):
    """As two checkouts do that share a results folder; nothing is computed for it either."""
    record, _ = cells.run(tmp_path)
    path = tmp_path / "cells" / record.id / "record.json"
    newer = record.to_json().replace('"schema": 2', '"schema": 3')
    path.write_text(newer)
    monkeypatch.setattr("latentbench.cells.cell.compute", None)
    found, new = cells.run(tmp_path)
    assert new and found.status is Status.FAILED
    assert "has schema 3, this code reads 2: a newer version of latentbench wrote" in found.reason
    assert path.read_text() == newer
    assert [folder.name for folder in (tmp_path / "cells").iterdir()] == [record.id]


def test_never_computes_nothing(tmp_path):
    record, new = cells.run(tmp_path, "results.overwrite=never")
    assert (record.status, new) == (Status.SKIPPED, False)
    assert not (tmp_path / "cells" / record.id).exists()


# ---------------------------------------------------------------- what goes wrong


def test_an_error_becomes_a_failed_record(tmp_path):
    record, _ = cells.run(tmp_path, "method=acme_broken")
    assert record.status is Status.FAILED
    assert record.reason == "ValueError: this method always breaks"
    assert "parts.py" in record.traceback
    assert record.scores == {}


def test_fail_fast_raises(tmp_path):
    with pytest.raises(ValueError, match="always breaks"):
        cells.run(tmp_path, "method=acme_broken", "runtime.fail_fast=true")


def test_what_does_not_fit_is_skipped_before_loading_and_says_what_would(tmp_path, monkeypatch):
    monkeypatch.setattr(loading, "hot_part", lambda *a: pytest.fail("loaded the model"))
    record, _ = cells.run(tmp_path, "method=acme_attending", "model.scale=7")
    assert record.status is Status.SKIPPED
    assert "requires the space attention" in record.reason
    assert "method=acme or " in record.reason
    assert "faces_ddpm" in record.reason  # embedded models come first
    assert re.search(r"; model=\w+( or \w+){4} or \d+ more", record.reason)


def test_a_skipped_record_is_left_as_it_is(tmp_path):
    first, new = cells.run(tmp_path, "method=acme_attending")
    assert new
    assert cells.run(tmp_path, "method=acme_attending") == (first, False)


def test_an_unknown_setting_is_named_before_anything_is_loaded(tmp_path):
    record, _ = cells.run(tmp_path, "+method.gian=2")
    assert record.status is Status.FAILED
    assert "unknown setting of method 'gian'; did you mean gain?" in record.reason


def test_all_wrong_settings_of_all_parts_are_told_before_anything_is_loaded(tmp_path, monkeypatch):
    monkeypatch.setattr(loading, "hot_part", lambda *a: pytest.fail("loaded the model"))
    wrong = ("method.gain=nan", "method.seconds=soon", "model.scale=wide")
    record, _ = cells.run(tmp_path, *wrong, "+metric.acme_mae.wdith=3")
    assert record.status is Status.FAILED
    assert record.reason.startswith(
        "BadInput: method.gain must be a number; got nan; "
        "method.seconds must be a number; got 'soon'; "
        "model.scale must be a number; got 'wide'; "
        "unknown setting of metric.acme_mae 'wdith'"
    )


def test_two_metrics_that_give_one_figure_are_refused_before_anything_is_loaded(tmp_path):
    record, _ = cells.run(tmp_path, "+metric.again={_target_: acme.parts.Mae}")
    assert record.status is Status.FAILED
    assert "acme_mae and again both give acme_mae" in record.reason


def test_an_edit_without_effect_is_a_typed_failure(tmp_path):
    record, _ = cells.run(tmp_path, "method.misbehave=idle")
    assert record.reason.startswith("NoEffect: edit 'bright+' at strength 1 changed no pixel")


def test_nan_is_a_typed_failure_that_names_the_image(tmp_path):
    record, _ = cells.run(tmp_path, "method.misbehave=not_finite")
    assert record.reason.startswith("NotFinite:")
    assert "test/3" in record.reason


def test_a_tolerated_failure_costs_that_sample_alone(tmp_path):
    whole, _ = cells.run(tmp_path)
    record, _ = cells.run(tmp_path, "method.misbehave=not_finite", "runtime.max_failed_share=0.1")
    assert record.status is Status.OK, record.reason
    assert [(f["group"], f["index"]) for f in record.failed_samples] == [
        ("bright+", "3"),
        ("bright-", "3"),
    ]
    assert record.scores["acme_mae"].n == 9
    values = [
        pd.read_parquet(tmp_path / "cells" / r.id / "samples.parquet").query("id != 'test/3'")
        for r in (whole, record)
    ]
    assert values[0]["acme_mae"].tolist() == values[1]["acme_mae"].tolist()


def test_too_many_failures_fail_the_cell(tmp_path):
    record, _ = cells.run(tmp_path, "method.misbehave=not_finite", "runtime.max_failed_share=0.05")
    assert record.status is Status.FAILED
    assert "2 of 20 samples failed" in record.reason


def test_out_of_memory_halves_the_batch_and_goes_on(tmp_path):
    whole, _ = cells.run(tmp_path)
    record, _ = cells.run(tmp_path, "method.misbehave=memory")
    assert record.status is Status.OK, record.reason
    assert record.batch_size == 2
    assert record.scores["acme_mae"].value == pytest.approx(whole.scores["acme_mae"].value, 1e-5)


def test_out_of_memory_on_one_image_is_an_error(tmp_path, monkeypatch):
    def never_enough(*a):
        raise RuntimeError("CUDA out of memory.")

    monkeypatch.setattr(Brighten, "run", never_enough)
    record, _ = cells.run(tmp_path)
    assert "out of memory" in record.reason


# ---------------------------------------------------------------- batches


def test_every_image_is_in_one_batch_whatever_the_order():
    for backwards in (False, True):
        works = work_list({"a": 10, "b": 10}, 4, backwards)
        assert {len(w.indices) for w in works} == {4}
        kept = [(w.group, i) for w in works for i in w.indices[: w.kept]]
        assert sorted(kept) == [(g, i) for g in "ab" for i in range(10)]


def test_a_split_batch_keeps_every_image():
    parts = split(Work("a", (5, 6, 7, 7), 3), 2)
    assert [(p.indices, p.kept) for p in parts] == [((5, 6), 2), ((7, 7), 1)]


def test_stored_batches_come_back_in_order_and_in_even_chunks(tmp_path):
    def samples(numbers):
        values = torch.tensor(numbers, dtype=torch.float32).reshape(-1, 1, 1, 1, 1)
        names = tuple(f"i{k}" for k in numbers)
        outputs, groups = values.expand(-1, 2, 3, 4, 4), ("g",) * len(numbers)
        return Samples(names, outputs, groups, main=1, masks=values[:, 0, 0], prompts=names)

    chunks = []
    for backwards in (False, True):
        store = Partial(tmp_path / str(backwards), "cell")
        works = work_list({"g": 7}, 2, backwards)
        for work in works:
            numbers = work.indices[: work.kept]
            store.put(work, Finished(samples(numbers), numbers))
        chunks.append(list(in_order(store.get, works, ["g"], 3)))
    assert [c.ids for c in chunks[0]] == [("i0", "i1", "i2"), ("i3", "i4", "i5"), ("i6",)]
    for a, b in zip(*chunks, strict=True):
        assert a.ids == b.ids
        assert a.main == b.main == 1
        assert a.prompts == b.prompts == a.ids and a.source_prompts is None
        assert torch.equal(a.masks[:, 0, 0], a.outputs[:, 0, 0, 0, 0])
        assert torch.equal(a.outputs, b.outputs)


def test_an_idle_edit_is_found_and_a_real_one_is_not():
    base = torch.zeros(2, 3, 4, 4)
    outputs = torch.ones(2, 2, 3, 4, 4)
    strengths = torch.tensor([[0.5, 1.0], [0.5, 1.0]])
    good = Samples(("a", "b"), outputs, ("e", "e"), reconstructions=base, strengths=strengths)
    check_effect(good)
    outputs[1, 0] = 0
    with pytest.raises(NoEffect, match=r"strength 0\.5 changed no pixel of b"):
        check_effect(good)
    zero = torch.zeros(2, 2)
    check_effect(Samples(("a", "b"), outputs, ("e", "e"), reconstructions=base, strengths=zero))


@pytest.mark.parametrize(
    ("error", "is_memory"),
    [
        (RuntimeError("CUDA out of memory. Tried to allocate"), True),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), True),
        (MemoryError(), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
    ],
)
def test_only_lack_of_memory_halves_the_batch(error, is_memory):
    assert batches.is_out_of_memory(error) is is_memory


# ---------------------------------------------------------------- other parts


def test_another_model_is_part_of_the_cell(tmp_path, monkeypatch):
    """Another option, other settings and a raised version are another cell; both are metered."""
    assert "others" not in str(cells.run(tmp_path)[0].config["benchmark"])
    first, _ = cells.run(tmp_path, "benchmark=acme_two", "benchmark.other=acme_double")
    assert first.status is Status.OK, first.traceback
    alone, _ = cells.run(tmp_path, "benchmark=acme_two")
    assert alone.id != first.id
    assert first.evaluations["run"]["forward"] > alone.evaluations["run"]["forward"]
    named = first.config["others"]["benchmark.other"]
    assert named["_target_"] == "acme.parts.Doubled" and named["scale"] == 2.0
    monkeypatch.setattr(Doubled, "version", 2)
    again, _ = cells.run(tmp_path, "benchmark=acme_two", "benchmark.other=acme_double")
    assert again.id != first.id


def test_an_unknown_other_model_is_refused_before_anything_is_loaded(tmp_path, monkeypatch):
    monkeypatch.setattr(loading, "hot_part", lambda *a: pytest.fail("loaded the model"))
    record, _ = cells.run(tmp_path, "benchmark=acme_two", "benchmark.other=acme_dubble")
    assert record.status is Status.FAILED
    assert "unknown model 'acme_dubble'; did you mean acme_double" in record.reason


def test_incompatible_at_run_time_is_a_skipped_cell(tmp_path):
    record, _ = cells.run(tmp_path, "method.misbehave=incompatible")
    assert record.status is Status.SKIPPED
    assert record.reason == "this method does not like Tuesdays"


def test_a_fit_has_gradients_and_is_told_what_it_needs(tmp_path):
    record, _ = cells.run(tmp_path, "method.misbehave=learn")
    assert record.status is Status.OK, record.traceback
