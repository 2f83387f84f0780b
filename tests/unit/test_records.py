import json
from dataclasses import replace

import pytest

from latentbench import records
from latentbench.errors import BadInput
from latentbench.records import Record, ScoreEntry, Status

NAMES = {"benchmark": "b", "method": "sdedit", "model": "m", "dataset": "d"}
RECORD = Record(
    "0123",
    Status.OK,
    NAMES,
    seed=1,
    config={"method": {"steps": 20}},
    overrides=("method.steps=20", "model.dtype=float16"),
    scores={"psnr": ScoreEntry(1 / 3, 64, 0.1, 0.5, "a note", "dB", True)},
    failed_samples=({"group": "g", "index": "3", "cause": "NotFinite"},),
    evaluations={"fit": {"forward": 10, "backward": 2, "spared": 4}, "run": {"forward": 5}},
)


def test_a_record_comes_back_as_it_was():
    assert Record.from_json(RECORD.to_json()) == RECORD


def test_written_and_read(tmp_path):
    records.write(RECORD, tmp_path / "cells" / "0123")
    assert records.read(tmp_path / "cells" / "0123") == RECORD
    assert [p.name for p in (tmp_path / "cells" / "0123").iterdir()] == [records.FILE]


def test_no_record_is_none(tmp_path):
    assert records.read(tmp_path) is None


def test_label_shows_the_settings_that_were_changed():
    assert RECORD.label("method") == "sdedit steps=20"
    assert RECORD.label("benchmark") == "b"


def test_total_counts_all_phases():
    assert (RECORD.total("forward"), RECORD.total("backward")) == (15, 2)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_score_that_is_no_number_becomes_none_with_a_note(value):
    entry = ScoreEntry(value, 3)
    assert entry.value is None
    assert str(value) in entry.note


@pytest.mark.parametrize(
    "text", ["", "[1]", "{}", '{"schema": 1}', RECORD.to_json().replace('"ok"', '"perhaps"')]
)
def test_what_is_no_record_is_refused(text):
    with pytest.raises(BadInput):
        Record.from_json(text)


def test_a_record_of_another_schema_is_refused():
    text = json.dumps(json.loads(RECORD.to_json()) | {"schema": 99})
    with pytest.raises(BadInput, match="schema 99"):
        Record.from_json(text)


def test_listing_is_sorted_and_leaves_damaged_records_out(tmp_path, caplog):
    for name, seed in (("b", 1), ("a", 2)):
        records.write(replace(RECORD, id=name, seed=seed), tmp_path / "cells" / name)
    (tmp_path / "cells" / "c").mkdir()
    (tmp_path / "cells" / "c" / records.FILE).write_text("half a rec")
    assert [record.id for _, record in records.list_records(tmp_path)] == ["b", "a"]
    assert "c/record.json is left out" in caplog.text
