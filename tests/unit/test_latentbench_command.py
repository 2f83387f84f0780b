"""The `latentbench` command, in this process."""

import json

import cells

from latentbench import cli


def test_the_leaderboard_is_written_from_records_alone(tmp_path, capsys):
    cells.run(tmp_path)
    capsys.readouterr()
    assert cli.main(["leaderboard", "--results", str(tmp_path), "--out", str(tmp_path / "o")]) == 0
    names = ["leaderboard.md", "leaderboard.csv"]
    assert [line.rsplit("/")[-1] for line in capsys.readouterr().out.split()] == names
    assert "acme_mae" in (tmp_path / "o" / "leaderboard.md").read_text()


def test_without_records_it_says_what_to_do(tmp_path, capsys):
    assert cli.main(["leaderboard", "--results", str(tmp_path)]) == 1
    assert "make demo" in capsys.readouterr().err


def test_list_shows_what_goes_together(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "4000")
    assert cli.main(["list", "--dataset", "acme"]) == 0
    told, last = capsys.readouterr().out.split("what goes together")
    (line,) = (line for line in told.splitlines() if "prompt_editing " in line)
    assert "clip_dir" in line  # acme renders no answer, as faces do
    heads, *rows = [[c.strip() for c in line.strip("┃│").split("│" if "│" in line else "┃")]
                    for line in last.splitlines() if line[:1] in "┃│"]  # fmt: skip
    fits = {row[0]: row[heads.index("acme")] for row in rows if row[0]}
    assert {"acme", "acme_double"} <= {*fits["acme_broken"].split(", ")}
    assert "acme_double" not in fits["acme_attending"]
    assert "faces_ddpm" in fits["acme_attending"]
    assert fits["slerp"] == "-"


def test_a_data_set_that_is_not_there_is_answered_with_near_matches(capsys):
    assert cli.main(["list", "--dataset", "face"]) == 2
    said = capsys.readouterr()
    assert "unknown dataset 'face'; did you mean faces" in said.err
    assert not said.out


def test_track_logs_finished_cells_offline(tmp_path, capsys):
    cells.run(tmp_path)
    cells.run(tmp_path, "method=acme_broken")
    capsys.readouterr()
    assert cli.main(["track", "--results", str(tmp_path), "--mode", "offline", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["logged"], told["records"]) == (1, 2)
    assert list((tmp_path / "wandb").glob("offline-run-*"))


def test_weights_says_what_is_there_and_how_to_fetch_the_rest(tmp_path, capsys):
    (tmp_path / "vgg16-397923af.pth").write_bytes(b"cut short")
    assert cli.main(["weights", "--dir", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    at = next(k for k, line in enumerate(lines) if "vgg16-397923af.pth" in line)
    assert lines[at].startswith("missing") and "dists, lpips_vgg, ppl" in lines[at]
    assert "has sha256" in lines[at + 1]
    assert lines[at + 2].split() == [
        "curl", "-L", "--create-dirs", "-o", str(tmp_path / "vgg16-397923af.pth"),
        "https://download.pytorch.org/models/vgg16-397923af.pth",
    ]  # fmt: skip
