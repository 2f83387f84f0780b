"""The `latentbench` command: what there is, and what was found. Cells are started by runner.py."""

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from latentbench.command import JSON, Answer, count, folder_to_write, path, results_place, told
from latentbench.errors import LatentbenchError
from latentbench.paths import on_this_machine

if TYPE_CHECKING:
    from latentbench.reports.boards import Found
    from latentbench.zoo.published_weights import PublishedWeights

ROOT = Path(__file__).resolve().parents[1]
FITS = (
    "what methods have learned, once or of single subjects: fits in the cache, and their exchange "
    "as safetensors"
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    if words[:1] == ["zoo"]:
        from latentbench.zoo.__main__ import main as zoo

        return zoo(words[1:])
    arguments = _parser().parse_args(words)
    return told(lambda: arguments.run(arguments), arguments.json)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("latentbench", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="command")
    results = {"type": results_place, "default": ROOT / "results", "help": "folder of the records"}
    names = "id, id prefix, folder, or benchmark/model/method as on the leaderboard"

    def add(
        name: str, run: Callable[[argparse.Namespace], Answer], what: str
    ) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=what, description=what, parents=[JSON])
        command.set_defaults(run=run)
        return command

    board = add("leaderboard", _leaderboard, "write Markdown and CSV from records")
    board.add_argument("--results", **results)
    board.add_argument("--out", type=path, help="where to write; default: next to the records")

    site = add("site", _site, "write the report site: pages that need no network")
    site.add_argument("--results", **results)
    site.add_argument("--serve", action="store_true", help="show it in a browser, until Ctrl-C")
    site.add_argument("--bundle", type=path, metavar="ZIP", help="pack it into one file as well")

    again = add("reproduce", _reproduce, "compute cells again and compare them with their records")
    again.add_argument("cells", help=names)
    again.add_argument("--results", **results)
    again.add_argument("--sample", type=count, metavar="K", help="draw K of the cells")
    again.add_argument("--seed", type=int, default=0, help="of the draw")
    again.add_argument(
        "--commit", action="store_true", help="by the code and the lock file of the record's commit"
    )

    showing = add("show", _show, "one record: question, command, figures, costs, environment")
    showing.add_argument("cell", help=names)
    showing.add_argument("--results", **results)

    two = add("compare", _compare, "two methods or cells: every figure, paired by image")
    two.add_argument("first", help=names)
    two.add_argument("second", help="the same")
    two.add_argument("--results", **results)

    exporting = add("export", _export, "write figures, samples and images as tables")
    exporting.add_argument("cells", nargs="?", help=f"{names}; all of them if left out")
    exporting.add_argument("--format", required=True, choices=("csv", "parquet", "hf"))
    exporting.add_argument("--out", type=path, help="folder; default: export/FORMAT in the results")
    exporting.add_argument("--licence", default="unknown", help="of the data, for the card of hf")
    exporting.add_argument("--results", **results)

    listing = add("list", _list, "what there is, and which parts go together")
    listing.add_argument("--dataset", default="faces", help="data set of the last table")

    track = add("track", _track, "log existing records to Weights & Biases")
    track.add_argument("--results", **results)
    track.add_argument("--project", default="latentbench")
    track.add_argument("--mode", choices=("auto", "online", "offline"), default="auto")

    weights = add("weights", _weights, "published weights: what is there, what is not")
    where = os.environ.get("LATENTBENCH_WEIGHTS")
    weights.add_argument("--dir", type=path, default=where and Path(where), help="weights_dir")

    planning = add("plan", _plan, "what a sweep would compute, and what that takes")
    planning.add_argument("words", nargs="*", help="of runner.py -m, as in sweep=demo")

    status = add("status", _status, "what running sweeps do")
    status.add_argument("--results", **results)

    cache = {"type": results_place, "default": ROOT / ".cache" / "latentbench"}
    fits = commands.add_parser("fits", help="what methods have learned", description=FITS)
    fits = fits.add_subparsers(required=True, metavar="command")

    def add_fits(
        name: str, run: Callable[[argparse.Namespace], Answer], what: str
    ) -> argparse.ArgumentParser:
        command = fits.add_parser(name, help=what, description=what, parents=[JSON])
        command.add_argument("--cache", **cache, help="results.cache of the cells")
        command.set_defaults(run=run)
        return command

    add_fits("list", _fits_list, "every fit in the cache; of one for single subjects, their images")
    shown = add_fits("show", _fits_show, "one fit: what it depends on, its tensors, its cost")
    shown.add_argument("fit", help="its key, or the beginning of it")
    out = add_fits("export", _fits_export, "write a fit as one safetensors file")
    out.add_argument("fit", help="its key, or the beginning of it")
    out.add_argument("--out", type=path, required=True, help="the file")
    given = add_fits("import", _fits_import, "take an exported fit into the cache")
    given.add_argument("file", type=path, help="what export has written")

    new = add("new", _new, "write the file, the yaml and the test to start from")
    new.add_argument("kind", help="method, metric, benchmark or model")
    new.add_argument("name", help="its short name, as in sdedit")
    new.add_argument("--room", default="", help="folder of methods/ or metrics/")
    new.add_argument("--package", action="store_true", help="a plug-in package in this folder")

    checking = add("check", _check, "run the conformance laws on a method")
    checking.add_argument("method", help="a method of conf/method, or of a plug-in package")

    commands.add_parser("zoo", help="train, check and show embedded models", add_help=False)
    return parser


