"""A comparison of models as text."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from catordog.confidence.softmax import format_confidence
from catordog.escaping import printable
from catordog.evaluation.compare import Comparison, Pair
from catordog.evaluation.evaluate import Evaluation
from catordog.evaluation.metrics import FEW_PHOTOS, METRICS, percent
from catordog.report.shown import SHOWN_IN_TEXT
from catordog.terminal import table

TOO_FEW = 0.05
"""An interval of the accuracy difference that reaches further than this from 0 tells little."""


def report(result: Comparison) -> str:
    """The comparison for people to read."""
    first = result.results[0]
    names = short_names(len(result.results))
    models = [[name, one.model] for name, one in zip(names, result.results, strict=True)]
    parts = [
        f"{first.data}, {first.split} split: {first.metrics.n:,} photos",
        table(models),
        table(summary(result, names), frozenset(range(1, 1 + len(names)))),
        *(sentence(pair, names) for pair in result.pairs),
    ]
    if result.disagreements:
        parts.append(disagreement(result, names))
        rows = [["  label", *names, "photo"]]
        for index in result.disagreements[:SHOWN_IN_TEXT]:
            answers = [answer(one, index) for one in result.results]
            label = first.classes[int(first.labels[index])]
            rows.append([f"  {label}", *answers, printable(first.photos[index].path)])
        parts.append("most confident disagreements\n" + table(rows))
    return "\n\n".join(parts)


def short_names(count: int) -> list[str]:
    """A, B, C, …: paths are too long for columns."""
    return [chr(ord("A") + index) if index < 26 else f"M{index}" for index in range(count)]


def summary(result: Comparison, names: Sequence[str]) -> list[list[str]]:
    """A row for each metric and for the accuracy on each class, with a head; * marks the best."""
    rows = [["", *(f"{name}  " for name in names)]]
    for metric in METRICS:
        values = [one.metrics.values[metric.name] for one in result.results]
        cells = ["–" if value is None else metric.format(value) for value in values]
        rows.append([metric.title, *_marked(cells, metric.best(values))])
    accuracy = METRICS[0]
    for name in result.results[0].classes:
        values = [one.metrics.recall(name) for one in result.results]
        cells = ["–" if value is None else percent(value) for value in values]
        rows.append([f"accuracy on {name}", *_marked(cells, accuracy.best(values))])
    return rows


def _marked(cells: Sequence[str], best: Sequence[int]) -> list[str]:
    """A mark on the best cells, unless all are equal."""
    if len(best) == len(cells):
        best = []
    return [f"{cell}{' *' if index in best else '  '}" for index, cell in enumerate(cells)]


def answer(one: Evaluation, index: int) -> str:
    """A model's prediction for one photo, and its confidence."""
    predicted = one.classes[int(one.predicted[index])]
    return f"{predicted} {format_confidence(float(one.confidence[index]))}"


def sentence(pair: Pair, names: Sequence[str]) -> str:
    """What the differences of two models amount to: accuracy, then calibration, then loss."""
    a, b = names[pair.first], names[pair.second]
    if pair.n < FEW_PHOTOS:
        few = f"{pair.n:,} photos are too few to compare calibration and loss"
        return f"{_accuracy(pair, a, b)}; {few}"
    return "; ".join((_accuracy(pair, a, b), _calibration(pair, a, b), _loss(pair, a, b)))


def _accuracy(pair: Pair, a: str, b: str) -> str:
    low, high = (100 * end for end in pair.accuracy_ci95)
    evidence = f"{b} − {a}: {low:+.2f} to {high:+.2f} points, McNemar's p = {pair.mcnemar_p:.2g}"
    if pair.accuracies_differ:
        better = b if pair.accuracy_difference > 0 else a
        return f"{better} is more accurate ({evidence})"
    words = f"No significant difference in accuracy between {a} and {b} ({evidence})"
    if max(map(abs, pair.accuracy_ci95)) > TOO_FEW:
        words += f": {pair.n:,} photos are too few to tell"
    return words


def _calibration(pair: Pair, a: str, b: str) -> str:
    low, high = (100 * end for end in pair.ece_ci95)
    evidence = f"ECE of {b} − {a}: {low:+.2f} to {high:+.2f} points"
    if pair.calibrations_differ:
        better = b if pair.ece_difference < 0 else a
        return f"{better} is better calibrated ({evidence})"
    return f"no significant difference in calibration ({evidence})"


def _loss(pair: Pair, a: str, b: str) -> str:
    low, high = pair.nll_ci95
    evidence = f"NLL of {b} − {a}: {low:+.4f} to {high:+.4f}"
    if pair.losses_differ:
        better = b if pair.nll_difference < 0 else a
        return f"{better} has the lower loss ({evidence})"
    return f"no significant difference in loss ({evidence})"


def disagreement(result: Comparison, names: Sequence[str]) -> str:
    """Which model is right where they disagree."""
    indices = np.array(result.disagreements, dtype=np.int64)
    labels = result.results[0].labels[indices]
    predicted = np.stack([one.predicted[indices] for one in result.results])
    confidence = np.stack([one.confidence[indices] for one in result.results])
    most_confident = predicted[confidence.argmax(axis=0), np.arange(len(indices))]
    right = ", ".join(
        f"{name} is right on {int((row == labels).sum()):,}"
        for name, row in zip(names, predicted, strict=True)
    )
    photos = f"{len(indices):,} photo{'' if len(indices) == 1 else 's'}"
    return (
        f"The models disagree on {photos}: {right}; the most confident model is right on "
        f"{int((most_confident == labels).sum()):,}"
    )
