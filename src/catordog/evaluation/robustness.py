"""Measure how accuracy and calibration hold up on corrupted photos: blur, noise, JPEG."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from catordog.confidence.softmax import softmax
from catordog.evaluation.metrics import ece
from catordog.evaluation.predictions import Predictions
from catordog.model.classifier import Classifier
from catordog.photos.corruptions import CORRUPTIONS, SEVERITIES, corrupt
from catordog.photos.photo import Photo
from catordog.terminal import progress

MOST_PHOTOS = 400


@dataclass(frozen=True, slots=True, eq=False)
class Robustness:
    """Accuracy and calibration on corrupted photos.

    Attributes:
        kinds: of corruption, K of them.
        accuracy: without corruption, and at each of S severities, `[K, S + 1]`, 0…1.
        ece: the expected calibration error likewise.
        n: the number of photos.
    """

    kinds: tuple[str, ...]
    accuracy: npt.NDArray[np.float64]
    ece: npt.NDArray[np.float64]
    n: int

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for JSON."""
        return {
            "n": self.n,
            **{
                kind: {"accuracy": self.accuracy[row].tolist(), "ece": self.ece[row].tolist()}
                for row, kind in enumerate(self.kinds)
            },
        }


def robustness(
    classifier: Classifier, photos: Sequence[Photo], found: Predictions, most: int = MOST_PHOTOS
) -> Robustness:
    """Predict the same photos again after each corruption in three severities.

    Args:
        classifier: the model.
        photos: the N photos.
        found: its predictions for them.
        most: at most so many of the photos, chosen evenly.
    """
    chosen = np.unique(np.linspace(0, len(photos) - 1, most).astype(int))
    labels = found.labels[chosen]
    clean = [classifier.model.preprocess.load(photos[index]) for index in chosen]
    shape = (len(CORRUPTIONS), len(SEVERITIES) + 1)
    accuracy, calibration = np.empty(shape), np.empty(shape)
    accuracy[:, 0] = found.correct[chosen].mean()
    calibration[:, 0] = ece(found.confidences[chosen], labels)
    with progress("predicting corrupted photos", len(CORRUPTIONS) * len(SEVERITIES)) as done:
        for row, kind in enumerate(CORRUPTIONS):
            for column, severity in enumerate(SEVERITIES, 1):
                pixels = np.stack(
                    [corrupt(photo, kind, severity, seed) for seed, photo in enumerate(clean)]
                )
                logits = classifier.logits_of_pixels(pixels)
                accuracy[row, column] = (logits.argmax(axis=1) == labels).mean()
                calibration[row, column] = ece(softmax(logits, found.temperature), labels)
                done(row * len(SEVERITIES) + column)
    return Robustness(CORRUPTIONS, accuracy, calibration, len(chosen))
