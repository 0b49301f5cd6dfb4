"""From the bytes of a file to an upright sRGB picture: the one decoder that everything uses.

A file is judged by its content and never by its name. What can't be read raises `PhotoError`
with the reason; nothing else comes out of here, whatever the bytes are.
"""

from __future__ import annotations

import io
from dataclasses import dataclass

from PIL import (  # each plugin registers its format; Pillow would import all sixty for one
    AvifImagePlugin,  # noqa: F401
    BmpImagePlugin,  # noqa: F401
    GifImagePlugin,  # noqa: F401
    Image,
    ImageCms,
    ImageFile,
    ImageOps,
    JpegImagePlugin,  # noqa: F401
    PngImagePlugin,  # noqa: F401
    TiffImagePlugin,  # noqa: F401
    UnidentifiedImageError,
    WebPImagePlugin,  # noqa: F401
)

from catordog.errors import CatordogError, PhotoError

FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "AVIF", "BMP", "TIFF")
"""What is decoded (a phone's MPO is a JPEG). Pillow knows dozens more formats; each is more code
that hostile bytes can reach."""

SUFFIXES = frozenset(
    [
        ".jpg",
        ".jpeg",
        ".jpe",
        ".jfif",
        ".png",
        ".gif",
        ".webp",
        ".avif",
        ".bmp",
        ".tif",
        ".tiff",
        ".heic",
        ".heif",
    ]
)
"""Names that are taken for photos when a folder is listed (any case)."""

_SRGB = ImageCms.createProfile("sRGB")


def is_photo_name(name: str) -> bool:
    """Whether a file of this name is taken for a photo when a folder is listed."""
    return f".{name.rpartition('.')[2].lower()}" in SUFFIXES


@dataclass(frozen=True, slots=True)
class DecodeRules:
    """What is decoded and what is refused.

    Attributes:
        allow_truncated: read what is there of a file that ends too early.
        max_megapixels: a picture of more pixels is refused before they are allocated.
    """

    allow_truncated: bool = False
    max_megapixels: float = 200

    def __post_init__(self) -> None:
        if not 0 < self.max_megapixels <= 1e6:
            raise CatordogError(f"a limit of {self.max_megapixels} megapixels lets nothing through")

    @property
    def max_pixels(self) -> int:
        """The same limit, in pixels."""
        return int(self.max_megapixels * 1e6)


DEFAULT_RULES = DecodeRules()


@dataclass(frozen=True, slots=True)
class Decoded:
    """A decoded photo, and what its file says of itself.

    Attributes:
        image: RGB and upright.
        format: as Pillow names it: JPEG, PNG, …
        mode: the file's own colour mode: RGB, L, CMYK, P, …
        width, height: as stored, in pixels, before rotation and whatever `near` has saved.
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
        data: the whole file.
        path: what to call it in an error.
        near: the side length, in pixels, that the photo will be resized to. A large JPEG is then
            decoded at 1/2, 1/4 or 1/8 of its size, never below twice this side, which loses
            nothing visible and takes a fraction of the time. None: the full size.
        rules: what is refused.

    Returns:
        An RGB image: EXIF orientation applied, an embedded colour profile converted to sRGB,
        transparency laid on white, 16-bit samples scaled to 8.

    Raises:
        PhotoError: the reason why the photo cannot be read.
    """
    return examine(data, path, near=near, rules=rules).image


