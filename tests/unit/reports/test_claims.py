"""Claims on planted records."""

import shlex
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from hydra import compose

from latentbench import plugins, records
from latentbench.errors import BadInput
from latentbench.records import Record, ScoreEntry, Status
from latentbench.reports import claims
from latentbench.reports.claims import Claim
from latentbench.weights import sha256

N, ROOT = 30, Path(__file__).parents[3]
SHIPPED = pytest.mark.parametrize(
    "folder", ["reference", "claims_edits", "claims_directions", "claims_personalisation"]
)
SHARED = ("null_text iterations=1", "renoise iterations=1")


class Results:
    """Writes cells with planted values per image and edit."""

    def __init__(self, folder, figure="leak", at=records.HEADLINE):
        self.folder, self.figure, self.at = folder, figure, at

    def cell(
        self, method, leak, dataset="d", seed=0, edits=("hat+",), smallest=None, version=1,
        versions=None, counted=None, replicates=(), target=None,
    ):  # fmt: skip
        """Add a cell; `leak` is ``[images, edits]``; a set has replicates, not a value a row."""
        names = {"benchmark": "b", "method": method, "model": "m", "dataset": dataset}
        leak = np.asarray(leak).reshape(-1, len(edits))
        folder = (
            self.folder / "cells" / f"{method}-{dataset}-{seed}{f'-v{version}' * (version > 1)}"
        )
        folder.mkdir(parents=True)
        table = {
            "id": np.repeat([f"test/{k}" for k in range(len(leak))], len(edits)),
            "group": list(edits) * len(leak),
            "output": 0,
            "headline": True,
            "effect": True,
        }
        if not replicates:
            table[self.figure] = leak.flatten()
        if counted is not None:
            table["headline"] = [name == counted for name in table["group"]]
        score = ScoreEntry(
            float(leak.mean()), len(leak), at=self.at, smallest=smallest, replicates=replicates
        )
        samples = folder / "samples.parquet"
        pd.DataFrame(table).to_parquet(samples)
        record = Record(
            folder.name, Status.OK, names, seed,
            {"method": {"_target_": target or method}, "dataset": dataset},
            overrides=("benchmark.n=2",),
            scores={self.figure: score},
            files={samples.name: sha256(samples)},
            versions={target or method: version, **(versions or {})},
        )  # fmt: skip
        records.write(record, folder)

    def answers(self, *pairs, models=("m",), unit="image"):
        """Return the answer of each line of the written page."""
        text = "".join(
            f"- {{says: x, benchmark: b n=2, models: [{', '.join(models)}], figure: "
            f"{self.figure}, first: {first}, second: {second}, first_is: {sign}, unit: {unit}}}\n"
            for first, second, sign in pairs
        )
        (self.folder / "claims.yaml").write_text(text)
        claims.write(self.folder)
        self.page = (self.folder / "claims.md").read_text()
        lines = self.page.partition("## Evidence")[0].splitlines()
        return [
            line.rstrip(" |").rsplit("| ", 1)[1] for line in lines if line[:3] in ("| x", "| -")
        ][1:]


@pytest.fixture
def results(tmp_path):
    """Three methods on the same images: `low` is below `high` on each, `noisy` is like `high`."""
    draw = np.random.default_rng(0)
    image, found = draw.normal(size=N), Results(tmp_path)
    found.cell("low", image - 0.1 + 0.05 * draw.normal(size=N))
    found.cell("high", image)
    found.cell("noisy", image + 0.05 * draw.normal(size=N))
    return found


def test_a_difference_within_each_image_is_found_though_images_vary_ten_times_more(results):
    found = results.answers(
        ("low", "high", "lower"), ("low", "high", "higher"), ("noisy", "high", "lower")
    )
    assert found[:2] == ["shows", "the opposite shows"]
    assert found[2].startswith("undecided: ") and "80% power" in found[2]


def test_a_method_without_records_is_told(results):
    assert results.answers(("low", "none", "lower"), models=("m", "other")) == [
        "no records of none",
        "no records",
    ]


