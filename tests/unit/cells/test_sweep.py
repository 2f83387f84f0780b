"""What a sweep's command line means for one cell, and what the terminal tells."""

from dataclasses import replace

import cells
import pytest

from latentbench.cells.parts import build
from latentbench.cells.progress import grouped
from latentbench.cells.sweep import without_foreign
from latentbench.errors import BadInput
from latentbench.records import Record, Status


def test_a_setting_reaches_only_the_methods_that_have_it(tmp_path):
    words = ["++method.images=64", "++method.gain=2"]
    config = cells.composed(tmp_path, *words)
    kept_config, kept = without_foreign(config, words)
    assert kept == ["method.gain=2"]
    assert "images" not in kept_config.method
    assert "images" in config.method
    build(kept_config.method)


def test_a_setting_that_no_method_has_stays_and_is_refused(tmp_path):
    words = ["++method.imagse=64"]
    config, kept = without_foreign(cells.composed(tmp_path, *words), words)
    assert kept == ["method.imagse=64"]
    with pytest.raises(BadInput, match="unknown setting of method 'imagse'"):
        build(config.method)


def test_skipped_cells_are_told_by_benchmark_and_reason():
    names = {"benchmark": "swap", "method": "a", "model": "m", "dataset": "d"}
    text = "A has no verb edit, which Swap calls. What fits: method=c"
    one = Record("1", Status.SKIPPED, names, 0, {}, reason=text)
    two = replace(one, names=names | {"method": "b"}, reason=text.replace("A", "B", 1))
    three = replace(one, reason="A requires the space text, which M lacks; it has noise. What fits")
    others = [replace(r, names=r.names | {"model": "n"}) for r in (one, three)]
    assert grouped([one, two, two, three, *others]) == [
        "swap: has no verb edit: a, b on m",
        "swap: requires the space text: a on m, n",
        "swap: has no verb edit: a on n",
    ]
