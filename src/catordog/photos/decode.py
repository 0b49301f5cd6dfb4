"""Decode the bytes of a file to an upright sRGB image.

Everything that reads photos uses this decoder. A file's format is decided by its content, never by
its name. Whatever the bytes are, the result is an image or a `PhotoError` with the reason.
"""

from __future__ import annotations

import io
import sys
from dataclasses import dataclass
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
        with Image.open(io.BytesIO(data), formats=_formats(data)) as image:
            if image.width * image.height > max_pixels:
                size = f"{image.width} × {image.height} pixels is "
                raise PhotoError(path, size + _too_large(max_pixels))
            if image.format in {"JPEG", "MPO"}:
                _refuse_many_scans(data, image, path, max_pixels)
            facts = (image.format or "?", image.mode, image.width, image.height)
            if near is not None and image.format in {"JPEG", "MPO"}:
                image.draft(None, (2 * near, 2 * near))
            tiles = _low_byte_tiles(image)
            _load(image, rules.allow_truncated)
            if tiles and all(high <= _DIM for _, high in image.getextrema()[:3]):  # type: ignore[misc]
                _add_low_bytes(image, data, tiles, rules)
            return Decoded(to_rgb(image), *facts)
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


_RULES_VERSION = 2
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


_OTHER_BYTE = {
    f"{bands};16{order}": f"{bands};16{other}"
    for bands in ("RGB", "RGBA")
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
    image: ImageFile.ImageFile, data: bytes, tiles: list[ImageFile._Tile], rules: DecodeRules
) -> None:
    """Let an image that is black in its high bytes show what is in both."""
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
    if not any(data[:512]):
        return "it contains only zeros"
    printable = sum(32 <= byte < 127 or byte in b"\t\r\n" for byte in data[:512])
    return "it is text" if printable > 0.95 * len(data[:512]) else "unknown format"


def _reason(error: Exception) -> str:
    text = printable(" ".join(str(error).split())) or type(error).__name__
    if "truncated" in text.lower() or isinstance(error, EOFError):
        return f"truncated file ({text})"
    return f"damaged file ({text})"