def test_data_sets_are_answered_apart(results):
    """The other data set has the opposite difference; together they would cancel."""
    image = np.random.default_rng(1).normal(size=N)
    results.cell("low", image + 0.1, dataset="other")
    results.cell("high", image + 0.001 * image**2, dataset="other")
    assert results.answers(("low", "high", "lower")) == ["shows", "the opposite shows"]
    assert "b n=2 · m · other" in results.page


def test_groups_follow_the_pooled_answer_and_the_difference_is_that_of_the_shown_figures(results):
    draw = np.random.default_rng(2)
    hat, glasses = draw.normal(size=N), draw.normal(size=N)
    noise = [0.01 * draw.normal(size=N) for _ in range(4)]
    edits = ("glasses+", "hat+")
    results.cell("a", np.stack([glasses + noise[0], hat + 0.3 + noise[1]], 1), edits=edits)
    results.cell("b", np.stack([glasses + 0.1 + noise[2], hat + noise[3]], 1), edits=edits)
    assert results.answers(("a", "b", "lower")) == [
        "the opposite shows",
        "shows",
        "the opposite shows",
    ]
    line = next(line for line in results.page.splitlines() if line.startswith("| x"))
    one, other, gap = (cell.split(":")[-1] for cell in line.split(" | ")[3:6])
    assert float(one) - float(other) == pytest.approx(float(gap.split("[")[0]), abs=2e-3)


def test_a_group_none_of_whose_rows_count_is_not_compared(results):
    draw = np.random.default_rng(2)
    image, noise = draw.normal(size=(N, 2)), 0.01 * draw.normal(size=(N, 2))
    for name, change in (("a", 0.0), ("b", 0.1 + noise)):
        results.cell(name, image + change, edits=("glasses+", "hat+"), counted="hat+")
    found = results.answers(("a", "b", "lower"))
    assert found == ["shows", "not compared: no image of one seed counts for both", "shows"]


def test_a_figure_of_a_whole_set_has_no_line_per_group(tmp_path):
    results, edits = Results(tmp_path, "found"), ("glasses+", "hat+")
    for name, value in (("a", 0.9), ("b", 0.5)):
        without = tuple(value + 0.01 * np.random.default_rng(4).normal(size=10))
        results.cell(name, np.full((N, 2), value), edits=edits, replicates=without)
    assert results.answers(("a", "b", "higher")) == ["shows"]


def test_the_evidence_names_the_cells(results):
    results.answers(("low", "high", "lower"))
    assert "| low-d-0 | high-d-0 |" in results.page.partition("## Evidence")[2]


class TestFits:
    def test_one_fit_decides_nothing_of_fits(self, results):
        (found,) = results.answers(("low", "high", "lower"), unit="fit")
        assert found == "undecided: 1 of the 3 fits that it takes"

    @pytest.mark.parametrize(("spread", "answer"), [(0.01, "shows"), (1.0, "undecided")])
    def test_the_difference_must_hold_over_fits(self, tmp_path, spread, answer):
        draw, results = np.random.default_rng(3), Results(tmp_path)
        for seed in range(4):
            image = draw.normal(size=N)
            luck = spread * (-1) ** seed
            results.cell("a", image - 0.3 + luck + 0.05 * draw.normal(size=N), seed=seed)
            results.cell("b", image, seed=seed)
        (found,) = results.answers(("a", "b", "lower"), unit="fit")
        assert found.startswith(answer)


def test_a_difference_that_does_not_matter_shows_nothing(tmp_path):
    draw, results = np.random.default_rng(4), Results(tmp_path)
    image = draw.normal(size=N)
    results.cell("a", image, smallest=0.01)
    results.cell("b", image + 0.001 + 1e-5 * draw.normal(size=N), smallest=0.01)
    within = "no difference that matters: less than 0.01"
    assert results.answers(("a", "b", "lower"), ("a", "b", "same")) == [within, f"shows: {within}"]


def test_two_that_are_said_to_be_the_same_and_differ_show_the_opposite(results):
    assert results.answers(("low", "high", "same")) == ["the opposite shows"]


def test_what_matching_makes_equal_is_not_compared(tmp_path):
    """A method that makes more of an edit at each strength is matched at a smaller strength."""
    image = np.random.default_rng(6).normal(size=N)
    for at, answer in ((records.HEADLINE, "shows"), (records.EFFECT, "not compared: strengths")):
        found = Results(tmp_path / at, "target_gain_zoo1", at)
        found.cell("more", image + 0.1 + 0.01 * image**2)
        found.cell("less", image)
        (told,) = found.answers(("more", "less", "higher"))
        assert told.startswith(answer)


