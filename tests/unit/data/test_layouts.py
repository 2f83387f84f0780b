"""Readers of published layouts, each on a tiny folder made here."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from latentbench.data.afhq import AFHQ
from latentbench.data.celeba_hq import PARTS, CelebAHQ
from latentbench.data.coco import COCO
from latentbench.data.ffhq import FFHQ
from latentbench.data.hub import Hub
from latentbench.data.lsun import LSUN
from latentbench.data.pie_bench import PIEBench, decode_mask
from latentbench.data.table import SHARES
from latentbench.errors import BadInput

FITTING, HELD_OUT = {"generator", "judge"}, {"calibration", "test"}


def picture(path, size=(20, 20), colour=(10, 20, 30)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)
    return path


def where(data) -> dict[str, str]:
    """Return the split of each image."""
    return {n: s for s in SHARES for n in (data.ids(s, range(data.size(s))))}


def everything(data):
    """Return all images as batches by name."""
    return {n: data.batch(s, [k]) for s in SHARES for k in range(data.size(s))
            for n in data.ids(s, [k])}  # fmt: skip


# ---------------------------------------------------------------- one folder per layout


@pytest.fixture
def celeba(tmp_path):
    for k in range(4):
        picture(tmp_path / "CelebA-HQ-img" / f"{k}.jpg", (64, 64))
    lines = ["4", "Bald Smiling", "0.jpg  -1  1", "1.jpg  1 -1", "2.jpg -1 -1", "3.jpg  1  1"]
    (tmp_path / "CelebAMask-HQ-attribute-anno.txt").write_text("\n".join(lines))
    hair = np.zeros((512, 512), np.uint8)
    hair[:256] = 255
    path = tmp_path / "CelebAMask-HQ-mask-anno" / "0" / "00002_hair.png"
    path.parent.mkdir(parents=True)
    Image.fromarray(hair).save(path)
    return tmp_path


def test_celeba_hq_gives_attributes_and_masks(celeba):
    data = CelebAHQ(path=str(celeba), size=8)
    assert data.factor_names == ("Bald", "Smiling")
    assert data.gives == {"labels", "part_masks"}
    found = everything(data)
    assert {n: b.factors.tolist()[0] for n, b in found.items()} == {
        "CelebA-HQ-img/0.jpg": [0, 1], "CelebA-HQ-img/1.jpg": [1, 0],
        "CelebA-HQ-img/2.jpg": [0, 0], "CelebA-HQ-img/3.jpg": [1, 1],
    }  # fmt: skip
    masks = found["CelebA-HQ-img/2.jpg"].masks
    assert set(masks) == set(PARTS)
    assert masks["hair"][0].tolist() == [[1.0] * 8] * 4 + [[0.0] * 8] * 4
    assert not masks["hat"].any()
    assert not found["CelebA-HQ-img/0.jpg"].masks["hair"].any()


def test_celeba_hq_without_table_or_image_says_so(celeba):
    (celeba / "CelebA-HQ-img" / "3.jpg").unlink()
    with pytest.raises(
        BadInput, match=r"1 of 4 names of files .*\n  CelebA-HQ-img/3\.jpg: no such file"
    ):
        CelebAHQ(path=str(celeba))
    (celeba / "CelebAMask-HQ-attribute-anno.txt").write_text("1\nBald\n0.jpg 7\n")
    with pytest.raises(BadInput, match=r"line 3 \(0\.jpg\): not 1 values of -1 or 1"):
        CelebAHQ(path=str(celeba))
    with pytest.raises(BadInput, match=r"no file .*attribute-anno"):
        CelebAHQ(path=str(celeba / "CelebA-HQ-img"))


def test_ffhq_keeps_its_authors_split(tmp_path):
    numbers = [*range(59_990, 60_010)]
    for k in numbers:
        picture(tmp_path / f"{k // 1000 * 1000:05d}" / f"{k:05d}.png")
    for name, split in where(FFHQ(path=str(tmp_path))).items():
        assert split in (FITTING if int(name[6:11]) < 60_000 else HELD_OUT)
    picture(tmp_path / "cover.png")
    with pytest.raises(BadInput, match=r"not named by a number of their own.*\n  cover\.png"):
        FFHQ(path=str(tmp_path))


def test_afhq_has_domains_as_factors_or_one_alone(tmp_path):
    for side in ("train", "val"):
        for domain in ("cat", "dog", "wild"):
            for k in range(3):
                picture(tmp_path / side / domain / f"{domain}{k}.png")
    data = AFHQ(path=str(tmp_path), size=8)
    assert data.factor_names == ("cat", "dog", "wild")
    for name, batch in everything(data).items():
        assert batch.factors.tolist() == [[float(d in name) for d in data.factor_names]]
        assert where(data)[name] in (FITTING if name.startswith("train") else HELD_OUT)
    cats = AFHQ(path=str(tmp_path), domain="cat")
    assert len(where(cats)) == 6
    assert all("/cat/" in name for name in where(cats))
    assert cats.gives == frozenset()
    with pytest.raises(BadInput, match="give the folder that holds train/"):
        AFHQ(path=str(tmp_path / "train" / "cat"))


def test_lsun_reads_an_export_and_explains_the_packed_form(tmp_path):
    for k in range(6):
        picture(tmp_path / "train" / "a" / "b" / f"{k}.webp")
        picture(tmp_path / "val" / f"{k}.webp")
    for name, split in where(LSUN(path=str(tmp_path))).items():
        assert split in (FITTING if name.startswith("train") else HELD_OUT)
    alone = LSUN(path=str(tmp_path / "train"))
    assert len(where(alone)) == 6
    (tmp_path / "church_outdoor_train_lmdb").mkdir()
    (tmp_path / "church_outdoor_train_lmdb" / "data.mdb").write_bytes(b"")
    with pytest.raises(BadInput, match=r"data\.py export"):
        LSUN(path=str(tmp_path))


@pytest.fixture
def coco(tmp_path):
    for side in ("train", "val"):
        names = [f"{k:012d}.jpg" for k in range(3)]
        for name in names:
            picture(tmp_path / f"{side}2017" / name)
        content = {
            "images": [{"id": 10 + k, "file_name": name} for k, name in enumerate(names)],
            "annotations": [
                {"id": 9 - j, "image_id": 10 + k, "caption": f" {side} photo {k},\n take {9 - j}. "}
                for j in range(2)
                for k in range(3)
            ],
        }
        path = tmp_path / "annotations" / f"captions_{side}2017.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(content))
    return tmp_path


def test_coco_takes_the_first_caption(coco):
    data = COCO(path=str(coco), size=8)
    assert data.gives == {"prompts"}
    for name, batch in everything(data).items():
        side, number = name[: name.index("2017")], int(name[-5])
        assert batch.prompts == (f"{side} photo {number}, take 8.",)
        assert where(data)[name] in (FITTING if side == "train" else HELD_OUT)


def test_coco_without_annotations_or_folders_says_so(coco):
    (coco / "annotations" / "captions_val2017.json").unlink()
    with pytest.raises(BadInput, match=r"no file .*captions_val2017\.json"):
        COCO(path=str(coco))
    with pytest.raises(BadInput, match="neither train2014 nor val2014"):
        COCO(path=str(coco), year=2014)


# ---------------------------------------------------------------- PIE-Bench


@pytest.fixture
def pie(tmp_path):
    root = tmp_path / "PIE-Bench_v1"
    mapping = {}
    for key, kind, runs in (("111", "1", [512 * 100 + 10, 50]), ("000", "0", [0, 512 * 256])):
        name = f"{kind}_x/{key}.jpg"
        picture(root / "annotation_images" / name, (512, 512))
        mapping[key] = {
            "image_path": name,
            "original_prompt": "a [round] cake",
            "editing_prompt": f"a [square] cake {key}",
            "editing_instruction": "make it square",
            "editing_type_id": kind,
            "blended_word": "cake cake",
            "mask": runs,
        }
    (root / "mapping_file.json").write_text(json.dumps(mapping))
    return root


def change(pie, key, **values):
    path = pie / "mapping_file.json"
    mapping = json.loads(path.read_text())
    mapping[key] |= values
    path.write_text(json.dumps(mapping))


def test_pie_bench_gives_prompt_pairs_and_masks(pie):
    data = PIEBench(path=str(pie.parent), size=512)
    assert (data.size("test"), data.size("generator")) == (2, 0)
    assert data.gives == {"prompts", "part_masks", "edits"}
    batch, edit = data.batch("test", [0, 1]), data.edit("test", [0, 1])
    assert batch.ids == ("0_x/000.jpg", "1_x/111.jpg")
    assert batch.prompts == edit.source_prompts == ("a round cake",) * 2
    assert edit.target_prompts == ("a square cake 000", "a square cake 111")
    assert data.edit_kinds == ("random", "change_object")
    assert data.of_kind("test", "change_object") == [1] and edit.name == "random"
    assert torch.equal(batch.masks["edit"], edit.masks)
    assert edit.masks[0, :256].all() and not edit.masks[0, 256:-1, 1:-1].any()
    assert edit.masks[1, 1:-1, 1:-1].sum() == 50 and edit.masks[1, 100, 10:60].all()
    small = PIEBench(path=str(pie), types=[0], size=64)
    assert small.batch("test", [0]).masks["edit"].mean() == pytest.approx(0.5, abs=0.05)


def slow_mask(runs):
    flat = np.zeros(512 * 512)
    for start, length in zip(runs[::2], runs[1::2], strict=True):
        flat[start : start + length] = 1
    mask = flat.reshape(512, 512)
    mask[0] = mask[-1] = mask[:, 0] = mask[:, -1] = 1
    return mask


def test_masks_are_decoded_as_the_definition_says():
    random = np.random.default_rng(0)
    for _ in range(5):  # runs overlap, and some go past the end
        starts, lengths = random.integers(0, 512 * 512, 40), random.integers(0, 9000, 40)
        runs = np.stack([starts, lengths], 1).flatten().tolist()
        assert np.array_equal(decode_mask(runs), slow_mask(runs))


def test_pie_bench_names_all_faults_at_once(pie):
    change(pie, "000", mask=[3], editing_type_id="12")
    change(pie, "111", original_prompt="a [cake", image_path="1_x/none.jpg", mask=[512 * 512, 1])
    with pytest.raises(BadInput, match="5 of the edits") as caught:
        PIEBench(path=str(pie))
    for words in (
        "000: mask has 1 numbers",
        "000: editing_type_id is '12'",
        "111: no image",
        "111: original_prompt has brackets",
        "111: mask has a run that starts",
    ):
        assert words in str(caught.value)
    picture(pie / "annotation_images" / "0_x" / "000.jpg", (256, 512))
    change(pie, "000", mask=[], editing_type_id="0")
    with pytest.raises(BadInput, match=r"000\.jpg is 256 x 512, not 512 x 512"):
        PIEBench(path=str(pie))


def test_pie_bench_leaves_out_edits_that_ask_for_nothing(pie, caplog):
    change(pie, "000", editing_prompt="a round [cake]")
    assert PIEBench(path=str(pie)).size("test") == 1
    assert "prompts are equal are left out: 000" in caplog.text
    with pytest.raises(BadInput, match="no edit of the types change_style"):
        PIEBench(path=str(pie), types=[9])
    with pytest.raises(BadInput, match=r"no mapping_file\.json"):
        PIEBench(path=str(pie / "annotation_images"))


def test_pie_benchs_fingerprint_follows_prompts_and_masks(pie):
    prints = [PIEBench(path=str(pie)).fingerprint()]
    for values in ({"editing_prompt": "a pie"}, {"mask": [4, 4]}):
        change(pie, "000", **values)
        prints.append(PIEBench(path=str(pie)).fingerprint())
    assert len(set(prints)) == 3


# ---------------------------------------------------------------- hub


def shard(path, colours, **columns):
    path.parent.mkdir(parents=True, exist_ok=True)
    cells = []
    for colour in colours:
        picture(path.parent / "one.png", colour=(colour,) * 3)
        cells.append({"bytes": (path.parent / "one.png").read_bytes(), "path": "x.png"})
    (path.parent / "one.png").unlink()
    frame = pd.DataFrame({"image": cells, "text": [f"shade {c}" for c in colours], **columns})
    frame.to_parquet(path, row_group_size=2)


def test_hub_reads_parquet_shards(tmp_path):
    shard(tmp_path / "data" / "train-00000-of-00002.parquet", [0, 51, 102], old=[0.0, 0.5, 1.0])
    shard(tmp_path / "data" / "test-00000-of-00001.parquet", [153, 204], old=[0.2, 0.4])
    data = Hub(path=str(tmp_path), prompt="text", factors=["old"], size=4)
    found = everything(data)
    assert len(found) == 5
    for name, batch in found.items():
        shade = float(batch.prompts[0].split()[1])
        assert torch.allclose(batch.images, torch.full((1, 3, 4, 4), shade / 127.5 - 1))
        assert where(data)[name] in (FITTING if "train" in name else HELD_OUT)
    old = {b.prompts[0]: float(b.factors) for b in found.values()}
    assert old["shade 51"] == 0.5
    with pytest.raises(BadInput, match="no column 'caption'; its columns: image, text, old"):
        Hub(path=str(tmp_path), prompt="caption")


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_hub_reads_image_folders_with_metadata(tmp_path, suffix):
    for side in ("train", "validation"):
        for k in range(3):
            picture(tmp_path / side / f"{k}.png")
        rows = [{"file_name": f"{k}.png", "text": f"{side} {k}"} for k in range(3)]
        path = tmp_path / side / f"metadata.{suffix}"
        if suffix == "csv":
            pd.DataFrame(rows).to_csv(path, index=False)
        else:
            path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = Hub(path=str(tmp_path), prompt="text", size=4)
    assert {n: b.prompts[0] for n, b in everything(data).items()} == {
        f"{side}/{k}.png": f"{side} {k}" for side in ("train", "validation") for k in range(3)
    }
    picture(tmp_path / "train" / "9.png")
    with pytest.raises(BadInput, match=r"train/9\.png: no metadata file names it"):
        Hub(path=str(tmp_path), prompt="text")


def test_hub_without_network_names_the_command(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(BadInput, match="hf download --repo-type dataset nobody/nothing"):
        Hub(path="nobody/nothing")


# ---------------------------------------------------------------- what all readers share


def broken(layout, root):
    """Make a folder of a layout with a truncated and a corrupt image; return their names."""
    if layout is Hub:
        shard(root / "train.parquet", [1, 2, 3])
        frame = pd.read_parquet(root / "train.parquet")
        frame.at[0, "image"] = frame.at[0, "image"] | {"bytes": frame.at[0, "image"]["bytes"][:60]}
        frame.at[2, "image"] = {"bytes": b"no image", "path": "x.png"}
        frame.to_parquet(root / "train.parquet")
        return "train.parquet#000000", "train.parquet#000002"
    folder = {AFHQ: "train/cat/", COCO: "val2017/", CelebAHQ: "CelebA-HQ-img/", LSUN: "train/",
              FFHQ: "", PIEBench: "annotation_images/"}[layout]  # fmt: skip
    names = [f"{folder}{k}.jpg" for k in range(3)]
    noise = np.random.default_rng(0).integers(0, 255, (512, 512, 3), np.uint8)
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noise).save(root / name)
    (root / names[0]).write_bytes((root / names[0]).read_bytes()[:3000])
    (root / names[2]).write_text("no image")
    if layout is COCO:
        (root / "annotations").mkdir()
        images = [{"id": k, "file_name": f"{k}.jpg"} for k in range(3)]
        notes = [{"id": k, "image_id": k, "caption": "x"} for k in range(3)]
        content = json.dumps({"images": images, "annotations": notes})
        (root / "annotations" / "captions_val2017.json").write_text(content)
    if layout is CelebAHQ:
        rows = "3\nBald\n0.jpg 1\n1.jpg -1\n2.jpg 1\n"
        (root / "CelebAMask-HQ-attribute-anno.txt").write_text(rows)
    if layout is PIEBench:
        entry = {"original_prompt": "a", "editing_prompt": "b", "editing_type_id": "0", "mask": []}
        content = {str(k): entry | {"image_path": f"{k}.jpg"} for k in range(3)}
        (root / "mapping_file.json").write_text(json.dumps(content))
        return "0.jpg", "2.jpg"
    return names[0], names[2]


@pytest.mark.parametrize("layout", [AFHQ, COCO, CelebAHQ, FFHQ, Hub, LSUN, PIEBench])
def test_truncated_and_corrupt_images_are_named_before_any_work(tmp_path, layout):
    first, last = broken(layout, tmp_path)
    with pytest.raises(BadInput, match=r"2 of 3 images .* cannot be read") as caught:
        layout(path=str(tmp_path))
    assert first in str(caught.value) and last in str(caught.value)


def test_limit_keeps_the_first_of_each_split_and_reads_no_other(tmp_path):
    for k in range(40):
        picture(tmp_path / f"{k:05d}.png")
    whole, part = FFHQ(path=str(tmp_path)), FFHQ(path=str(tmp_path), limit=2)
    for split in SHARES:
        assert part.ids(split, range(part.size(split))) == tuple(whole._of(split)[:2])
    last = whole._of("generator")[-1]
    (tmp_path / last).write_text("no image")
    assert FFHQ(path=str(tmp_path), limit=2).fingerprint() == part.fingerprint()
    with pytest.raises(BadInput, match="cannot be read"):
        FFHQ(path=str(tmp_path))
