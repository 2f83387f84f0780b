"""Every command that the documentation names: it exists, and it takes the words that are written.

The quick test reads the words with the command's own parser and runs nothing; the slow one runs all
but those that take minutes, with few images where cells are computed.
"""

import ast
import importlib.util
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from latentbench import cli
from latentbench.cells import command_line
from latentbench.zoo import __main__ as zoo

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
SOURCES = (
    "latentbench", "methods", "metrics", "benchmarks", "agreement", "calibration", "perf",
    "tests/soak",
)  # fmt: skip
COMMAND = re.compile(r"(python (-m |\S+\.py)|latentbench [a-z]|make [a-z-]+$|make [a-z-]+ )")
STAND_INS = {  # what the documentation leaves to the reader -> a value
    "my_method": "noise_direction", "{name}": "hspace", "metric|benchmark|model": "metric",
    "...": "", "zoo show NAME": "zoo show zoo1", "zoo train NAME": "zoo train zoo1",
    "check NAME": "check slerp", "new method NAME": "new method mine", "new KIND": "new method",
    "{list,show,verify,train,refine,measure}": "list", "metric NAME": "metric mine",
    "method NAME": "method mine", " CELL": " reconstruction/faces_ddpm/hspace",
    "FIRST SECOND": "reconstruction/faces_ddpm/hspace reconstruction/faces_ddpm/ddim_inversion",
}  # fmt: skip
MINUTES = (  # beginnings of commands that take minutes
    "make", "python -m agreement", "python -m calibration", "python -m perf.metric_speed",
    "latentbench zoo train", "latentbench zoo refine",
    "latentbench zoo verify", "python runner.py -m sweep", "latentbench zoo measure",
    "python -m pytest", "python tests/soak", "python -m perf.time_to_message",
    "python -m perf.editing_speed", "python -m perf.sweep_speed", "python -m perf.peak_memory",
    "latentbench reproduce", # tests/unit/cells/test_rerun.py runs it on tiny cells
)  # fmt: skip
WRITES = (  # tests/unit/test_new.py and tests/unit/reports/test_readme.py run them in copies,
    # tests/unit/cells/test_fits.py with fits of its own
    "latentbench new", "python -m latentbench.reports.readme",
    "latentbench fits show", "latentbench fits export", "latentbench fits import",
)  # fmt: skip
ELSEWHERE = ("dataset=pie_bench", "runtime.device=cuda")  # data or hardware that a test has not
READS = (  # commands and modules that take a folder of records: a copy of the reference's
    "leaderboard", "show", "compare", "export", "track", "site", "latentbench.reports.claims",
)  # fmt: skip
FEW = (
    "tracker=none",
    "runtime.threads=1",
    "benchmark.n=3",
    "model.steps=2",
    "runtime.batch_size=3",
)


def named() -> dict[str, str]:
    """Return each command that the documentation names, and where."""
    found: dict[str, str] = {}
    for text, place in texts():
        for words in commands(text):
            found.setdefault(words, place)
    return found


def texts() -> Iterator[tuple[str, str]]:
    """Yield all documentation: pages, docstrings of modules, comments of yamls, recipes of make."""
    for page in PAGES:
        yield page.read_text(encoding="utf-8"), page.name
    files = [p for folder in SOURCES for p in sorted((ROOT / folder).rglob("*.py"))]
    for file in [*files, ROOT / "runner.py"]:
        said = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
        yield said, str(file.relative_to(ROOT))
    for file in sorted((ROOT / "conf").rglob("*.yaml")):
        comments = [line for line in file.read_text(encoding="utf-8").splitlines() if "#" in line]
        yield "\n".join(line.partition("#")[2] for line in comments), file.name
    recipes = (ROOT / "Makefile").read_text(encoding="utf-8").replace("\\\n", " ")
    for line in re.findall(r"\$\(RUN\) ([^&|;\n]*)", recipes):
        yield f"`python {line.replace('$(REFERENCE)', 'tracker=none').strip()}`", "Makefile"


def commands(text: str) -> Iterator[str]:
    """Yield the commands of a text: lines of code blocks, indented lines, and quoted spans."""
    fenced = re.compile(r"^ *```(\w*)\n(.*?)^ *``` *$", re.DOTALL | re.MULTILINE)
    blocks = [block for language, block in fenced.findall(text) if not language]
    rest = fenced.sub("", text)
    lines = [line for block in blocks for line in block.splitlines()]
    lines += re.findall(r"^    (\S.*)$", rest, re.MULTILINE)
    lines += [" ".join(span.split()) for span in re.findall(r"``?([^`]+)``?", rest)]
    for line in lines:
        words = re.sub(r"\s+(#|\().*$", "", line).strip()
        for placeholder, value in STAND_INS.items():
            words = words.replace(placeholder, value)
        words = re.sub(r"[\[\]]", "", words) if "=[" not in words else words
        if COMMAND.match(words) and "$" not in words:
            yield words.strip()


