"""Explain a prediction by occlusion: `catordog explain`.

Each region of the photo is blurred in turn, and the network predicts again: the drop in a class's
logit is that region's contribution (Zeiler and Fergus 2014). Occlusion needs only the network's
logits, so it works with every model file. It also locates synthetic animals better than Grad-CAM,
whose maps are as coarse as the last convolution.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter

from catordog.confidence.verdict import Prediction
from catordog.model.classifier import Classifier

Floats = npt.NDArray[np.float32]

GRID = 12
"""Regions along each side of a photo."""

REACH = 1.2
"""Standard deviation of the soft window that is blurred, in cells of the grid."""


@dataclass(frozen=True, slots=True, eq=False)
class Explanation:
    """The contribution of each region of a photo to the logit of each class.

    Attributes:
        prediction: for the unchanged photo.
        maps: for every class, the drop of its logit where a region is hidden, `float32
            [GRID, GRID]`, from the top left of the network's input; below 0 where the region is
            evidence against the class.
    """

    prediction: Prediction
    maps: dict[str, Floats]


def explain(classifier: Classifier, image: Image.Image) -> Explanation:
    """Measure what each region of a photo contributes to the logit of each class.

    The network runs 144 times, once for each region.

    Args:
        classifier: any model.
        image: RGB.
    """
    pixels = classifier.model.preprocess.pixels(image)
    windows = _windows(len(pixels))
    backbone = classifier.backbone
    general = None if backbone is None else [backbone.preprocess.pixels(image)]
    (output,) = classifier.outputs([pixels], general)
    steady = _without_bound(classifier)
    blur = ImageFilter.GaussianBlur(len(pixels) / 10)
    hidden = np.asarray(Image.fromarray(pixels).filter(blur), np.float32)
    visible = pixels.astype(np.float32)
    logits = np.concatenate([
        steady.logits_of_pixels(
            np.rint(visible + (hidden - visible) * row[..., None]).astype(np.uint8)
        )
        for row in windows
    ])  # fmt: skip
    drop = (steady.logits_of_pixels(pixels[None]) - logits).T.reshape(-1, GRID, GRID)
    return Explanation(classifier.judge(output), dict(zip(classifier.classes, drop, strict=True)))


def _without_bound(classifier: Classifier) -> Classifier:
    """The classifier; without the flip, if it is averaged only below a confidence.

    Hiding a region may cross that bound, and the map would show the flip instead of the region.
    """
    if not classifier.model.tta_flip or classifier.model.tta_flip_below >= 1:
        return classifier
    return Classifier(classifier.backend, replace(classifier.model, tta_flip=False))


def _windows(size: int) -> Floats:
    """Gaussian windows, 0…1, `[GRID, GRID, size, size]`: one around each region of the photo."""
    positions = (np.arange(size, dtype=np.float32) + 0.5) * GRID / size
    centres = np.arange(GRID, dtype=np.float32) + 0.5
    along = np.exp(-(((positions - centres[:, None]) / REACH) ** 2) / 2)
    return along[:, None, :, None] * along[None, :, None, :]
