"""What was once read wrongly or without a word, each through the data set that a user names."""

import io
import json
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from latentbench.data.coco import COCO
from latentbench.data.ffhq import FFHQ
from latentbench.data.folder import Folder
from latentbench.data.hub import Hub
from latentbench.data.pie_bench import PIEBench
from latentbench.data.table import SHARES
from latentbench.errors import BadInput

SIDE = 64
RAMP = np.linspace(0, 255, SIDE).round().astype(np.uint8)[None].repeat(SIDE, 0)


def picture(path: Path, colour=(10, 20, 30), size=(20, 20)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path, "PNG")
    return path


def everything(data) -> dict[str, torch.Tensor]:
    """Return all images by name, 0 to 255."""
    parts = [data.batch(s, range(data.size(s))) for s in SHARES if data.size(s)]
    return {n: (x + 1) * 127.5 for b in parts for n, x in zip(b.ids, b.images, strict=True)}


def prompts(data) -> dict[str, str]:
    parts = [data.describe(s, range(data.size(s))) for s in SHARES if data.size(s)]
    return {n: text for d in parts for n, text in zip(d.ids, d.prompts, strict=True)}


def alone(folder: Path) -> torch.Tensor:
    """Return the only image of a folder, 0 to 255."""
    (image,) = everything(Folder(path=str(folder), size=SIDE)).values()
    return image


# ---------------------------------------------------------------- 1: what a person sees


@pytest.mark.parametrize("ending", ["png", "tif", "jp2", "pgm"])
def test_a_16_bit_ramp_keeps_its_levels(tmp_path, ending):
    grey = np.linspace(0, 65535, SIDE).round().astype(np.uint16)[None].repeat(SIDE, 0)
    Image.fromarray(grey).save(tmp_path / f"a.{ending}")
    found = alone(tmp_path)
    assert (found - torch.from_numpy(RAMP).float()).abs().max() < 1


@pytest.mark.parametrize("kind", ["RGBA", "LA", "PA", "P bytes", "P int", "RGB key", "L key"])
def test_hidden_colours_do_not_show(tmp_path, kind):
    """Two files that look alike, a square on nothing, with other colours where nothing shows."""
    found = []
    for k, hidden in enumerate((0, 200)):
        folder = tmp_path / str(k)
        folder.mkdir()
        pixels = np.full((SIDE, SIDE), hidden, np.uint8)
        pixels[16:48, 16:48] = 100
        alpha = Image.fromarray(np.where(pixels == 100, 255, 0).astype(np.uint8))
        _save_with_alpha(Image.fromarray(pixels), alpha, hidden, kind, folder)
        found.append(alone(folder))
    assert torch.equal(*found)
    assert found[0][:, 0, 0].tolist() == [255, 255, 255]  # what is not there is white
    assert (found[0][:, 32, 32] - 100).abs().max() < 1.5


def _save_with_alpha(grey: Image.Image, alpha: Image.Image, hidden: int, kind: str, folder: Path):
    image, options = grey, {}
    if kind in ("RGBA", "LA"):
        image = grey.convert(kind)
        image.putalpha(alpha)
    elif kind == "PA":
        image = grey.convert("P").convert("PA")
        image.putalpha(alpha)
    elif kind == "P bytes":
        image = grey.convert("P")
        options["transparency"] = bytes(0 if k == hidden else 255 for k in range(256))
    elif kind == "P int":
        image, options["transparency"] = grey.convert("P"), hidden
    elif kind == "RGB key":
        image, options["transparency"] = grey.convert("RGB"), (hidden,) * 3
    else:
        options["transparency"] = hidden
    image.save(folder / ("a.tif" if kind == "PA" else "a.png"), **options)


@pytest.mark.parametrize("mode", ["I", "F"])
def test_pixels_whose_white_is_unknown_are_refused_by_name(tmp_path, mode):
    Image.fromarray(RAMP).convert(mode).save(tmp_path / "deep.tif")
    with pytest.raises(BadInput, match=r"deep\.tif: its pixels are .*white is not known"):
        Folder(path=str(tmp_path))


