"""From an image file's bytes to what a person sees: 8-bit RGB, upright, on white."""

import importlib
import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from PIL import ExifTags, Image, ImageCms, ImageFile, UnidentifiedImageError

from latentbench.errors import BadInput

for _name in ("Avif", "Bmp", "Gif", "Jpeg2K", "Jpeg", "Mpo", "Png", "Ppm", "Tiff", "WebP"):
    importlib.import_module(f"PIL.{_name}ImagePlugin")  # Image.init() would load forty more

T = TypeVar("T")
FORMATS = (
    "AVIF", "BMP", "DIB", "GIF", "HEIF", "JPEG", "JPEG2000", "MPO", "PNG", "PPM", "TIFF", "WEBP",
)  # fmt: skip
BACKGROUND = "white"  # what transparent pixels are laid on
MOST_PIXELS = 2**30 // 12  # Pillow's own limit for images of unknown origin
TURNED = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}  # what undoes each EXIF orientation
BITS_PER_SAMPLE, PHOTOMETRIC, WHITE_IS_ZERO = 258, 262, 0  # tags of TIFF, and a value
DARK = 1 / 16  # share of a 16-bit range; 12-bit cameras use no more
FEW_BITS = {"L;2": 85, "L;4": 17}  # factors by which Pillow spreads such greys over 0..255


@dataclass(frozen=True)
class Seen:
    """A decoded image.

    Args:
        image: mode "RGB", upright.
        notes: what of the file was left out, in words, such as further frames.
    """

    image: Image.Image
    notes: tuple[str, ...] = ()


def readable_formats() -> list[str]:
    """Return the formats that can be decoded; HEIF is one where a plug-in for Pillow reads it."""
    return [name for name in FORMATS if name in Image.OPEN]


def readable_endings() -> frozenset[str]:
    """Return the lower-case endings of files that can be decoded."""
    formats = readable_formats()
    return frozenset(end for end, name in Image.EXTENSION.items() if name in formats)


def decode(data: bytes) -> Seen:
    """Return what a person sees of an image file.

    The first frame, turned as EXIF says; colours of an embedded ICC profile in sRGB; transparent
    pixels laid on white; 16-bit greys scaled to 8 bits. Kinds whose white is not known (floats,
    32-bit integers) are refused.

    Args:
        data: the encoded bytes; the format is read from them, whatever the file is called.

    Raises:
        BadInput: it cannot be decoded to the end, or not to what a person sees; says why, without
            the file's name.
    """
    return _guarded(data, lambda image: Seen(*_upright(image, *_as_seen(image))))


def decode_mask(data: bytes) -> Image.Image:
    """Return a mask file as greys ("L") from 0, outside, to 255, inside.

    Raises:
        BadInput: it cannot be decoded, or is neither black nor anywhere as bright as half white.
    """
    grey = decode(data).image.convert("L")
    brightest = int(np.asarray(grey).max())
    if 0 < brightest <= 127:
        raise BadInput(f"its brightest value is {brightest} of 255; the inside must be white")
    return grey


def header(data: bytes) -> tuple[int, int]:
    """Return an image file's (width, height) in pixels without decoding it.

    Raises:
        BadInput: it is not an image that can be read.
    """
    return _guarded(data, lambda image: image.size)


def _guarded(data: bytes, read: Callable[[Image.Image], T]) -> T:
    """Open a file and read it; whatever goes wrong becomes a BadInput with the reason."""
    ImageFile.LOAD_TRUNCATED_IMAGES = False  # packages that switch it on would have us fill in grey
    try:
        with Image.open(io.BytesIO(data), formats=readable_formats()) as image:
            if image.width * image.height > MOST_PIXELS:
                size = f"{image.width} x {image.height} pixels"
                raise BadInput(f"it has {size}, more than {MOST_PIXELS}; make it smaller")
            return read(image)
    except BadInput:
        raise
    except UnidentifiedImageError as error:
        raise BadInput(_unidentified(data)) from error
    except Exception as error:  # parsers of formats raise whatever they trip over
        what = " ".join(str(error).split())[:200]
        raise BadInput(
            f"{type(error).__name__}: {what}" if what else type(error).__name__
        ) from error


def _unidentified(data: bytes) -> str:
    if not data:
        return "the file is empty"
    if data.startswith(b"version https://git-lfs"):
        return "it is a Git LFS pointer; fetch the file itself: git lfs pull"
    return f"it is not an image of the formats {', '.join(readable_formats())}"


# ---------------------------------------------------------------- what a person sees


