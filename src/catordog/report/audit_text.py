"""An audit as text, and its fix list: a CSV of photos to leave out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from catordog.escaping import csv_row, path_cell, printable, text_cell
from catordog.evaluation.audit import Audit
from catordog.evaluation.judging import LEAST_PHOTOS
from catordog.photos.findings import Findings
from catordog.photos.splits import SplitFractions
from catordog.report.shown import SHOWN_IN_TEXT
from catordog.terminal import table


def fix_list(result: Audit) -> str:
    """A CSV of photos to leave out, for `--exclude`; people check and shorten it first."""
    rows = [[path_cell(path), *map(text_cell, words)] for path, *words in result.proposals()]
    return "".join(map(csv_row, [["path", "label", "suggested", "reason"], *rows]))


@dataclass(frozen=True, slots=True)
class _Section:
    """One kind of problem: its name, what it means, and a line for each case."""

    name: str
    meaning: str
    lines: list[str]


def report(result: Audit) -> str:
    """The audit for people to read."""
    found = result.findings
    sections = _sections(result)
    parts = [found.dataset.summary(), *_facts(found)]
    rows = [[section.name, f"{len(section.lines):,}", section.meaning] for section in sections]
    parts.append(table(rows, frozenset({1})))
    leaked, groups = found.leak(SplitFractions())
    if groups:
        parts.append(
            f"{groups:,} group{'' if groups == 1 else 's'} of copies: a random split of single "
            f"photos would separate {leaked:.1f} of them on average; catordog keeps each group in "
            "one split"
        )
    for section in sections:
        if section.lines:
            rest = len(section.lines) - SHOWN_IN_TEXT
            more = [f"  … and {rest:,} more"] if rest > 0 else []
            shown = [f"  {line}" for line in section.lines[:SHOWN_IN_TEXT]]
            parts.append("\n".join([section.name, *shown, *more]))
    if result.model is None:
        parts.append("Labels were not judged (--no-labels)")
    elif result.unjudged:
        names = ", ".join(map(printable, result.unjudged))
        parts.append(
            f"Labels that were not judged, since their class has fewer than {LEAST_PHOTOS} "
            f"different photos: {names}"
        )
    return "\n\n".join(parts)


def _facts(found: Findings) -> list[str]:
    """Sizes, formats and modes of the readable photos, if there are any."""
    facts = found.to_dict()
    if not facts["formats"]:
        return []
    rows = [["", "min", "median", "max"]]
    for name in ("width", "height", "aspect_ratio"):
        numbers = [f"{facts[name][key]:.4g}" for key in ("min", "median", "max")]
        rows.append([name.replace("_", " "), *numbers])
    formats = ", ".join(f"{count:,} {name}" for name, count in facts["formats"].items())
    modes = ", ".join(f"{count:,} {name}" for name, count in facts["modes"].items())
    return [table(rows, frozenset({1, 2, 3})) + f"\nformats: {formats}; modes: {modes}"]


def _sections(result: Audit) -> list[_Section]:
    found, classes = result.findings, result.findings.dataset.classes
    of_the_model = [
        _Section(
            "suspect labels",
            "worth a look"
            + (f", above all the first {result.wrong:,}" if result.wrong else "")
            + f" (the model agrees with {100 * result.agreement:.1f} % of the labels)",
            [
                f"{found.name(suspect.index)}: labelled {found.label(suspect.index)}, looks "
                f"like {classes[suspect.suggested]} ({suspect.score:.3f})"
                for suspect in result.suspects
            ],
        ),
        _Section(
            "neither",
            "photos that seem to show no class" if len(classes) > 1 else "photos unlike the others",
            [f"{found.name(index)} ({score:.1f})" for index, score in result.ood],
        ),
    ]
    contradictions = _Section(
        "contradictions",
        "pictures under different labels",
        [_group(found, group, labels=True) for group in found.contradictions],
    )
    # Labels can be wrong only where there are two.
    about_labels = {"contradictions", "suspect labels"} if len(classes) < 2 else set()
    shown = [contradictions, *(of_the_model if result.model is not None else [])]
    return [
        *(section for section in shown if section.name not in about_labels),
        _Section(
            "unreadable",
            "files that can't be decoded",
            [printable(str(error)) for error in found.failures],
        ),
        _Section(
            "suspicious",
            "blank, tiny, very long, or misnamed",
            [f"{found.name(index)}: {reason}" for index, reason in found.suspicious],
        ),
        _Section(
            "near copies",
            "groups that look alike, also if one is mirrored",
            [_group(found, group) for group in found.near_copies],
        ),
        _Section(
            "exact copies",
            "groups of byte-identical files",
            [_group(found, group) for group in found.exact_copies],
        ),
    ]


def _group(found: Findings, group: Sequence[int], *, labels: bool = False) -> str:
    names = [found.name(index) for index in group]
    if labels:
        pairs = zip(names, group, strict=True)
        names = [f"{name} ({found.label(index)})" for name, index in pairs]
    return " = ".join(names)
