import math
from fractions import Fraction
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from latentbench import store
from latentbench.cache import Cache
from latentbench.content import content_hash, encode, id_of


class Counter:
    """Makes a tensor, counts how often, and pretends that it cost evaluations."""

    def __init__(self):
        self.calls = self.forward = 0

    def __call__(self):
        self.calls += 1
        self.forward += 10
        return {"x": torch.arange(6.0).reshape(2, 3).t()}

    def meter(self):
        return self.forward, 0


def test_an_entry_is_made_once(tmp_path):
    make = Counter()
    first = Cache(tmp_path).get_or_make("fit", "k", make)
    second = Cache(tmp_path).get_or_make("fit", "k", make)
    assert make.calls == 1
    assert first.keys() == second.keys() == {"x"}
    assert torch.equal(first["x"], second["x"])


def test_without_a_folder_all_is_computed():
    make, cache = Counter(), Cache(None)
    assert torch.equal(
        cache.get_or_make("a", "k", make)["x"], cache.get_or_make("a", "k", make)["x"]
    )
    assert make.calls == 2
    assert cache.find("a", "k") is None
    assert cache.cost().tolist() == [0, 0]


def test_without_a_folder_tensors_lie_in_memory_as_those_of_one():
    """Of a transposed tensor sums are rounded otherwise."""
    assert not Counter()()["x"].is_contiguous()
    assert Cache(None).get_or_make("a", "k", Counter())["x"].is_contiguous()


def test_a_damaged_entry_is_made_again_with_a_warning(tmp_path, caplog):
    make = Counter()
    Cache(tmp_path).get_or_make("fit", "key", make)
    path = next(tmp_path.rglob("*.sealed"))
    path.write_bytes(path.read_bytes()[:-1] + b"\x07")
    assert torch.equal(Cache(tmp_path).get_or_make("fit", "key", make)["x"], make()["x"])
    assert make.calls == 3  # the last one is the line above
    assert "damaged" in caplog.text


def test_what_a_hit_spared_is_counted_as_cost(tmp_path):
    make = Counter()
    Cache(tmp_path, make.meter).get_or_make("fit", "key", make)
    again = Cache(tmp_path, make.meter)
    before = again.cost()
    again.get_or_make("fit", "key", make)
    assert (again.cost() - before).tolist() == [10, 0]
    assert again.saved.tolist() == [10, 0]


def test_an_inner_hit_is_part_of_the_outer_cost(tmp_path):
    make = Counter()
    Cache(tmp_path, make.meter).get_or_make("inversion", "i", make)

    def outer_for(cache):
        return lambda: cache.get_or_make("inversion", "i", make) | make()

    cache = Cache(tmp_path, make.meter)
    cache.get_or_make("fit", "f", outer_for(cache))
    last = Cache(tmp_path, make.meter)
    last.get_or_make("fit", "f", outer_for(last))
    assert last.saved.tolist() == [20, 0]


def test_an_owners_entries_are_no_ones_else_and_their_hits_count_for_both(tmp_path):
    make = Counter()
    shared = Cache(tmp_path / "shared", make.meter)
    one = shared.beside(tmp_path / "kept", "one")
    for key in "ab":
        one.get_or_make("trial", key, make)
    assert shared.find("trial", "a") is None and one.saved.tolist() == [0, 0]
    for key in "ab":
        assert one.find("trial", key)["x"].shape == (3, 2)
    assert shared.saved.tolist() == one.saved.tolist() == [20, 0]
    assert shared.saved.dtype == torch.int64  # a record counts in whole numbers
    assert one.cost().tolist() == [40, 0]
    assert shared.beside(tmp_path / "kept", "another").find("trial", "a") is None


def test_a_sealed_entry_that_holds_no_tensors_is_made_again(tmp_path, caplog):
    path = tmp_path / "fit" / "ke" / "key.sealed"
    store.write_sealed(path, "fit/key", b"no tensors")
    assert Cache(tmp_path).find("fit", "key") is None
    assert f"{path} cannot be read" in caplog.text and not path.exists()


ZEROS = torch.zeros(4)
SHORT = ZEROS.numpy().tobytes()
APART = [  # each of these as parts; no two may share a hash
    (), (None,), ("None",), ("null",), (True,), (1,), ("1",), (1.0,), (-1,), (0.0,), (-0.0,),
    (math.nan,), ("NaN",), (12,), (1, 2), ([1, 2],), ([1], 2), ([[1], 2],), ([],), ({},), ("",),
    (b"",), ("ab",), ("a", "b"), (b"ab",), (b"a", b"b"), (b"a\0b",), ("a\0b",), (b"a\0", b"b"),
    ({"a": 1},), (["a", 1],), ([["a", 1]],), ({"a": {"b": 1}},), ({1: "a"},), ({"1": "a"},),
    ("s1:a",), (["s1:a"],), ("\ud800",), ("\\ud800",), ("é",), ("e\u0301",),
    (ZEROS,), (ZEROS.reshape(2, 2),), (ZEROS.int(),), (ZEROS.half().repeat(2),), (SHORT,),
    ("(4,)torch.float32", SHORT), (b"(4,)torch.float32" + SHORT,), (ZEROS, ZEROS), ([ZEROS],),
    (ZEROS[:0],), (ZEROS[:0].reshape(0, 3),), (ZEROS[0],), (ZEROS[:1],), (ZEROS.tolist(),),
]  # fmt: skip


