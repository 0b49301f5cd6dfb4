"""`catordog explain`: where on a photo the network looked, for each class.

Parts of the photo are blurred away, one after the other, and the logits are read again: what a
class's logit loses is what that part said for it (occlusion, after Zeiler and Fergus 2014). It
needs nothing but the network's answers, so it works with every model file; and it finds drawn
animals better than Grad-CAM does, whose maps are as coarse as the last convolution.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter

from catordog.confidence.verdict import Prediction
from catordog.model.classifier import Classifier

Floats = npt.NDArray[np.float32]

GRID = 12
"""Parts of a photo, along each side."""

REACH = 1.2
"""Standard deviation of the soft window that is blurred away, in parts of the grid."""


@dataclass(frozen=True, slots=True, eq=False)
class Explanation:
    """What a photo's parts say for each class.

    Attributes:
        prediction: of the photo as it is.
        maps: for every class, what its logit loses where a part is hidden, `float32 [GRID, GRID]`,
            from the top left, over what the network sees; below 0 where the part speaks against it.
    """

    prediction: Prediction
    maps: dict[str, Floats]


def explain(classifier: Classifier, image: Image.Image) -> Explanation:
    """Find out what each part of a photo says for each class.

    Args:
        classifier: any model.
        image: RGB.
    """
    pixels = classifier.model.preprocess.pixels(image)
    windows = _windows(len(pixels))
    (output,) = classifier.outputs([pixels])
    blurred = ImageFilter.GaussianBlur(len(pixels) / 10)
    hidden = np.asarray(Image.fromarray(pixels).filter(blurred), np.float32)
    shown = pixels.astype(np.float32)
    logits = np.concatenate([
        classifier.logits_of_pixels(
            np.rint(shown + (hidden - shown) * row[..., None]).astype(np.uint8)
        )
        for row in windows
    ])  # fmt: skip
    lost = (output.logits - logits).T.reshape(-1, GRID, GRID)
    return Explanation(classifier.judge(output), dict(zip(classifier.classes, lost, strict=True)))


def _windows(side: int) -> Floats:
    """Soft windows, 0…1, `[GRID, GRID, side, side]`: one around each part of the photo."""
    places = (np.arange(side, dtype=np.float32) + 0.5) * GRID / side
    centres = np.arange(GRID, dtype=np.float32) + 0.5
    along = np.exp(-(((places - centres[:, None]) / REACH) ** 2) / 2)
    return along[:, None, :, None] * along[None, :, None, :]
