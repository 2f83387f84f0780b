import json
from dataclasses import asdict, replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from latentbench import records
from latentbench.content import id_of
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


@pytest.mark.parametrize("change", [
    {"seed": 2}, {"status": Status.FAILED}, {"config": {"method": {"steps": 21}}},
    {"scores": {"psnr": replace(RECORD.scores["psnr"], note="another")}}, {"created": "today"},
])  # fmt: skip
def test_the_digest_is_of_all_that_a_record_says(change):
    assert Record.from_json(RECORD.to_json()).digest == RECORD.digest
    assert replace(RECORD, **change).digest != RECORD.digest


def test_written_and_read(tmp_path):
    records.write(RECORD, tmp_path / "cells" / "0123")
    assert records.read(tmp_path / "cells" / "0123") == RECORD
    assert [p.name for p in (tmp_path / "cells" / "0123").iterdir()] == [records.FILE]


def test_no_record_is_none(tmp_path):
    assert records.read(tmp_path) is None


def test_label_shows_the_settings_that_were_changed():
    assert RECORD.label("method") == "sdedit steps=20"
    assert RECORD.label("benchmark") == "b"


@pytest.mark.parametrize("value", ["true", "True"])
def test_a_cell_has_one_label_whether_a_sweep_ran_it_or_not(value):
    """Trap: Hydra's sweeper spells the overrides of its jobs as Python does."""
    record = replace(RECORD, overrides=(f"benchmark.give_masks={value}", "method.name=Trueman"))
    assert record.label("benchmark") == "b give_masks=true"
    assert record.label("method") == "sdedit name=Trueman"


def test_a_cell_has_one_label_in_whatever_order_its_settings_were_typed():
    typed = ("method.steps=20", "method.a_b=1", "method.a=2", "method.a.b=3")
    labels = {replace(RECORD, overrides=order).label("method") for order in (typed, typed[::-1])}
    assert labels == {"sdedit a=2 a.b=3 a_b=1 steps=20"}


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


# ---------------------------------------------------------------- seals


@pytest.fixture
def folder(tmp_path):
    """A cell's folder: a record that seals the file next to it."""
    place = tmp_path / "cells" / "0123"
    table = {"id": ["a"], "group": ["g"], "output": [0], "headline": [True], "psnr": [1.0]}
    place.mkdir(parents=True)
    pd.DataFrame(table).to_parquet(place / records.SAMPLES)
    digest = records.hashlib.sha256((place / records.SAMPLES).read_bytes()).hexdigest()
    records.write(replace(RECORD, files={records.SAMPLES: digest}), place)
    return place


def shown(folder):
    return [record.id for _, record in records.list_records(folder.parent.parent)]


def test_a_sealed_record_is_read_with_its_table(folder):
    assert shown(folder) == ["0123"]
    assert records.read(folder).sealed
    assert len(records.read_samples(folder)) == 1


def test_one_changed_digit_is_noticed(folder, caplog):
    path = folder / records.FILE
    path.write_text(path.read_text().replace('"n": 64', '"n": 65'))
    assert records.read(folder) is None
    assert "does not fit its seal" in caplog.text
    assert shown(folder) == []


@given(st.integers(0, 10**6), st.integers(0, 255))
@settings(deadline=None)
def test_whatever_byte_is_changed_the_record_is_the_same_or_refused(place, byte):
    text = bytearray(RECORD.to_json().encode())
    text[place % len(text)] = byte
    try:
        found = Record.from_json(bytes(text))
    except BadInput:
        return
    assert found == RECORD


@given(st.binary(max_size=200) | st.text(max_size=200).map(lambda t: t.encode("utf-8", "replace")))
def test_no_bytes_raise_anything_but_bad_input(data):
    with pytest.raises(BadInput):
        Record.from_json(data)


@pytest.mark.parametrize("data", [b"[" * 100_000, b"1" * 10_000, b'{"schema": NaN}', b"\xff\xfe{"])
def test_odd_json_is_refused(data):
    with pytest.raises(BadInput):
        Record.from_json(data)


