"""An evaluation as text."""

from __future__ import annotations

from collections.abc import Sequence

from catordog.confidence.softmax import format_confidence
from catordog.escaping import printable
from catordog.evaluation.error_rate_check import ErrorRateCheck
from catordog.evaluation.evaluate import Evaluation
from catordog.evaluation.metrics import METRICS, Metric, decimals, percent
from catordog.evaluation.ood import OodResult
from catordog.evaluation.sources import SourceResult
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
    if result.ood and len(result.ood.sources) > 1:
        parts.append(f"photos of no class, accepted as one\n{_sources(ood_rows(result.ood))}")
    if result.also:
        parts.append(f"other datasets, all photos\n{_sources(also_rows(result.also))}")
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
        if metric.name == "accuracy" and result.accuracy_as_labelled is not None:
            words = f"with the dataset's own labels of the {result.relabelled:,} relabelled photo"
            words += "s" if result.relabelled > 1 else ""
            words += ", and the excluded ones" if result.excluded else ""
            rows.append(["", percent(result.accuracy_as_labelled), words])
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
    if result.true_accept is not None:
        rate, interval = result.true_accept
        words = f"would be called 'neither': a true-accept rate of {percent(rate)}"
        rows.append(["neither", percent(1 - rate), f"{words} ({_interval(interval)})"])
    if result.ood:
        words = f"of {result.ood.n:,} photos of no class are accepted as one "
        words += f"({_interval(result.ood.false_accept_ci95)}); AUROC "
        words += decimals(result.ood.auroc)
        if result.ood.failures:
            words += f"; {len(result.ood.failures):,} unreadable"
        rows.append(["", percent(result.ood.false_accept), words])
    return rows


def _check_in_words(check: ErrorRateCheck) -> str:
    low, high = check.missed_ci95
    words = f"missed ({percent(low)} to {percent(high)}) with an error budget of "
    words += percent(check.error_rate)
    if check.rejected:
        words += f": {percent(check.outside_set)} by the prediction set, which the budget covers, "
        words += f"and {percent(check.rejected)} called 'neither', which it does not"
    return words + f"; one answer for {100 * check.answered:.1f} % of the photos"


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


def ood_rows(found: OodResult) -> list[list[str]]:
    """A row for each source of photos of no class, with a head, and their total."""
    rows = [["source", "photos", "unreadable", "false-accept rate", "95 % interval", "AUROC"]]
    for each in found.sources:
        rates = [_percent(each.false_accept), _ends(each.false_accept_ci95)]
        auroc = "–" if each.auroc is None else decimals(each.auroc)
        rows.append([printable(each.source), f"{each.n:,}", f"{each.unreadable:,}", *rates, auroc])
    rates = [percent(found.false_accept), _ends(found.false_accept_ci95)]
    total = [f"{found.n:,}", f"{len(found.failures):,}", *rates, decimals(found.auroc)]
    return [*rows, ["total", *total]]


def also_rows(sources: Sequence[SourceResult]) -> list[list[str]]:
    """A row for each further dataset, with a head."""
    head = ["source", "photos", "unreadable", "accuracy", "95 % interval", "NLL", "ECE"]
    rows = [[*head, "true-accept rate", "95 % interval"]]
    for each in sources:
        shown = [percent(each.accuracy), _ends(each.accuracy_ci95), f"{each.nll:.4f}"]
        shown += [percent(each.ece), _percent(each.true_accept), _ends(each.true_accept_ci95)]
        counts = [f"{each.n:,}", f"{len(each.failures):,}"]
        rows.append([printable(each.source), *counts, *shown])
    return rows


def _sources(rows: Sequence[Sequence[str]]) -> str:
    return table(_indented(rows), frozenset(range(1, len(rows[0]))))


def _percent(fraction: float | None) -> str:
    return "–" if fraction is None else percent(fraction)


def _ends(interval: tuple[float, float] | None) -> str:
    return "–" if interval is None else " to ".join(map(percent, interval))


def _interval(interval: tuple[float, float]) -> str:
    return f"95 % interval {_ends(interval)}"


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
