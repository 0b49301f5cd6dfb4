"""What blur, noise and JPEG compression do to a model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from catordog.confidence.softmax import softmax
from catordog.evaluation.evaluate import Evaluation
from catordog.evaluation.metrics import calibration_error
from catordog.model.classifier import Classifier
from catordog.photos.corruptions import CORRUPTIONS, SEVERITIES, corrupt
from catordog.terminal import progress


@dataclass(frozen=True, slots=True)
class Robustness:
    """What damage to photos does to a model.

    Attributes:
        kinds: of damage, K of them.
        accuracy: `[K, D + 1]`, without damage and at each degree, 0…1.
        ece: the same of the expected calibration error.
        n: photos that it was measured on.
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


def robustness(classifier: Classifier, result: Evaluation, most: int = 400) -> Robustness:
    """Evaluate the same photos after blur, noise and JPEG compression in three degrees.

    Args:
        classifier: the model.
        result: its evaluation.
        most: so many photos, evenly chosen.
    """
    places = np.unique(np.linspace(0, len(result.photos) - 1, most).astype(int))
    labels = result.labels[places]
    whole = [classifier.model.preprocess.load(result.photos[place]) for place in places]
    shape = (len(CORRUPTIONS), len(SEVERITIES) + 1)
    accuracy, ece = np.empty(shape), np.empty(shape)
    with progress("damaging photos", len(CORRUPTIONS) * len(SEVERITIES)) as done:
        for row, kind in enumerate(CORRUPTIONS):
            for degree in (0, *SEVERITIES):
                if degree:
                    pairs = enumerate(whole)
                    pixels = np.stack([corrupt(photo, kind, degree, seed) for seed, photo in pairs])
                    logits = classifier.logits_of_pixels(pixels)
                    done(row * len(SEVERITIES) + degree)
                else:
                    logits = result.logits[places]
                confidences = softmax(logits, result.temperature)
                accuracy[row, degree] = (logits.argmax(axis=1) == labels).mean()
                ece[row, degree] = calibration_error(confidences, labels)
    return Robustness(CORRUPTIONS, accuracy, ece, len(places))
