"""Cells that are there are left out of a sweep before its first job; all others are not."""

import json
from dataclasses import replace

import cells
import pytest
from hydra import compose
from hydra.core.global_hydra import GlobalHydra

from latentbench import plugins, records
from latentbench.cells import ahead
from latentbench.cells.composing import put_together
from latentbench.cells.known import settings_of
from latentbench.cells.sweep import without_foreign
from latentbench.errors import WrongCommand
from latentbench.records import FILE, Status


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """The results folder of three cells: one is ok, one is skipped, one failed."""
    folder = tmp_path_factory.mktemp("results")
    made = [cells.run(folder, *words) for words in ([], ["method=acme_attending"], ["seed=3"])]
    failed = replace(made[2][0], status=Status.FAILED, reason="as planted", files={})
    records.write(failed, folder / "cells" / failed.id)
    return folder


def words_of(folder, *more):
    choices = [f"{group}={name}" for group, name in cells.NAMES.items()]
    places = [f"results.dir={folder}", f"results.cache={folder}/cache", "tracker=none"]
    runtime = ["runtime.batch_size=4", "runtime.threads=1", "runtime.device=cpu"]
    given = {word.partition("=")[0]: word for word in [*choices, *places, *runtime, *more]}
    return list(given.values())


def whole(words):
    return compose("config", words, return_hydra_config=True)


def remaining(folder, out, *jobs):
    with plugins.conf():
        return ahead.remaining([words_of(folder, *job) for job in jobs], whole, out)


def test_cells_that_are_there_have_no_job_and_are_noted(ran, tmp_path):
    jobs = ((), ("method=acme_attending",), ("seed=1",), ("seed=3",), ("++method.nowhere=1",))
    left = remaining(ran, tmp_path, *jobs)
    assert left == [words_of(ran, *job) for job in jobs[2:]]  # not there, failed, to be refused
    noted = ahead.notes_of(tmp_path)
    assert [note["status"] for note in noted] == [Status.OK, Status.SKIPPED]
    assert {note["folder"] for note in noted} <= {str(p) for p in ran.glob("cells/*")}


@pytest.mark.parametrize("word", ["results.overwrite=always", "results.cache=null",
                                  "method.gain=${nowhere}", "method.gain=3"])  # fmt: skip
def test_a_cell_that_is_due_or_not_known_has_its_job(ran, tmp_path, word):
    assert remaining(ran, tmp_path, (word,)) == [words_of(ran, word)]


def test_a_damaged_record_is_computed_again(ran, tmp_path):
    with plugins.conf():
        (cell,) = put_together([words_of(ran)], whole)
    name = next(p for p in ran.glob("cells/*") if records.load(p).status is Status.OK).name
    path = ran / "cells" / name / FILE
    body = path.read_text()
    path.write_text(json.dumps({**json.loads(body), "seed": 7}))
    try:
        assert remaining(ran, tmp_path, ()) == [list(cell.words)]
    finally:
        path.write_text(body)
    assert remaining(ran, tmp_path, ()) == []


def test_parts_that_refer_to_others_are_looked_up_whole(ran, tmp_path):
    job = ("++method.gain=${seed}", "seed=3")
    with plugins.conf():
        (cell,) = put_together([words_of(ran, *job)], whole)
        assert cell.given is None
        assert without_foreign(cell.config, cell.settings)[0].method.gain == 3
    assert remaining(ran, tmp_path, job) == [words_of(ran, *job)]


def test_what_no_cell_could_run_under_is_refused_as_by_a_job(ran, tmp_path):
    with pytest.raises(WrongCommand, match="cuda:99 is not there"):
        remaining(ran, tmp_path, ("runtime.device=cuda:99",))


def test_a_folder_that_cannot_be_written_to_leaves_all_to_their_jobs(ran, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert remaining(ran, tmp_path / "file", ()) == [words_of(ran)]
    assert "each cell looks itself" in capsys.readouterr().err


@pytest.mark.slow
def test_ids_depend_on_the_same_values_as_in_a_cell_of_its_own():
    """Each option of each group, in a cell all of whose pieces come from other cells."""
    groups = ("benchmark", "method", "model", "dataset")
    with plugins.conf():
        loader = GlobalHydra.instance().config_loader()
        options = {group: loader.get_group_options(group) for group in groups}
        count = max(map(len, options.values()))

        def jobs(shift):
            for k in range(count):
                place = {group: k + shift * n for n, group in enumerate(groups)}
                chosen = (f"{g}={options[g][place[g] % len(options[g])]}" for g in groups)
                yield [*chosen, f"seed={k}", "++method.images=8", "tracker=none"]

        cells_ = list(put_together([*jobs(0), *jobs(1)], whole))
        compared = 0
        for cell in cells_[count:]:
            config, _ = without_foreign(whole(list(cell.words)), cell.settings)
            assert cell.given == settings_of(config), cell.words
            compared += 1
    assert compared == count > 50