def test_other_parts_have_other_hashes():
    found = {}
    for parts in APART:
        found.setdefault(content_hash(*parts), []).append(parts)
    assert [same for same in found.values() if len(same) > 1] == []


def test_an_id_is_the_beginning_of_a_hash():
    assert id_of("a", 1) == content_hash("a", 1)[:16] and len(id_of()) == 16


def test_the_order_of_a_mapping_and_the_type_of_a_list_do_not_count():
    assert content_hash({"a": 1, "b": 2}) == content_hash({"b": 2, "a": 1})
    assert content_hash((1, ("a",))) == content_hash([1, ["a"]])
    assert content_hash(torch.arange(6).reshape(2, 3).t()) == content_hash(
        torch.tensor([[0, 3], [1, 4], [2, 5]])
    )


leaves = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5)
    | st.binary(max_size=5)
    | st.builds(
        lambda shape, dtype, fill: torch.full(shape, fill).to(dtype),
        st.lists(st.integers(0, 3), max_size=3),
        st.sampled_from([torch.float32, torch.float16, torch.bfloat16, torch.int8, torch.bool]),
        st.integers(0, 2),
    )
)  # fmt: skip
nests = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=3) | st.integers(), inner, max_size=3)
    ),
    max_leaves=6,
)


def decoded(code):
    """Return (kind, value, rest) of a code; a part with a decoder cannot share its code."""
    kind, (length, _, rest) = code[:1], code[1:].partition(b":")
    n = int(length)
    if kind in b"lm":
        values = []
        for _ in range(n if kind == b"l" else 2 * n):
            value, rest = decoded(rest)
            values.append(value)
        return (kind, values), rest
    if kind == b"t":
        described, rest = decoded(rest)
        return (kind, described, rest[:n]), rest[n:]
    return (kind, rest[:n]), rest[n:]


def described(part):
    """Return what `decoded` must give back, made without a code."""
    match part:
        case torch.Tensor():
            raw = part.reshape(-1).view(torch.uint8).numpy().tobytes()
            return b"t", described([str(part.dtype), list(part.shape)]), raw
        case list():
            return b"l", [described(inner) for inner in part]
        case dict():
            keys = sorted(part, key=code_of)
            return b"m", [described(inner) for key in keys for inner in (key, part[key])]
        case None:
            return b"n", b""
        case bool():
            return b"b", b"1" if part else b"0"
        case int():
            return b"i", f"{part:x}".encode()
        case float():
            return b"f", part.hex().encode()
        case str():
            return b"s", part.encode()
    return b"y", part


def code_of(part):
    pieces = []
    encode(part, pieces.append)
    return b"".join(pieces)


@settings(deadline=None, max_examples=60)
@given(nests)
def test_what_is_hashed_can_be_read_back_so_no_two_parts_share_it(part):
    assert decoded(code_of(part)) == (described(part), b"")


@pytest.mark.parametrize("part", [object(), {1, 2}, torch.float32, Path("a"), ["a", {"b": object}]])
def test_what_has_no_code_is_refused_not_hashed_by_its_text(part):
    with pytest.raises(TypeError, match="content_hash takes tensors, bytes, JSON values"):
        content_hash(part)


def test_a_refusal_names_the_type():
    with pytest.raises(TypeError, match=r"of fractions\.Fraction$"):
        content_hash([Fraction(1, 3)])


def test_two_entries_that_were_swapped_are_made_again(tmp_path, caplog):
    cache = Cache(tmp_path)
    for key in "ab":
        cache.get_or_make("fit", key, lambda key=key: {"x": torch.tensor([ord(key)])})
    a, b = (tmp_path / "fit" / key / f"{key}.sealed" for key in "ab")
    bodies = a.read_bytes(), b.read_bytes()
    a.write_bytes(bodies[1])
    b.write_bytes(bodies[0])
    made = cache.get_or_make("fit", "a", lambda: {"x": torch.tensor([-1])})
    assert made["x"].item() == -1
    assert "a copy of another file" in caplog.text


def test_an_entry_of_another_kind_is_not_taken(tmp_path):
    make = Counter()
    Cache(tmp_path).get_or_make("fit", "k", make)
    (tmp_path / "fit").rename(tmp_path / "inversion")
    Cache(tmp_path).get_or_make("inversion", "k", make)
    assert make.calls == 2


def test_a_file_in_the_folders_place_costs_time_only_and_is_reported_once(tmp_path, caplog):
    make, place = Counter(), tmp_path / "cache"
    place.write_text("not a folder")
    for key in "ab":
        assert Cache(place).get_or_make("fit", key, make)["x"].shape == (3, 2)
    assert make.calls == 2
    assert caplog.text.count("is computed and not kept") == 1
    assert place.read_text() == "not a folder"


def test_a_full_disk_costs_time_only_and_leaves_nothing(tmp_path, monkeypatch):
    def no_room(*_):
        raise OSError(28, "No space left on device")

    make = Counter()
    monkeypatch.setattr("os.fsync", no_room)
    assert Cache(tmp_path).get_or_make("fit", "k", make)["x"].shape == (3, 2)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