def examine(
    data: bytes,
    path: str = "photo",
    *,
    near: int | None = None,
    rules: DecodeRules = DEFAULT_RULES,
) -> Decoded:
    """Decode the bytes of one photo, and say what its file is; otherwise as `decode`."""
    if not data:
        raise PhotoError(path, "empty file")
    max_pixels = rules.max_pixels
    _let_pillow_take(max_pixels)
    try:
        with Image.open(io.BytesIO(data), formats=_formats()) as image:
            if image.width * image.height > max_pixels:
                size = f"{image.width} × {image.height} pixels is "
                raise PhotoError(path, size + _too_large(max_pixels))
            if image.format in {"JPEG", "MPO"}:
                _refuse_endless(data, image, path, max_pixels)
            facts = (image.format or "?", image.mode, image.width, image.height)
            if near is not None and image.format in {"JPEG", "MPO"}:
                image.draft(None, (2 * near, 2 * near))
            _load(image, rules.allow_truncated)
            # Upright first: a converted picture has forgotten its rotation.
            ImageOps.exif_transpose(image, in_place=True)
            return Decoded(_rgb(_srgb(image)), *facts)
    except PhotoError:
        raise
    except Image.DecompressionBombError:
        raise PhotoError(path, _too_large(max_pixels)) from None
    except UnidentifiedImageError:
        raise PhotoError(path, f"not a photo ({_what_it_is(data)})") from None
    except MemoryError:
        raise PhotoError(path, "needs more memory than there is") from None
    # Pillow raises OSError, SyntaxError, ValueError, struct.error, IndexError and others over
    # damaged files; whichever it is, this photo cannot be read and the next one can.
    except Exception as error:
        raise PhotoError(path, _reason(error)) from None


_WHOLE_SCANS = 20
"""How often a JPEG may go over as many pixels as the largest photo has. Cameras write a dozen
scans; a file of some megabytes can hold so many that decoding takes minutes."""


def _refuse_endless(data: bytes, image: Image.Image, path: str, max_pixels: int) -> None:
    scans = data.count(b"\xff\xda")  # what is compressed never holds these two bytes
    if scans * image.width * image.height > _WHOLE_SCANS * max_pixels:
        raise PhotoError(path, f"{scans:,} scans: made to take long")


def _let_pillow_take(max_pixels: int) -> None:
    """Pillow has a limit of its own for the whole process, 179 megapixels; raise it to ours."""
    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and limit < max_pixels:
        Image.MAX_IMAGE_PIXELS = max_pixels


def _too_large(max_pixels: int) -> str:
    return f"more than the limit of {max_pixels / 1e6:g} megapixels"


def _formats() -> tuple[str, ...]:
    return (*FORMATS, "HEIF") if _heif() else FORMATS


def _heif() -> bool:
    """Whether the optional HEIC reader is there, registered with Pillow."""
    if "HEIF" in Image.OPEN:
        return True
    try:
        import pillow_heif
    except ImportError:
        return False
    pillow_heif.register_heif_opener()
    return True


def _load(image: ImageFile.ImageFile, allow_truncated: bool) -> None:
    try:
        image.load()
    except OSError:
        if not allow_truncated:
            raise
        # Pillow has filled in what it could read. Without tiles it doesn't try again.
        image.tile = []
        if not image.getbbox():
            raise


def _srgb(image: Image.Image) -> Image.Image:
    """Convert an embedded colour profile to sRGB; a broken profile is passed over."""
    profile = image.info.get("icc_profile")
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


def _rgb(image: Image.Image) -> Image.Image:
    """Make any mode RGB: transparency on white, 16 bits and floats scaled to 8."""
    if image.mode == "RGB":
        return image
    if image.mode in {"I;16", "I;16L", "I;16B", "I;16N", "I", "F"}:
        # Pillow would clip at 255. 16-bit greys become 8-bit ones by their high byte.
        scale = 1 / 257 if image.mode != "F" or (image.getextrema()[1] or 0) > 1 else 255  # type: ignore[operator]
        return image.convert("F").point(lambda x: x * scale).convert("L").convert("RGB")
    if "A" in image.getbands() or "a" in image.getbands() or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    return image.convert("RGB")


def _what_it_is(data: bytes) -> str:
    """Name the commonest things that are called .jpg and aren't."""
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
        return "it is HEIC: pip install 'catordog[heic]' reads it"
    if data[:3] == b"\xff\xd8\xff":
        return "a JPEG whose header is damaged"
    if data[:8] == b"\x89PNG\r\n\x1a\n":
        return "a PNG whose header is damaged"
    if not any(data[:512]):
        return "it holds only zeros"
    printable = sum(32 <= byte < 127 or byte in b"\t\r\n" for byte in data[:512])
    return "it is text" if printable > 0.95 * len(data[:512]) else "no image format is known for it"


def _reason(error: Exception) -> str:
    text = str(error).strip() or type(error).__name__
    if "truncated" in text.lower() or isinstance(error, EOFError):
        return f"truncated file ({text})"
    return f"damaged file ({text})"
