import io
from dataclasses import replace

import numpy as np
import pandas as pd
import torch
from PIL import Image

from latentbench import records
from latentbench.reports import pictures
from latentbench.reports.pictures import Pictures
from latentbench.types import Samples


def samples(group: str, count: int, seed: int) -> Samples:
    images = torch.rand(count, 2, 3, 8, 8, generator=torch.Generator().manual_seed(seed)) * 2 - 1
    return Samples(
        tuple(f"{group}{k}" for k in range(count)),
        images,
        (group,) * count,
        sources=-images[:, 0],
        truths=images.flip(1),
        strengths=torch.tensor([[0.5, 1.0]]).expand(count, 2),
        main=1,
    )


def kept(folder):
    return pd.read_parquet(folder / records.IMAGES)


def test_groups_share_the_rows_and_the_first_are_kept(tmp_path):
    keeper = Pictures(4, ["a", "b"])
    for chunk in (samples("a", 3, 0), samples("b", 3, 1)):
        keeper.update(chunk)
    keeper.save(tmp_path)
    assert kept(tmp_path)["id"].tolist() == ["a0", "a1", "b0", "b1"]


def test_kept_images_are_lossless(tmp_path):
    keeper, chunk = Pictures(1, ["a"]), samples("a", 1, 0)
    keeper.update(chunk)
    keeper.save(tmp_path)
    image = np.asarray(Image.open(io.BytesIO(kept(tmp_path)["outputs"][0][1])))
    assert np.array_equal(image, pictures.pixels(chunk.outputs[0, 1]))


def test_many_groups_stand_in_columns(tmp_path):
    names = [f"g{k:02d}" for k in range(19)]
    keeper = Pictures(16, names)
    for k, name in enumerate(names):
        keeper.update(samples(name, 2, k))
    keeper.save(tmp_path)
    grid = np.asarray(Image.open(tmp_path / records.GRID))
    line = 2 * pictures.MARGIN + pictures.SMALLEST
    assert grid.shape == (7 * line, 3 * 4 * pictures.SMALLEST, 3)
    assert (grid[5 * line :, 8 * pictures.SMALLEST :] == 255).all()  # 19 = 7 + 7 + 5


def test_a_picture_too_large_for_its_format_is_thinned():
    wide = np.zeros((40, pictures.MOST + 1, 3), np.uint8)
    assert pictures.thinned(wide).shape == (20, 8192, 3)
    assert pictures.thinned(wide[:, :-1]).shape == (40, pictures.MOST, 3)


def test_a_path_stands_between_the_images_that_it_joins(tmp_path):
    keeper, chunk = Pictures(1, ["a"]), samples("a", 1, 0)
    keeper.update(replace(chunk, ends=chunk.outputs, sources=None, truths=None))
    keeper.save(tmp_path)
    grid, times = np.asarray(Image.open(tmp_path / records.GRID)), pictures.SMALLEST // 8
    parts = [chunk.outputs[0, k] for k in (0, 0, 1, 1)]
    small = grid[2 * pictures.MARGIN :: times, ::times]
    assert np.array_equal(small, np.concatenate([pictures.pixels(p) for p in parts], 1))


def test_a_mask_is_shown_as_the_region_of_the_source(tmp_path):
    keeper, chunk = Pictures(1, ["a"]), samples("a", 1, 0)
    masks = torch.zeros(1, 8, 8)
    masks[0, 2:4, 1:5] = 1
    keeper.update(replace(chunk, masks=masks))
    keeper.save(tmp_path)
    region = np.asarray(Image.open(io.BytesIO(kept(tmp_path)["region"][0])))
    inside = masks[0].bool().numpy()
    assert np.array_equal(region[inside], pictures.pixels(chunk.sources[0])[inside])
    assert not region[~inside].any()


def test_pixels_cover_the_whole_range():
    ends = torch.tensor([-1.0, 0.0, 1.0]).reshape(3, 1, 1)
    assert pictures.pixels(ends).reshape(-1).tolist() == [0, 128, 255]


def test_the_grid_has_source_outputs_and_the_headline_truth(tmp_path):
    keeper, chunk = Pictures(1, ["a"]), samples("a", 1, 0)
    keeper.update(chunk)
    keeper.save(tmp_path)
    grid = np.asarray(Image.open(tmp_path / records.GRID))
    times = pictures.SMALLEST // 8
    assert grid.shape == (2 * pictures.MARGIN + pictures.SMALLEST, 4 * pictures.SMALLEST, 3)
    small = grid[2 * pictures.MARGIN :: times, ::times]
    parts = [chunk.sources[0], *chunk.outputs[0], chunk.truths[0, 1]]
    assert np.array_equal(small, np.concatenate([pictures.pixels(p) for p in parts], 1))
    assert (grid[: 2 * pictures.MARGIN] < 128).any()  # words


def test_nothing_kept_writes_nothing(tmp_path):
    Pictures(0, ["a"]).save(tmp_path)
    assert list(tmp_path.iterdir()) == []
