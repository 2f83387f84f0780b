"""What a person sees of an image file, for every mode that Pillow knows."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms, PngImagePlugin

from latentbench.data.decoding import decode, decode_mask, header
from latentbench.errors import BadInput

SIDE = 64
RAMP = np.linspace(0, 255, SIDE).round().astype(np.uint8)[None].repeat(8, 0)
KINDS = ("PNG", "TIFF", "JPEG", "GIF", "WEBP", "AVIF", "BMP", "JPEG2000")
CORNERS = np.array([[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [128, 128, 128]]], np.uint8)


def encoded(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def seen(data: bytes) -> np.ndarray:
    image = decode(data).image
    assert image.mode == "RGB"
    return np.asarray(image).astype(int)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, bits: int, colour: int, row: bytes, further: bytes = b"") -> bytes:
    """Return a PNG of one row, written by hand: Pillow writes no 2-bit greys or 16-bit colours."""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, 1, bits, colour, 0, 0, 0))
    body = chunk(b"IDAT", zlib.compress(b"\0" + row)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + head + further + body


# ---------------------------------------------------------------- modes


@pytest.mark.parametrize("mode", sorted(set(Image.MODES) - {"I;16N", "La"}))  # none writes these
def test_every_mode_that_a_format_holds_is_seen_or_refused(mode):
    """A ramp, as each format holds it in this mode: what is decoded is the ramp, or a reason."""
    files = {kind: data for kind in KINDS if (data := _file(mode, kind))}
    assert files
    for kind, data in files.items():
        if mode in ("I", "F") and kind == "TIFF":
            with pytest.raises(BadInput, match="white is not known"):
                decode(data)
            continue
        wanted = (
            np.asarray(Image.fromarray(RAMP).convert("1").convert("L")) if mode == "1" else RAMP
        )
        apart = np.abs(seen(data) - wanted[..., None].astype(int))
        assert apart.mean() <= {"WEBP": 5, "JPEG": 5, "GIF": 5, "AVIF": 5}.get(kind, 1), kind


def _file(mode: str, kind: str) -> bytes | None:
    """Return the ramp in a file, or None where the format does not hold the mode."""
    if mode.startswith("I;16") and kind in ("GIF", "WEBP", "AVIF"):
        return None  # Pillow cuts 16 bits off when it writes them
    try:
        return encoded(_ramp(mode), kind, **({"quality": 95} if kind in ("JPEG", "WEBP") else {}))
    except (OSError, ValueError, KeyError):
        return None


def _ramp(mode: str) -> Image.Image:
    grey = Image.fromarray(RAMP)
    if mode.startswith("I;16"):
        order = ">u2" if mode == "I;16B" else "<u2"
        return Image.frombytes(
            mode, grey.size, (RAMP.astype(np.uint16) * 257).astype(order).tobytes()
        )
    if mode == "LAB":
        lab = ImageCms.createProfile("LAB")
        srgb = ImageCms.createProfile("sRGB")
        found = ImageCms.profileToProfile(grey.convert("RGB"), srgb, lab, outputMode="LAB")
        assert found is not None
        return found
    if mode in ("La", "PA", "RGBa"):
        return grey.convert({"La": "LA", "PA": "P", "RGBa": "RGBA"}[mode]).convert(mode)
    if mode in ("1", "L", "P", "I", "F", "LA", "RGB", "RGBA", "RGBX", "CMYK"):
        return grey.convert(mode)
    return grey.convert("RGB").convert(mode)


def test_colours_of_lab_come_back():
    lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
    pale = CORNERS // 2 + 64  # 8 bits are few for strong colours
    image = ImageCms.profileToProfile(Image.fromarray(pale), srgb, lab, outputMode="LAB")
    assert np.abs(seen(encoded(image, "TIFF")) - pale).max() <= 3


@pytest.mark.parametrize("kind", ["TIFF", "JPEG"])
def test_colours_of_cmyk_come_back(kind):
    large = np.kron(CORNERS, np.ones((16, 16, 1), np.uint8))
    data = encoded(Image.fromarray(large).convert("CMYK"), kind)
    assert np.abs(seen(data) - large)[4:-4:24, 4:-4:24].max() <= 4


def test_greys_whose_zero_is_white_are_turned_round():
    inverted = Image.fromarray(65535 - RAMP.astype(np.uint16) * 257)
    assert np.abs(seen(encoded(inverted, "TIFF", tiffinfo={262: 0})) - RAMP[..., None]).max() == 0
    assert seen(encoded(inverted, "TIFF"))[0, 0, 0] == 255


def test_16_bits_of_which_few_are_used_are_told():
    twelve = Image.fromarray(RAMP.astype(np.uint16) * 15)
    assert "less than 1/16" in decode(encoded(twelve)).notes[0]
    assert not decode(encoded(Image.fromarray(RAMP.astype(np.uint16) * 257))).notes


# ---------------------------------------------------------------- transparency


@pytest.mark.parametrize(
    ("bits", "row", "key", "greys"),
    [
        (1, b"\x55", 1, [0, 255, 0, 255]),
        (2, b"\x1b", 1, [0, 255, 170, 255]),
        (4, b"\x01\x23", 2, [0, 17, 255, 51]),
        (8, b"\x00\x01\x02\x03", 2, [0, 1, 255, 3]),
        (16, struct.pack(">4H", 0, 257 * 9, 1000, 1001), 1000, [0, 9, 255, 4]),
    ],
)
def test_a_transparent_grey_is_one_of_the_files_own_greys(bits, row, key, greys):
    data = png(4, bits, 0, row, chunk(b"tRNS", struct.pack(">H", key)))
    assert seen(data)[0, :, 0].tolist() == greys


def test_a_transparent_colour_is_laid_on_white():
    data = png(2, 8, 2, bytes([1, 2, 3, 1, 2, 4]), chunk(b"tRNS", struct.pack(">3H", 1, 2, 3)))
    assert seen(data)[0].tolist() == [[255, 255, 255], [1, 2, 4]]
    deep = struct.pack(">6H", 10, 20, 30, 9, 9, 9), chunk(b"tRNS", struct.pack(">3H", 10, 20, 30))
    with pytest.raises(BadInput, match="16-bit colours of which one is transparent"):
        decode(png(2, 16, 2, *deep))


def test_half_transparent_is_half_white():
    image = Image.new("RGBA", (3, 3), (0, 0, 0, 128))
    assert seen(encoded(image))[0, 0].tolist() == [127] * 3


def test_premultiplied_greys_are_divided_by_their_alpha():
    image = Image.new("LA", (2, 2), (60, 128))
    straight, premultiplied = (struct.pack("<HHIHH", 338, 3, 1, kind, 0) for kind in (2, 1))
    data = encoded(image, "TIFF")
    assert straight in data
    assert seen(data.replace(straight, premultiplied))[0, 0, 0] == pytest.approx(60 + 127, abs=2)
    assert seen(data)[0, 0, 0] == pytest.approx(60 * 128 / 255 + 127, abs=2)


# ---------------------------------------------------------------- profiles, orientation, frames


def matrix_profile(name: str, columns: list[list[float]], gamma: float = 2.2) -> bytes:
    """Return an ICC profile, version 2, of three primaries (XYZ under D50) and one gamma."""

    def fixed(values: list[float]) -> bytes:
        return b"XYZ \0\0\0\0" + b"".join(struct.pack(">i", round(v * 65536)) for v in values)

    curve = b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256)) + b"\0\0"
    text = name.encode() + b"\0"
    described = b"desc\0\0\0\0" + struct.pack(">I", len(text)) + text + b"\0" * 78
    tags = {b"desc": described, b"wtpt": fixed([0.9642, 1.0, 0.8249])}
    tags |= dict(zip((b"rXYZ", b"gXYZ", b"bXYZ"), map(fixed, columns), strict=True))
    tags |= dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve)
    table, body, start = b"", b"", 128 + 4 + 12 * len(tags)
    for tag, data in tags.items():
        table += tag + struct.pack(">II", start + len(body), len(data))
        body += data + b"\0" * (-len(data) % 4)
    size = start + len(body)
    head = struct.pack(">I4sI4s4s4s", size, b"\0\0\0\0", 0x02400000, b"mntr", b"RGB ", b"XYZ ")
    head += struct.pack(">6H", 2026, 1, 1, 0, 0, 0) + b"acsp" + b"\0" * 28
    head += struct.pack(">3i", 63190, 65536, 54061)
    return head.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + body


P3 = [[0.5151, 0.2412, -0.0011], [0.2920, 0.6922, 0.0419], [0.1571, 0.0666, 0.7841]]


def test_colours_of_a_profile_are_seen_in_srgb():
    """In a wider space the same numbers are a stronger red."""
    image = Image.new("RGB", (4, 4), (200, 100, 100))
    profile = matrix_profile("wide", P3)
    found = seen(encoded(image, icc_profile=profile))[0, 0]
    assert found[0] > 205 and found[1] < 95
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert seen(encoded(image, icc_profile=srgb))[0, 0].tolist() == [200, 100, 100]
    image.putalpha(0)
    assert seen(encoded(image, icc_profile=profile))[0, 0].tolist() == [255] * 3


@pytest.mark.parametrize("profile", [b"broken", matrix_profile("colours", P3)])
def test_a_profile_that_does_not_fit_is_left_out_with_a_word(profile):
    found = decode(encoded(Image.fromarray(RAMP), icc_profile=profile))  # greys
    assert found.notes == ("an ICC profile that does not fit the image is left out",)
    assert np.array_equal(np.asarray(found.image)[..., 0], RAMP)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_is_undone(kind, orientation):
    upright = np.zeros((16, 32), np.uint8)
    upright[:8, :8] = 255  # a white corner, top left
    turned = {
        1: upright, 2: upright[:, ::-1], 3: upright[::-1, ::-1], 4: upright[::-1], 5: upright.T,
        6: np.rot90(upright), 7: upright[::-1, ::-1].T, 8: np.rot90(upright, -1),
    }[orientation]  # fmt: skip
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = Image.fromarray(np.ascontiguousarray(turned)).convert("RGB")
    options = {"tiffinfo": {274: orientation}} if kind == "TIFF" else {"exif": exif}
    found = seen(encoded(image, kind, **options))
    assert found.shape == (16, 32, 3)
    assert found[2, 2, 0] > 240 and found[12, 28, 0] < 15


@pytest.mark.parametrize(
    "exif", [b"Exif\0\0MM\0*\0\0\0\x08\xff\xff", b"Exif\0\0garbage", b"\0" * 9]
)
def test_an_exif_block_that_is_broken_does_not_hide_the_photo(exif):
    data = encoded(Image.fromarray(RAMP).convert("RGB"), "JPEG", quality=95, exif=exif)
    assert np.abs(seen(data) - RAMP[..., None]).max() < 6


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF"])
def test_of_several_frames_the_first_is_seen_and_told(kind):
    first, second = Image.new("RGB", (9, 9), "black"), Image.new("RGB", (9, 9), "white")
    data = encoded(first, kind, save_all=True, append_images=[second])
    assert seen(data).max() < 10
    assert decode(data).notes == ("of several frames the first is used",)


# ---------------------------------------------------------------- sizes, masks, damage


@pytest.mark.parametrize("size", [(1, 1), (1, 3000), (3000, 1)])
def test_thin_images_are_images(size):
    assert seen(encoded(Image.new("RGB", size))).shape == (size[1], size[0], 3)


def test_an_image_with_too_many_pixels_is_refused_by_its_header():
    data = png(10**8, 1, 0, b"\0" * 100)
    for read in (decode, header):
        with pytest.raises(BadInput, match="pixels"):
            read(data)


def test_a_text_of_a_png_that_is_too_long_is_told():
    info = PngImagePlugin.PngInfo()
    info.add_text("parameters", "a" * 2_000_000, zip=True)
    with pytest.raises(BadInput, match="too large"):
        decode(encoded(Image.new("RGB", (4, 4)), pnginfo=info))


def test_files_are_decoded_to_their_end_whatever_others_have_switched_on(monkeypatch):
    monkeypatch.setattr("PIL.ImageFile.LOAD_TRUNCATED_IMAGES", True)
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    for kind in ("PNG", "JPEG", "WEBP", "TIFF", "GIF", "AVIF"):
        data = encoded(Image.fromarray(noise), kind)
        with pytest.raises(BadInput):
            decode(data[: len(data) // 2])


def test_formats_that_run_programs_or_hold_more_than_pictures_are_not_opened():
    with pytest.raises(BadInput, match="not an image of the formats"):
        decode(encoded(Image.new("RGB", (4, 4)), "EPS"))


def test_a_mask_is_black_and_white():
    mask = np.zeros((8, 8), np.uint8)
    assert np.asarray(decode_mask(encoded(Image.fromarray(mask)))).max() == 0
    mask[:4] = 255
    assert np.asarray(decode_mask(encoded(Image.fromarray(mask).convert("1"))))[0, 0] == 255
    with pytest.raises(BadInput, match="its brightest value is 1 of 255"):
        decode_mask(encoded(Image.fromarray(mask // 255)))
