"""The `latentbench` command: what there is, and what was found. Runs are started by runner.py."""

import argparse
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from latentbench.command import answered, folder_to_write, path

if TYPE_CHECKING:
    from latentbench.zoo.published_weights import PublishedWeights

ROOT = Path(__file__).resolve().parents[1]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    if words[:1] == ["zoo"]:
        from latentbench.zoo.__main__ import main as zoo

        return zoo(words[1:])
    arguments = _parser().parse_args(words)
    return answered(lambda: arguments.run(arguments))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("latentbench", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="command")
    results = {"type": path, "default": ROOT / "results", "help": "folder of the records"}

    board = commands.add_parser("leaderboard", help="write Markdown, CSV and HTML from records")
    board.add_argument("--results", **results)
    board.add_argument("--out", type=path, help="where to write; default: next to the records")
    board.set_defaults(run=_leaderboard)

    site = commands.add_parser("site", help="write the report site: pages that need no network")
    site.add_argument("--results", **results)
    site.add_argument("--serve", action="store_true", help="show it in a browser, until Ctrl-C")
    site.add_argument("--bundle", type=path, metavar="ZIP", help="pack it into one file as well")
    site.set_defaults(run=_site)

    listing = commands.add_parser("list", help="what there is, and which parts go together")
    listing.add_argument("--dataset", default="faces", help="data set of the last table")
    listing.set_defaults(run=_list)

    track = commands.add_parser("track", help="log existing records to Weights & Biases")
    track.add_argument("--results", **results)
    track.add_argument("--project", default="latentbench")
    track.add_argument("--mode", choices=("auto", "online", "offline"), default="auto")
    track.set_defaults(run=_track)

    weights = commands.add_parser("weights", help="published weights: what is there, what is not")
    where = os.environ.get("LATENTBENCH_WEIGHTS")
    weights.add_argument("--dir", type=path, default=where and Path(where), help="weights_dir")
    weights.set_defaults(run=_weights)

    planning = commands.add_parser("plan", help="what a sweep would compute, and what that takes")
    planning.add_argument("words", nargs="*", help="of runner.py -m, as in sweep=demo")
    planning.set_defaults(run=_plan)

    status = commands.add_parser("status", help="what running sweeps do")
    status.add_argument("--results", **results)
    status.set_defaults(run=_status)

    new = commands.add_parser("new", help="write the file, the yaml and the test to start from")
    new.add_argument("kind", help="method, metric, benchmark or model")
    new.add_argument("name", help="its short name, as in sdedit")
    new.add_argument("--room", default="", help="folder of methods/ or metrics/")
    new.add_argument("--package", action="store_true", help="a plug-in package in this folder")
    new.set_defaults(run=_new)

    checking = commands.add_parser("check", help="run the conformance laws on a method")
    checking.add_argument("method", help="a method of conf/method, or of a plug-in package")
    checking.set_defaults(run=_check)

    commands.add_parser("zoo", help="train, check and show embedded models", add_help=False)
    return parser


def _leaderboard(arguments: argparse.Namespace) -> int:
    from latentbench import records
    from latentbench.reports import leaderboard
    from latentbench.reports.boards import boards

    out = arguments.results if arguments.out is None else folder_to_write(arguments.out, "--out")
    found = records.list_records(arguments.results)
    if not found:
        return _no_record(arguments.results)
    for page in leaderboard.write(boards(found), out):
        print(page)
    return 0


def _site(arguments: argparse.Namespace) -> int:
    from latentbench import records
    from latentbench.cells.meanings import meanings
    from latentbench.reports.site.build import FOLDER, build, bundle
    from latentbench.reports.site.contents import Contents
    from latentbench.reports.site.serving import serve

    found = records.list_records(arguments.results)
    if not found:
        return _no_record(arguments.results)
    words = meanings(record for _, record in found)
    folder = folder_to_write(arguments.results / FOLDER, "--results")
    print(build(Contents.of(found, words, arguments.results), folder))
    if arguments.bundle is not None:
        print(bundle(folder, arguments.bundle))
    if arguments.serve:
        serve(folder)
    return 0


def _plan(arguments: argparse.Namespace) -> int:
    from latentbench.cells import command_line
    from latentbench.cells.forecast import tell_cells
    from latentbench.errors import WrongCommand

    words = ["-m", *arguments.words]
    command_line.begin(Path.cwd())
    try:
        command_line.check(words)
    except command_line.REFUSALS as error:
        raise WrongCommand(command_line.explain(error)) from error
    return tell_cells(words)


def _status(arguments: argparse.Namespace) -> int:
    from latentbench.cells.activity import running

    runs = running(arguments.results)
    for run in runs:
        print(*run.lines(), sep="\n  ")
    if not runs:
        print(f"nothing runs that computes into {arguments.results}")
    return 0


def _no_record(results: Path) -> int:
    print(f"no record below {results / 'cells'}; run some cells first: make demo", file=sys.stderr)
    return 1


def _track(arguments: argparse.Namespace) -> int:
    from omegaconf import OmegaConf

    from latentbench import records
    from latentbench.reports.tracking import build, track

    target = "latentbench.reports.tracking.WandbTracker"
    settings = {"_target_": target, "project": arguments.project, "mode": arguments.mode}
    config = OmegaConf.create(settings)
    build(config)  # refuses a wrong project, where `track` would only warn
    found = records.list_records(arguments.results)
    if not found:
        return _no_record(arguments.results)
    taken = sum(track(config, folder, arguments.results) for folder, _ in found)
    print(f"{taken} of {len(found)} records logged; offline runs lie in {arguments.results}/wandb")
    return int(taken < sum(record.status is records.Status.OK for _, record in found))


