"""What a cell's id is a hash of: settings, versions, weights and data of all its parts."""

from typing import ClassVar

from latentbench import weights
from latentbench.cells import identity as module
from latentbench.cells.identity import identity, weights_of
from latentbench.cells.parts import Part


class Plain:
    version = 3

    def __init__(self, *, path: str = "", judge: str = "", n: int = 1):
        pass


class Judged(Plain):
    version = 5
    fixed_networks = frozenset({"zoo1"})


class Grown(Plain):
    neutral: ClassVar = {"n": 1}


def part(cls, **given):
    return Part(cls.__name__, cls, {"_target_": f"{__name__}.{cls.__name__}", **given})


def test_every_part_enters_with_settings_version_and_weights(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    chosen = {
        "benchmark": part(Plain, judge="zoo3"),
        "method": part(Plain, n=2),
        "model": part(Plain, path=str(tmp_path)),
        "dataset": part(Plain),
    }
    others = {"method.second": part(Judged, path="clip1")}
    found = identity(chosen, others, {"psnr": part(Judged)}, 7, "data")
    defaults = {"_target_": f"{__name__}.Plain", "path": "", "judge": "", "n": 1}
    assert found == {
        "config": {
            "benchmark": {**defaults, "judge": "zoo3"},
            "method": {**defaults, "n": 2},
            "model": {**defaults, "path": str(tmp_path)},
            "dataset": defaults,
            "metric": {"psnr": {**defaults, "_target_": f"{__name__}.Judged"}},
            "seed": 7,
            "others": {"method.second": others["method.second"].given},
        },
        "versions": {
            "latentbench": module.VERSION,
            f"{__name__}.Plain": 3,
            f"{__name__}.Judged": 5,
        },
        "weights": {
            name: weights.hash_of(name) for name in ("clip1", "zoo1", "zoo3", str(tmp_path))
        },
        "data": "data",
    }


def test_a_setting_at_its_neutral_value_is_no_part_of_an_id(tmp_path):
    def told(**given):
        chosen = {"method": part(Grown, **given), "model": part(Plain, path=str(tmp_path))}
        others = {"method.second": part(Grown, **given)}
        config = identity(chosen, others, {}, 0, "data")["config"]
        return config["method"], config["others"]["method.second"]

    assert all("n" not in settings for settings in told(n=1))
    assert all(settings["n"] == 2 for settings in told(n=2))


def test_weights_are_found_in_texts_lists_and_mappings_but_not_in_the_models_own():
    config = {
        "model": {"note": "zoo1"},
        "method": {"names": ["zoo2", 3], "more": {"deep": ("clip1",)}, "word": "nothing"},
    }
    assert weights_of(config, []) == ["clip1", "zoo2"]
    assert weights_of(config, [], {"zoo3"}) == ["clip1", "zoo2", "zoo3"]


def test_a_part_that_loads_a_checkpoint_names_it_whatever_it_is():
    loaded = [{"path": "a/b", "vae": "c/d", "adapter": None}, {"adapter": "e/f", "other": "g"}, {}]
    assert weights_of({}, loaded) == ["a/b", "c/d", "e/f"]
