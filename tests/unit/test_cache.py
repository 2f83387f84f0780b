import torch

from latentbench.cache import Cache, content_hash


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


def test_the_hash_tells_shape_dtype_and_boundaries_apart():
    x = torch.zeros(4)
    hashes = [
        content_hash(x),
        content_hash(x.reshape(2, 2)),
        content_hash(x.int()),
        content_hash(x, x),
        content_hash("ab"),
        content_hash("a", "b"),
        content_hash(b"ab"),
        content_hash(b"a", b"b"),
        content_hash(1, 2),
        content_hash(12),
    ]
    assert len(set(hashes)) == len(hashes)
    assert content_hash({"a": 1, "b": 2}) == content_hash({"b": 2, "a": 1})


def test_two_entries_that_were_swapped_are_made_again(tmp_path, caplog):
    cache = Cache(tmp_path)
    for key in "ab":
        cache.get_or_make("fit", key, lambda key=key: {"x": torch.tensor([ord(key)])})
    a, b = (tmp_path / "fit" / key / f"{key}.sealed" for key in "ab")
    bodies = a.read_bytes(), b.read_bytes()
    a.write_bytes(bodies[1]), b.write_bytes(bodies[0])
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