def _leaderboard(arguments: argparse.Namespace) -> Answer:
    from latentbench.reports import as_text, kept

    out = arguments.results if arguments.out is None else folder_to_write(arguments.out, "--out")
    made = kept.parts(arguments.results)
    if len(made) == 1:
        raise _no_record(arguments.results)
    pages = as_text.write(made, out)
    rows = [row for part in made for row in json.loads(part.rows)] if arguments.json else []
    return _lines({"pages": [str(page) for page in pages], "rows": rows}, pages)


def _site(arguments: argparse.Namespace) -> Answer:
    from latentbench.cells.meanings import meanings
    from latentbench.errors import BadInput
    from latentbench.reports.site.build import FOLDER, build, bundle
    from latentbench.reports.site.contents import Contents
    from latentbench.reports.site.serving import serve

    if arguments.serve and arguments.json:
        raise BadInput("--serve shows pages and --json prints a document; give one of them")
    found = _found(arguments.results)
    words = meanings(record for _, record in found)
    folder = folder_to_write(on_this_machine(arguments.results) / FOLDER, "--results")
    written = [build(Contents.of(found, words, arguments.results), folder)]
    if arguments.bundle is not None:
        written.append(bundle(folder, arguments.bundle))

    def show() -> None:
        print(*written, sep="\n")
        if arguments.serve:
            serve(folder)

    return Answer({"written": [str(one) for one in written]}, show)


def _reproduce(arguments: argparse.Namespace) -> Answer:
    from rich.console import Console

    from latentbench.cells import command_line, rerun
    from latentbench.reports import reproduce

    command_line.begin(Path.cwd())
    words = (arguments.cells, arguments.results, arguments.sample, arguments.seed)
    found = list(rerun.reproductions(rerun.asked(*words), arguments.commit))
    return Answer(
        {"cells": [one.document() for one in found]},
        lambda: reproduce.show(found, Console()),
        reproduce.exit_code(found),
    )


def _show(arguments: argparse.Namespace) -> Answer:
    from rich.console import Console

    from latentbench.cells.meanings import meanings
    from latentbench.reports import cell_page
    from latentbench.reports.finding import find_one

    folder, record = find_one(arguments.cell, arguments.results)
    question = meanings([record]).benchmark(record.names["benchmark"]).question
    return Answer(
        cell_page.document(folder, record, question),
        lambda: cell_page.show(folder, record, question, Console()),
    )


def _compare(arguments: argparse.Namespace) -> Answer:
    from rich.console import Console

    from latentbench.reports.duel import Duel
    from latentbench.reports.finding import find

    two = Duel(*(find(one, arguments.results) for one in (arguments.first, arguments.second)))
    return Answer(two.document(), lambda: two.show(Console()))


def _export(arguments: argparse.Namespace) -> Answer:
    from latentbench.reports.export import Format, export
    from latentbench.reports.finding import find

    results = arguments.results
    found = find(arguments.cells, results) if arguments.cells else _found(results)
    out = folder_to_write(
        arguments.out or on_this_machine(results) / "export" / arguments.format, "--out"
    )
    files = export(found, out, Format(arguments.format), arguments.licence)
    return _lines({"files": [str(file) for file in files]}, files)