def test_photos_stand_upright(tmp_path):
    image = Image.fromarray(RAMP)  # dark left
    exif = Image.Exif()
    exif[0x0112] = 6  # its top is on the right
    image.save(tmp_path / "a.png", exif=exif)
    assert (alone(tmp_path)[0].T - torch.from_numpy(RAMP).float()).abs().max() < 1


# ---------------------------------------------------------------- 2: what counts as an image


def test_hidden_files_and_folders_are_no_images(tmp_path):
    for name in ("a.png", ".ipynb_checkpoints/a-checkpoint.png", "._a.png", "__MACOSX/b.png",
                 "sub/.cache/c.png"):  # fmt: skip
        picture(tmp_path / name)
    (tmp_path / "folder.png").mkdir()
    picture(tmp_path / "folder.png" / "d.png")
    assert set(everything(Folder(path=str(tmp_path), size=8))) == {"a.png", "folder.png/d.png"}


def test_links_out_of_the_folder_are_refused_unless_asked_for(tmp_path):
    inside, outside = tmp_path / "in", tmp_path / "out"
    picture(inside / "a.png")
    for k in range(3):
        picture(outside / f"{k}.png")
    (inside / "sub").symlink_to(outside)
    (inside / "b.png").symlink_to(outside / "0.png")
    with pytest.raises(
        BadInput, match=r"2 of the entries .*\n  b\.png: it is a link.*\n  sub: it is"
    ):
        Folder(path=str(inside))
    data = Folder(path=str(inside), size=8, links=True)
    assert set(everything(data)) == {"a.png", "b.png", "sub/0.png", "sub/1.png", "sub/2.png"}


def test_links_within_the_folder_are_followed_and_loops_refused(tmp_path):
    picture(tmp_path / "all" / "a.png")
    (tmp_path / "some").symlink_to(tmp_path / "all")
    assert set(everything(Folder(path=str(tmp_path), size=8))) == {"all/a.png", "some/a.png"}
    (tmp_path / "all" / "up").symlink_to(tmp_path)
    with pytest.raises(BadInput, match="all/up: it is a link to a folder that it is in"):
        Folder(path=str(tmp_path))


def test_entries_that_only_look_like_images_are_named(tmp_path):
    picture(tmp_path / "a.png")
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere.png")
    os.mkfifo(tmp_path / "pipe.png")
    Path(os.fsdecode(bytes(tmp_path) + b"/caf\xe9.png")).write_bytes(b"x")
    with pytest.raises(BadInput, match="3 of the entries") as caught:
        Folder(path=str(tmp_path))
    for words in ("gone.png: it is a link to nothing", "pipe.png: it is not a file",
                  r"caf\udce9.png: the name is not UTF-8"):  # fmt: skip
        assert words in str(caught.value)


@pytest.mark.parametrize(
    "name", ["b.JPG", "b.jfif", "b.avif", "b.WebP", "b.gif", "b.bmp", "b.TIFF"]
)
def test_every_ending_that_can_be_read_is(tmp_path, name):
    picture(tmp_path / "a.png")
    kind = {"jpg": "JPEG", "jfif": "JPEG", "tiff": "TIFF"}.get(name[2:].lower(), name[2:].upper())
    Image.new("RGB", (9, 9)).save(tmp_path / name, kind)
    assert set(everything(Folder(path=str(tmp_path), size=8))) == {"a.png", name}


def test_images_that_cannot_be_read_are_told(tmp_path, caplog):
    picture(tmp_path / "a.png")
    (tmp_path / "b.HEIC").write_bytes(b"x")
    Folder(path=str(tmp_path))
    assert "left out: b.HEIC" in caplog.text


def test_a_wrong_ending_is_seen_through(tmp_path):
    Image.fromarray(RAMP).save(tmp_path / "a.png", "JPEG")
    assert (alone(tmp_path)[0] - torch.from_numpy(RAMP).float()).abs().max() < 3


# ---------------------------------------------------------------- 3: rows of tables