@pytest.mark.parametrize(
    ("sign", "unit", "fits", "says"),
    [
        ("better", "image", 3, "first_is must be higher or lower or same, got 'better'"),
        ("lower", "seed", 3, "unit must be image or fit, got 'seed'"),
        ("lower", "fit", 2, "fits must be 3 or more, got 2"),
    ],
)
def test_a_claim_that_cannot_be_asked_is_refused(sign, unit, fits, says):
    with pytest.raises(BadInput, match=says):
        Claim("x", "b", "m", "leak", "one", "two", sign, unit, fits)


def test_settings_of_a_claim_may_stand_in_any_order():
    one = Claim("x", "b n=2 a=1", "m", "leak", "p steps=2 a.b=1 a=3", "p", "lower")
    assert (one.benchmark, one.first) == ("b a=1 n=2", "p a=3 a.b=1 steps=2")


@SHIPPED
def test_commands_run_what_the_shipped_claims_compare(folder):
    asked_of = claims.read(ROOT / "results" / folder / "claims.yaml")
    lines = [shlex.split(line)[3:] for line in claims.commands(asked_of, Path("here"))]
    words = [dict(word.split("=", 1) for word in line) for line in lines]
    for group in ("benchmark", "model", "method"):
        for name in {name for line in words for name in line[group].split(",")}:
            assert (ROOT / "conf" / group / f"{name}.yaml").is_file(), (group, name)
    ran = {
        (line["benchmark"], line["model"], method) for line in words
        for method in line["method"].split(",")
    }  # fmt: skip
    for claim in asked_of:
        for method in (claim.first, claim.second):
            asked = (claim.benchmark, claim.model, method)
            assert tuple(label.split()[0] for label in asked) in ran
    assert {line["results.dir"] for line in words} == {"here"}
    assert any("model.steps" in line for line in words)
    assert len({tuple(line) for line in lines}) == len(lines)


@SHIPPED
def test_shipped_claims_name_no_setting_by_its_usual_value(folder):
    """Trap: a record shows what is overridden only, so no record would have the label."""
    for claim in claims.read(ROOT / "results" / folder / "claims.yaml"):
        for label in (claim.first, claim.second):
            name, *settings = label.split()
            usual = yaml.safe_load((ROOT / "conf" / "method" / f"{name}.yaml").read_text())
            for key, value in (setting.split("=", 1) for setting in settings):
                assert usual.get(key) != yaml.safe_load(value), (claim.says, label)


@SHIPPED
def test_shipped_claims_are_about_figures_that_exist(folder):
    page = (ROOT / "docs" / "metrics.md").read_text()
    figures = {claim.figure for claim in claims.read(ROOT / "results" / folder / "claims.yaml")}
    assert {figure for figure in figures if f"`{figure}`" not in page} == set()


def test_methods_that_share_a_setting_are_run_by_one_command():
    """Hydra composes a sweep without its methods first, so the usual one has no such setting."""
    both = Claim("", "reconstruction", "faces_ldm", "psnr", *SHARED, "higher")
    (line,) = claims.commands([both], Path("here"))
    words = [word for word in shlex.split(line)[3:] if "," not in word]
    with plugins.conf():
        assert compose("config", words).method.iterations == 1
        for name, _, setting in (method.partition(" ") for method in SHARED):
            method = compose("config", [*words, f"method={name}"]).method
            assert f"iterations={method.iterations}" == setting


def test_what_is_claimed_of_fits_is_run_once_with_as_many_seeds_as_asked():
    claim = Claim("", "composition", "faces_gan", "psnr", "a", "b", "higher")
    (of_images,) = claims.commands([claim], Path("x"))
    assert "seed=" not in of_images
    fits = replace(claim, unit="fit", figure="lpd_zoo1")
    (of_both,) = claims.commands([claim, fits], Path("x"))
    assert of_both == of_images.replace(" results.dir", " seed=0,1,2 results.dir")
    more = replace(claim, unit="fit", second="c", fits=4)
    first, second = claims.commands([fits, more], Path("x"))
    assert "method=a,c seed=0,1,2,3 " in first
    assert "method=b seed=0,1,2 " in second


