"""A comparison as text."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from catordog.confidence.softmax import format_confidence
from catordog.evaluation.compare import Comparison, Pair
from catordog.evaluation.evaluate import Evaluation
from catordog.terminal import table

SHOWN = 8
"""Disagreements that are listed."""


def report(result: Comparison) -> str:
    """The comparison for people to read."""
    first = result.results[0]
    names = short_names([one.model for one in result.results])
    parts = [
        f"{first.data}, {first.split} split: {first.metrics.n:,} photos",
        table(*summary(result, names)),
        *(sentence(pair, names) for pair in result.pairs),
    ]
    if result.disagreements:
        parts.append(where(result, names))
        rows = [["  label", *names, "photo"]]
        for place in result.disagreements[:SHOWN]:
            answers = [answer(one, place) for one in result.results]
            label = first.classes[int(first.labels[place])]
            rows.append([f"  {label}", *answers, first.photos[place].path])
        parts.append("where they disagree most surely\n" + table(rows))
    return "\n\n".join(parts)


def short_names(models: Sequence[str]) -> list[str]:
    """A, B, C, …: paths are too long for columns."""
    return [chr(ord("A") + place) if place < 26 else f"M{place}" for place, _ in enumerate(models)]


def summary(result: Comparison, names: Sequence[str]) -> tuple[list[list[str]], frozenset[int]]:
    """A row for each model, with a head, and which columns are numbers."""
    classes = result.results[0].classes
    rows = [["", "accuracy", "loss (NLL)", "ECE", *classes, "model"]]
    for name, one in zip(names, result.results, strict=True):
        rows.append([name, *_figures(one), one.model])
    return rows, frozenset(range(1, 4 + len(classes)))


def answer(one: Evaluation, place: int) -> str:
    """What a model says of one photo, and how confidently."""
    said = one.classes[int(one.logits[place].argmax())]
    return f"{said} {format_confidence(float(one.confidences_of(place).max()))}"


def _figures(one: Evaluation) -> list[str]:
    """Accuracy, loss, calibration error, and the accuracy on each class."""
    metrics = one.metrics
    each = []
    for name in one.classes:
        row = metrics.confusion[name]
        total = sum(row.values())
        each.append(f"{100 * row[name] / total:.2f} %" if total else "–")
    accuracy, ece = f"{100 * metrics.accuracy:.2f} %", f"{100 * metrics.ece:.2f} %"
    return [accuracy, f"{metrics.nll:.4f}", ece, *each]


def sentence(pair: Pair, names: Sequence[str]) -> str:
    """What the difference of two models comes to."""
    a, b = names[pair.first], names[pair.second]
    low, high = pair.accuracy_ci95
    spread = f"{100 * low:+.2f} to {100 * high:+.2f} points, McNemar's p = {pair.mcnemar_p:.2g}"
    if pair.accuracies_differ:
        better = b if pair.accuracy_difference > 0 else a
        words = f"{better} is more accurate ({b} − {a}: {spread})"
    else:
        words = f"{a} and {b} are equally accurate, as far as these photos tell "
        words += f"({b} − {a}: {spread})"
    low, high = pair.nll_ci95
    loss = f"loss of {b} − {a}: {low:+.4f} to {high:+.4f}"
    if pair.confidences_differ:
        truer = b if pair.nll_difference < 0 else a
        return f"{words}; {truer}'s confidence is truer ({loss})"
    return f"{words}; neither's confidence is truer ({loss})"


def where(result: Comparison, names: Sequence[str]) -> str:
    """Which model is right where they disagree."""
    places = np.array(result.disagreements)
    labels = result.results[0].labels[places]
    said = np.stack([one.logits[places].argmax(axis=1) for one in result.results])
    confidence = np.stack([one.confidences[places].max(axis=1) for one in result.results])
    surer = said[confidence.argmax(axis=0), np.arange(len(places))]
    rights = ", ".join(
        f"{name} is right on {int((row == labels).sum()):,}"
        for name, row in zip(names, said, strict=True)
    )
    return (
        f"they disagree on {len(places):,} photos: {rights}; the surer one of them on "
        f"{int((surer == labels).sum()):,}"
    )
