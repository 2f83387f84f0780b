"""Constructors read in their source say the same as the classes do."""

import subprocess
import sys

import pytest

from latentbench.cells.catalogue import options
from latentbench.cells.constructors import of_class, of_source

GROUPS = ("method", "model", "dataset", "metric", "benchmark", "scorer", "classifier")


@pytest.mark.parametrize("group", GROUPS)
def test_source_and_class_agree_for_every_option(group):
    for option in options(group).values():
        cls = option.cls
        assert of_source(f"{cls.__module__}.{cls.__qualname__}") == dict(of_class(cls)), option.name


def test_reading_a_source_imports_neither_torch_nor_numpy():
    code = (
        "import sys\n"
        "from latentbench.cells.constructors import of_source\n"
        "assert of_source('methods.interpolation.aid.AttentionInterpolation')['mode']\n"
        "assert of_source('metrics.sets.kid.KernelInceptionDistance')['subsets']\n"
        "assert not {'torch', 'numpy', 'hydra'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


@pytest.mark.parametrize(
    ("source", "known"),
    [
        ("class A:\n    def __init__(self, *, n: int = 1): ...", ["n"]),
        (
            "N = int | None\nclass A:\n    def __init__(self, *, n: N, m: 'N' = None): ...",
            ["m", "n"],
        ),
        ("class B:\n    def __init__(self, *, n: int): ...\nclass A(B):\n    pass", ["n"]),
        ("class A:\n    pass", None),
        ("class A:\n    def __init__(self, **others): ...", None),
        ("from torch import nn\nclass A(nn.Module):\n    pass", None),
        ("import other\nclass A:\n    def __init__(self, *, n: other.Kind): ...", None),
        ("from dataclasses import dataclass\n@dataclass\nclass A:\n    n: int = 1", None),
        ("def A(n): ...", None),
        ("class A:\n    def __init__(self, *, n: int = (1", None),
        ("class A(A):\n    pass", None),
        ("class B(A):\n    pass\nclass A(B):\n    pass", None),
        ("N = M\nM = N\nclass A:\n    def __init__(self, *, n: N): ...", None),
        ("class A:\n    def __init__(self, *, n: Nowhere): ...", None),
    ],
)
def test_what_a_source_tells(tmp_path, monkeypatch, source, known):
    name = f"read_{abs(hash(source))}"
    (tmp_path / f"{name}.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    found = of_source(f"{name}.A")
    assert (found if found is None else sorted(found)) == known


def test_a_class_that_is_not_there_is_not_understood():
    assert of_source("nowhere.at.All") is None