def _weights(arguments: argparse.Namespace) -> int:
    from latentbench.cells.catalogue import sound
    from latentbench.errors import BadInput

    if arguments.dir is not None and arguments.dir.exists() and not arguments.dir.is_dir():
        raise BadInput(f"--dir must be a folder, and {arguments.dir} is a file")
    wanted: dict[PublishedWeights, list[str]] = {}
    for option in sound("metric").values():
        for file in option.build().weights:
            wanted.setdefault(file, []).append(option.name)
    for file, metrics in wanted.items():
        why = file.missing(arguments.dir)
        print(f"{'missing' if why else 'there'}  {file.file}  for {_words(metrics)}")
        if why:
            print(f"         {why}\n         {file.command(arguments.dir or Path('WEIGHTS_DIR'))}")
    if arguments.dir is None:
        print("no weights_dir: set LATENTBENCH_WEIGHTS, or pass --dir and results.weights_dir")
    return 0


def _new(arguments: argparse.Namespace) -> int:
    from latentbench import new

    root = Path.cwd() if arguments.package else ROOT
    written = new.write(
        arguments.kind, arguments.name, root, room=arguments.room, package=arguments.package
    )
    for file in written.files:
        print(f"wrote {file}")
    print("next:", *written.next_steps, sep="\n  ")
    return 0


def _check(arguments: argparse.Namespace) -> int:
    from latentbench.check import check

    return check(arguments.method)


def _list(arguments: argparse.Namespace) -> int:
    from rich.console import Console
    from rich.table import Table

    from latentbench import index

    known, question = index.opened(index.FOLDER), ["list", arguments.dataset]
    tables = known.find(question)
    if tables is None:
        tables = _tables(arguments.dataset)
        if tables[-1]["title"] != BROKEN and _packages() <= known.packages:
            known.keep(question, tables)
    console = Console()
    for table in tables:
        shown = Table(*table["heads"], title=table["title"], title_justify="left")
        for row in table["rows"]:
            shown.add_row(*row)
        console.print(shown)
    return 0


def _tables(dataset: str) -> list[dict[str, Any]]:
    """Return all tables of the list as JSON values; that of broken options, if any, is the last."""
    last, broken = _together(dataset), [*_broken()]
    found = [
        _table(title, (group, *heads), _rows(group, row, broken))
        for group, (title, heads, row) in TABLES.items()
    ]
    told = [_table(BROKEN, ("group", "name", "why"), broken)] if broken else []
    return [*found, last, *told]


BROKEN = "broken"
TABLES: dict[str, tuple[str, tuple[str, ...], Callable[[Any], tuple[str, ...]]]] = {
    "method": (
        "methods",
        ("verbs", "scope", "paper"),
        lambda o: (_words(o.cls.verbs()), o.cls.scope, o.cls.paper),
    ),
    "model": (
        "models",
        ("spaces", "takes"),
        lambda o: (_words(o.cls.spaces), _words(o.cls.gives)),
    ),
    "dataset": (
        "data sets",
        ("gives",),
        lambda o: (_words(o.cls.gives) or "what its table says",),
    ),
    "metric": (
        "metrics",
        ("figures", "needs"),
        lambda o: (_words(o.build().figures), _words(o.cls.needs)),
    ),
    "benchmark": (
        "benchmarks",
        ("question", "verbs", "main score"),
        lambda o: (o.cls.question, _words(o.cls.verbs), o.cls.main_score),
    ),
}


def _rows(
    group: str, row: Callable[[Any], tuple[str, ...]], broken: list[tuple[str, str, str]]
) -> Iterator[tuple[str, ...]]:
    """Yield a row per option; one whose class lacks what the table shows is broken."""
    from latentbench.cells.catalogue import sound

    for option in sound(group).values():
        try:
            yield option.name, *row(option)
        except Exception as error:
            broken.append((group, option.name, f"{type(error).__name__}: {error}"))


def _packages() -> set[str]:
    """Return the packages that the classes of all options come from."""
    from latentbench.cells.catalogue import options

    return {option.package for group in TABLES for option in options(group).values()}


def _broken() -> Iterator[tuple[str, str, str]]:
    """Yield the options and plug-ins that cannot be used: group, name and why."""
    from latentbench import plugin_folders
    from latentbench.cells.catalogue import fault, options

    for name, folder in plugin_folders.folders().items():
        if folder is None:
            yield "plug-in", name, "the package has no such folder"
    for group in TABLES:
        for option in options(group).values():
            if why := fault(group, option):
                yield group, option.name, why


def _together(dataset: str) -> dict[str, Any]:
    """Return the table of methods by benchmarks; each entry lists the models that fit."""
    from latentbench.cells.catalogue import option, sound
    from latentbench.cells.compatibility import Parts

    data = option("dataset", dataset).cls
    benchmarks, models = sound("benchmark").values(), sound("model").values()
    rows = []
    for method in sound("method").values():
        fits = [
            [
                model.name
                for model in models
                if Parts(
                    method.cls, method.config, model.cls, data, benchmark.build(), benchmark.config
                ).fits()
            ]
            for benchmark in benchmarks
        ]
        rows.append((method.name, *(_words(names) or "-" for names in fits)))
    heads = ("method", *(benchmark.name for benchmark in benchmarks))
    return _table(f"what goes together, on {dataset}: models for method and benchmark", heads, rows)


def _table(title: str, heads: Sequence[str], rows: Iterable[Sequence[str]]) -> dict[str, Any]:
    return {"title": title, "heads": list(heads), "rows": [list(row) for row in rows]}


def _words(values: Iterable[object]) -> str:
    return ", ".join(sorted(str(value) for value in values))


if __name__ == "__main__":
    sys.exit(main())
