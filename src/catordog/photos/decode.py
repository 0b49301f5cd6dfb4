"""Decode the bytes of a file to an upright sRGB image.

Everything that reads photos uses this decoder. A file's format is decided by its content, never by
its name. Whatever the bytes are, the result is an image or a `PhotoError` with the reason.
"""

from __future__ import annotations

import io
import os
import sys
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from PIL import (  # each plugin registers its format; Pillow itself would import all sixty
    AvifImagePlugin,  # noqa: F401
    BmpImagePlugin,  # noqa: F401
    GifImagePlugin,  # noqa: F401
    Image,
    ImageFile,
    JpegImagePlugin,  # noqa: F401
    PngImagePlugin,  # noqa: F401
    TiffImagePlugin,  # noqa: F401
    UnidentifiedImageError,
    WebPImagePlugin,  # noqa: F401
    features,
)

from catordog.errors import CatordogError, PhotoError
from catordog.escaping import printable
from catordog.photos.colour import join_bytes, to_rgb

FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "AVIF", "BMP", "TIFF")
"""The formats that are decoded, as Pillow names them (a phone's MPO is a JPEG). Pillow knows dozens
more; each is more code that hostile bytes can reach."""


@dataclass(frozen=True, slots=True)
class DecodeRules:
    """Which photos are decoded, and which are refused.

    Attributes:
        allow_truncated: decode the readable part of a truncated file.
        max_megapixels: an image of more pixels is refused before they are allocated.

    Raises:
        CatordogError: `max_megapixels` is out of its range.
    """

    allow_truncated: bool = False
    max_megapixels: float = 200

    def __post_init__(self) -> None:
        if not 0 < self.max_megapixels <= 1e6:
            raise CatordogError(
                f"max megapixels {self.max_megapixels:g}: give a number above 0 and at most "
                "1,000,000"
            )

    @property
    def max_pixels(self) -> int:
        """`max_megapixels` in pixels."""
        return int(self.max_megapixels * 1e6)


DEFAULT_RULES = DecodeRules()


@dataclass(frozen=True, slots=True)
class Decoded:
    """A decoded photo, and what its file states.

    Attributes:
        image: RGB and upright.
        format: as Pillow names it: JPEG, PNG, …
        mode: the file's own colour mode: RGB, L, CMYK, P, …
        width, height: as stored, in pixels: before rotation and before decoding near a size.
    """

    image: Image.Image
    format: str
    mode: str
    width: int
    height: int


def decode(
    data: bytes,
    path: str = "photo",
    *,
    near: int | None = None,
    rules: DecodeRules = DEFAULT_RULES,
) -> Image.Image:
    """Decode the bytes of one photo.

    Args:
        data: all bytes of the file.
        path: names the photo in errors.
        near: the side length, in pixels, that the photo will be resized to. A large JPEG is then
            decoded at 1/2, 1/4 or 1/8 of its size, never below twice this length: no visible loss
            in a fraction of the time. None: full size.
        rules: which photos are refused.

    Returns:
        An RGB image: EXIF orientation applied, an embedded colour profile converted to sRGB,
        transparency composited on white, deeper samples scaled to 8 bits (see `colour`).

    Raises:
        PhotoError: the photo can't be decoded, or the rules refuse it.
    """
    return examine(data, path, near=near, rules=rules).image


def examine(
    data: bytes,
    path: str = "photo",
    *,
    near: int | None = None,
    rules: DecodeRules = DEFAULT_RULES,
) -> Decoded:
    """Decode the bytes of one photo, with what its file states; otherwise as `decode`."""
    if not data:
        raise PhotoError(path, "empty file")
    max_pixels = rules.max_pixels
    _raise_pillows_limit(max_pixels)
    try:
        try:
            return _examine(data, path, near, rules)
        except (PhotoError, MemoryError, Image.DecompressionBombError):
            raise
        except Exception:
            # Pillow refuses a PNG for its metadata, which don't matter to the pixels.
            bare = _without_metadata(data)
            if len(bare) == len(data):
                raise
            return _examine(bare, path, near, rules)
    except PhotoError:
        raise
    except Image.DecompressionBombError:
        raise PhotoError(path, _too_large(max_pixels)) from None
    except UnidentifiedImageError:
        raise PhotoError(path, f"not a photo ({_describe(data)})") from None
    except MemoryError:
        raise PhotoError(path, "needs more memory than is available") from None
    # Pillow raises OSError, SyntaxError, ValueError, struct.error, IndexError and others on damaged
    # files; any of them must cost this photo only.
    except Exception as error:
        raise PhotoError(path, _reason(error)) from None


