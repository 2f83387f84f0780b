"""`latentbench new`: what it writes works as it is."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from latentbench import cli, new, plugins
from latentbench.cells import command_line
from latentbench.errors import BadInput

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("latentbench", "methods", "metrics", "benchmarks", "conf", "docs", "tests")


@pytest.fixture
def checkout(tmp_path) -> Path:
    """A folder with the rooms and pages that a new part is written into."""
    for folder in ("methods/editing", "metrics/pairs", "docs"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "__init__.py").touch()
    for page in ("methods.md", "metrics.md"):
        shutil.copy(ROOT / "docs" / page, tmp_path / "docs" / page)
    return tmp_path


@pytest.mark.parametrize("kind", new.KINDS)
def test_it_writes_file_yaml_and_test(kind, checkout):
    written = new.write(kind, "my_part", checkout)
    assert [p.suffix for p in written.files] == [".py", ".yaml", ".py"]
    assert "MyPart" in written.files[0].read_text()
    module = ".".join(written.files[0].relative_to(checkout).with_suffix("").parts)
    assert f"_target_: {module}.MyPart" in written.files[1].read_text()
    assert not any("$" in path.read_text() for path in written.files)
    if kind in new.ROWS:
        assert "| `my_part` |" in (checkout / new.ROWS[kind][0]).read_text()


@pytest.mark.parametrize(
    ("kind", "name", "room", "words"),
    [
        ("methd", "mine", "", "did you mean method"),
        ("method", "My Part", "", "lower-case letters"),
        ("method", "class", "", "lower-case letters"),
        ("method", "none", "", "no word of Python"),  # its class would be None
        ("method", "../mine", "", "lower-case letters"),
        ("method", "mine", "editting", "did you mean editing"),
        ("model", "mine", "editing", "has no room"),
    ],
)
def test_what_cannot_be_written_is_refused_before_a_file_is_there(
    kind, name, room, words, checkout
):
    before = sorted(checkout.rglob("*"))
    with pytest.raises(BadInput, match=words):
        new.write(kind, name, checkout, room=room)
    assert sorted(checkout.rglob("*")) == before


def test_a_package_that_would_hide_an_installed_one_is_refused(tmp_path):
    with pytest.raises(BadInput, match="'torch' is installed"):
        new.write("method", "torch", tmp_path, package=True)
    assert not [*tmp_path.iterdir()]


def test_nothing_is_overwritten(checkout):
    new.write("metric", "mine", checkout)
    with pytest.raises(BadInput, match="exists already"):
        new.write("metric", "mine", checkout)


def test_the_command_says_what_is_next(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["new", "method", "mine", "--package"]) == 0
    out = capsys.readouterr().out
    assert "pip install -e" in out and "latentbench check mine" in out
    assert 'mine = "mine.conf"' in (tmp_path / "mine" / "pyproject.toml").read_text()
    assert cli.main(["new", "method", "Mine"]) == 2


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("method", "sdedit"),
        ("metric", "psnr"),
        ("benchmark", "reconstruction"),
        ("model", "faces_vae"),
    ],
)
def test_the_last_next_step_is_a_command_of_the_runner(kind, name, tmp_path):
    last = new.write(kind, name, tmp_path, package=True).next_steps[-1]
    command, *words = last.split()[1:]
    assert command == "runner.py" and any(name in word for word in words)
    plugins.register()
    assert command_line.check(words)


# ---------------------------------------------------------------- what is written passes as it is


@pytest.mark.slow
@pytest.mark.parametrize("kind", new.KINDS)
def test_new_parts_pass_their_tests_in_a_checkout(kind, tmp_path):
    leave = shutil.ignore_patterns("weights", "__pycache__", "*.webp")
    for name in (*FOLDERS, "pyproject.toml"):
        whole = ROOT / name
        if whole.is_dir():
            shutil.copytree(whole, tmp_path / name, ignore=leave)
        else:
            shutil.copy(whole, tmp_path / name)
    written = new.write(kind, "brand_new", tmp_path)
    run_tests(tmp_path, [str(written.files[-1])])


@pytest.mark.slow
@pytest.mark.parametrize("kind", new.KINDS)
def test_new_parts_pass_their_tests_in_a_package(kind, tmp_path):
    written = new.write(kind, "brand_new", tmp_path, package=True)
    own = tmp_path / "brand_new"
    info = own / "brand_new-0.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: brand_new\nVersion: 0.1\n")
    (info / "entry_points.txt").write_text("[latentbench.conf]\nbrand_new = brand_new.conf\n")
    run_tests(ROOT, [str(written.files[-1]), f"--rootdir={own}"], PYTHONPATH=str(own))


def run_tests(folder: Path, arguments: list[str], **variables: str) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-n", "0"]
    done = subprocess.run(
        [*command, *arguments],
        cwd=folder,
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]
    assert " passed" in done.stdout