def hub(root: Path, rows: list, names=("a.png", "b.png")) -> Path:
    for name in names:
        picture(root / name)
    (root / "metadata.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    return root


def test_two_rows_for_an_image_are_refused(tmp_path):
    rows = [{"file_name": n, "text": f"{k}"} for k, n in enumerate(["a.png", "b.png", "./a.png"])]
    words = r"metadata\.jsonl, line 3 \(a\.png\): a second row for the image of .*line 1 \(a\.png\)"
    with pytest.raises(BadInput, match=words):
        Hub(path=str(hub(tmp_path, rows)), prompt="text")


@pytest.mark.parametrize("prompt", [["a", "b"], {"en": "a"}, 7, True, None, "", " ", "\ud800"])
def test_a_prompt_of_another_type_is_refused(tmp_path, prompt):
    rows = [{"file_name": "a.png", "text": "fine"}, {"file_name": "b.png", "text": prompt}]
    with pytest.raises(BadInput, match=r"1 of 2 rows .*\n.*line 2 \(b\.png\): prompt is "):
        Hub(path=str(hub(tmp_path, rows)), prompt="text")


@pytest.mark.parametrize(
    "factor", ["0.5", "high", None, [0.5], -0.1, 1.5, 1e400, float("nan"), {"a": 1}]
)
def test_a_label_that_is_no_number_in_range_is_refused(tmp_path, factor):
    rows = [{"file_name": "a.png", "old": 0.5}, {"file_name": "b.png", "old": factor}]
    with pytest.raises(BadInput, match=r"line 2.*(old is |not a number|is not a number)"):
        Hub(path=str(hub(tmp_path, rows)), factors=["old"])


def test_all_faulty_rows_stand_in_one_message(tmp_path):
    rows = [{"file_name": f"{k}.png", "text": k} for k in range(30)]
    root = hub(tmp_path, rows, [f"{k}.png" for k in range(30)])
    with pytest.raises(BadInput) as caught:
        Hub(path=str(root), prompt="text")
    lines = str(caught.value).splitlines()
    assert lines[0].startswith("30 of 30 rows") and lines[-2] == "  and 10 more"
    assert len(lines) == 23


@pytest.fixture
def pie(tmp_path):
    for k in range(2):
        picture(tmp_path / "annotation_images" / f"{k}.png", size=(512, 512))
    entry = {"original_prompt": "a", "editing_prompt": "b", "editing_type_id": "0", "mask": [0, 9]}
    edits = {str(k): entry | {"image_path": f"{k}.png"} for k in range(2)}

    def write(**values):
        content = {"0": edits["0"], "1": edits["1"] | values}
        (tmp_path / "mapping_file.json").write_text(json.dumps(content))
        return str(tmp_path)

    return write


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"original_prompt": None}, "1: original_prompt is None, not a text"),
        ({"editing_prompt": ["b"]}, r"1: editing_prompt is \['b'\], not a text"),
        ({"editing_prompt": "[]"}, r"1: editing_prompt is '\[\]', not a text"),
        ({"mask": [5, -3]}, "1: mask has a run of negative length"),
        ({"mask": [5.0, 3]}, r"1: mask is \[5.0, 3\], not a list of whole numbers"),
        ({"mask": "5 3"}, "1: mask is '5 3', not a list"),
        ({"mask": [True, 3]}, "1: mask is .*, not a list"),
        ({"mask": None}, "1: mask is None"),
        ({"editing_type_id": True}, "1: editing_type_id is True"),
        ({"image_path": 7}, "1: image_path 7: 7 is not the name of a file"),
        ({"image_path": "./0.png"}, r"1: the image of 0, 0\.png"),
    ],
)
def test_an_edit_of_pie_bench_that_cannot_be_used_is_named(pie, values, words):
    with pytest.raises(BadInput, match=words):
        PIEBench(path=pie(**values))


def test_a_mask_that_runs_past_the_end_is_cut_with_a_word(pie, caplog):
    data = PIEBench(path=pie(mask=[512 * 510, 10**30]), size=512)
    assert "run past the image's end are cut there: 1" in caplog.text
    assert data.edit("test", [1]).masks[0, 510:].all()


@pytest.mark.parametrize("content", ["[]", '{"0": 7}', '{"0": {}, "0": {}}', '{"0": ', "[" * 10**5])
def test_a_mapping_file_that_is_none_is_refused(tmp_path, content):
    (tmp_path / "mapping_file.json").write_text(content)
    with pytest.raises(BadInput, match=r"mapping_file\.json"):
        PIEBench(path=str(tmp_path))


