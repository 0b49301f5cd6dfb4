"""PNG files that say which command has drawn them; no other picture is replaced."""

from __future__ import annotations

import io
from pathlib import Path

from PIL import Image, PngImagePlugin

from catordog.errors import CatordogError
from catordog.escaping import printable
from catordog.files import is_stream, resolved


def to_png(picture: Image.Image, command: str) -> bytes:
    """The picture as a PNG file that names the command which has drawn it."""
    text = PngImagePlugin.PngInfo()
    text.add_text("Software", f"catordog {command}")
    packed = io.BytesIO()
    picture.save(packed, "PNG", pnginfo=text)
    return packed.getvalue()


def check_replaceable(option: str, path: Path, command: str) -> None:
    """Refuse to replace a file that the command has not drawn: it may be a photo.

    Raises:
        CatordogError: there is such a file.
    """
    file = resolved(path)
    if not file.is_file() or is_stream(path) or not file.stat().st_size:
        return
    try:
        with Image.open(file) as picture:
            ours = picture.info.get("Software") == f"catordog {command}"
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        ours = False
    if not ours:
        raise CatordogError(
            f"{option} {printable(path)} exists and was not drawn by 'catordog {command}': give "
            "another name"
        )
