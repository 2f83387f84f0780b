"""Whatever is done to the bytes of a file: what was written, or an error of ours that names it.

Files under a seal give back what was written or nothing. Files of users have no seal: a change may
make another file of them that is right as well, but never an error of another kind.
"""

import io
import itertools
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import save

from latentbench import records, store, weights
from latentbench.benchmark import Work
from latentbench.cache import Cache
from latentbench.cells.working_folder import Finished, Partial
from latentbench.data.coco import COCO
from latentbench.data.decoding import decode, decode_mask
from latentbench.data.folder import Folder
from latentbench.data.hub import Hub
from latentbench.data.pie_bench import PIEBench
from latentbench.errors import BadInput, LatentbenchError
from latentbench.records import Record, ScoreEntry, Status
from latentbench.types import Samples

CHECKS = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
QUICK = settings(deadline=None, max_examples=6, suppress_health_check=CHECKS, database=None)
LONG = settings(QUICK, max_examples=1500)
ODD: list[Any] = [
    None, True, -1, 0, 1.5, 2**70, 1e300, "", " ", "\ud800", "../x", "/etc/passwd", "a\0b", [], {},
    [None], {"a": []}, "x" * 5000, [[[[]]]], "NaN", float("nan"), float("inf"),
]  # fmt: skip
_tick = itertools.count(1)


def rewrite(path: Path, data: bytes) -> None:
    """Write a file with a time of change of its own: caches must see that it is another."""
    path.write_bytes(data)
    os.utime(path, ns=(0, next(_tick) * 10**9))


# ---------------------------------------------------------------- what is done to bytes