def test_two_versions_of_a_method_are_answered_apart(results):
    """Trap: two cells of one label and one seed, of which the last was taken."""
    image = np.random.default_rng(0).normal(size=N)
    results.cell("high", image - 5, seed=0, version=2)
    found = results.answers(("low", "high", "lower"))
    assert found == ["shows", "the opposite shows"]
    assert all(f"low-d-0 and high-d-0{more} |" in results.page for more in ("", "-v2"))


def test_two_settings_of_one_method_are_compared_in_one_version_only(tmp_path):
    results, image = Results(tmp_path), np.random.default_rng(0).normal(size=N)
    results.cell("a", image, target="A")
    results.cell("b", image - 0.1, target="A", version=2)
    results.cell("c", image + 0.1 + 0.01 * image**2, target="A")
    assert results.answers(("a", "b", "lower"), ("a", "c", "lower")) == [
        "not compared: made with different A; run the older cells again",
        "shows",
    ]


def test_equal_figures_are_the_same_but_equal_rates_say_nothing_of_other_images(tmp_path):
    results, image = Results(tmp_path), np.random.default_rng(0).normal(size=N)
    for method, values in (("a", image), ("b", image), ("c", image > 9), ("d", image > 9)):
        results.cell(method, values.astype(float), smallest=0.01)
    found = results.answers(("a", "b", "same"), ("c", "d", "same"))
    assert found[0] == "shows: no difference that matters: less than 0.01"
    assert found[1] == "undecided: the two differ on none of 30 images, or on all alike"


def test_figures_of_two_versions_of_a_metric_are_not_compared(results):
    image = np.random.default_rng(0).normal(size=N)
    results.cell("new", image + 5, versions={"metrics.Leak": 2})
    results.cell("old", image, versions={"metrics.Leak": 1})
    (found,) = results.answers(("new", "old", "higher"))
    assert found == "not compared: made with different metrics.Leak; run the older cells again"


def test_what_is_missing_is_named(results):
    image = np.random.default_rng(0).normal(size=N)
    results.cell("later", image, seed=3)
    assert results.answers(
        ("low", "none", "lower"), ("none", "other", "lower"), ("low", "later", "lower")
    ) == ["no records of none", "no records", "not compared: no image of one seed counts for both"]
    file = results.folder / "claims.yaml"
    file.write_text(file.read_text().replace("figure: leak, ", "figure: leek, "))
    claims.write(results.folder)
    assert "not compared: low has no figure leek" in (results.folder / "claims.md").read_text()


def test_a_claim_is_text_and_no_markup(results):
    results.answers(("low", "high", "lower"))
    file = results.folder / "claims.yaml"
    file.write_text(file.read_text().replace("says: x", 'says: "a | <b>\\n=c"'))
    assert "| a \\| &lt;b&gt; =c | b n=2 · m · d |" in claims.write(results.folder)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[]", "must hold a list of claims"),
        ("- {ENTRY, first: two}", "it says 'first' twice"),
        ("- {ENTRY}\n- {ENTRY}", "claim 2 of .* is claim 1 once more, on m"),
        ("- {ENTRY, fits: 3}\n- {ENTRY, fits: 4}", "claim 2 of .* is claim 1 once more, on m"),
        ("- {ENTRY, fits: four}", "a whole number for fits"),
        ("- {TWICE}", "claim 1 of .* is claim 1 once more, on m"),
        ("- {SAME}", "one is compared with itself"),
    ],
)
def test_a_list_that_says_something_twice_is_refused(text, says, tmp_path):
    entry = "says: x, benchmark: b, models: [m], figure: leak, first: one, second: two, "\
            "first_is: lower"  # fmt: skip
    forms = {
        "ENTRY": entry, "TWICE": entry.replace("[m]", "[m, m]"),
        "SAME": entry.replace("two", "one"),
    }  # fmt: skip
    for name, form in forms.items():
        text = text.replace(name, form)
    (tmp_path / "claims.yaml").write_text(text)
    with pytest.raises(BadInput, match=says):
        claims.read(tmp_path / "claims.yaml")
