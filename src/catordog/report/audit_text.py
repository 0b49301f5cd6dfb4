"""An audit as text, and as a list of photos to leave out."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

from catordog.evaluation.audit import Audit
from catordog.files import path_cell, text_cell
from catordog.photos.findings import Findings
from catordog.photos.splits import SplitFractions
from catordog.terminal import table

SHOWN = 5


def fix_list(result: Audit) -> str:
    """A CSV of photos to leave out, for `--exclude`, to be looked over and cut by a person."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["path", "label", "suggested", "reason"])
    for path, *words in result.proposals():
        writer.writerow([path_cell(path), *map(text_cell, words)])
    return text.getvalue()


def report(result: Audit) -> str:
    """The audit for people to read."""
    found = result.findings
    seen = [one for one in found.facts if one]
    parts = [found.dataset.summary()]
    if seen:
        facts = found.to_dict()
        rows = [["", "least", "median", "most"]]
        for name in ("width", "height", "aspect_ratio"):
            spread = facts[name]
            numbers = [f"{spread[key]:.4g}" for key in ("min", "median", "max")]
            rows.append([name.replace("_", " "), *numbers])
        formats = ", ".join(f"{count:,} {name}" for name, count in facts["formats"].items())
        modes = ", ".join(f"{count:,} {name}" for name, count in facts["modes"].items())
        parts.append(table(rows, frozenset({1, 2, 3})) + f"\nformats: {formats}; modes: {modes}")
    torn, groups = found.leak(SplitFractions())
    findings: list[tuple[str, int, str, list[str]]] = [
        ("contradictions", len(found.contradictions), "pictures under several labels",
         [_group(found, group, labels=True) for group in found.contradictions]),
        ("suspect labels", len(result.suspects),
         f"worth a look, the first {result.wrong:,} above all (the model agrees with "
         f"{100 * result.agreement:.1f} % of the labels)",
         [f"{found.photos[x.place].name}: labelled {found.label(x.place)}, looks like "
          f"{found.dataset.classes[x.suggested]} ({x.score:.3f})" for x in result.suspects]),
        ("neither", len(result.neither), "photos that seem to show no class",
         [f"{found.photos[place].name} ({score:.1f})" for place, score in result.neither]),
        ("unreadable", len(found.unreadable), "files that can't be read",
         [str(error) for error in found.unreadable]),
        ("suspicious", len(found.suspicious), "blank, tiny, very long, or misnamed",
         [f"{found.photos[place].name}: {reason}" for place, reason in found.suspicious]),
        ("near copies", len(found.near_copies), "groups that look alike, mirrored or not",
         [_group(found, group) for group in found.near_copies]),
        ("exact copies", len(found.exact_copies), "groups of byte-identical files",
         [_group(found, group) for group in found.exact_copies]),
    ]  # fmt: skip
    if result.model is None:
        findings = [row for row in findings if row[0] not in {"suspect labels", "neither"}]
    parts.append(
        table([[name, f"{count:,}", words] for name, count, words, _ in findings], frozenset({1}))
    )
    if groups:
        parts.append(
            f"{groups:,} groups of copies: a split at random, photo by photo, would tear "
            f"{torn:.1f} of them apart; catordog's keeps each on one side"
        )
    for name, count, _, lines in findings:
        if count:
            more = [f"  … and {count - SHOWN:,} more"] if count > SHOWN else []
            parts.append("\n".join([name, *(f"  {line}" for line in lines[:SHOWN]), *more]))
    if result.model is None:
        parts.append("wrong labels, and photos that show no class, need a model: --model best.ckpt")
    return "\n\n".join(parts)


def _group(found: Findings, group: Sequence[int], *, labels: bool = False) -> str:
    def name(place: int) -> str:
        return (
            f"{found.photos[place].name} ({found.label(place)})"
            if labels
            else found.photos[place].name
        )

    return " = ".join(name(place) for place in group)