def _plan(arguments: argparse.Namespace) -> Answer:
    from latentbench.cells import command_line
    from latentbench.cells.forecast import forecast
    from latentbench.errors import WrongCommand

    words = ["-m", *arguments.words]
    command_line.begin(Path.cwd())
    try:
        command_line.check(words)
    except command_line.REFUSALS as error:
        raise WrongCommand(command_line.explain(error)) from error
    ahead = forecast(words)
    return Answer(ahead.document(), ahead.tell, ahead.code)


def _status(arguments: argparse.Namespace) -> Answer:
    from latentbench.cells.activity import running

    runs = running(arguments.results)
    lines = ["\n  ".join(run.lines()) for run in runs]
    nothing = [f"nothing runs that computes into {arguments.results}"]
    return _lines({"runs": [run.document() for run in runs]}, lines or nothing)


def _lines(document: Any, lines: Iterable[object], code: int = 0) -> Answer:
    """Return an answer that a terminal shows line by line."""
    lines = list(lines)
    return Answer(document, lambda: print(*lines, sep="\n"), code)


def _found(results: Path) -> "list[Found]":
    """Return all records below a folder, at least one."""
    from latentbench import records

    found = records.list_records(results)
    if not found:
        raise _no_record(results)
    return found


def _no_record(results: Path) -> LatentbenchError:
    return LatentbenchError(f"no record below {results / 'cells'}; run some cells first: make demo")


def _track(arguments: argparse.Namespace) -> Answer:
    from omegaconf import OmegaConf

    from latentbench.records import Status
    from latentbench.reports.boards import boards
    from latentbench.reports.leaderboard import rows
    from latentbench.reports.tracking import build, track, track_leaderboard

    target = "latentbench.reports.tracking.WandbTracker"
    settings = {"_target_": target, "project": arguments.project, "mode": arguments.mode}
    config = OmegaConf.create(settings)
    build(config)  # refuses a wrong project, where `track` would only warn
    found, here = _found(arguments.results), on_this_machine(arguments.results)
    taken = sum(track(config, folder, here) for folder, _ in found)
    track_leaderboard(config, rows(boards(found)), here)
    runs = here / "wandb"
    return _lines(
        {"logged": taken, "records": len(found), "runs": str(runs)},
        [f"{taken} of {len(found)} records logged; offline runs lie in {runs}"],
        int(taken < sum(record.status is Status.OK for _, record in found)),
    )


def _weights(arguments: argparse.Namespace) -> Answer:
    from latentbench.cells.catalogue import sound
    from latentbench.errors import BadInput

    folder = arguments.dir
    if folder is not None and folder.exists() and not folder.is_dir():
        raise BadInput(f"--dir must be a folder, and {folder} is a file")
    wanted: dict[PublishedWeights, list[str]] = {}
    for option in sound("metric").values():
        for file in option.build().weights:
            wanted.setdefault(file, []).append(option.name)
    lines, files = [], []
    for file, metrics in wanted.items():
        why, fetch = file.missing(folder), file.command(folder or Path("WEIGHTS_DIR"))
        files.append({"file": file.file, "metrics": metrics, "missing": why, "fetch": fetch})
        lines.append(f"{'missing' if why else 'there'}  {file.file}  for {_words(metrics)}")
        lines += [f"         {why}\n         {fetch}"] if why else []
    if folder is None:
        lines.append(
            "no weights_dir: set LATENTBENCH_WEIGHTS, or pass --dir and results.weights_dir"
        )
    return _lines({"folder": folder and str(folder), "files": files}, lines)


def _fits_list(arguments: argparse.Namespace) -> Answer:
    from latentbench.cells import fits

    found = list(fits.every(arguments.cache))
    nothing = [f"no fit in {arguments.cache}; run a cell of a method that learns"]
    documents = [{**fit.card, "evaluations": list(fit.cost)} for fit in found]
    return _lines({"fits": documents}, [fit.line for fit in found] or nothing)


