"""Options of every test run, and the names that examples in docstrings take for granted."""

import pytest

CHECKED = ("latentbench", "methods", "metrics", "benchmarks", "agreement")
# an int is a float, as for type checkers
TYPES = "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the switch for shape checks."""
    parser.addoption("--jaxtyping", action="store_true", help="check tensor shapes and types")


def pytest_configure(config: pytest.Config) -> None:
    """Hook the shape checks into the imports that follow."""
    if config.getoption("--jaxtyping"):
        from jaxtyping import install_import_hook

        install_import_hook(CHECKED, TYPES)


@pytest.fixture(autouse=True)
def names(doctest_namespace: dict[str, object]) -> None:
    """Let examples begin where a reader would: torch and numpy are imported."""
    import numpy
    import torch

    doctest_namespace.update(torch=torch, np=numpy)
