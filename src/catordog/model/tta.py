"""Test-time augmentation: average outputs over a photo and its horizontal flip, where unsure."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from catordog.confidence.detectors import Detector
from catordog.confidence.ood_output import OutputDetector
from catordog.confidence.softmax import softmax

Floats = npt.NDArray[np.float32]


def average_flip(
    run: Callable[[Floats], tuple[Floats, ...]],
    photos: Floats,
    below: float,
    pointless: Callable[[tuple[Floats, ...]], npt.NDArray[np.bool_]] | None = None,
) -> tuple[Floats, ...]:
    """Run a network on photos, and again on the horizontal flips of those it is unsure about.

    Each photo is decided by itself, whatever batch it is in. The confidence is that at a
    temperature of 1, so that raw logits do not change with the calibration.

    Args:
        run: gives raw logits `[N, C]` first, and other outputs `[N, …]` after them.
        photos: normalised, `[N, 3, S, S]`.
        below: flip the photos whose confidence without the flip is lower, 0…1; 1: flip all.
        pointless: which photos are not flipped whatever their confidence, `[N]`, from the outputs
            without the flip; None: there are none.

    Returns:
        The outputs of `run`, averaged over both where a photo was flipped.
    """
    outputs = run(photos)
    chosen = _unsure(outputs[0], below)
    if pointless is not None:
        chosen &= ~pointless(outputs)
    if not chosen.any():
        return outputs
    flipped = run(np.ascontiguousarray(photos[chosen, :, :, ::-1]))
    return tuple(
        _averaged(rows, others, chosen) for rows, others in zip(outputs, flipped, strict=True)
    )


def never_one(
    detector: Detector | None, names: Sequence[str]
) -> Callable[[tuple[Floats, ...]], npt.NDArray[np.bool_]] | None:
    """Finds photos that stay `neither` whatever the flip says, from outputs of these names.

    They are less like the classes than any calibration photo. None where the network has not learnt
    to tell such photos.
    """
    if not isinstance(detector, OutputDetector) or not set(detector.needs) <= set(names):
        return None
    (index,) = (names.index(name) for name in detector.needs)
    return lambda outputs: np.asarray(detector.scores(outputs[index]) >= 1)


def _unsure(logits: Floats, below: float) -> npt.NDArray[np.bool_]:
    if below >= 1:  # a confidence of exactly 1, by rounding, is below it too
        return np.ones(len(logits), bool)
    # A photo whose logits are not finite has no confidence, and a mean would not help it.
    chosen: npt.NDArray[np.bool_] = np.asarray(np.isfinite(logits).all(axis=1))
    chosen[chosen] = np.asarray(softmax(logits[chosen]).max(axis=1) < below)
    return chosen


def _averaged(rows: Floats, flipped: Floats, chosen: npt.NDArray[np.bool_]) -> Floats:
    result = rows.copy()
    result[chosen] = (rows[chosen] + flipped) / 2
    return result
