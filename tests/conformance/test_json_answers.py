"""Every command answers `--json` with one document on stdout, and nothing else there."""

import argparse
import json
from collections.abc import Iterator

import cells
import pytest

from latentbench import cli
from latentbench.zoo import __main__ as zoo

WORDS = {  # command -> words that make it answer at once; RESULTS stands for a folder of records
    "leaderboard": "--results RESULTS --out RESULTS/out",
    "show": "acme/acme/acme --results RESULTS",
    "site": "--results RESULTS",
    "list": "--dataset acme",
    "weights": "--dir RESULTS",
    "plan": "benchmark=acme method=acme model=acme dataset=acme results.dir=RESULTS",
    "status": "--results RESULTS",
    "fits list": "--cache RESULTS/cache",
    "zoo list": "",
    "zoo show": "zoo1",
    "zoo verify": "zoo1 --hashes",
}
ELSEWHERE = {  # what other tests ask for an answer as JSON, or what trains and measures for minutes
    "reproduce", "compare", "export", "track", "check", "new",
    "fits show", "fits export", "fits import",
    "zoo train", "zoo refine", "zoo measure",
}  # fmt: skip


def commands(parser: argparse.ArgumentParser, name: str = "") -> Iterator[tuple[str, object]]:
    """Yield the name and the parser of each command that does something."""
    inner = [a for a in parser._actions if isinstance(a, argparse._SubParsersAction)]
    for action in inner:
        for verb, own in action.choices.items():
            if f"{name}{verb}" != "zoo":  # whose parser is another
                yield from commands(own, f"{name}{verb} ")
    if not inner:
        yield name.strip(), parser


EVERY = dict([*commands(cli._parser()), *commands(zoo._parser(), "zoo ")])


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("results")
    cells.run(folder)
    return folder


@pytest.mark.parametrize("name", EVERY)
def test_a_command_takes_the_option(name):
    assert "--json" in EVERY[name]._option_string_actions


def test_every_command_is_asked_here_or_elsewhere():
    assert EVERY.keys() == WORDS.keys() | ELSEWHERE


@pytest.mark.parametrize("name", WORDS)
def test_stdout_holds_one_document_and_nothing_else(name, results, capsys):
    words = WORDS[name].replace("RESULTS", str(results)).split()
    capsys.readouterr()
    assert cli.main([*name.split(), *words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)
