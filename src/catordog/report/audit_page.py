"""The page of `catordog audit --html`: what needs a person's eye, first things first."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from catordog.photos.splits import SplitFractions
from catordog.report.page import bars, escape, figure, page, section, table, thumbnail_of

if TYPE_CHECKING:
    from catordog.evaluation.audit import Audit
    from catordog.photos.findings import Findings

SHOWN = 60
"""Photos, or groups of them, that a section shows."""


def audit_page(result: Audit) -> str:
    """The whole page."""
    found = result.findings
    sections = [
        (anchor, title, count, section(anchor, f"{title}: {count:,}", words, body))
        for anchor, title, count, words, body in _sections(result)
        if count
    ]
    verdict = (
        f"{sum(count for _, _, count, _ in sections):,} things to look at, the worst first."
        if sections
        else "Nothing to complain about."
    )
    torn, groups = found.leak(SplitFractions())
    leak = (
        f"{groups:,} groups of copies. catordog keeps each on one side; a random split, photo by "
        f"photo, would tear {torn:.1f} of them apart, and test on what it has trained on."
        if groups
        else ""
    )
    links = "".join(
        f'<a href="#{anchor}">{title}: {count:,}</a>' for anchor, title, count, _ in sections
    )
    return page(
        f"Audit of {found.dataset.name}",
        [
            f"<p>{escape(found.dataset.summary())}. <b>{verdict}</b> {leak}</p>",
            f"<nav>{links}</nav>",
            *(text for _, _, _, text in sections),
            _facts(found),
        ],
    )


def _sections(result: Audit) -> list[tuple[str, str, int, str, list[str]]]:
    """Anchor, title, count, how to read it, and what it shows."""
    found, classes = result.findings, result.findings.dataset.classes
    return [
        ("contradictions", "Contradictions", len(found.contradictions),
         "One picture under several labels. At most one of them can be right.",
         _groups(found, found.contradictions)),
        ("suspects", "Suspect labels", len(result.suspects),
         "A classifier that has not seen these photos disagrees with their labels (and agrees with "
         f"{100 * result.agreement:.1f} % of all). The higher the score, 0 to 1, the surer it is. "
         f"By estimate the first {result.wrong:,} are wrong; a weak model suspects too many.",
         [_grid([_photo(found, x.place, f"{found.label(x.place)}? {classes[x.suggested]}?",
                        f"score {x.score:.3f}") for x in result.suspects[:SHOWN]])]),
        ("neither", "Neither", len(result.neither),
         "Photos unlike any others here: perhaps they show none of the classes.",
         [_grid([_photo(found, place, found.label(place), f"score {score:.1f}")
                 for place, score in result.neither[:SHOWN]])]),
        ("unreadable", "Unreadable", len(found.unreadable),
         "Files that can't be read, and why. They take no part in training.",
         [table([["file", "why"], *([e.path, e.reason] for e in found.unreadable[:5 * SHOWN])])]),
        ("suspicious", "Suspicious", len(found.suspicious),
         "Readable, but blank, tiny, very long, or named as another format.",
         [_grid([_photo(found, place, reason, found.label(place))
                 for place, reason in found.suspicious[:SHOWN]])]),
        ("near", "Near copies", len(found.near_copies),
         "Pictures that look alike, mirrored or not, the most alike first.",
         _groups(found, found.near_copies)),
        ("exact", "Exact copies", len(found.exact_copies),
         "Byte-identical files.", _groups(found, found.exact_copies)),
    ]  # fmt: skip


def _groups(found: Findings, groups: Sequence[Sequence[int]]) -> list[str]:
    shown = [
        '<div class="group">'
        + "".join(_photo(found, place, found.label(place)) for place in group[:12])
        + (f"<p>… and {len(group) - 12:,} more</p>" if len(group) > 12 else "")
        + "</div>"
        for group in groups[:SHOWN]
    ]
    if len(groups) > SHOWN:
        shown.append(f"<p>… and {len(groups) - SHOWN:,} more, in the JSON file.</p>")
    return shown


def _grid(figures: Sequence[str]) -> str:
    return f'<div class="grid">{"".join(figures)}</div>'


def _photo(found: Findings, place: int, *words: str) -> str:
    photo, seen = found.photos[place], found.facts[place]
    size = [f"{seen.width} × {seen.height}"] if seen else []
    return figure(
        thumbnail_of(photo), f"photo labelled {found.label(place)}", [*words, photo.name, *size]
    )


def _facts(found: Findings) -> str:
    seen = [one for one in found.facts if one]
    counts = Counter(found.label(place) for place in range(len(found.photos)))
    classes = [["class", "photos"], *([x, f"{counts[x]:,}"] for x in found.dataset.classes)]
    body = [table(classes, frozenset({1}))]
    if seen:
        facts = found.to_dict()
        kinds = [["format", "photos"], *([k, f"{n:,}"] for k, n in facts["formats"].items())]
        modes = [["colour mode", "photos"], *([k, f"{n:,}"] for k, n in facts["modes"].items())]
        body += [table(kinds, frozenset({1})), table(modes, frozenset({1}))]
        sides = np.array([min(one.width, one.height) for one in seen])
        edges = [0, 32, 64, 128, 256, 512, 1024, 2048, 2**31]
        names = ["< 32", "32", "64", "128", "256", "512", "1024", "≥ 2048"]
        body += [
            "<h3>Shorter side, in pixels and more</h3>",
            bars(names, np.histogram(sides, edges)[0].tolist(), "histogram of the shorter side"),
        ]
        ratios = np.array([one.width / one.height for one in seen])
        edges_of_ratio = [0, 0.5, 0.7, 0.9, 1.1, 1.4, 2, 1e9]
        names = ["< 0.5", "0.5", "0.7", "0.9–1.1", "1.1", "1.4", "≥ 2"]
        body += [
            "<h3>Width divided by height, from</h3>",
            bars(
                names,
                np.histogram(ratios, edges_of_ratio)[0].tolist(),
                "histogram of aspect ratios",
            ),
        ]
    return section("facts", "What is in it", "All readable photos.", body)
