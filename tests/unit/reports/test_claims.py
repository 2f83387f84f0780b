"""Claims on planted records."""

import numpy as np
import pandas as pd
import pytest

from latentbench import records
from latentbench.errors import BadInput
from latentbench.records import Record, ScoreEntry, Status
from latentbench.reports import claims
from latentbench.reports.claims import Claim
from latentbench.weights import sha256

N = 30


@pytest.fixture
def results(tmp_path):
    """Three methods on the same images: `low` is below `high` on each, `noisy` is like `high`."""
    draw = np.random.default_rng(0)
    image = draw.normal(size=N)
    values = {
        "low": image - 0.1 + 0.05 * draw.normal(size=N),
        "high": image,
        "noisy": image + 0.05 * draw.normal(size=N),
    }
    for method, leak in values.items():
        names = {"benchmark": "b", "method": method, "model": "m", "dataset": "d"}
        scores = {"leak": ScoreEntry(float(leak.mean()), N)}
        folder = tmp_path / "cells" / method
        folder.mkdir(parents=True)
        ids = [f"test/{k}" for k in range(N)]
        table = {"id": ids, "group": "g", "output": 0, "headline": True, "leak": leak}
        samples = folder / "samples.parquet"
        pd.DataFrame(table).to_parquet(samples)
        files = {samples.name: sha256(samples)}
        record = Record(
            method, Status.OK, names, 0, {"method": method}, overrides=("benchmark.n=2",),
            scores=scores, files=files,
        )  # fmt: skip
        records.write(record, folder)
    return tmp_path


def verdicts(results, *pairs, models=("m",)):
    text = "".join(
        f"- {{says: x, benchmark: b n=2, models: [{', '.join(models)}], figure: leak, "
        f"first: {first}, second: {second}, first_is: {sign}}}\n"
        for first, second, sign in pairs
    )
    (results / "claims.yaml").write_text(text)
    claims.write(results)
    lines = (results / "claims.md").read_text().splitlines()
    return [line.rstrip(" |").rsplit("| ", 1)[1] for line in lines if line.startswith("| x")]


def test_a_difference_within_each_image_is_found_though_images_vary_ten_times_more(results):
    found = verdicts(
        results, ("low", "high", "lower"), ("low", "high", "higher"), ("noisy", "high", "lower")
    )
    assert found == ["shows", "the opposite shows", "undecided"]


def test_a_method_without_records_is_told(results):
    assert verdicts(results, ("low", "none", "lower"), models=("m", "other")) == ["no records"] * 2


def test_the_first_must_be_said_to_be_higher_or_lower():
    with pytest.raises(BadInput, match="higher or lower, got 'better'"):
        Claim("x", "b", "m", "leak", "one", "two", "better")
