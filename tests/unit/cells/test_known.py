import cells
import pytest

from latentbench.cells.known import recall, remember, there
from latentbench.records import FILE, Status


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """The results folder of two cells: one is ok, one is skipped."""
    folder = tmp_path_factory.mktemp("results")
    return folder, cells.run(folder)[0], cells.run(folder, "method=acme_attending")[0]


def test_a_cell_that_is_there_is_known_by_its_config(ran):
    folder, ok, skipped = ran
    assert there(cells.composed(folder)) == ok
    assert there(cells.composed(folder, "method=acme_attending")) == skipped
    assert (ok.status, skipped.status) == (Status.OK, Status.SKIPPED)


@pytest.mark.parametrize(
    "word", ["seed=1", "method.gain=3", "results.overwrite=always", "results.cache=null",
             "method.gain=${nowhere}"]
)  # fmt: skip
def test_a_cell_that_is_to_be_computed_is_not_there(ran, word):
    assert there(cells.composed(ran[0], word)) is None


def test_a_cell_whose_record_is_gone_is_known_and_not_there(ran, tmp_path):
    folder, ok, _ = ran
    elsewhere = cells.composed(tmp_path, f"results.cache={folder}/cache")
    assert recall(elsewhere).id == ok.id
    assert there(elsewhere) is None
    (tmp_path / "cells" / ok.id).mkdir(parents=True)
    (tmp_path / "cells" / ok.id / FILE).write_text("{}")
    assert there(elsewhere) is None


def test_other_published_weights_are_another_question(ran, tmp_path):
    config = cells.composed(ran[0], f"results.weights_dir={tmp_path}")
    identity = {"data": "", "weights": {}}
    remember(config, "one", identity, None)
    assert recall(config).id == "one"
    (tmp_path / "vgg.pth").write_bytes(b"new")
    assert recall(config) is None


def test_a_checkpoint_of_other_content_is_not_known(ran, tmp_path):
    config = cells.composed(ran[0], "seed=7")
    (tmp_path / "model").write_text("first")
    from latentbench.weights import hash_of

    remember(config, "one", {"data": "", "weights": {str(tmp_path): hash_of(str(tmp_path))}}, None)
    assert recall(config).id == "one"
    (tmp_path / "model").write_text("other, longer")
    assert recall(config) is None


@pytest.mark.parametrize(
    ("word", "data"), [("seed=8", "a hash of images"), ("+method._target_=os.path.join", "")]
)
def test_what_the_sources_do_not_decide_is_not_kept(ran, word, data):
    config = cells.composed(ran[0], "seed=8", word.replace("+method", "++method"))
    remember(config, "one", {"data": data, "weights": {}}, None)
    assert recall(config) is None
