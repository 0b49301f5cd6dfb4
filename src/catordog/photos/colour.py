"""Convert an image of any colour mode, or an array of any type, to upright sRGB of 8 bits."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageCms, ImageOps

from catordog.errors import CatordogError

_SRGB = ImageCms.createProfile("sRGB")
_DEEP = frozenset({"I;16", "I;16L", "I;16B", "I;16N", "I", "F"})
"""Pillow's modes of more than 8 bits, which it would clip at 255."""

_WHITES = (255, 1023, 4095, 65535)
"""Values of white: those of 8, 10, 12 and 16 bits. Data of 16 bits often have fewer in use."""

_OUTLIERS = 1000
"""One in so many pixels may exceed white, and four of a small image: dead pixels and highlights."""

_BITS_PER_SAMPLE, _PHOTOMETRIC, _SAMPLE_FORMAT, _LARGEST_SAMPLE = 258, 262, 339, 341
"""Tags of TIFF 6.0."""

_MISREAD: dict[tuple[str, int], type[np.generic]] = {("I", 1): np.uint32, ("L", 2): np.int8}
"""What the samples of a TIFF are where Pillow ignores their sign, by its mode and sample format."""

_ORIENTATION = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""How to turn an image of each EXIF orientation upright."""

_STRIP_PIXELS = 2**20
"""An image with transparency is composited in strips of so many pixels, to need little memory."""


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert an image of any mode to RGB.

    EXIF orientation is applied, an embedded colour profile is converted to sRGB, transparency is
    composited on white, and samples of more than 8 bits are scaled; see `to_8_bits`. EXIF data or
    a profile that can't be parsed are ignored.

    Returns:
        A new image, or the same one if there is nothing to do.

    Raises:
        ValueError: it has no pixels.

    >>> deep = Image.fromarray(np.full((2, 2), 128.0, np.float32))
    >>> deep.mode, to_rgb(deep).getpixel((0, 0))
    ('F', (128, 128, 128))
    """
    if not (image.width and image.height):
        raise ValueError("an image without pixels")
    declared, inverted = _declarations(image)
    misread = _misread(image)
    upright = _upright(image)  # first: a converted image has lost its EXIF data
    if misread is not None:
        values = np.asarray(upright).view(misread)
        return _grey(values, declared or np.iinfo(values.dtype).max, inverted=inverted)
    return _rgb(_to_srgb(_with_opacity(upright)), declared, inverted=inverted)


def array_to_image(array: npt.NDArray[Any]) -> Image.Image:
    """Convert an array to an RGB image.

    Args:
        array: of integers, floats or booleans, `[H, W]`, `[H, W, C]` or `[C, H, W]`: grey (C is 1),
            grey and opacity (2), RGB (3), or RGB and opacity (4). For values see `to_8_bits`.

    Raises:
        CatordogError: it has another shape or type, or no pixels.

    >>> array_to_image(np.ones((8, 6, 3), np.float32)).getpixel((0, 0))
    (255, 255, 255)
    """
    values = array
    if values.ndim == 3 and values.shape[2] not in {1, 2, 3, 4} and values.shape[0] in {1, 2, 3, 4}:
        values = values.transpose(1, 2, 0)
    if values.ndim == 2:
        values = values[:, :, None]
    if (
        values.ndim != 3
        or values.shape[2] not in {1, 2, 3, 4}
        or not values.size
        or values.dtype.kind not in "biuf"
    ):
        raise CatordogError(
            f"an array of {array.dtype} {list(array.shape)} is no photo: give numbers "
            "[height, width, 3] in RGB, [height, width] in grey, or [3, height, width]"
        )
    pixels = np.ascontiguousarray(to_8_bits(values))
    mode = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}[pixels.shape[2]]
    grey = pixels[:, :, 0] if mode == "L" else pixels
    return _rgb(Image.fromarray(np.ascontiguousarray(grey)))


def join_bytes(high: Image.Image, low: Image.Image) -> Image.Image:
    """Scale an image of 16 bits per channel, of which Pillow reads one byte at a time.

    Args:
        high: its high bytes, in RGB or RGBA.
        low: its low bytes, in the same mode.
    """
    values = np.asarray(high).astype(np.uint16) << 8 | np.asarray(low)
    levels = to_8_bits(values[:, :, :3])
    if high.mode == "RGBA":
        levels = np.dstack([levels, np.asarray(high)[:, :, 3]])
    return Image.fromarray(levels)


def to_8_bits(values: npt.NDArray[Any], white: float | None = None) -> npt.NDArray[np.uint8]:
    """Scale samples of any type to 8 bits.

    The value of white is the smallest usual one (1 for floats; 255, 1023, 4095, 65535) that all but
    a few pixels keep to. So values 0…255 in a float image stay a photo, and so does an image of
    0…1 with a pixel at 1.5. Where values are negative, −1 is black if 1 is white; otherwise the
    range of the values is stretched.

    Args:
        values: of any shape; NaN is black, infinity the largest finite value.
        white: the value of white, if the file declares it and values keep to it.

    >>> to_8_bits(np.array([0.0, 0.5, 1.0])).tolist()
    [0, 128, 255]
    >>> to_8_bits(np.array([0, 100, 255], np.int32)).tolist()
    [0, 100, 255]
    """
    if values.dtype == np.uint8:
        return values
    if values.dtype == np.bool_:
        return np.where(values, np.uint8(255), np.uint8(0))
    if values.dtype == np.int8:
        return (values.astype(np.int16) + 128).astype(np.uint8)
    is_float = values.dtype.kind == "f"
    if is_float:
        values = _finite(values)
    low, robust = 0.0, _white(values, is_float=is_float)
    # Writers that don't know declare the largest number there is.
    white = white if white and _keeps_to(values, white) and white <= 17 * robust else robust
    if values.dtype.kind != "u" and not _keeps_to(-values.astype(np.float32), 0.02 * white):
        if is_float and white == 1 and _keeps_to(-values, 2):
            low = -1.0
        else:
            low, white = (float(x) for x in np.percentile(values, (0.1, 99.9)))
    if not is_float and (low, white) == (0, 65535):
        scaled = values.clip(0, 65535) // 257
    else:
        scaled = (values.astype(np.float32) - low) * (255 / max(white - low, 1e-12))
        scaled = np.rint(scaled.clip(0, 255))
    levels: npt.NDArray[np.uint8] = scaled.astype(np.uint8)
    return levels


