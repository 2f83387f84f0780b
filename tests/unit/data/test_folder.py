import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from latentbench.data.folder import Folder
from latentbench.data.table import SHARES
from latentbench.errors import BadInput


@pytest.fixture
def photos(tmp_path):
    """Eight images of other sizes and forms, one in a sub-folder."""
    (tmp_path / "sub").mkdir()
    for k in range(8):
        pixels = np.full((20 + k, 30, 3), 30 * k, np.uint8)
        name = f"sub/{k}.png" if k == 7 else f"{k}.png"
        Image.fromarray(pixels).save(tmp_path / name)
    return tmp_path


def files(photos):
    return sorted(p.relative_to(photos).as_posix() for p in photos.rglob("*.png"))


def table(photos, **columns):
    frame = pd.DataFrame({"file": files(photos), **columns})
    frame.to_csv(photos / "labels.csv", index=False)
    return frame


def test_all_images_are_dealt_to_the_splits(photos):
    data = Folder(path=str(photos), size=16)
    sizes = {split: data.size(split) for split in data.splits}
    assert sum(sizes.values()) == 8
    assert set(SHARES) == set(data.splits)
    assert data.gives == frozenset()


def test_a_new_image_moves_no_other(photos):
    before = {s: set(Folder(path=str(photos))._of(s)) for s in SHARES}
    Image.new("RGB", (20, 20)).save(photos / "new.png")
    after = {s: set(Folder(path=str(photos))._of(s)) - {"new.png"} for s in SHARES}
    assert after == before


def test_images_are_cropped_in_the_centre_and_scaled(tmp_path):
    pixels = np.zeros((10, 30, 3), np.uint8)
    pixels[:, 10:20] = 255
    Image.fromarray(pixels).save(tmp_path / "a.png")
    pd.DataFrame({"file": ["a.png"], "split": ["test"]}).to_csv(tmp_path / "t.csv")
    batch = Folder(path=str(tmp_path), size=10).batch("test", [0])
    assert batch.ids == ("a.png",)
    assert torch.equal(batch.images, torch.ones(1, 3, 10, 10))


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "1"])
def test_every_colour_mode_becomes_rgb(tmp_path, mode):
    Image.new(mode, (12, 12)).save(tmp_path / "a.png")
    pd.DataFrame({"file": ["a.png"], "split": ["test"]}).to_csv(tmp_path / "t.csv")
    assert Folder(path=str(tmp_path), size=8).batch("test", [0]).images.shape == (1, 3, 8, 8)


def test_prompts_factors_and_splits_come_from_the_table(photos):
    table(photos, prompt=[f"photo {k}" for k in range(8)], smile=np.linspace(0, 1, 8),
          glasses=[True, False] * 4, split=["test"] * 6 + ["generator"] * 2)  # fmt: skip
    data = Folder(path=str(photos), size=8)
    assert data.gives == {"labels", "prompts"}
    assert data.factor_names == ("smile", "glasses")
    batch = data.batch("test", [5, 0])
    assert batch.ids == ("5.png", "0.png")
    assert batch.prompts == ("photo 5", "photo 0")
    torch.testing.assert_close(batch.factors, torch.tensor([[5 / 7, 0.0], [0.0, 1.0]]))
    assert (data.size("test"), data.size("generator"), data.size("judge")) == (6, 2, 0)
    known = Folder(path=str(photos)).describe("test", [5, 0])  # of no size yet: nothing is decoded
    assert (known.ids, known.prompts) == (batch.ids, batch.prompts)
    assert torch.equal(known.factors, batch.factors)


def test_a_parquet_table_reads_the_same(photos):
    frame = table(photos, smile=np.linspace(0, 1, 8), split=["test"] * 8)
    from_csv = Folder(path=str(photos), size=8).batch("test", range(8)).factors
    (photos / "labels.csv").unlink()
    frame.to_parquet(photos / "labels.parquet")
    assert torch.equal(Folder(path=str(photos), size=8).batch("test", range(8)).factors, from_csv)


def test_broken_images_are_named_before_any_work(photos):
    (photos / "3.png").write_bytes((photos / "3.png").read_bytes()[:40])
    (photos / "5.png").write_text("this is no image")
    with pytest.raises(
        BadInput, match=r"2 of 8 images .* cannot be read:\n  3\.png: .*\n  5\.png: "
    ):
        Folder(path=str(photos), size=8)


def test_a_mended_image_is_read_again(photos):
    good = (photos / "3.png").read_bytes()
    (photos / "3.png").write_bytes(b"broken")
    with pytest.raises(BadInput):
        Folder(path=str(photos))
    (photos / "3.png").write_bytes(good)
    assert sum(Folder(path=str(photos)).size(s) for s in SHARES) == 8


