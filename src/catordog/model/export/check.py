"""Check an exported model against the original, before its file is written."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from catordog.errors import CatordogError
from catordog.model.classifier import Classifier, load

Pixels = npt.NDArray[np.uint8]

TOLERANCE = 1e-3
"""The largest difference of a logit, relative to the largest logit, and at least to 1."""

BATCH_SIZES = (1, 2, 3)


def check_deterministic(classifier: Classifier) -> None:
    """Check that the network gives the same logits for the same photos twice.

    Raises:
        CatordogError: it does not, so that no file can give its logits.
    """
    size = classifier.model.preprocess.size
    pixels = np.random.default_rng(0).integers(0, 256, (2, size, size, 3), dtype=np.uint8)
    once, again = classifier.logits_of_pixels(pixels), classifier.logits_of_pixels(pixels)
    if _difference(once, again) > TOLERANCE:
        raise CatordogError(
            "this network gives other logits for the same photos each time, as with dropout or "
            "noise that stays on: no file can repeat them; make forward() deterministic after "
            "network.eval(), such as F.dropout(x, training=self.training)"
        )


def read_back(content: bytes, suffix: str) -> Classifier:
    """The classifier in the content of a file with this suffix.

    Raises:
        CatordogError: it can't be read.
    """
    with tempfile.TemporaryDirectory() as made:
        file = Path(made) / f"exported{suffix}"
        file.write_bytes(content)
        return load(file)


def check_batches(original: Classifier, exported: Classifier) -> None:
    """Check that an exported network takes batches of any size.

    Raises:
        CatordogError: it does not.
    """
    size = original.model.preprocess.size
    photos = np.random.default_rng(1).integers(0, 256, (3, size, size, 3), dtype=np.uint8)
    for n in BATCH_SIZES:
        expected = original.logits_of_pixels(photos[:n])
        try:
            fits = exported.logits_of_pixels(photos[:n]).shape == expected.shape
        except Exception:  # the errors of a backend have no common class
            fits = False
        if not fits:
            raise CatordogError(
                f"the exported network can't take a batch of {n} photo{'s' if n > 1 else ''}, as "
                "its forward() depends on the number of photos, such as with a loop over the "
                "batch: compute all photos of a batch at once"
            )


def check_logits(
    expected: npt.NDArray[np.float32], logits: npt.NDArray[np.float32], *, exact: bool
) -> float:
    """Compare the logits of an exported network with those of the original.

    Args:
        expected: of the original, `[N, C]`.
        logits: of the exported network for the same photos.
        exact: whether they have to agree; rounded weights change them.

    Returns:
        The largest difference.

    Raises:
        CatordogError: they differ by more than `TOLERANCE`, or some are not finite.
    """
    if not np.isfinite(logits).all() and np.isfinite(expected).all():
        raise CatordogError("the exported network gives logits that are not finite numbers")
    if exact and _difference(expected, logits) > TOLERANCE:
        raise CatordogError(
            f"the exported network gives other logits, which differ by up to "
            f"{float(np.abs(expected - logits).max()):.2g}: its forward() does something that "
            "depends on the example it is exported with"
        )
    return float(np.abs(expected - logits).max())


def _difference(expected: npt.NDArray[Any], found: npt.NDArray[Any]) -> float:
    return float(np.abs(expected - found).max()) / max(1.0, float(np.abs(expected).max()))
