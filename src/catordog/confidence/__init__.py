"""Confidences, calibration and verdicts from raw logits. Numpy only, no input or output."""

from catordog.confidence.softmax import format_confidence, format_percent, softmax
from catordog.confidence.verdict import DEFAULT_THRESHOLD, NOT_SURE, Prediction, judge

__all__ = [
    "DEFAULT_THRESHOLD",
    "NOT_SURE",
    "Prediction",
    "format_confidence",
    "format_percent",
    "judge",
    "softmax",
]