# ---------------------------------------------------------------- 4: text stays text


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_words_of_a_csv_stay_as_they_are_written(tmp_path, separator, mark):
    words = ["None", "NA", "007", "TRUE", "null", "nan", "1e5", "a\u2028b", ' "x"; y, z\t']
    for k in range(len(words)):
        picture(tmp_path / f"{k}.png")
    quoted = ['"{}"'.format(word.replace('"', '""')) for word in words]
    lines = ["file", *(f"{k}.png" for k in range(len(words)))]
    rows = [f"{a}{separator}{b}" for a, b in zip(lines, ["prompt", *quoted], strict=True)]
    (tmp_path / "t.csv").write_bytes(mark + "\r\n".join(rows).encode())
    data = Folder(path=str(tmp_path))
    assert prompts(data) == {f"{k}.png": word for k, word in enumerate(words)}
    assert data.factor_names == ()


def test_numbers_and_truths_of_a_csv_are_factors(tmp_path):
    for k in range(2):
        picture(tmp_path / f"{k}.png")
    (tmp_path / "t.csv").write_text("file,old,hat,name\n0.png, 0.5,TRUE,7\n1.png,1e-1,false,x\n")
    data = Folder(path=str(tmp_path))
    assert data.factor_names == ("old", "hat")
    known = {n: data.describe(s, [k]).factors[0].tolist() for s in SHARES
             for k, n in enumerate(data.ids(s, range(data.size(s))))}  # fmt: skip
    assert known["0.png"] == [0.5, 1.0] and known["1.png"] == pytest.approx([0.1, 0.0])


def test_a_slip_in_a_column_of_numbers_is_named(tmp_path):
    for k in range(3):
        picture(tmp_path / f"{k}.png")
    (tmp_path / "t.csv").write_text('file,old\n0.png,0.5\n1.png,"0,5"\n2.png,inf\n')
    with pytest.raises(BadInput, match="is '0,5', not a number") as caught:
        (tmp_path / "t.csv").write_text('file,old\n0.png,.5\n1.png,"0,5"\n2.png,1\n')
        Folder(path=str(tmp_path))
    assert "t.csv, line 3 (1.png)" in str(caught.value)


def test_parquet_keeps_categories_and_refuses_nulls(tmp_path):
    for k in range(3):
        picture(tmp_path / f"{k}.png")
    frame = pd.DataFrame({"file": [f"{k}.png" for k in range(3)], "prompt": ["x", "y", "x"]})
    frame["prompt"] = frame["prompt"].astype("category")
    frame.to_parquet(tmp_path / "t.parquet")
    assert prompts(Folder(path=str(tmp_path))) == {"0.png": "x", "1.png": "y", "2.png": "x"}
    frame.loc[1, "prompt"] = None
    frame.to_parquet(tmp_path / "t.parquet")
    with pytest.raises(BadInput, match=r"row 1 \(1\.png\): prompt is missing"):
        Folder(path=str(tmp_path))


def test_accents_match_however_they_are_written(tmp_path):
    picture(tmp_path / "cafe\u0301.png")
    (tmp_path / "t.csv").write_text("file,prompt\n./caf\u00e9.png,x\n")
    assert prompts(Folder(path=str(tmp_path))) == {"cafe\u0301.png": "x"}


# ---------------------------------------------------------------- 5: paths


@pytest.mark.parametrize("cls", [Folder, FFHQ, COCO, PIEBench, Hub])
@pytest.mark.parametrize("path", ["", "  ", None, 2024])
def test_an_empty_path_is_refused(cls, path, unchecked):
    with pytest.raises(BadInput, match=r"dataset\.path"):
        cls(path=path)


def test_an_empty_table_is_refused(tmp_path):
    picture(tmp_path / "a.png")
    with pytest.raises(BadInput, match=r"dataset\.table is empty"):
        Folder(path=str(tmp_path), table="")


