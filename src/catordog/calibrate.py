"""What happens to a model after training: its confidence is made true, on validation photos."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from catordog.checkpoint import ModelFile
from catordog.classifier import load, rewrite
from catordog.confidence.calibration import fit_temperature, log_loss
from catordog.confidence.conformal import strangeness
from catordog.confidence.softmax import softmax
from catordog.errors import CatordogError
from catordog.terminal import say

MOST_SCORES = 10_000
"""So many are kept in a model file; more would promise hardly finer error rates."""

Batches = Iterable[tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]]


def calibrate(path: Path, photos: Batches) -> ModelFile:
    """Fit the temperature of a model on photos that it has not trained on, and store it.

    The weights and the raw logits stay as they are. Beside the temperature, the file gets what
    `--error-rate` needs: how strange the right answers look.

    Args:
        path: the model's `.ckpt`; it is replaced as a whole.
        photos: batches of validation photos, `uint8 [N, S, S, 3]`, with their labels `[N]`.

    Raises:
        CatordogError: the file can't be read or written, or there are no photos.
    """
    classifier = load(path)
    pairs = [(classifier.logits_of_pixels(pixels), labels) for pixels, labels in photos]
    if not pairs:
        raise CatordogError(f"{path} can't be calibrated: no validation photo could be read")
    logits = np.concatenate([each for each, _ in pairs])
    labels = np.concatenate([each for _, each in pairs])
    temperature = fit_temperature(logits, labels)
    confidences = softmax(logits, temperature)
    scores = np.sort(strangeness(confidences, labels))
    if len(scores) > MOST_SCORES:  # evenly from the ranking, the strangest always among them
        scores = scores[np.linspace(0, len(scores) - 1, MOST_SCORES).round().astype(int)]
    model = replace(
        classifier.model, temperature=temperature, strangeness=tuple(map(float, scores))
    )
    rewrite(path, model)
    accuracy = (logits.argmax(axis=1) == labels).mean()
    before, after = log_loss(softmax(logits), labels).mean(), log_loss(confidences, labels).mean()
    say(
        f"calibrated on {len(labels):,} validation photos ({accuracy:.2%} right): temperature "
        f"{temperature:.3f}, loss {before:.4f} before and {after:.4f} after"
    )
    return model
