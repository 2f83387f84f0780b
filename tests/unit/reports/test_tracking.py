"""Tracking, with the real wandb in offline mode: what a record's folder holds is what it shows."""

import gzip
import json
import struct
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import cells
import numpy as np
import pandas as pd
import pytest
import torch
from omegaconf import OmegaConf
from wandb.proto import wandb_internal_pb2

from latentbench import records
from latentbench.errors import WrongCommand
from latentbench.records import Status
from latentbench.reports import tracking
from latentbench.reports.boards import boards
from latentbench.reports.leaderboard import rows
from latentbench.reports.pictures import Pictures, pixels
from latentbench.types import Samples

BLOCK = 32768  # bytes of a block of LevelDB's log
WANDB = OmegaConf.create(
    {"_target_": "latentbench.reports.tracking.WandbTracker", "project": "test", "mode": "offline"}
)


@pytest.fixture(scope="module")
def cell(tmp_path_factory):
    results = tmp_path_factory.mktemp("results")
    record, _ = cells.run(results, "results.images=6")
    assert record.status is Status.OK, record.traceback
    return results, results / "cells" / record.id, record


@pytest.fixture(scope="module")
def logged(cell):
    """Log the cell twice, the second time in parts, and the leaderboard."""
    results, folder, _ = cell
    assert tracking.track(WANDB, folder, results)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tracking, "ROWS", 8)
        assert tracking.track(WANDB, folder, results)
    made = rows(boards(records.list_records(results)))
    assert tracking.track_leaderboard(WANDB, made, results)
    return results


def entries(results, run: str) -> list[wandb_internal_pb2.Record]:
    """Return what the only file of a run holds: a log of LevelDB's form behind seven bytes."""
    (path,) = (results / "wandb").glob(f"offline-run-*-{run}/run-{run}.wandb")
    data, place, found, whole = path.read_bytes(), 7, [], b""
    while place + 7 <= len(data):
        if (room := BLOCK - place % BLOCK) < 7:  # too little for a header: the block is padded
            place += room
            continue
        size, kind = struct.unpack_from("<HB", data, place + 4)
        whole += data[place + 7 : place + 7 + size]
        place += 7 + size
        if kind in (1, 4):  # whole, or the last part
            found.append(wandb_internal_pb2.Record.FromString(whole))
            whole = b""
    return found


def run_of(found):
    return next(entry.run for entry in found if entry.WhichOneof("record_type") == "run")


def summary_of(found):
    items = [item for entry in found for item in entry.summary.update]
    return {".".join([item.key, *item.nested_key]).strip("."): item.value_json for item in items}


def test_a_cell_is_one_run_however_often_it_is_logged(cell, logged):
    *_, record = cell
    found = entries(logged, record.id)
    run = run_of(found)
    assert (run.run_id, run.run_group, run.job_type) == (record.id, logged.name, "cell")
    assert list(run.tags) == ["acme"]
    config = {item.key: item.value_json for item in run.config.update}
    assert json.loads(config["method"]) == json.loads(json.dumps(record.config["method"]))
    said = summary_of(found)
    assert json.loads(said["acme_mae"]) == record.scores["acme_mae"].value
    assert "acme_mae.low" in said


def test_many_samples_are_logged_in_parts(cell, logged):
    items = [item for entry in entries(logged, cell[2].id) for item in entry.history.item]
    said = {
        name: [json.loads(i.value_json) for i in items if list(i.nested_key) == ["samples", name]]
        for name in ("increment_num", "nrows")
    }
    assert said["increment_num"] == [0, 1, 2]
    assert said["nrows"][-1] == 20


def test_the_record_and_its_files_are_an_artifact(cell, logged):
    *_, record = cell
    found = entries(logged, record.id)
    artifacts = [entry.artifact for entry in found if entry.artifact.type == "cell"]
    (own,) = {artifact.name: artifact for artifact in artifacts}.values()
    assert own.name == f"cell-{record.id}"
    held = {entry.path for entry in own.manifest.contents}
    assert held == {"record.json", *record.files}