NAMED = named()


def fault(words: list[str]) -> str:
    """Return what is wrong with a command, or an empty string."""
    program, *rest = words
    if program == "make":
        recipes = (ROOT / "Makefile").read_text(encoding="utf-8")
        lacking = [t for t in rest if not re.search(rf"^{t}:", recipes, re.MULTILINE)]
        return f"no target {lacking[0]}" if lacking else ""
    if program == "latentbench":
        return refusal(zoo._parser, rest[1:]) if rest[0] == "zoo" else refusal(cli._parser, rest)
    if rest[0] == "-m":
        return module_fault(rest[1], rest[2:])
    script = ROOT / rest[0]
    if not script.is_file():
        return f"no file {rest[0]}"
    hidden = {p.stem for p in script.parent.glob("*")} & packages() if script.parent != ROOT else ()
    if hidden:
        return f"run as a script, {rest[0]} finds {sorted(hidden)[0]} beside it; name it by -m"
    if rest[0] == "runner.py":
        command_line.check(rest[1:])
    return ""


def module_fault(name: str, words: list[str]) -> str:
    if importlib.util.find_spec(name) is None:
        return f"no module {name}"
    if name == "latentbench.cli":
        return refusal(cli._parser, words)
    if name == "latentbench.zoo":
        return refusal(zoo._parser, words)
    if name == "perf.cell_overhead":
        command_line.check(words)
    elif name == "perf.metric_speed":
        from perf.metric_speed import PARTS

        return "".join(f"no part {word}" for word in words if word not in PARTS)
    return ""


def refusal(parser, words: list[str]) -> str:
    try:
        parser().parse_args(words)
    except SystemExit as end:
        return "refused by its parser" if end.code else ""
    return ""


def packages() -> set[str]:
    """Return what a script's own folder must not hide."""
    own = {p.name for p in ROOT.iterdir() if (p / "__init__.py").is_file()}
    return {*own, *sys.stdlib_module_names, "torch", "hydra", "numpy", "pandas", "diffusers"}


def test_the_commands_are_found():
    assert len(NAMED) > 25
    for known in ("make demo", "latentbench list", "python runner.py -m sweep=demo",
                  "python -m latentbench.reports.claims results/reference", "latentbench weights",
                  "latentbench check slerp", "python -m perf.cell_overhead"):  # fmt: skip
        assert known in NAMED


@pytest.mark.parametrize("command", NAMED)
def test_a_documented_command_is_one_that_there_is(command, monkeypatch):
    monkeypatch.setattr("shutil.which", lambda name: f"/usr/bin/{name}")  # as on a cluster
    assert fault(shlex.split(command)) == "", f"{NAMED[command]} names: {command}"


@pytest.mark.parametrize(("command", "said"), [
    ("python perf/metrics.py", "no file perf/metrics.py"),
    ("latentbench leaderbord", "refused by its parser"),
    ("latentbench zoo shw", "refused by its parser"),
    ("make demos", "no target demos"),
    ("python -m latentbench.claims x", "no module latentbench.claims"),
])  # fmt: skip
def test_a_command_that_there_is_not_is_found(command, said, capsys):
    assert fault(shlex.split(command)) == said


def test_a_script_whose_folder_hides_a_package_is_found(tmp_path, monkeypatch):
    (tmp_path / "metrics").mkdir()
    (tmp_path / "metrics" / "__init__.py").write_text("")
    (tmp_path / "perf").mkdir()
    for name in ("metrics.py", "speed.py"):
        (tmp_path / "perf" / name).write_text("")
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    assert "finds metrics beside it" in fault(["python", "perf/speed.py"])


@pytest.mark.slow
@pytest.mark.parametrize("command", [c for c in NAMED if not c.startswith(MINUTES + WRITES)])
def test_a_documented_command_runs(command, tmp_path):
    words = shlex.split(command)
    if any(word in ELSEWHERE for word in words):
        pytest.skip("needs data or hardware that is not here")
    program = (
        [sys.executable] if words[0] == "python" else [sys.executable, "-m", "latentbench.cli"]
    )
    words = [*program, *words[1:]]
    if "perf.cell_overhead" in words:
        words += ["model=faces_ddpm", "model.steps=1"]
    if "runner.py" in words:
        given = {word.partition("=")[0] for word in words}
        words += [word for word in FEW if word.partition("=")[0] not in given]
        words += [f"results.dir={tmp_path}", f"results.cache={tmp_path}/cache"]
    if {*words[2:4]} & {*READS}:
        copy = tmp_path / "reference"
        subprocess.run(["cp", "-r", str(ROOT / "results" / "reference"), str(copy)], check=True)
        words = [str(copy) if word == "results/reference" else word for word in words]
        words += [] if str(copy) in words else ["--results", str(copy)]
    if "--out" in words:
        words[words.index("--out") + 1] = str(tmp_path / "out")
    done = subprocess.run(
        words, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
