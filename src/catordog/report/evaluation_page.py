"""The page of `catordog evaluate --html`: the verdict first, then a figure for each question."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from catordog.errors import PhotoError
from catordog.evaluation.metrics import FEW_PHOTOS
from catordog.photos.preprocess import thumbnail
from catordog.report.evaluation_text import also_rows, confusion_rows, metric_rows, ood_rows
from catordog.report.figures import (
    confidence_figure,
    corruption_figure,
    margins_figure,
    reliability_figure,
    risk_figure,
    roc_figure,
    svg,
    truth_figure,
)
from catordog.report.page import data_uri, render
from catordog.report.shown import EXPLAINED

if TYPE_CHECKING:
    from markupsafe import Markup
    from PIL.Image import Image

    from catordog.evaluation.evaluate import Evaluation
    from catordog.photos.photo import Photo

Heat = Callable[["Photo", int], "Image"]
"""Draws a heat map of the evidence for a class on a photo; raises `PhotoError`."""

WELL_CALIBRATED, ROUGHLY_CALIBRATED = 0.02, 0.05
"""The highest calibration errors of which the page says so."""


def evaluation_page(result: Evaluation, heat: Heat | None = None) -> str:
    """The page as HTML.

    Args:
        result: the evaluation.
        heat: draws heat maps for the most confident mistakes; None: there are none.
    """
    sure = result.confidence >= result.threshold
    calibration, bias = _calibration(result)
    return render(
        "evaluation.html",
        result=result,
        metrics=result.metrics,
        calibration=calibration,
        bias=bias,
        not_sure=float((~sure).mean()),
        accuracy_if_sure=float(result.correct[sure].mean()) if sure.any() else None,
        figures=_figures(result),
        confusion=confusion_rows(result),
        metric_rows=metric_rows(result),
        ood_rows=ood_rows(result.ood) if result.ood else [],
        also_rows=also_rows(result.also),
        overlays={} if heat is None else _overlays(result, heat),
        most_unusual=(
            [] if result.ood_score is None else np.argsort(-result.ood_score, kind="stable")
        ),
    )


def _calibration(result: Evaluation) -> tuple[str | None, str | None]:
    """How well calibrated the confidence is, and its bias, in words; None where unknown."""
    error = result.metrics.ece
    if result.metrics.n < FEW_PHOTOS:
        return None, None
    if error <= WELL_CALIBRATED:
        return "well calibrated", None
    over = result.confidence.mean() > result.correct.mean()
    words = "roughly calibrated" if error <= ROUGHLY_CALIBRATED else "poorly calibrated"
    return words, "overconfident" if over else "underconfident"


def _figures(result: Evaluation) -> dict[str, Markup]:
    figures: dict[str, tuple[Any, str]] = {
        "reliability": (
            reliability_figure(result),
            f"reliability diagram: calibration error {100 * result.metrics.ece:.1f} %",
        ),
        "margins": (margins_figure(result), "histogram of the margins of the logits"),
        "confidence": (
            confidence_figure(result),
            "histogram of the confidence of right and wrong predictions",
        ),
        "risk": (risk_figure(result), "risk-coverage curve"),
        "roc": (roc_figure(result), "ROC curve"),
    }
    if result.robustness:
        figures["robustness"] = (
            corruption_figure(result.robustness),
            "accuracy and calibration error by kind and severity of corruption",
        )
    if result.truth:
        figures["truth"] = (
            truth_figure(result.truth, result.classes[1]),
            "confidence by true probability",
        )
    return {name: svg(figure, alt) for name, (figure, alt) in figures.items()}


def _overlays(result: Evaluation, heat: Heat) -> dict[int, str]:
    """Heat maps of the most confident mistakes as `data:` URIs, by index."""
    overlays = {}
    for index in result.mistakes[:EXPLAINED]:
        try:
            image = heat(result.photos[index], int(result.predicted[index]))
        except PhotoError:
            continue
        overlays[index] = data_uri(thumbnail(image))
    return overlays