def test_the_fingerprint_follows_the_content(photos):
    first = Folder(path=str(photos)).fingerprint()
    assert Folder(path=str(photos), size=99).fingerprint() == first
    Image.new("RGB", (20, 20), "red").save(photos / "0.png")
    second = Folder(path=str(photos)).fingerprint()
    table(photos, smile=[0.5] * 8)
    third = Folder(path=str(photos)).fingerprint()
    assert len({first, second, third}) == 3


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (
            {"smile": [18.0] * 8},
            r"8 of 8 .*\n  labels.csv, line 2 \(0.png\): smile is 18.0, not a number in",
        ),
        (
            {"smile": [0.1] * 7 + [None]},
            r"1 of 8 rows .*\n  .*line 9 \(sub/7.png\): smile is missing",
        ),
        ({"split": ["train"] * 8}, r"\(0.png\): split is 'train'; use one of generator"),
        ({"prompt": ["x"] * 7 + [None]}, r"\(sub/7.png\): prompt is missing"),
    ],
)
def test_a_table_that_cannot_be_used_is_refused_with_the_reason(photos, columns, message):
    table(photos, **columns)
    with pytest.raises(BadInput, match=message):
        Folder(path=str(photos))


def test_a_table_that_does_not_match_the_images_is_refused(photos):
    frame = table(photos)
    frame[:-1].to_csv(photos / "labels.csv", index=False)
    with pytest.raises(BadInput, match=r"sub/7\.png: no row in the table"):
        Folder(path=str(photos))
    pd.concat([frame, pd.DataFrame({"file": ["ghost.png"]})]).to_csv(photos / "labels.csv")
    with pytest.raises(BadInput, match=r"line 10: ghost\.png: no such image"):
        Folder(path=str(photos))
    frame.rename(columns={"file": "name"}).to_csv(photos / "labels.csv")
    with pytest.raises(BadInput, match="no column 'file'"):
        Folder(path=str(photos))


def test_no_folder_no_image_and_too_few_images_say_so(photos, tmp_path):
    with pytest.raises(BadInput, match="is not a folder"):
        Folder(path=str(tmp_path / "nowhere"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadInput, match="no image below"):
        Folder(path=str(tmp_path / "empty"))
    with pytest.raises(BadInput, match="image 100 was asked for"):
        Folder(path=str(photos), size=8).batch("test", [100])
    with pytest.raises(BadInput, match="unknown split 'tset'; did you mean test"):
        Folder(path=str(photos), size=8).size("tset")


# ---------------------------------------------------------------- masks


@pytest.fixture
def masks(photos, tmp_path_factory):
    """A mask for each of the photos: the left third is white."""
    folder = tmp_path_factory.mktemp("masks")
    (folder / "sub").mkdir()
    for name in files(photos):
        with Image.open(photos / name) as image:
            mask = np.zeros(image.size[::-1], np.uint8)
        mask[:, : mask.shape[1] // 3] = 255
        Image.fromarray(mask).save(folder / name)
    return folder


def test_masks_are_read_and_cropped_as_their_images(photos, masks):
    data = Folder(path=str(photos), masks=str(masks), size=16)
    batch = data.batch("generator", range(data.size("generator")))
    assert "part_masks" in data.gives and data.parts == ("edit",)
    found = batch.masks["edit"]
    assert found.shape == (len(batch), 16, 16) and set(found.unique().tolist()) == {0.0, 1.0}
    assert bool((found[..., 0] == 1).all()) and bool((found[..., 8:] == 0).all())


def test_the_fingerprint_follows_the_masks(photos, masks):
    plain = Folder(path=str(photos)).fingerprint()
    before = Folder(path=str(photos), masks=str(masks)).fingerprint()
    Image.new("L", (30, 20), 255).save(masks / "0.png")
    after = Folder(path=str(photos), masks=str(masks)).fingerprint()
    assert len({plain, before, after}) == 3


def test_masks_that_cannot_be_used_are_named_before_any_work(photos, masks):
    (masks / "0.png").write_bytes(b"no image")
    Image.new("L", (5, 5), 255).save(masks / "1.png")
    Image.new("L", (30, 22), 40).save(masks / "2.png")
    with pytest.raises(BadInput) as error:
        Folder(path=str(photos), masks=str(masks))
    said = str(error.value)
    assert "3 of 8 masks below" in said and "0.png: " in said
    assert "1.png: (5, 5) pixels, its image has (30, 21)" in said
    assert "2.png: its brightest value is 40 of 255; the inside must be white" in said
    (masks / "3.png").unlink()
    with pytest.raises(BadInput, match=r"3\.png: no such file"):
        Folder(path=str(photos), masks=str(masks))