@st.composite
def damaged(draw: st.DrawFn, raw: bytes) -> bytes:
    """Return bytes with one to three changes."""
    for _ in range(draw(st.integers(1, 3))):
        a, b = sorted(draw(st.tuples(*[st.integers(0, len(raw))] * 2)))
        bit = 1 << draw(st.integers(0, 7))
        changes: list[Callable[[], bytes]] = [
            lambda a=a, bit=bit, r=raw: r[:a] + bytes(x ^ bit for x in r[a : a + 1]) + r[a + 1 :],
            lambda a=a, r=raw: r[:a],
            lambda a=a, b=b, r=raw: r[:a] + r[b:],
            lambda a=a, b=b, r=raw: r[:b] + r[a:b] + r[b:],
            lambda a=a, b=b, r=raw: r[b:] + r[a:b] + r[:a],
            lambda a=a, b=b, r=raw: r[:a] + bytes(b - a) + r[b:],
            lambda a=a, r=raw: r[:a] + draw(st.binary(min_size=1, max_size=6)) + r[a:],
        ]
        raw = draw(st.sampled_from(changes))()
    return raw


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the paths of all values inside a JSON value."""
    inner = dict(enumerate(value)) if isinstance(value, list) else value
    within = inner.items() if isinstance(inner, dict) else ()
    return [path, *(p for key, one in within for p in places(one, (*path, key)))]


@st.composite
def odd_json(draw: st.DrawFn, raw: bytes) -> bytes:
    """Return JSON with a value replaced, left out, moved or doubled."""
    value = json.loads(raw)
    *path, last = draw(st.sampled_from(places(value)[1:]))
    holder = value
    for key in path:
        holder = holder[key]
    change = draw(st.sampled_from(["other", "other", "gone", "moved"]))
    if change == "gone":
        del holder[last]
    elif change == "moved" and isinstance(holder, dict):
        holder[draw(st.sampled_from(["", "id", "\ud800", "x"]))] = holder.pop(last)
    else:
        holder[last] = draw(st.sampled_from(ODD))
    return json.dumps(value).encode()


def changed(raw: bytes) -> st.SearchStrategy[bytes]:
    """Return changes of bytes, and of values where the bytes are JSON."""
    try:
        nested = isinstance(json.loads(raw), dict | list)
    except ValueError:
        nested = False
    return damaged(raw) | odd_json(raw) if nested else damaged(raw)


# ---------------------------------------------------------------- files under a seal


class Sealed(NamedTuple):
    """Something kept on disk: `write` it below a folder, `read` it back; None where it is lost."""

    write: Callable[[Path], object]
    read: Callable[[Path], Any]


NAMES = {"benchmark": "b", "method": "m", "model": "n", "dataset": "d"}
WORK = Work("hat+", (0, 1), 2)
ROWS = pd.DataFrame({"id": ["a", "b"], "group": "hat+", "output": [0, 1], records.HEADLINE: True})
SAMPLES = Samples(ids=("a", "b"), outputs=torch.rand(2, 1, 3, 4, 4), groups=("hat+",) * 2)


def write_record(folder: Path) -> None:
    buffer = io.BytesIO()
    ROWS.to_parquet(buffer)
    digest = store.write(folder / "0123" / records.SAMPLES, buffer.getvalue())
    scores = {"psnr": ScoreEntry(1 / 3, 64, 0.1, 0.5, "a note", "dB", True, (0.25, 0.5))}
    record = Record(
        "0123", Status.OK, NAMES, 1, {"method": {"steps": 20}}, scores=scores,
        files={records.SAMPLES: digest}, setup={"strengths": {"hat+": 0.5}},
    )  # fmt: skip
    records.write(record, folder / "0123")


def read_record(folder: Path) -> Any:
    table = records.read_samples(folder / "0123")
    record = records.read(folder / "0123")
    return None if record is None or table is None else (record, table.to_csv())


def read_batch(folder: Path) -> Any:
    found = Partial(folder, "cell").get(WORK)
    if found is None or found.samples is None:
        return None
    samples = found.samples
    return found.indices, found.cost, samples.texts(), samples.tensors()["outputs"].tolist()


def write_batch(folder: Path) -> None:
    Partial(folder, "cell").put(WORK, Finished(SAMPLES, (0, 1), cost={"forward": 3}))


def write_entry(folder: Path) -> None:
    Cache(folder).get_or_make("fit", "key", lambda: {"x": torch.arange(6.0)})


def read_entry(folder: Path) -> Any:
    found = Cache(folder).get_or_make("fit", "key", lambda: {"x": torch.tensor([-1.0])})["x"]
    return None if len(found) == 1 else found.tolist()


def read_setup(folder: Path) -> Any:
    found = Partial(folder, "cell").once("setup", lambda: {"made": "again"})
    return None if found == {"made": "again"} else found


SEALED = {
    "record": Sealed(write_record, read_record),
    "batch": Sealed(write_batch, read_batch),
    "entry": Sealed(write_entry, read_entry),
    "setup": Sealed(
        lambda folder: Partial(folder, "cell").once("setup", lambda: {"a": [0.5, 1]}), read_setup
    ),
}


def lost_or_whole(name: str, folder: Path, data: st.DataObject) -> None:
    kept = SEALED[name]
    kept.write(folder)
    right = kept.read(folder)
    assert right is not None
    file = data.draw(st.sampled_from(sorted(p for p in folder.rglob("*") if p.is_file())))
    whole = file.read_bytes()
    rewrite(file, data.draw(changed(whole)))
    assert kept.read(folder) in (None, right)
    rewrite(file, whole)  # what was made in its place may be another value


@pytest.mark.parametrize("name", SEALED)
@QUICK
@given(st.data())
def test_what_is_sealed_comes_back_or_is_lost(name, tmp_path, data):
    lost_or_whole(name, tmp_path, data)


@pytest.mark.slow
@pytest.mark.parametrize("name", SEALED)
@LONG
@given(st.data())
def test_what_is_sealed_comes_back_or_is_lost_for_long(name, tmp_path, data):
    lost_or_whole(name, tmp_path, data)


# ---------------------------------------------------------------- files of users


def encoded(form: str = "PNG", mode: str = "RGB", side: int = 12) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (side, side, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(buffer, form)
    return buffer.getvalue()


def pictures(folder: Path, names: str = "ab") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / f"{name}.png").write_bytes(encoded())


LABELS = pd.DataFrame(
    {"file": ["a.png", "b.png"], "prompt": ["a hat", "é"], "split": "test", "smile": [0.25, 1.0]}
)


def folder_with(ending: str, table: bytes) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        pictures(folder)
        (folder / f"table.{ending}").write_bytes(table)
        return folder / f"table.{ending}"

    return make


def hub_with(ending: str, table: pd.DataFrame) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        pictures(folder)
        path = folder / f"metadata.{ending}"
        path.write_bytes(as_bytes(table, ending))
        return path

    return make


def as_bytes(table: pd.DataFrame, ending: str) -> bytes:
    if ending == "parquet":
        buffer = io.BytesIO()
        table.to_parquet(buffer)
        return buffer.getvalue()
    if ending == "csv":
        return table.to_csv(index=False).encode()
    return "\n".join(json.dumps(row) for row in table.to_dict("records")).encode()


def shard(folder: Path) -> Path:
    images = [{"bytes": encoded(), "path": None} for _ in range(2)]
    path = folder / "train-00000-of-00001.parquet"
    path.write_bytes(as_bytes(pd.DataFrame({"image": images, "text": ["a", "b"]}), "parquet"))
    return path


def image_in(form: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        pictures(folder)
        (folder / "a.png").write_bytes(encoded(form))
        return folder / "a.png"

    return make


def pie_bench(folder: Path) -> Path:
    (folder / "annotation_images").mkdir()
    (folder / "annotation_images" / "a.png").write_bytes(encoded(side=512))
    edit = {"image_path": "a.png", "original_prompt": "a [cat]", "editing_prompt": "a [dog]",
            "editing_type_id": "1", "mask": [0, 5, 600, 7]}  # fmt: skip
    (folder / "mapping_file.json").write_text(json.dumps({"0001": edit}))
    return folder / "mapping_file.json"


def coco(folder: Path) -> Path:
    pictures(folder / "val2017")
    (folder / "annotations").mkdir()
    images = [{"id": k, "file_name": f"{name}.png"} for k, name in enumerate("ab")]
    notes = [{"id": k + 5, "image_id": k, "caption": "a hat"} for k in range(2)]
    path = folder / "annotations" / "captions_val2017.json"
    path.write_text(json.dumps({"images": images, "annotations": notes}))
    return path


class Layout(NamedTuple):
    """A data set on disk: `make` it and return the file to damage, `load` it."""

    make: Callable[[Path], Path]
    load: Callable[[Path], Any]


def folder(path: Path) -> Folder:
    return Folder(path=str(path), size=8)


def hub(path: Path) -> Hub:
    return Hub(path=str(path), prompt="prompt", factors=("smile",), size=8)


RENAMED = LABELS.rename(columns={"file": "file_name"})
LAYOUTS = {
    **{f"folder {e}": Layout(folder_with(e, as_bytes(LABELS, e)), folder)
       for e in ("csv", "jsonl", "parquet")},
    **{f"hub {e}": Layout(hub_with(e, RENAMED), hub) for e in ("csv", "jsonl", "parquet")},
    "shard": Layout(shard, lambda path: Hub(path=str(path), prompt="text", size=8)),
    "pie_bench": Layout(pie_bench, lambda path: PIEBench(path=str(path), size=8)),
    "coco": Layout(coco, lambda path: COCO(path=str(path), size=8)),
    **{f"image {form}": Layout(image_in(form), folder) for form in ("PNG", "JPEG", "TIFF")},
}  # fmt: skip


def used_or_named(name: str, place: Path, data: st.DataObject) -> None:
    layout = LAYOUTS[name]
    place = place / name.replace(" ", "_")
    if not place.exists():
        place.mkdir()
        layout.make(place)
        layout.load(place)  # as it was made it can be used
        for file in place.rglob("*"):
            if file.is_file():
                file.with_name(f".{file.name}").write_bytes(file.read_bytes())
    file = layout_file(name, place)
    whole = file.with_name(f".{file.name}").read_bytes()
    rewrite(file, data.draw(changed(whole)))
    try:
        found = layout.load(place)
        first = [found.batch(s, range(found.size(s))) for s in found.splits if found.size(s)]
        again = [found.batch(s, range(found.size(s))) for s in found.splits if found.size(s)]
    except LatentbenchError as error:
        assert file.name in str(error) or str(place) in str(error), error
    else:
        for one, two in zip(first, again, strict=True):
            assert one.ids == two.ids and torch.equal(one.images, two.images)
            assert bool(one.images.isfinite().all()) and float(one.images.abs().max()) <= 1
            assert one.factors is None or bool(((one.factors >= 0) & (one.factors <= 1)).all())
            assert all(isinstance(text, str) and text.strip() for text in one.prompts or ())


def layout_file(name: str, place: Path) -> Path:
    """Return the file of a layout that is damaged."""
    word, _, ending = name.partition(" ")
    pattern = {"folder": f"table.{ending}", "hub": f"metadata.{ending}", "shard": "train-*.parquet",
               "pie_bench": "mapping_file.json", "coco": "annotations/captions*.json",
               "image": "a.png"}[word]  # fmt: skip
    return next(place.glob(pattern))


@pytest.mark.parametrize("name", LAYOUTS)
@settings(QUICK, max_examples=3)
@given(st.data())
def test_a_users_file_is_used_or_named(name, tmp_path, data):
    used_or_named(name, tmp_path, data)


@pytest.mark.slow
@pytest.mark.parametrize("name", LAYOUTS)
@settings(LONG, max_examples=600)
@given(st.data())
def test_a_users_file_is_used_or_named_for_long(name, tmp_path, data):
    used_or_named(name, tmp_path, data)


FORMATS = {"PNG": "RGB", "JPEG": "RGB", "WEBP": "RGB", "GIF": "P", "BMP": "RGB", "TIFF": "RGB"}
FORMATS |= {"PPM": "RGB", "JPEG2000": "RGB"}


def decoded_or_refused(form: str, data: st.DataObject) -> None:
    raw = data.draw(damaged(encoded(form, FORMATS[form])))
    for read in (lambda raw: decode(raw).image, decode_mask):
        try:
            image = read(raw)
        except BadInput:
            continue
        assert image.mode in ("RGB", "L")
        assert read(raw).tobytes() == image.tobytes()


@pytest.mark.parametrize("form", FORMATS)
@QUICK
@given(st.data())
def test_an_image_is_decoded_or_refused(form, data):
    decoded_or_refused(form, data)


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMATS)
@LONG
@given(st.data())
def test_an_image_is_decoded_or_refused_for_long(form, data):
    decoded_or_refused(form, data)


# ---------------------------------------------------------------- cards of embedded weights


def verified_or_named(root: Path, monkeypatch: pytest.MonkeyPatch, data: st.DataObject) -> None:
    place = root / "tiny"
    place.mkdir(exist_ok=True)
    (place / "model.safetensors").write_bytes(save({"x": torch.ones(3)}))
    card = {"name": "tiny", "sha256": weights.hashes(place), "figures": {"psnr_db": 30.0}}
    monkeypatch.setattr(weights, "WEIGHTS_ROOT", root)
    name = data.draw(st.sampled_from([weights.CARD, "model.safetensors"]))
    (place / weights.CARD).write_text(json.dumps(card))
    whole = (place / name).read_bytes()
    rewrite(place / name, data.draw(changed(whole)))
    try:
        weights.verify("tiny")
    except LatentbenchError as error:
        assert str(place) in str(error)
    else:
        assert weights.hashes(place) == card["sha256"] == weights.card("tiny")["sha256"]
        assert len(weights.digest("tiny")) == 64


@QUICK
@given(data=st.data())
def test_a_card_is_kept_to_or_named(tmp_path, monkeypatch, data):
    verified_or_named(tmp_path, monkeypatch, data)


@pytest.mark.slow
@LONG
@given(data=st.data())
def test_a_card_is_kept_to_or_named_for_long(tmp_path, monkeypatch, data):
    verified_or_named(tmp_path, monkeypatch, data)