def _white(values: npt.NDArray[Any], *, is_float: bool) -> float:
    # Up to 2 is hardly black on a scale of 255: these are highlights on a scale of 1.
    if _keeps_to(values, 2) if is_float else values.max(initial=0) <= 1:
        return 1
    for white in _WHITES:
        if _keeps_to(values, 1.1 * white if is_float else white):
            return white
    return float(np.percentile(values, 99.9))


def _keeps_to(values: npt.NDArray[Any], limit: float) -> bool:
    above = np.count_nonzero(values > limit)
    return bool(above <= max(values.size // _OUTLIERS, min(4, values.size // 100)))


def _finite(values: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    with np.errstate(over="ignore"):
        result = values.astype(np.float32)
    finite = np.isfinite(result)
    if not finite.all():
        known = result[finite]
        high, low = (known.max(), known.min()) if known.size else (0, 0)
        result = np.nan_to_num(result, nan=0.0, posinf=float(high), neginf=float(low))
    return result


def _declarations(image: Image.Image) -> tuple[float | None, bool]:
    """The value of white that a TIFF declares, if it does, and whether it declares 0 as white."""
    tags = getattr(image, "tag_v2", None)
    if tags is None or image.mode not in _DEEP:
        return None, False
    largest = tags.get(_LARGEST_SAMPLE)
    largest = largest[0] if isinstance(largest, tuple) else largest
    (bits, *_) = tags.get(_BITS_PER_SAMPLE, (16,))
    white = (1 << bits) - 1 if 8 < bits < 16 else None
    return largest or white, tags.get(_PHOTOMETRIC) == 0


def _misread(image: Image.Image) -> type[np.generic] | None:
    """The type of a TIFF's samples, if Pillow takes them for another; None if it is right."""
    tags = getattr(image, "tag_v2", None)
    if tags is None:
        return None
    sample_format = tags.get(_SAMPLE_FORMAT, 1)
    first = sample_format[0] if isinstance(sample_format, tuple) else sample_format
    return _MISREAD.get((image.mode, first))


def _upright(image: Image.Image) -> Image.Image:
    """Apply the orientation that EXIF or XMP data give, if they can be parsed."""
    try:
        turn = _TURNS.get(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # Pillow raises SyntaxError, ValueError, struct.error and others on junk
        return image
    if turn is None:
        return image
    upright = image.transpose(turn)
    for key in ("exif", "Raw profile type exif", "xmp", "XML:com.adobe.xmp"):
        upright.info.pop(key, None)  # never turn it again
    return upright


def _to_srgb(image: Image.Image) -> Image.Image:
    """Convert an embedded colour profile to sRGB; a broken profile is ignored."""
    profile = image.info.get("icc_profile")
    if image.mode == "LAB":
        lab = ImageCms.createProfile("LAB")
        return ImageCms.profileToProfile(image, lab, _SRGB, outputMode="RGB") or image
    if not profile or image.mode not in {"RGB", "CMYK", "L"}:
        return image
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        converted = ImageCms.profileToProfile(image, source, _SRGB, outputMode="RGB")
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return image
    if converted is None:
        return image
    converted.info.pop("icc_profile", None)
    return converted


def _with_opacity(image: Image.Image) -> Image.Image:
    """RGBA instead of RGB with one transparent colour."""
    colour = image.info.get("transparency")
    if image.mode != "RGB" or not isinstance(colour, tuple):
        return image
    if max(colour) > 255:  # of a PNG with 16 bits, of which the image has the higher 8
        image = image.copy()
        image.info["transparency"] = tuple(value >> 8 for value in colour)
    return image.convert("RGBA")


def _rgb(
    image: Image.Image, declared: float | None = None, *, inverted: bool = False
) -> Image.Image:
    """Convert any mode to RGB: transparency on white, deep samples scaled to 8 bits."""
    if image.mode == "RGB":
        return image
    if image.mode in _DEEP:
        return _grey(np.asarray(image), declared, inverted=inverted)
    channels = {*image.getbands(), *(image.palette.mode if image.palette else "")}
    if channels & {"A", "a"} or "transparency" in image.info:
        return _on_white(image)
    return image.convert("RGB")


def _grey(
    values: npt.NDArray[Any], declared: float | None = None, *, inverted: bool = False
) -> Image.Image:
    """An RGB image of grey samples of any type, `[H, W]`."""
    grey = Image.fromarray(to_8_bits(values, declared))
    return (ImageOps.invert(grey) if inverted else grey).convert("RGB")


def _on_white(image: Image.Image) -> Image.Image:
    """Composite an image with transparency, of any mode, on white."""
    white = Image.new("RGB", image.size, "white")
    rows = max(1, _STRIP_PIXELS // image.width)
    for top in range(0, image.height, rows):
        strip = image.crop((0, top, image.width, min(top + rows, image.height)))
        if strip.mode == "La":
            strip = strip.convert("LA")
        strip = strip.convert("RGBA")
        white.paste(strip, (0, top), strip)
    return white
