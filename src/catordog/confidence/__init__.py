"""From raw logits to what people read."""

from catordog.confidence.softmax import honest, percent, softmax
from catordog.confidence.verdict import DEFAULT_THRESHOLD, NOT_SURE, Prediction, judge

__all__ = [
    "DEFAULT_THRESHOLD",
    "NOT_SURE",
    "Prediction",
    "honest",
    "judge",
    "percent",
    "softmax",
]