def _fits_show(arguments: argparse.Namespace) -> Answer:
    from rich.console import Console

    from latentbench.cells import fits

    document = fits.find(arguments.cache, arguments.fit).document()
    return Answer(document, lambda: Console().print_json(data=document))


def _fits_export(arguments: argparse.Namespace) -> Answer:
    from latentbench.cells import fits

    fit = fits.find(arguments.cache, arguments.fit)
    folder_to_write(arguments.out.parent, "--out")
    digest = fits.write(fit, arguments.out)
    return _lines(
        {"key": fit.key, "file": str(arguments.out), "sha256": digest},
        [f"wrote {arguments.out}, sha256 {digest}", fit.line],
    )


def _fits_import(arguments: argparse.Namespace) -> Answer:
    from latentbench.cells import fits

    fit = fits.take(arguments.file, arguments.cache)
    return _lines(
        {"key": fit.key, "sha256": fit.card[fits.IMPORTED]},
        [f"cells that depend on the same take it, and say so: {fit.line}"],
    )


def _new(arguments: argparse.Namespace) -> Answer:
    from latentbench import new

    root = Path.cwd() if arguments.package else ROOT
    written = new.write(
        arguments.kind, arguments.name, root, room=arguments.room, package=arguments.package
    )
    files = [str(file) for file in written.files]
    lines = [*(f"wrote {file}" for file in files), "\n  ".join(["next:", *written.next_steps])]
    return _lines({"files": files, "next": list(written.next_steps)}, lines)


def _check(arguments: argparse.Namespace) -> Answer:
    from latentbench.check import check

    found = check(arguments.method)
    return Answer(found.document(), found.show, found.code)


def _list(arguments: argparse.Namespace) -> Answer:
    from latentbench import index

    known, question = index.opened(index.FOLDER), ["list", arguments.dataset]
    tables = known.find(question)
    if tables is None:
        tables = _tables(arguments.dataset)
        if tables[-1]["title"] != BROKEN and _packages() <= known.packages:
            known.keep(question, tables)
    return Answer({"tables": tables}, lambda: _show_tables(tables))


def _show_tables(tables: Iterable[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console()
    for table in tables:
        shown = Table(*table["heads"], title=table["title"], title_justify="left")
        for row in table["rows"]:
            shown.add_row(*row)
        console.print(shown)


def _tables(dataset: str) -> list[dict[str, Any]]:
    """Return all tables of the list as JSON values; that of broken options, if any, is the last."""
    last, broken = _together(dataset), [*_broken()]
    found = [
        _table(title, (group, *heads), _rows(group, row, broken, dataset))
        for group, (title, heads, row) in TABLES.items()
    ]
    told = [_table(BROKEN, ("group", "name", "why"), broken)] if broken else []
    return [*found, last, *told]


BROKEN = "broken"
Row = Callable[[Any, Any], tuple[str, ...]]  # of an option, on data of a class
TABLES: dict[str, tuple[str, tuple[str, ...], Row]] = {
    "method": (
        "methods",
        ("verbs", "scope", "paper"),
        lambda o, _: (_words(o.cls.verbs()), o.cls.scope, o.cls.paper_of(o.config)),
    ),
    "model": (
        "models",
        ("spaces", "takes"),
        lambda o, _: (_words(o.cls.spaces), _words(o.cls.gives)),
    ),
    "dataset": (
        "data sets",
        ("gives",),
        lambda o, _: (_words(o.cls.gives) or "what its table says",),
    ),
    "metric": (
        "metrics",
        ("figures", "needs"),
        lambda o, _: (_words(o.build().figures), _words(o.cls.needs)),
    ),
    "benchmark": (
        "benchmarks",
        ("question", "verbs", "main score"),
        lambda o, data: (o.cls.question, _words(o.cls.verbs), o.build().ranked_by(data.gives)),
    ),
}


def _rows(
    group: str, row: Row, broken: list[tuple[str, str, str]], dataset: str
) -> Iterator[tuple[str, ...]]:
    """Yield a row per option; one whose class lacks what the table shows is broken."""
    from latentbench.cells.catalogue import option as named
    from latentbench.cells.catalogue import sound

    data = named("dataset", dataset).cls
    for option in sound(group).values():
        try:
            yield option.name, *row(option, data)
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