@pytest.mark.parametrize(
    "change",
    [
        {"names": None},
        {"names": {"benchmark": "b"}},
        {"scores": {"psnr": {"value": "high", "n": 3}}},
        {"scores": None},
        {"seed": True},
        {"config": [1]},
        {"failed_samples": [{"index": 3}]},
        {"evaluations": {"run": 5}},
        {"id": None},
    ],
)
def test_a_field_of_another_type_is_refused_even_under_a_seal(change):
    data = json.loads(RECORD.to_json()) | change
    data[records.SEAL] = records._seal(data)
    with pytest.raises(BadInput, match="not a record"):
        Record.from_json(json.dumps(data))


def test_a_copied_folder_is_not_shown_twice(folder, caplog):
    copy = folder.with_name("0123-copy")
    copy.mkdir()
    for path in folder.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    assert shown(folder) == ["0123"]
    assert "it is the record of cell 0123, copied or moved here" in caplog.text


@pytest.mark.parametrize("how", ["cut", "deleted", "another's"])
def test_a_table_that_is_not_the_records_own_takes_it_off_the_board(folder, caplog, how):
    path = folder / records.SAMPLES
    if how == "deleted":
        path.unlink()
    elif how == "cut":
        path.write_bytes(path.read_bytes()[:-5])
    else:
        pd.read_parquet(path).assign(psnr=2.0).to_parquet(path)
    assert shown(folder) == []
    assert records.SAMPLES in caplog.text


def test_settings_that_are_not_those_of_the_id_are_refused(tmp_path, caplog):
    parts = {"config": {"a": 1}, "versions": {}, "weights": {}, "data": "d"}
    name = id_of(parts)
    good = Record(name, Status.OK, NAMES, 0, {"a": 1}, identity={"data": "d"})
    records.write(good, tmp_path / name)
    assert records.read(tmp_path / name) == good
    records.write(replace(good, config={"a": 2}), tmp_path / name)
    assert records.read(tmp_path / name) is None
    assert "its settings are not those of cell" in caplog.text


def test_a_record_from_before_there_were_seals_is_read_and_says_so(tmp_path):
    place = tmp_path / "cells" / "old"
    data = {k: v for k, v in asdict(replace(RECORD, id="old")).items() if v or k == "config"}
    data |= {"schema": records.UNSEALED, "status": "failed"}
    place.mkdir(parents=True)
    (place / records.FILE).write_text(json.dumps(data))
    assert not records.read(place).sealed
    (place / records.FILE).write_text(json.dumps(data | {"status": "ok"}))
    assert records.read(place) is None  # finished, and its table is not there


@pytest.mark.parametrize(
    "table",
    [
        {"id": ["a"], "group": ["g"], "output": [0]},
        {"id": ["a"], "group": ["g"], "output": ["0"], "headline": [True]},
        {"id": ["a"], "group": ["g"], "output": [0], "headline": [True], "psnr": ["high"]},
    ],
)
def test_a_table_without_its_columns_is_left_out(tmp_path, caplog, table):
    pd.DataFrame(table).to_parquet(tmp_path / records.SAMPLES)
    assert records.read_samples(tmp_path) is None
    assert "is left out" in caplog.text


# ---------------------------------------------------------------- a record always gets written


@pytest.mark.parametrize(
    "change",
    [
        {"setup": {"gain": float("nan")}},
        {"setup": {"gain": np.float32(1)}},
        {"config": {"correlation": float("nan")}},
        {"config": {"steps": object()}},
        {"seconds": {"run": float("inf")}},
        {"batch_size": np.int64(3)},
    ],
)
def test_what_json_cannot_hold_is_written_as_failed(tmp_path, change):
    written = records.write(replace(RECORD, **change), tmp_path / RECORD.id)
    assert written.status is Status.FAILED
    assert "cannot be written as JSON" in written.reason
    found = records.read(tmp_path / RECORD.id)
    assert (found.status, found.reason, found.scores) == (Status.FAILED, written.reason, {})


def test_a_reason_that_utf8_cannot_hold_is_written_in_escapes(tmp_path):
    bad = replace(RECORD, status=Status.FAILED, reason="no file /data/\udcff.png")
    records.write(bad, tmp_path / RECORD.id)
    assert records.read(tmp_path / RECORD.id).reason == "no file /data/\\udcff.png"