def test_the_group_has_one_run_that_holds_the_leaderboard(logged):
    (folder,) = (logged / "wandb").glob("offline-run-*-leaderboard-*")
    found = entries(logged, folder.name.split("-", 3)[3])
    assert run_of(found).run_group == logged.name
    (table,) = folder.rglob("leaderboard_*.table.json")
    said = json.loads(table.read_text())
    row = dict(zip(said["columns"], said["data"][0], strict=True))
    assert (row["method"], row["figure"]) == ("acme", "acme_mae")


def test_the_summary_holds_scores_intervals_and_costs(cell):
    _, _, record = cell
    flat = tracking.summary(record)
    entry = record.scores["acme_mae"]
    assert (flat["acme_mae"], flat["acme_mae.low"]) == (entry.value, entry.low)
    assert flat["evaluations.forward"] == record.total("forward")


def test_the_table_has_a_row_per_sample_with_images_and_values(cell):
    _, folder, record = cell
    table = tracking.sample_table(folder)
    assert len(table) == 20
    pictured = table[table["source"].notna()]
    assert len(pictured) == 6
    assert set(pictured["group"]) == {"bright+", "bright-"}
    for column in ("source", "reconstruction", "output 0", "output 1", "truth 1"):
        assert pictured[column].iloc[0].shape == (8, 8, 3)
    ups = table[table["group"] == "bright+"]["acme_mae"].astype(float).mean()
    assert ups == pytest.approx(record.scores["acme_mae/bright+"].value)


def test_images_come_back_as_they_were(cell):
    _, folder, _ = cell
    row = tracking.sample_table(folder).iloc[0]
    brighter = np.asarray(row["output 1"], int) - np.asarray(row["output 0"], int)
    assert (brighter >= 0).all()
    assert brighter.mean() > 5  # strength 2 against strength 1


def test_the_table_shows_the_region_of_a_mask_and_the_ends_of_a_path(tmp_path):
    images, mask = torch.rand(4, 3, 8, 8) * 2 - 1, torch.zeros(1, 8, 8)
    mask[0, 2:4] = 1
    keeper = Pictures(1, ["g"])
    keeper.update(
        Samples(("a",), images[None, :1], ("g",), sources=images[1:2], masks=mask,
                ends=images[None, 2:])
    )  # fmt: skip
    keeper.save(tmp_path)
    values = {"group": ["g"], "id": ["a"], "output": [0], "headline": [True], "psnr": [1.0]}
    pd.DataFrame(values).to_parquet(tmp_path / records.SAMPLES)
    row = tracking.sample_table(tmp_path).iloc[0]
    assert np.array_equal(row["from"], pixels(images[2]))
    assert np.array_equal(row["to"], pixels(images[3]))
    assert np.array_equal(row["region"][2:4], pixels(images[1])[2:4])
    assert not row["region"][4:].any()


def test_a_tracker_that_breaks_costs_nothing(cell, caplog):
    results, folder, _ = cell
    broken = OmegaConf.create(
        {"_target_": "latentbench.reports.tracking.WandbTracker", "mode": "nonsense"}
    )
    assert not tracking.track(broken, folder, results)
    assert "the record is safe" in caplog.text
    assert pd.read_parquet(folder / "samples.parquet").shape[0] == 40


@pytest.mark.parametrize("config", [None, OmegaConf.create({})])
def test_off_is_off(cell, config):
    results, folder, _ = cell
    assert not tracking.track(config, folder, results)


def test_a_cell_that_failed_is_not_logged(tmp_path):
    record, _ = cells.run(tmp_path, "method=acme_broken")
    assert not tracking.track(WANDB, tmp_path / "cells" / record.id, tmp_path)
    assert not (tmp_path / "wandb").exists()


