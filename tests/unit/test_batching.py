"""Fixed-size batches."""

import pytest
import torch

from latentbench.batching import even_batches, map_batches, padded_batches, take


def test_last_batch_is_padded_with_its_last_index():
    assert list(padded_batches(5, 2)) == [([0, 1], 2), ([2, 3], 2), ([4, 4], 1)]
    assert list(padded_batches(4, 2)) == [([0, 1], 2), ([2, 3], 2)]
    assert list(padded_batches(0, 2)) == []


@pytest.mark.parametrize("count", [0, 1, 31, 32, 33, 100])
def test_even_batches_hold_each_index_once_with_less_than_one_padded_row_a_batch(count):
    batches = list(even_batches(count, 32))
    assert [i for index, kept in batches for i in index[:kept]] == list(range(count))
    assert len({len(index) for index, _ in batches}) <= 1
    assert len(batches) == -(-count // 32)
    assert sum(len(index) for index, _ in batches) - count < max(len(batches), 1)


def test_map_batches_sees_one_size_and_returns_each_row_once():
    sizes = []

    def double(rows: torch.Tensor) -> torch.Tensor:
        sizes.append(len(rows))
        return rows * 2

    rows = torch.arange(10.0)[:, None]
    assert torch.equal(map_batches(double, rows, 4), rows * 2)
    assert sizes == [4, 4, 4]


def test_a_rows_bytes_do_not_depend_on_how_many_there_are():
    torch.manual_seed(0)
    layer = torch.nn.Sequential(
        torch.nn.Conv2d(3, 16, 3), torch.nn.Flatten(), torch.nn.Linear(576, 7)
    )
    rows = torch.randn(9, 3, 8, 8)
    with torch.no_grad():
        whole = map_batches(layer, rows, 4)
        assert torch.equal(whole[:5], map_batches(layer, rows[:5], 4))
        assert torch.equal(whole.flip(0), map_batches(layer, rows.flip(0), 4))


def test_take():
    assert take(("a", "b", "c"), [2, 0, 2]) == ("c", "a", "c")
    assert take(None, [0, 1]) is None