def test_paths_start_from_the_users_folder(tmp_path, monkeypatch):
    picture(tmp_path / "home" / "photos" / "a.png")
    monkeypatch.setenv("LATENTBENCH_USER_FOLDER", str(tmp_path / "home"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    for path in ("photos", "./photos", "~/photos", "../home/photos"):
        assert Folder(path=path).path == tmp_path / "home" / "photos"
    with pytest.raises(BadInput, match="no-such-user"):
        Folder(path="~no-such-user/photos")


# ---------------------------------------------------------------- 27: names that lead out


@pytest.mark.parametrize("name", ["../outside.png", "/outside.png", "sub/../../outside.png"])
def test_no_table_leads_out_of_its_folder(tmp_path, pie, name):
    outside = picture(tmp_path / "outside.png", size=(512, 512))
    name = str(outside) if name.startswith("/") else name
    words = "the name (is an absolute path|leads out of the folder)"
    root = hub(tmp_path / "hub", [{"file_name": "a.png"}, {"file_name": name}], ["a.png"])
    with pytest.raises(BadInput, match=words):
        Hub(path=str(root))
    with pytest.raises(BadInput, match=words):
        PIEBench(path=pie(image_path=name))
    coco = tmp_path / "coco"
    picture(coco / "val2017" / "a.jpg")
    (coco / "annotations").mkdir()
    content = {"images": [{"id": 1, "file_name": f"../{name}"}],
               "annotations": [{"id": 1, "image_id": 1, "caption": "x"}]}  # fmt: skip
    (coco / "annotations" / "captions_val2017.json").write_text(json.dumps(content))
    with pytest.raises(BadInput, match=r"leads out of the folder|no such file"):
        COCO(path=str(coco))
    picture(tmp_path / "own" / "a.png")
    (tmp_path / "own" / "t.csv").write_text(f"file,prompt\na.png,x\n{name},y\n")
    with pytest.raises(BadInput, match=words):
        Folder(path=str(tmp_path / "own"))


def test_a_table_does_not_lead_out_by_a_link(tmp_path, pie):
    outside = picture(tmp_path / "outside.png", size=(512, 512))
    root = hub(tmp_path / "hub", [{"file_name": "a.png"}, {"file_name": "b.dat"}], ["a.png"])
    (root / "b.dat").symlink_to(outside)
    with pytest.raises(BadInput, match="link out of the folder"):
        Hub(path=str(root))
    path = pie(image_path="link.png")
    (Path(path) / "annotation_images" / "link.png").symlink_to(outside)
    with pytest.raises(BadInput, match=r"1: image_path .*link out of the folder"):
        PIEBench(path=path)
    assert PIEBench(path=path, links=True).size("test") == 2


def test_the_hubs_own_cache_is_a_view_of_its_blobs(tmp_path):
    cache = tmp_path / "datasets--owner--name"
    picture(cache / "blobs" / "1234")
    snapshot = cache / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (snapshot / "a.png").symlink_to("../../blobs/1234")
    assert set(everything(Hub(path=str(snapshot), size=8))) == {"a.png"}


# ---------------------------------------------------------------- 32: files that break parsers


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def long_text() -> bytes:
    """Return a PNG with a compressed text of two million letters."""
    buffer = io.BytesIO()
    Image.new("RGB", (9, 9)).save(buffer, "PNG")
    data, text = buffer.getvalue(), zlib.compress(b"a" * 2_000_000)
    return data[:33] + chunk(b"zTXt", b"Comment\0\0" + text) + data[33:]


def bomb() -> bytes:
    """Return a small file of an image with more pixels than fit in memory."""
    size = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    data = zlib.compress(b"\0" * 1000)
    parts = chunk(b"IHDR", size) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "the file is empty"),
        (b"no image", "it is not an image of the formats"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "it is a Git LFS pointer"),
        (long_text(), "too large"),
        (bomb(), "exceeds limit"),
        (long_text()[:300], r"b\.png: \w+"),
    ],
)
def test_a_file_that_no_decoder_takes_is_named_with_the_reason(tmp_path, data, words):
    picture(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(data)
    with pytest.raises(BadInput, match=rf"1 of 2 images .*\n  b\.png: .*(?:{words})|{words}"):
        Folder(path=str(tmp_path))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b" \n\n", "is empty"),
        ("file,prompt\na.png,x\n".encode("utf-16"), "is UTF-16; save it as UTF-8"),
        ("file,prompt\na.png,x\n".encode("utf-16-le"), "holds zero bytes"),
        (b"file,prompt\na.png,caf\xe9\n", "byte 0xe9 in line 2"),
        (b"file,prompt\na.png\n", "line 2: 1 cells, the header has 2"),
        (b"file,prompt\na.png,x,y\n", "line 2: 3 cells, the header has 2"),
        (b'file,prompt\na.png,"x\n', "line 2: unexpected end of data; is a quote missing"),
        (b"file,prompt,prompt\na.png,x,y\n", "several columns 'prompt'"),
        (b"name,prompt\na.png,x\n", "no column 'file'; its columns: name, prompt"),
        (b"file,prompt\n", "a.png: no row in the table"),
        (b"file,prompt\na.png,\n", r"t\.csv, line 2 \(a\.png\): prompt is missing"),
        (b"file,prompt\na.png,x\na.png,x\n", r"line 3 \(a\.png\): a second row"),
    ],
)
def test_a_csv_that_is_empty_cut_or_coded_otherwise_is_refused(tmp_path, content, words):
    picture(tmp_path / "a.png")
    (tmp_path / "t.csv").write_bytes(content)
    with pytest.raises(BadInput, match=words) as caught:
        Folder(path=str(tmp_path))
    assert "t.csv" in str(caught.value)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('{"file_name": "b.png", "text": "x"', "line 2: "),
        ("[1]", "line 2: not an object, but list"),
        ('{"file_name": "b.png", "text": "x", "text": "y"}', "line 2: key 'text' occurs twice"),
        ("[" * 10**5, "line 2: it is nested too deeply"),
        ('{"text": "x"}', "line 2: None"),
    ],
)
def test_a_line_of_jsonl_that_cannot_be_used_is_named(tmp_path, line, words):
    root = hub(tmp_path, [{"file_name": "a.png", "text": "x"}])
    with (root / "metadata.jsonl").open("a") as file:
        file.write(f"\n{line}\n")
    with pytest.raises(BadInput, match=words):
        Hub(path=str(root), prompt="text")


