"""The report of a group, written by wandb's own package to a server that keeps what it was told."""

import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

import pytest

WHEN = "2026-01-01T00:00:00Z"
NO_MORE = {"endCursor": None, "hasNextPage": False}
WRITE = """
import sys
from latentbench.reports import wandb_report
print(wandb_report.write("me", "test", sys.argv[1]))
"""


class Server(BaseHTTPRequestHandler):
    """Knows one project, and the view that it was given last."""

    views: ClassVar[list[dict[str, Any]]] = []

    def do_POST(self):
        said = self.rfile.read(int(self.headers["Content-Length"]))
        answer = self.answer(json.loads(said)) if self.path.endswith("/graphql") else {}
        body = json.dumps({"data": answer}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def answer(self, said: dict[str, Any]) -> dict[str, Any]:
        project = {"id": "p", "name": "test", "entityName": "me", "createdAt": WHEN,
                   "isBenchmark": False, "user": None}  # fmt: skip
        told = said.get("variables") or {}
        view = {"id": "first", "type": "runs", "name": "n", "description": "",
                "displayName": told.get("displayName", ""), "project": project, "user": None,
                "createdAt": WHEN, "updatedAt": WHEN, "viewCount": 0,
                "spec": told.get("spec", "{}")}  # fmt: skip
        known = [{"node": {**view, **told, "id": "first"}, "cursor": "c"} for told in self.views]
        if "upsertView(" in said["query"]:
            type(self).views.append(told)
        return {
            "viewer": {"id": "v", "entity": "me", "username": "me", "email": "", "flags": "{}",
                       "teams": {"edges": []}},
            "models": {"edges": [{"node": project, "cursor": "c"}], "pageInfo": NO_MORE},
            "project": {"id": "p", "internalId": "UHJvamVjdEludGVybmFsSWQ6MQ==",
                        "allViews": {"edges": known[:1], "pageInfo": NO_MORE}},
            "upsertView": {"view": view, "inserted": True},
            "serverInfo": {"features": []},
        }  # fmt: skip

    def log_message(self, *_):
        pass


@pytest.mark.slow
def test_a_group_has_one_report_of_its_leaderboard_and_cells(tmp_path):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Server)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    told = {
        "WANDB_BASE_URL": f"http://127.0.0.1:{server.server_port}",
        "WANDB_API_KEY": 40 * "a",
        "WANDB_CONFIG_DIR": str(tmp_path),
    }
    group = "it's \\ mine"
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-c", WRITE, group], env={**os.environ, **told},
            capture_output=True, text=True, timeout=300,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert done.stdout.splitlines()[-1].startswith(told["WANDB_BASE_URL"] + "/me/test/reports/")
    server.shutdown()
    first, again = Server.views
    assert (first["id"], again["id"]) == (None, "first")  # the second replaces the first
    assert first["displayName"] == f"latentbench: {group}"
    grids = [block for block in json.loads(first["spec"])["blocks"]
             if block["type"] == "panel-grid"]  # fmt: skip
    shown = (("leaderboard", "leaderboard"), ("cell", "samples"))  # a kind of run, its table
    for grid, (kind, table) in zip(grids, shown, strict=True):
        text = json.dumps(grid)
        (runs,) = grid["metadata"]["runSets"]
        chosen = {f["key"]["name"]: f["value"] for f in _leaves(runs["filters"])}
        assert chosen == {"group": group, "jobType": kind}
        assert f'"{table}"' in text


def _leaves(filters: dict[str, Any]) -> list[dict[str, Any]]:
    inner = filters.get("filters")
    return [filters] if inner is None else [leaf for part in inner for leaf in _leaves(part)]