# ---------------------------------------------------------------- the server, and what it takes


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"project": "a/b"}, "none of them of"),
        ({"project": " "}, "1 to 128 characters"),
        ({"project": "x" * 129}, "1 to 128 characters"),
        ({"mode": "ofline"}, "did you mean offline"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_wrong_settings_are_refused_when_the_tracker_is_built(settings, words):
    with pytest.raises(WrongCommand, match=words):
        tracking.build(OmegaConf.merge(WANDB, settings))


def test_names_are_cut_to_what_the_server_takes():
    assert len(tracking.cut("x" * 500)) == tracking.LONGEST
    assert tracking.cut("x" * tracking.LONGEST) == "x" * tracking.LONGEST


def test_a_server_that_is_away_is_asked_once(cell, monkeypatch, caplog, tmp_path):
    """Nobody listens at that port; further runs are written offline without asking."""
    _, folder, _ = cell
    asked, real = [], tracking.answer
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setattr(tracking.WandbTracker, "away", False)
    monkeypatch.setattr(tracking, "answer", lambda url: (asked.append(url), real(url)))
    online = OmegaConf.merge(WANDB, {"mode": "online"})
    for _ in range(2):
        assert tracking.track(online, folder, tmp_path)
    assert len(asked) == 1
    assert caplog.text.count("does not take runs") == 1
    assert len(list((tmp_path / "wandb").glob("offline-run-*"))) == 1


def test_an_unfriendly_answer_is_one():
    class Refusing(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(503)
            self.end_headers()

        def log_message(self, *_):
            pass

    server = HTTPServer(("127.0.0.1", 0), Refusing)
    thread = threading.Thread(target=server.handle_request)
    thread.start()
    tracking.answer(f"http://127.0.0.1:{server.server_port}")
    thread.join()
    server.server_close()
    with pytest.raises(OSError):
        tracking.answer(f"http://127.0.0.1:{server.server_port}")


class Server(BaseHTTPRequestHandler):
    """Answers what `wandb sync` asks of a server, and keeps what it was told."""

    told: ClassVar[list[tuple[str, dict]]] = []
    ANSWERS: ClassVar = {
        "upsertBucket": {
            "bucket": {
                "id": "b", "name": "n", "displayName": "n", "config": "{}", "historyLineCount": 0,
                "project": {"id": "p", "name": "test", "entity": {"id": "e", "name": "me"}},
            },
            "inserted": True,
        },
        "createArtifact": {
            "artifact": {"id": "a", "state": "COMMITTED",
                         "artifactSequence": {"id": "s", "latestArtifact": None}},
        },
        "createRunFiles": {"runID": "b", "uploadHeaders": [], "files": []},
        "serverInfo": {"features": []},
    }  # fmt: skip

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        text = gzip.decompress(body) if body.startswith(b"\x1f\x8b") else body
        said = json.loads(text) if self.path.endswith(("/graphql", "/file_stream")) else {}
        type(self).told.append((self.path, said))
        query = said.get("query", "")
        answer = json.dumps({"data": {k: v for k, v in self.ANSWERS.items() if f"{k}(" in query
                                      or f"{k} {{" in query}}).encode()  # fmt: skip
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_):
        pass


@pytest.mark.slow
def test_wandb_sync_uploads_what_was_written_offline(cell, logged, tmp_path, monkeypatch):
    *_, record = cell
    server = ThreadingHTTPServer(("127.0.0.1", 0), Server)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("WANDB_API_KEY", 40 * "a")
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path))
    (folder,) = (logged / "wandb").glob(f"offline-run-*-{record.id}")
    done = subprocess.run(
        [Path(sys.executable).with_name("wandb"), "sync", "--yes", folder],
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    server.shutdown()
    assert done.returncode == 0, done.stderr
    runs = [said["variables"] for _, said in Server.told if "upsertBucket" in said.get("query", "")]
    assert (record.id, logged.name) in {(run["name"], run["groupName"]) for run in runs}
    artifacts = [said["variables"]["input"] for _, said in Server.told
                 if "createArtifact(" in said.get("query", "")]  # fmt: skip
    assert f"cell-{record.id}" in {artifact["artifactCollectionName"] for artifact in artifacts}
    streams = [said["files"] for path, said in Server.told if path.endswith("/file_stream")
               and "files" in said]  # fmt: skip
    summaries = [line for files in streams for name in files if "summary" in name
                 for line in files[name]["content"]]  # fmt: skip
    assert json.loads(summaries[-1])["acme_mae"] == record.scores["acme_mae"].value
