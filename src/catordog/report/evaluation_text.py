"""An evaluation as text, and as CSV rows."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from catordog.confidence.ood import ACCEPT
from catordog.confidence.softmax import format_confidence
from catordog.evaluation.evaluate import Evaluation, Truth
from catordog.evaluation.ood import OodResult
from catordog.files import path_cell, text_cell
from catordog.terminal import table

SHOWN = 8
"""How many mistakes, and how many unsure photos, are listed."""


def report(
    result: Evaluation, truth: Truth | None = None, strangers: OodResult | None = None
) -> str:
    """The evaluation for people to read."""
    metrics, classes = result.metrics, result.classes
    counts = [int((result.labels == label).sum()) for label in range(len(classes))]
    tally = ", ".join(f"{count:,} {name}" for count, name in zip(counts, classes, strict=True))
    low, high = metrics.accuracy_ci95
    figures = [
        [
            "accuracy",
            _percent(metrics.accuracy),
            f"95 % interval {_percent(low)} to {_percent(high)}",
        ],
        *_with_excluded(result),
        ["loss (NLL)", f"{metrics.nll:.4f}", _against(result, "nll", "{:.4f}".format)],
        ["Brier score", f"{metrics.brier:.4f}", _against(result, "brier", "{:.4f}".format)],
        ["ECE", _percent(metrics.ece), _against(result, "ece", _percent)],
        *(
            [f"  {words}", _percent(getattr(metrics, name)), _against(result, name, _percent)]
            for name, words in (("ece_equal_mass", "equal mass"), ("classwise_ece", "classwise"))
        ),
        ["AUROC", "–" if metrics.auroc is None else f"{metrics.auroc:.4f}", "0.5 is a blind guess"],
    ]
    for target, share in metrics.coverage_at.items():
        aim = f"of the photos, the surest, can be answered at {100 * float(target):g} % accuracy"
        figures.append(["coverage", _percent(share), aim])
    for promise in result.promises:
        least, most = promise.missed_ci95
        kept = f"missed ({_percent(least)} to {_percent(most)}), where {promise.error_rate:.2%} "
        kept += f"was promised; one answer for {promise.answered:.1%} of the photos"
        figures.append(["error rate", _percent(promise.missed), kept])
    if truth:
        words = "how far the confidence is from the true probability"
        figures.append(["truth", _percent(truth.error), words])
    if result.ood_score is not None:
        share = float((result.ood_score > ACCEPT).mean())
        figures.append(["neither", _percent(share), "would be called 'neither'"])
    if strangers:
        words = f"of {strangers.n:,} photos of no class are taken for one; AUROC "
        words += f"{strangers.auroc:.4f}"
        figures.append(["", _percent(strangers.false_accept), words])
    confusion = [["", *(f"said {name}" for name in classes)]]
    confusion += [
        [f"  {true}", *(f"{metrics.confusion[true][said]:,}" for said in classes)]
        for true in classes
    ]
    parts = [
        f"{result.model} on {result.data}, {result.split} split: {metrics.n:,} photos ({tally})"
        + (f", {len(result.failures):,} unreadable" if result.failures else ""),
        table(figures, frozenset({1})),
        "confusion\n" + table(confusion, frozenset(range(1, len(classes) + 1))),
    ]
    parts += [
        f"a temperature is not enough: {other.name} would lower the loss by {other.gain:.4f} "
        f"({other.gain_ci95[0]:.4f} to {other.gain_ci95[1]:.4f})"
        for other in result.alternatives
        if other.better
    ]
    confidence = result.confidences.max(axis=1)
    wrong = np.flatnonzero(result.logits.argmax(axis=1) != result.labels)
    margin = np.sort(result.logits, axis=1)
    sure_first = np.argsort(-(margin[:, -1] - margin[:, -2]), kind="stable")
    mistakes = [index for index in sure_first if index in set(wrong.tolist())]
    if mistakes:
        parts.append(
            "most confident mistakes\n" + _photo_table(result, mistakes[:SHOWN], confidence)
        )
    unsure = list(sure_first[::-1])[:SHOWN]
    parts.append("least confident photos\n" + _photo_table(result, unsure, confidence))
    return "\n\n".join(parts)


def _against(result: Evaluation, name: str, shown: Callable[[float], str]) -> str:
    """The interval of a figure, and what it was before calibration."""
    low, high = result.metrics.ci95[name]
    words = f"95 % interval {shown(low)} to {shown(high)}"
    if result.uncalibrated is None:
        return words
    return f"{words}; {shown(getattr(result.uncalibrated, name))} before calibration"


def _with_excluded(result: Evaluation) -> list[list[str]]:
    if result.accuracy_with_excluded is None:
        return []
    words = f"with the {result.excluded:,} excluded photo{'s' if result.excluded > 1 else ''}"
    return [["", _percent(result.accuracy_with_excluded), words]]


def _percent(share: float) -> str:
    return f"{100 * share:.2f} %"


def _photo_table(
    result: Evaluation, indices: list[Any], confidence: npt.NDArray[np.float64]
) -> str:
    classes = result.classes
    rows = [["  said", "true", "confidence", *(f"logit {name}" for name in classes), "photo"]]
    for index in indices:
        said = int(result.logits[index].argmax())
        rows.append(
            [
                f"  {classes[said]}",
                classes[int(result.labels[index])],
                format_confidence(float(confidence[index])),
                *(f"{logit:.3f}" for logit in result.logits[index].tolist()),
                result.photos[index].path,
            ]
        )
    return table(rows, frozenset(range(2, 3 + len(classes))))


def rows_csv(result: Evaluation) -> str:
    """A row for each photo: path, label, predicted, confidence, then each logit and confidence."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    classes = result.classes
    writer.writerow(
        [
            *("path", "label", "predicted", "confidence"),
            *(f"logit_{name}" for name in classes),
            *(f"confidence_{name}" for name in classes),
            "error",
        ]
    )
    confidences = result.confidences
    for index, photo in enumerate(result.photos):
        said = int(result.logits[index].argmax())
        writer.writerow(
            [
                path_cell(photo.path),
                *(text_cell(classes[label]) for label in (int(result.labels[index]), said)),
                confidences[index, said],
                *result.logits[index].tolist(),
                *confidences[index].tolist(),
                "",
            ]
        )
    for failure in result.failures:
        blank = [""] * (3 + 2 * len(classes))
        writer.writerow([path_cell(failure.path), *blank, text_cell(failure.reason)])
    return text.getvalue()
