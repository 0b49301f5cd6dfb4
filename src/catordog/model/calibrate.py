"""What happens to a model after training: its confidence is made true, on validation photos."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from catordog.confidence.conformal import nonconformity
from catordog.confidence.ood import LEAST_PHOTOS, OodDetector, fit_ood
from catordog.confidence.softmax import softmax
from catordog.confidence.temperature import fit_temperature, log_loss
from catordog.errors import CatordogError
from catordog.model.checkpoint import rewrite
from catordog.model.classifier import load
from catordog.model.info import ModelInfo
from catordog.terminal import info

MOST_SCORES = 10_000
"""So many are kept in a model file; more would promise hardly finer error rates."""

Batches = Iterable[tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]]


@dataclass(frozen=True, slots=True)
class Calibration:
    """What calibration has measured.

    Attributes:
        model: what the model file now says of itself.
        logits: raw logits of the validation photos, `float32 [N, C]`.
        labels: their labels, `int64 [N]`.
    """

    model: ModelInfo
    logits: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int64]


def calibrate(path: Path, photos: Batches) -> Calibration:
    """Fit the temperature of a model on photos that it has not trained on, and store it.

    The weights and the raw logits stay as they are. Beside the temperature, the file gets what
    `--error-rate` needs: the nonconformity of the right answers.

    Args:
        path: the model's `.ckpt`; it is replaced as a whole.
        photos: batches of validation photos, `uint8 [N, S, S, 3]`, with their labels `[N]`.

    Raises:
        CatordogError: the file can't be read or written, or there are no photos.
    """
    classifier = load(path)

    def seen(pixels: npt.NDArray[np.uint8]) -> tuple[Any, Any]:
        if classifier.has_features:
            return classifier.features_of_pixels(pixels)
        logits = classifier.logits_of_pixels(pixels)
        return logits, logits

    parts = [(*seen(pixels), labels) for pixels, labels in photos]
    if not parts:
        raise CatordogError(f"{path} can't be calibrated: no validation photo could be read")
    logits, features, labels = (np.concatenate(column) for column in zip(*parts, strict=True))
    temperature = fit_temperature(logits, labels)
    confidences = softmax(logits, temperature)
    scores = np.sort(nonconformity(confidences, labels))
    if len(scores) > MOST_SCORES:  # evenly from the ranking, the strangest always among them
        scores = scores[np.linspace(0, len(scores) - 1, MOST_SCORES).round().astype(int)]
    model = replace(
        classifier.model,
        temperature=temperature,
        nonconformity=tuple(map(float, scores)),
        ood=_ood(features) if classifier.has_features else None,
    )
    rewrite(path, model)
    accuracy = (logits.argmax(axis=1) == labels).mean()
    before, after = log_loss(softmax(logits), labels).mean(), log_loss(confidences, labels).mean()
    info(
        f"calibrated on {len(labels):,} validation photos ({accuracy:.2%} right): temperature "
        f"{temperature:.3f}, loss {before:.4f} before and {after:.4f} after"
    )
    if len(labels) < LEAST_PHOTOS:
        info(
            f"{len(labels)} validation photos tell little: take confidence for a rough guess, or "
            "give validation a larger share (--data.val)"
        )
    return Calibration(model, logits, labels)


def _ood(features: npt.NDArray[np.float32]) -> OodDetector | None:
    try:
        return fit_ood(features)
    except CatordogError as error:
        info(f"no photo will be called 'neither': {error}")
        return None
