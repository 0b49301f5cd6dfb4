"""A self-contained HTML page: no scripts, no fonts, nothing from anywhere else.

Everything that comes from outside, such as a file's name, goes through `escape`.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

from catordog.errors import PhotoError
from catordog.photos.preprocess import thumbnail

if TYPE_CHECKING:
    from catordog.photos.photo import Photo

__all__ = ["address", "bars", "escape", "figure", "page", "section", "table", "thumbnail_of"]

_STYLE = """
:root { color-scheme: light dark; --ink: #1b1b1f; --soft: #5d5d66; --paper: #fdfdfc; --line: #d9d9de;
  --bar: #0072b2; --warn: #b34700 }
@media (prefers-color-scheme: dark) { :root { --ink: #ececf0; --soft: #a5a5b0; --paper: #17171a;
  --line: #3a3a42; --bar: #56b4e9; --warn: #ff9d5c } }
* { box-sizing: border-box }
body { margin: 0 auto; max-width: 72rem; padding: 1.5rem 1rem 4rem; background: var(--paper);
  color: var(--ink); font: 1rem/1.5 system-ui, sans-serif; overflow-wrap: anywhere }
h1 { font-size: 1.6rem; line-height: 1.2; margin: 0 0 .5rem }
h2 { font-size: 1.2rem; margin: 2.5rem 0 .25rem; border-top: 1px solid var(--line); padding-top: 1rem }
p { margin: .25rem 0 1rem; max-width: 45rem }
.soft { color: var(--soft) }
.warn { color: var(--warn); font-weight: 600 }
nav { display: flex; flex-wrap: wrap; gap: .25rem 1.25rem; margin: 1rem 0 }
a { color: var(--bar) }
table { border-collapse: collapse; margin: .5rem 0 1rem; font-variant-numeric: tabular-nums }
td, th { padding: .15rem 1rem .15rem 0; text-align: left; vertical-align: top }
td, th { overflow-wrap: normal }
@media (max-width: 30rem) { td, th { padding-right: .5rem } }
td.n, th.n { text-align: right }
td.n { white-space: nowrap }
td:last-child:not(.n) { overflow-wrap: anywhere; min-width: 9rem }
.wide { overflow-x: auto }
.group { display: flex; flex-wrap: wrap; gap: .75rem; padding: .75rem 0;
  border-bottom: 1px solid var(--line) }
.grid { display: flex; flex-wrap: wrap; gap: .75rem }
figure { margin: 0; width: 9rem; break-inside: avoid }
figure img + img { margin-top: .25rem }
figure img { display: block; width: 100%; height: 9rem; object-fit: contain; background: #8882;
  border-radius: 4px }
figcaption { font-size: .8rem; line-height: 1.35; overflow-wrap: anywhere }
svg.bars text { fill: var(--soft); font: 11px system-ui, sans-serif }
svg.bars rect { fill: var(--bar) }
.verdict { font-size: 1.1rem; margin: .35rem 0 }
svg.plot { display: block; max-width: 100%; height: auto; margin: .5rem 0 1rem }
@media print { body { max-width: none; padding: 0 } h2 { break-after: avoid } nav { display: none } }
"""


def page(title: str, body: Sequence[str]) -> str:
    """A whole page from parts that are HTML already."""
    return "\n".join(
        [
            '<!doctype html><html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            # Whatever a file's name may hold, this page runs nothing and asks for nothing.
            '<meta http-equiv="Content-Security-Policy" '
            "content=\"default-src 'none'; img-src data:; style-src 'unsafe-inline'\">",
            f"<title>{escape(title)}</title><style>{_STYLE}</style></head><body>",
            f"<h1>{escape(title)}</h1>",
            *body,
            "</body></html>\n",
        ]
    )


def section(anchor: str, title: str, words: str, body: Sequence[str]) -> str:
    """A section: its title, a sentence on how to read it, and what it shows (HTML)."""
    head = f'<section id="{escape(anchor)}"><h2>{escape(title)}</h2><p class="soft">{escape(words)}</p>'
    return "\n".join([head, *body, "</section>"])


def address(jpeg: bytes) -> str:
    """A JPEG file as a `data:` address."""
    return "data:image/jpeg;base64," + base64.b64encode(jpeg).decode()


def thumbnail_of(photo: Photo) -> str | None:
    """A photo as a `data:` address; None if it can't be read any more."""
    try:
        return address(thumbnail(photo.image(near=160)))
    except PhotoError:
        return None


def figure(
    source: str | None, alt: str, caption: Sequence[str], below: tuple[str, str] | None = None
) -> str:
    """A thumbnail with lines below it; the first is emphasised. Without a source, lines alone.

    `below` is another one under it: its source and its words.
    """
    first, *rest = caption
    lines = "<br>".join([f"<b>{escape(first)}</b>", *map(escape, rest)])
    image = f'<img loading="lazy" src="{source}" alt="{escape(alt)}">' if source else ""
    if below:
        image += f'<img loading="lazy" src="{below[0]}" alt="{escape(below[1])}">'
    return f"<figure>{image}<figcaption>{lines}</figcaption></figure>"


def table(rows: Sequence[Sequence[str]], numbers: frozenset[int] = frozenset()) -> str:
    """A table; the first row is its head, and `numbers` are the right-aligned columns."""

    def row(cells: Sequence[str], tag: str) -> str:
        return "".join(
            f"<{tag}{' class=n' if place in numbers else ''}>{escape(cell)}</{tag}>"
            for place, cell in enumerate(cells)
        )

    head, *rest = rows
    body = "".join(f"<tr>{row(cells, 'td')}</tr>" for cells in rest)
    return f'<div class="wide"><table><tr>{row(head, "th")}</tr>{body}</table></div>'


def bars(labels: Sequence[str], counts: Sequence[int], alt: str) -> str:
    """A bar chart with a count over each bar."""
    width, height, step = 52 * len(labels) + 8, 150, 52
    most = max([*counts, 1])
    parts = []
    for place, (label, count) in enumerate(zip(labels, counts, strict=True)):
        tall = 100 * count / most
        x = 4 + place * step
        parts.append(
            f'<rect x="{x}" y="{120 - tall:.1f}" width="{step - 8}" height="{tall:.1f}" rx="2"/>'
            f'<text x="{x + step / 2 - 4}" y="{114 - tall:.1f}" text-anchor="middle">{count:,}</text>'
            f'<text x="{x + step / 2 - 4}" y="138" text-anchor="middle">{escape(label)}</text>'
        )
    return (
        f'<div class="wide"><svg class="bars" role="img" aria-label="{escape(alt)}" width="{width}" '
        f'height="{height}" viewBox="0 0 {width} {height}">{"".join(parts)}</svg></div>'
    )