def _as_seen(image: Image.Image) -> tuple[Image.Image, list[str]]:
    """Return an open image's first frame as RGB, and notes."""
    notes, tiles = _frames(image), getattr(image, "tile", ())
    raw = str(tiles[0].args) if tiles else ""
    if raw.startswith("RGB;16") and "transparency" in image.info:
        raise BadInput("it has 16-bit colours of which one is transparent; save it with alpha")
    image.load()
    if image.mode in ("La", "RGBa"):
        image = image.convert({"La": "LA", "RGBa": "RGBA"}[image.mode])
    alpha = _alpha(image, FEW_BITS.get(raw, 1))
    colours, further = _colours(image)
    if alpha is not None:
        colours.putalpha(alpha)
        ground = Image.new("RGBA", colours.size, BACKGROUND)
        colours = Image.alpha_composite(ground, colours).convert("RGB")
    return colours, notes + further


def _frames(image: Image.Image) -> list[str]:
    """Return a note where there are further frames; those of MPO are views of one photo."""
    count = 1 if image.format == "MPO" else getattr(image, "n_frames", 1)
    image.seek(0)
    return ["of several frames the first is used"] if count > 1 else []


def _alpha(image: Image.Image, unit: int) -> Image.Image | None:
    """Return how opaque each pixel is, "L", or None where all are.

    Args:
        image: loaded.
        unit: what a transparent grey of the header is multiplied by to be one of the image.
    """
    if not image.has_transparency_data:
        return None
    if image.mode in ("LA", "PA", "RGBA"):
        return image.getchannel("A")
    if image.mode == "P":
        return image.convert("RGBA").getchannel("A")
    pixels, key = np.asarray(image), image.info["transparency"]
    if image.mode == "RGB":
        clear = (pixels == np.asarray(key)).all(-1)
    elif image.mode == "1":
        clear = pixels == bool(key)
    else:
        clear = pixels == key * unit
    return Image.fromarray(np.where(clear, 0, 255).astype(np.uint8))


def _colours(image: Image.Image) -> tuple[Image.Image, list[str]]:
    """Return a loaded image's colours in sRGB, whatever their opacity, and notes."""
    (plain, notes), profile = _plain(image), image.info.get("icc_profile")
    if plain.mode == "LAB":
        return _transformed(plain, ImageCms.createProfile("LAB")), notes
    if not profile:
        return plain.convert("RGB"), notes
    try:
        return _transformed(plain, ImageCms.ImageCmsProfile(io.BytesIO(profile))), notes
    except (OSError, ImageCms.PyCMSError):  # viewers do without it as well
        left_out = "an ICC profile that does not fit the image is left out"
        return plain.convert("RGB"), [*notes, left_out]


def _plain(image: Image.Image) -> tuple[Image.Image, list[str]]:
    """Return an image in a mode of 8 bits a band, without alpha or palette, and notes."""
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM")):
        return _eight_bits(image)
    if image.mode in ("I", "F"):
        kind = {"I": "32-bit integers", "F": "floats"}[image.mode]
        raise BadInput(f"its pixels are {kind}, whose white is not known; save 8 or 16 bits")
    if image.mode in ("P", "PA"):
        return image.convert("RGBA").convert("RGB"), []
    if image.mode in ("1", "LA"):
        return image.convert("L"), []
    foreign = image.mode in ("RGBA", "RGBX", "HSV", "YCbCr")
    return (image.convert("RGB") if foreign else image), []


def _eight_bits(image: Image.Image) -> tuple[Image.Image, list[str]]:
    """Return 16-bit greys in 8 bits, with a note where next to nothing of their range is used."""
    tags = getattr(image, "tag_v2", {}) if image.format == "TIFF" else {}
    white = 2 ** int(tags.get(BITS_PER_SAMPLE, (16,))[0]) - 1
    share = (np.asarray(image).astype(np.float64) / white).clip(0, 1)
    if tags.get(PHOTOMETRIC) == WHITE_IS_ZERO:
        share = 1 - share
    dark = 0 < share.max() < DARK
    notes = [f"16-bit greys that use less than 1/{1 / DARK:.0f} of their range are dark"]
    return Image.fromarray(np.rint(255 * share).astype(np.uint8)), notes if dark else []


def _transformed(image: Image.Image, profile: object) -> Image.Image:
    """Return colours of a profile in sRGB."""
    srgb = ImageCms.createProfile("sRGB")
    done = ImageCms.profileToProfile(image, profile, srgb, outputMode="RGB")  # pyright: ignore
    assert done is not None
    return done


def _upright(
    opened: Image.Image, colours: Image.Image, notes: list[str]
) -> tuple[Image.Image, tuple[str, ...]]:
    """Return the colours turned as EXIF says."""
    try:
        turn = TURNED.get(opened.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # an EXIF block is as free in its faults as a format; viewers leave it out
        return colours, (*notes, "an EXIF block that cannot be read is left out")
    return (colours if turn is None else colours.transpose(turn)), tuple(notes)