def _examine(data: bytes, path: str, near: int | None, rules: DecodeRules) -> Decoded:
    max_pixels = rules.max_pixels
    with Image.open(io.BytesIO(data), formats=_formats(data)) as image:
        if image.width * image.height > max_pixels:
            size = f"{image.width} × {image.height} pixels is "
            raise PhotoError(path, size + _too_large(max_pixels))
        if image.format in {"JPEG", "MPO"}:
            _refuse_many_scans(data, image, path, max_pixels)
        facts = (image.format or "?", image.mode, image.width, image.height)
        if near is not None and image.format in {"JPEG", "MPO"}:
            image.draft(None, (2 * near, 2 * near))
        _correct_planes(image, path)
        tiles = _low_byte_tiles(image)
        with _pixels_at_once(os.getpid()).taken(image.width * image.height):
            _load(image, rules.allow_truncated)
            if tiles and all(high <= _DIM for _, high in image.getextrema()[:3]):  # type: ignore[misc]
                _add_low_bytes(image, data, path, tiles, rules)
            return Decoded(to_rgb(image), *facts)


class _PixelsAtOnce:
    """How many pixels threads may decode at once. A larger photo is decoded alone.

    Args:
        limit: in pixels; each takes 4 to 8 bytes until it is converted to RGB.
    """

    def __init__(self, limit: int) -> None:
        self._limit = self._free = limit
        self._freed = threading.Condition()

    @contextmanager
    def taken(self, pixels: int) -> Iterator[None]:
        """Wait until so many pixels are free, and take them for the time of a `with` block."""
        pixels = min(pixels, self._limit)
        with self._freed:
            self._freed.wait_for(lambda: self._free >= pixels)
            self._free -= pixels
        try:
            yield
        finally:
            with self._freed:
                self._free += pixels
                self._freed.notify_all()


_MAX_PIXELS_AT_ONCE = 64_000_000
"""Two photos of a large camera, or any number of small ones: half a gigabyte."""


@lru_cache(maxsize=1)
def _pixels_at_once(process: int) -> _PixelsAtOnce:
    """That of this process: in a forked one, the threads that had taken pixels are gone."""
    del process
    return _PixelsAtOnce(_MAX_PIXELS_AT_ONCE)


_MAX_SCANS = 20
"""How many scans a JPEG of the most pixels may have, and a smaller one in proportion. Cameras write
about twelve; a file of some megabytes can hold so many that decoding takes minutes."""


def _refuse_many_scans(data: bytes, image: Image.Image, path: str, max_pixels: int) -> None:
    scans = data.count(b"\xff\xda")  # compressed data never contains this marker
    if scans * image.width * image.height > _MAX_SCANS * max_pixels:
        raise PhotoError(path, f"{scans:,} scans: a decompression bomb")


def _raise_pillows_limit(max_pixels: int) -> None:
    """Pillow has a limit for the whole process, 179 megapixels; raise it to ours."""
    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and limit < max_pixels:
        Image.MAX_IMAGE_PIXELS = max_pixels


def _too_large(max_pixels: int) -> str:
    return f"more than the limit of {max_pixels / 1e6:g} megapixels"


def _formats(data: bytes) -> tuple[str, ...]:
    # Importing the HEIC reader takes time, so only files of its container do.
    return (*FORMATS, "HEIF") if data[4:8] == b"ftyp" and _heif() else FORMATS


def _heif() -> bool:
    """Whether the optional HEIC reader is installed; it is registered with Pillow."""
    if "HEIF" in Image.OPEN:
        return True
    try:
        import pillow_heif
    except ImportError:
        return False
    pillow_heif.register_heif_opener()
    return True


def decoder_versions() -> tuple[str, ...]:
    """What decodes photos here: a cache of decoded photos is valid for these versions only."""
    names = ("pil", "jpg", "libjpeg_turbo", "zlib", "libtiff", "webp", "avif", "littlecms2")
    versions = {name: features.version(name) for name in names}
    versions["heif"] = sys.modules["pillow_heif"].__version__ if _heif() else None
    return (f"rules {_RULES_VERSION}", *(f"{name} {versions[name]}" for name in versions))


_RULES_VERSION = 4
"""Of this file: a change that gives other pixels for some photo raises it."""


def _load(image: ImageFile.ImageFile, allow_truncated: bool) -> None:
    try:
        image.load()
    except OSError:
        if not allow_truncated:
            raise
        # Pillow has decoded what it could. Without tiles it doesn't try again.
        image.tile = []
        if not image.getbbox():
            raise


_PNG = b"\x89PNG\r\n\x1a\n"
_COLOUR_AND_ORIENTATION = frozenset({b"iCCP", b"eXIf"})
_METADATA = _COLOUR_AND_ORIENTATION | {
    b"tEXt", b"zTXt", b"iTXt", b"tIME", b"pHYs", b"gAMA", b"cHRM", b"sRGB", b"cICP", b"mDCV",
    b"cLLI", b"bKGD", b"hIST", b"sPLT", b"sBIT", b"oFFs", b"pCAL", b"sCAL", b"sTER", b"gIFg",
}  # fmt: skip
"""Chunks of a PNG that pixels are decoded without."""


