"""docs/scale.md: three commands each for a machine of eight GPUs, Slurm and a Ray cluster."""

import re
import shlex
import tomllib

import pytest
from test_documented_commands import ROOT, fault

from latentbench.errors import WrongCommand

PAGE = (ROOT / "docs" / "scale.md").read_text(encoding="utf-8")
SLOW = pytest.mark.slow  # to import Ray's parser takes seconds
PLACES = (
    "Eight GPUs on one machine", "A Slurm cluster", pytest.param("A Ray cluster", marks=SLOW),
)  # fmt: skip


def commands(heading: str) -> list[list[str]]:
    """Return the words of each command of a section's first block."""
    section = PAGE.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    block = re.findall(r"^```\n(.*?)^```", section, re.DOTALL | re.MULTILINE)[0]
    return [shlex.split(line, comments=True) for line in block.splitlines()]


def problem(words: list[str]) -> str:
    """Return what is wrong with a command of whatever program, or an empty string."""
    if words[:3] == ["uv", "sync", "--extra"]:
        project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        lacking = {*words[3:]} - project["optional-dependencies"].keys()
        return f"no extra {sorted(lacking)}" if lacking else ""
    if words[:2] == ["ray", "start"]:
        return refused_by_ray(words[2:])
    return fault(words)


def refused_by_ray(words: list[str]) -> str:
    """Return what Ray's own parser says; nothing is started."""
    scripts, click = pytest.importorskip("ray.scripts.scripts"), pytest.importorskip("click")
    try:
        scripts.start.make_context("start", list(words))
    except click.ClickException as error:
        return error.format_message()
    return ""


@pytest.mark.parametrize("place", PLACES)
def test_three_commands_that_are_understood(place, monkeypatch):
    monkeypatch.setattr("shutil.which", lambda name: f"/usr/bin/{name}")  # as on a cluster
    found = commands(place)
    assert len(found) == 3
    assert [problem(words) for words in found] == [""] * 3
    assert any(word in ("launch=ray", "launch=slurm") for word in found[-1])


@pytest.mark.parametrize(("words", "said"), [
    ("uv sync --extra rai", "no extra ['rai']"),
    pytest.param("ray start --haed", "No such option", marks=SLOW),
])  # fmt: skip
def test_a_command_that_is_not_understood_is_found(words, said):
    assert said in problem(shlex.split(words))


def test_a_launcher_that_there_is_not_is_refused():
    with pytest.raises(WrongCommand, match="unknown launch 'rai'"):
        problem(shlex.split("python runner.py -m sweep=reference launch=rai"))
