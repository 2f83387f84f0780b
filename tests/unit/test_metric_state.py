import torch
from safetensors.torch import load, save

from latentbench.metric_state import PARTS, Seen


def seen(ids, **columns):
    found = Seen()
    found.append(ids, ["all"] * len(ids), **columns)
    return found


def test_rows_of_shards_read_in_their_order_are_those_of_the_whole():
    first = seen(["b", "ü\n"], value=torch.tensor([1.0, 2.0]))
    second = seen(["a"], value=torch.tensor([3.0]))
    for shards in ((first, second), (second, first)):
        merged = Seen()
        for shard in shards:
            merged.merge(load(save(shard.state())))
        order = merged.order()
        assert [merged.ids[k] for k in order] == ["a", "b", "ü\n"]
        assert merged.column("value")[order].tolist() == [3, 1, 2]


def test_sums_add_and_dropped_rows_stay_known_by_name():
    first, second = seen(["a", "b"], value=torch.ones(2)), seen(["b", "c"], value=torch.ones(2))
    for shard in (first, second):
        shard.add("total", shard.column("value").sum())
    first.drop_rows()
    assert len(first) == 0 and first.names() == {"a", "b"} and first.columns() == {}
    first.merge(second.state())
    assert first.sums["total"] == 4
    assert first.names() == {"a", "b", "c"} and first.ids == ["b", "c"]


def test_an_empty_shard_changes_nothing():
    whole = seen(["a"], value=torch.ones(1))
    whole.merge(load(save(Seen().state())))
    assert whole.ids == ["a"] and whole.column("value").tolist() == [1]


def test_many_small_pieces_are_joined_and_say_the_same():
    found, pieces = Seen(), [torch.rand(2, 3) for _ in range(3 * PARTS)]
    for k, piece in enumerate(pieces):
        found.append([f"{k}a", f"{k}b"], ["all", "all"], value=piece)
        assert len(found._columns["value"]) <= PARTS
    assert torch.equal(found.column("value"), torch.cat(pieces))