def _without_metadata(data: bytes) -> bytes:
    """A PNG without its metadata, but for an intact profile and EXIF data. Others are unchanged."""
    if not data.startswith(_PNG):
        return data
    kept, at = [_PNG], len(_PNG)
    while (end := at + 12 + int.from_bytes(data[at : at + 4], "big")) <= len(data):
        name, body = data[at + 4 : at + 8], data[at + 4 : end - 4]
        private = name[0] & name[1] & 0x20  # and not needed, as its lower-case letters say
        intact = zlib.crc32(body) == int.from_bytes(data[end - 4 : end], "big")
        if not (private or name in _METADATA) or (name in _COLOUR_AND_ORIENTATION and intact):
            kept.append(data[at:end])
        at = end
    return b"".join([*kept, data[at:]])


_PLANES, _FILL_ORDER, _BITS_PER_SAMPLE = 284, 266, 258
"""Tags of TIFF 6.0: 2 if each channel is stored by itself, 2 if bits are in reverse, and bits."""


def _correct_planes(image: ImageFile.ImageFile, path: str) -> None:
    """Correct how Pillow reads a TIFF that stores each channel by itself, or refuse the file.

    It reads all that is not compressed as 8 bits per sample.
    """
    tags = getattr(image, "tag_v2", None)
    if tags is None or tags.get(_PLANES) != 2 or not image.tile:
        return
    if image.tile[0].codec_name != "raw":
        return
    if len(image.getbands()) == 1:
        tags[_PLANES] = 1  # means nothing
        image._setup()  # type: ignore[attr-defined]
        return
    deep = max(tags.get(_BITS_PER_SAMPLE, (8,))) > 8
    if tags.get(_FILL_ORDER) == 2 or (deep and image.mode not in {"RGB", "RGBA"}):
        raise PhotoError(path, _UNSUPPORTED_TIFF)
    if deep:
        end = ";16L" if tags.prefix == b"II" else ";16B"
        image.tile = [
            tile._replace(args=(tile.args[0] + end, *tile.args[1:]))  # type: ignore[index]
            for tile in image.tile
        ]


_UNSUPPORTED_TIFF = "a TIFF of a kind that can't be read: save it as PNG or JPEG"

_OTHER_BYTE = {
    f"{bands};16{order}": f"{bands};16{other}"
    for bands in ("RGB", "RGBA", "R", "G", "B", "A")
    for order, other in (("B", "L"), ("L", "B"), ("N", "B" if sys.byteorder == "little" else "L"))
}
"""Pillow's raw modes of 16 bits per channel, each with the one that reads the other byte."""

_DIM = 15
"""If no high byte exceeds this, an image of 16 bits per channel has at most 12 in use."""


def _low_byte_tiles(image: ImageFile.ImageFile) -> list[ImageFile._Tile]:
    """The tiles that read the low bytes of an image of 16 bits per channel; none of another."""

    def other(word: Any) -> Any:
        return _OTHER_BYTE.get(word, word) if isinstance(word, str) else word

    tiles = []
    for tile in image.tile:
        args = tile.args
        swapped = tuple(map(other, args)) if isinstance(args, tuple) else other(args)
        if swapped == args:
            return []
        tiles.append(tile._replace(args=swapped))
    return tiles


def _add_low_bytes(
    image: ImageFile.ImageFile,
    data: bytes,
    path: str,
    tiles: list[ImageFile._Tile],
    rules: DecodeRules,
) -> None:
    """Let an image that is black in its high bytes show what is in both."""
    tags = getattr(image, "tag_v2", {})
    if tiles[0].codec_name == "libtiff" and tags.get(_PLANES) == 2:  # reads the high bytes only
        raise PhotoError(path, _UNSUPPORTED_TIFF)
    with Image.open(io.BytesIO(data), formats=_formats(data)) as low:
        low.tile = tiles
        _load(low, rules.allow_truncated)
        image.paste(join_bytes(image, low))


def _describe(data: bytes) -> str:
    """What a file is that isn't a photo, for the commonest cases."""
    head = data[:512].lstrip().lower()
    if head.startswith((b"<!doctype html", b"<html")) or b"<html" in head:
        return "it is an HTML page"
    if head.startswith((b"<svg", b"<?xml")):
        return "it is XML or SVG"
    if head.startswith(b"%pdf"):
        return "it is a PDF"
    if data[:2] == b"PK":
        return "it is a zip archive"
    if data[4:12] in {b"ftypheic", b"ftypheix", b"ftypmif1", b"ftypheim"}:
        if _heif():
            return "a HEIC whose header is damaged"
        return "it is HEIC: install its reader with pip install 'catordog[heic]'"
    if data[:3] == b"\xff\xd8\xff":
        return "a JPEG whose header is damaged"
    if data[:8] == b"\x89PNG\r\n\x1a\n":
        return "a PNG whose header is damaged"
    if data[:4] in {b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"}:
        return _UNSUPPORTED_TIFF
    if not any(data[:512]):
        return "it contains only zeros"
    printable = sum(32 <= byte < 127 or byte in b"\t\r\n" for byte in data[:512])
    return "it is text" if printable > 0.95 * len(data[:512]) else "unknown format"


def _reason(error: Exception) -> str:
    text = printable(" ".join(str(error).split())) or type(error).__name__
    if "truncated" in text.lower() or isinstance(error, EOFError):
        return f"truncated file ({text})"
    return f"damaged file ({text})"
