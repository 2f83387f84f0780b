"""Parts are built from settings that were checked, all of them, before anything happens."""

import math
from collections.abc import Sequence
from typing import Annotated, Any

import cells
import pytest
from omegaconf import OmegaConf

from latentbench.bounds import Count, Share, or_infinite
from latentbench.cells.parts import Part as Read
from latentbench.cells.parts import check_settings
from latentbench.cells.sweep import changes_a_part
from latentbench.errors import BadInput

HERE = __name__


class Part:
    def __init__(
        self,
        *,
        path: str,
        n: Count = 3,
        share: Share | None = None,
        shares: Sequence[Share] = (),
        ceiling: Annotated[float, or_infinite] = math.inf,
        device: str = "cpu",
    ) -> None:
        self.given = dict(path=path, n=n, share=share, shares=shares, device=device)


class Open:
    def __init__(self, *, n: Count = 3, **others: Any) -> None:
        self.others = others


class Holder:
    def __init__(self, *, part: Part) -> None:
        self.part = part


def config(group: str = "", cls: type = Part, **values: Any):
    own = {"_target_": f"{HERE}.{cls.__name__}", **values}
    return OmegaConf.create({group: own})[group] if group else OmegaConf.create(own)


def refusal(built) -> str:
    with pytest.raises(BadInput) as error:
        check_settings([Read.of(built)])
    return str(error.value)


def test_a_part_is_built():
    part = Read.of(config(path="a", shares=[0, 1])).build(device="cuda")
    assert part.given == dict(path="a", n=3, share=None, shares=[0, 1], device="cuda")


def test_what_a_part_does_to_its_settings_reaches_no_other():
    read = Read.of(config(path="a", shares=[0, 1]))
    read.build().given["shares"].append(2)
    assert read.build().given["shares"] == [0, 1]


def test_all_problems_are_told_at_once_as_a_user_types_them():
    assert refusal(config("method", path=3, n=0, sahre=1)) == (
        "method.path must be text; got 3, which is text only in quotes; "
        "method.n must be a whole number from 1 to 1000000; got 0; "
        "unknown setting of method 'sahre'; did you mean share or shares? "
        "known: ceiling, n, path, share, shares"
    )


@pytest.mark.parametrize("values", [{}, {"path": "???"}])
def test_what_a_user_must_give_is_asked_for(values):
    assert refusal(config("dataset", **values)) == (
        "dataset.path is not set; give dataset.path=VALUE"
    )


def test_a_part_of_no_group_is_called_by_its_class():
    assert refusal(config(path="a", n=1.5)).startswith("Part.n must be")


def test_hydras_own_words_are_no_settings():
    assert "'_args_'" in refusal(config(path="a", _args_=[1]))


def test_interpolations_are_checked_as_their_values():
    root = OmegaConf.create({"x": 0, "part": {**config(path="a"), "n": "${x}"}})
    assert refusal(root.part) == "part.n must be a whole number from 1 to 1000000; got 0"


def test_a_constructor_that_takes_any_name_is_left_to_itself():
    assert Read.of(config(cls=Open, m=4)).build().others == {"m": 4}
    assert "Open.n must be" in refusal(config(cls=Open, n=0))


def test_an_object_inside_a_setting_is_built_by_hydra():
    assert Read.of(config(cls=Holder, part=config(path="a"))).build().part.given["path"] == "a"
    assert refusal(config(cls=Holder, part=3)) == "Holder.part must be Part; got 3"


def test_settings_are_what_the_constructor_gets_as_json():
    assert Read.of(config(path="a", share=1, shares=[0])).settings == {
        "_target_": f"{HERE}.Part",
        "path": "a",
        "n": 3,
        "share": 1.0,
        "shares": [0.0],
        "ceiling": "inf",
    }


def test_a_whole_number_and_the_same_number_are_one_setting():
    one, other = (Read.of(config(path="a", share=v)).settings for v in (1, 1.0))
    assert str(one) == str(other)


def test_the_device_is_not_a_setting_of_a_part():
    assert refusal(config("model", path="a", device="cuda")) == (
        "model.device is given by runtime.device; write runtime.device=VALUE"
    )


def test_what_a_yaml_says_to_launchers_is_no_part_of_a_cell(tmp_path):
    plain = cells.composed(tmp_path)
    told = cells.composed(tmp_path, "+model.gpu_gib=20")
    one, other = Read.of(told.model), Read.of(plain.model)
    assert one.settings == other.settings
    assert type(one.build()) is type(other.build())
    assert told.model.gpu_gib == 20
    assert not changes_a_part("+model.gpu_gib=20") and changes_a_part("model.steps=20")
    with pytest.raises(BadInput, match=r"gpu_gib must be a number above 0.*got -1"):
        check_settings([Read.of(cells.composed(tmp_path, "+model.gpu_gib=-1").model)])
