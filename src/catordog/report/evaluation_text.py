"""An evaluation as text."""

from __future__ import annotations

from collections.abc import Sequence

from catordog.confidence.softmax import format_confidence
from catordog.escaping import printable
from catordog.evaluation.error_rate_check import ErrorRateCheck
from catordog.evaluation.evaluate import Evaluation
from catordog.evaluation.metrics import METRICS, Metric, percent
from catordog.report.shown import SHOWN_IN_TEXT
from catordog.terminal import table


def report(result: Evaluation) -> str:
    """The evaluation for people to read."""
    classes = tuple(map(printable, result.classes))
    counts = [int((result.labels == label).sum()) for label in range(len(classes))]
    tally = ", ".join(f"{count:,} {name}" for count, name in zip(counts, classes, strict=True))
    parts = [
        f"{result.model} on {result.data}, {result.split} split: {result.metrics.n:,} photos "
        f"({tally})" + (f", {len(result.failures):,} unreadable" if result.failures else ""),
        table(_results(result), frozenset({1})),
        "confusion\n"
        + table(_indented(confusion_rows(result)), frozenset(range(1, 1 + len(classes)))),
    ]
    parts += [
        f"a temperature is not enough: {other.name} would lower the loss by {other.gain:.4f} "
        f"({other.gain_ci95[0]:.4f} to {other.gain_ci95[1]:.4f})"
        for other in result.alternatives
        if other.better
    ]
    if result.mistakes:
        mistakes = _photos(result, result.mistakes[:SHOWN_IN_TEXT])
        parts.append("most confident mistakes\n" + mistakes)
    least = result.ranking[::-1][:SHOWN_IN_TEXT].tolist()
    parts.append("least confident photos\n" + _photos(result, least))
    return "\n\n".join(parts)


def _results(result: Evaluation) -> list[list[str]]:
    """Rows of name, value and explanation."""
    rows = []
    for metric in METRICS:
        value = result.metrics.values[metric.name]
        shown = "–" if value is None else metric.format(value)
        rows.append([metric.title, shown, _note(result, metric)])
        if metric.name == "accuracy" and result.accuracy_with_excluded is not None:
            words = (
                f"with the {result.excluded:,} excluded photo{'s' if result.excluded > 1 else ''}"
            )
            rows.append(["", percent(result.accuracy_with_excluded), words])
    for target, fraction in result.metrics.coverage_at.items():
        words = f"of the photos, the most confident, can be answered at {100 * float(target):g} %"
        rows.append(["coverage", percent(fraction), f"{words} accuracy"])
    rows += [
        ["error rate", percent(check.missed), _check_in_words(check)]
        for check in result.error_rate_checks
    ]
    if result.truth:
        words = "mean difference between the confidence and the true probability"
        rows.append(["truth", percent(result.truth.error), words])
    if result.ood_score is not None:
        rejected = float((result.ood_score > result.accept).mean())
        rows.append(["neither", percent(rejected), "would be called 'neither'"])
    if result.ood:
        words = f"of {result.ood.n:,} photos of no class are accepted as one; AUROC "
        words += f"{result.ood.auroc:.4f}"
        if result.ood.failures:
            words += f"; {len(result.ood.failures):,} unreadable"
        rows.append(["", percent(result.ood.false_accept), words])
    return rows


def _check_in_words(check: ErrorRateCheck) -> str:
    low, high = check.missed_ci95
    words = f"missed ({percent(low)} to {percent(high)}) with an error budget of "
    words += f"{check.error_rate:.2%}"
    if check.rejected:
        words += f": {percent(check.outside_set)} by the prediction set, which the budget covers, "
        words += f"and {percent(check.rejected)} called 'neither', which it does not"
    return words + f"; one answer for {check.answered:.1%} of the photos"


def _note(result: Evaluation, metric: Metric) -> str:
    """A metric's interval, and its value before calibration; or what it measures."""
    interval = result.metrics.interval(metric.name)
    if interval is None:
        return metric.description
    low, high = map(metric.format, interval)
    words = f"95 % interval {low} to {high}"
    before = result.uncalibrated_metrics.values[metric.name]
    if result.temperature == 1 or metric.name == "accuracy" or before is None:
        return words
    return f"{words}; {metric.format(before)} before calibration"


def metric_rows(result: Evaluation) -> list[list[str]]:
    """A row for each metric, with a head: before and after calibration, interval, meaning."""
    rows = [["", "before calibration", "after", "95 % interval", "what it measures"]]
    for metric in METRICS:
        values = [
            "–" if value is None else metric.format(value)
            for value in (
                result.uncalibrated_metrics.values[metric.name],
                result.metrics.values[metric.name],
            )
        ]
        interval = result.metrics.interval(metric.name)
        shown = "" if interval is None else " to ".join(map(metric.format, interval))
        meaning = f"{metric.description}; {metric.better} is better"
        rows.append([metric.title, *values, shown, meaning])
    return rows


def confusion_rows(result: Evaluation) -> list[list[str]]:
    """The confusion matrix with a head: a row for each label, a column for each prediction."""
    rows = [["", *(f"predicted {name}" for name in map(printable, result.classes))]]
    for true, counts in result.metrics.confusion.items():
        rows.append([printable(true), *(f"{count:,}" for count in counts.values())])
    return rows


def _indented(rows: Sequence[Sequence[str]]) -> list[list[str]]:
    return [[f"  {first}", *others] for first, *others in rows]


def _photos(result: Evaluation, indices: Sequence[int]) -> str:
    classes = tuple(map(printable, result.classes))
    rows = [["  predicted", "label", "confidence", *(f"logit {name}" for name in classes), "photo"]]
    rows += [
        [
            f"  {classes[int(result.predicted[index])]}",
            classes[int(result.labels[index])],
            format_confidence(float(result.confidence[index])),
            *(f"{logit:.3f}" for logit in result.logits[index].tolist()),
            printable(result.photos[index].path),
        ]
        for index in indices
    ]
    return table(rows, frozenset(range(2, 3 + len(classes))))
