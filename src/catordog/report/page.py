"""Render self-contained HTML pages from the templates: no scripts, no fonts, no requests.

Jinja escapes everything that comes from outside, such as the name of a file. Figures are the only
markup that Python hands to a template.
"""

from __future__ import annotations

import base64
from functools import cache
from typing import TYPE_CHECKING, Any

from catordog.confidence.softmax import format_confidence
from catordog.errors import PhotoError
from catordog.evaluation.metrics import decimals
from catordog.photos.preprocess import thumbnail
from catordog.report.shown import SHOWN_ON_PAGE

if TYPE_CHECKING:
    from jinja2 import Environment

    from catordog.photos.photo import Photo


def render(template: str, **values: Any) -> str:
    """Fill in a template of this package.

    Args:
        template: its file name.
        values: what it needs; a missing one is an error.
    """
    return _environment().get_template(template).render(**values)


@cache
def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("catordog.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["count"] = "{:,}".format
    environment.filters["percent"] = lambda fraction, digits=1: f"{100 * fraction:.{digits}f} %"
    environment.filters["decimals"] = decimals
    environment.filters["confidence"] = format_confidence
    environment.globals["SHOWN"] = SHOWN_ON_PAGE
    environment.globals["thumbnail_of"] = thumbnail_of
    return environment


def data_uri(jpeg: bytes) -> str:
    """A JPEG file as a `data:` URI."""
    return "data:image/jpeg;base64," + base64.b64encode(jpeg).decode()


def thumbnail_of(photo: Photo) -> str | None:
    """A photo's thumbnail as a `data:` URI; None if the photo isn't readable any more."""
    try:
        return data_uri(thumbnail(photo.image(near=160)))
    except PhotoError:
        return None