def test_a_cut_parquet_file_is_refused(tmp_path):
    picture(tmp_path / "a.png")
    pd.DataFrame({"file": ["a.png"]}).to_parquet(tmp_path / "t.parquet")
    data = (tmp_path / "t.parquet").read_bytes()
    for cut in (b"", data[:50], data[:-9]):
        (tmp_path / "t.parquet").write_bytes(cut)
        with pytest.raises(BadInput, match=r"t\.parquet"):
            Folder(path=str(tmp_path))


def test_null_images_of_a_shard_are_named(tmp_path):
    data = picture(tmp_path / "x.png").read_bytes()
    rows = [{"bytes": data, "path": None}, None, {"bytes": None, "path": "x.png"},
            {"bytes": b"", "path": None}]  # fmt: skip
    pd.DataFrame({"image": rows}).to_parquet(tmp_path / "train.parquet")
    (tmp_path / "x.png").unlink()
    with pytest.raises(BadInput, match=r"3 of 4 images .* cannot be read") as caught:
        Hub(path=str(tmp_path))
    for row in (1, 2, 3):
        assert f"train.parquet#00000{row}: the row has no image" in str(caught.value)


def test_of_several_columns_of_images_one_is_named(tmp_path):
    one, two = ({"bytes": picture(tmp_path / "x.png", (v,) * 3).read_bytes()} for v in (0, 255))
    (tmp_path / "x.png").unlink()
    pd.DataFrame({"image": [one], "mask": [two]}).to_parquet(tmp_path / "train.parquet")
    with pytest.raises(BadInput, match=r"several columns of images .* image, mask; name one"):
        Hub(path=str(tmp_path))
    (found,) = everything(Hub(path=str(tmp_path), image="mask", size=8)).values()
    assert found.min() == 255
    with pytest.raises(BadInput, match="no column 'maks'"):
        Hub(path=str(tmp_path), image="maks")


def test_a_file_that_changes_during_a_run_is_refused(tmp_path):
    picture(tmp_path / "a.png")
    data = Folder(path=str(tmp_path), size=8)
    (split,) = [s for s in SHARES if data.size(s)]
    picture(tmp_path / "a.png", (0, 0, 0))
    with pytest.raises(BadInput, match=r"a\.png below .*: it has changed since the run began"):
        data.batch(split, [0])
    (tmp_path / "a.png").unlink()
    with pytest.raises(BadInput, match=r"a\.png below .*: the file cannot be opened"):
        data.batch(split, [0])
