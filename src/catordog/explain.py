"""`catordog explain`: where on a photo the network looked, for each class.

Parts of the photo are blurred away, one after the other, and the logits are read again: what a
class's logit loses is what that part said for it (occlusion, after Zeiler and Fergus 2014). It
needs nothing but the network's answers, so it works with every model file; and it finds drawn
animals better than Grad-CAM does, whose maps are as coarse as the last convolution.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from catordog.classifier import Classifier, load
from catordog.confidence.softmax import percent
from catordog.confidence.verdict import Prediction
from catordog.errors import CatordogError
from catordog.files import write_bytes
from catordog.photos.decode import DEFAULT_RULES, DecodeRules, decode
from catordog.photos.preprocess import Preprocess
from catordog.photos.stores import read_file
from catordog.terminal import say

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


def run(photo: str, model: str | None, out: str | None, rules: DecodeRules = DEFAULT_RULES) -> int:
    """`catordog explain`. Returns 0."""
    file = Path(out) if out else Path(f"{Path(photo).stem}-explained.png")
    if file.suffix.lower() != ".png":
        raise CatordogError(f"--out {out}: the picture is a PNG file")
    classifier = load(model)
    image = decode(
        read_file(Path(photo)), photo, near=classifier.model.preprocess.size, rules=rules
    )
    explanation = explain(classifier, image)
    packed = io.BytesIO()
    draw(image, explanation, classifier.model.preprocess).save(packed, "PNG")
    write_bytes(file, packed.getvalue())
    say(f"{photo}: {explanation.prediction.in_words()}")
    print(file)
    return 0


FOR, AGAINST = (230, 97, 1), (94, 60, 153)
"""Orange and purple: colour-blind people can tell them apart (colorbrewer2.org, PuOr)."""

_TALL = 360


def draw(image: Image.Image, explanation: Explanation, preprocess: Preprocess) -> Image.Image:
    """The photo, and beside it what speaks for the first class and for the second.

    Args:
        image: as it went into `explain`.
        explanation: of it.
        preprocess: of the same model.
    """
    said = explanation.prediction
    ranked = sorted(said.logits, key=lambda name: -said.logits[name])[:2]
    width = max(200, min(3 * _TALL, round(_TALL * image.width / image.height)))
    photo = image.resize((width, _TALL), Image.Resampling.BICUBIC)
    strongest = max(float(np.abs(explanation.maps[name]).max()) for name in ranked) or 1.0
    gap, line = 12, 24
    page = Image.new("RGB", (3 * width + 4 * gap, _TALL + 2 * gap + 2 * line + 8), "white")
    pen, font = ImageDraw.Draw(page), ImageFont.load_default(15)
    panels = [(photo, said.in_words(), "orange: speaks for it; purple: against")]
    for name in ranked:
        shown = heat(photo, explanation.maps[name] / strongest, preprocess)
        words = f"logit {said.logits[name]:.3f}, confidence {percent(said.confidences[name])}"
        panels.append((shown, f"for {name}", words))
    for place, (picture, title, words) in enumerate(panels):
        left = gap + place * (width + gap)
        page.paste(picture, (left, gap))
        pen.text((left, gap + _TALL + 6), title, fill="black", font=font)
        pen.text((left, gap + _TALL + 6 + line), words, fill=(70, 70, 70), font=font)
    return page


def heat(photo: Image.Image, values: Floats, preprocess: Preprocess) -> Image.Image:
    """Lay a map over its photo.

    Args:
        photo: RGB, of any size.
        values: `[G, G]`, in −1…1, over what the network sees of the photo.
        preprocess: how it came to see that.
    """
    over = np.asarray(_onto(Image.fromarray(values.astype(np.float32)), photo.size, preprocess))
    base = np.asarray(photo.convert("L").convert("RGB"), np.float32)
    colour = np.where(over[..., None] > 0, np.array(FOR), np.array(AGAINST)).astype(np.float32)
    strength = np.clip(np.abs(over), 0, 1)[..., None] ** 0.7 * 0.8
    return Image.fromarray(np.rint(base + (colour - base) * strength).astype(np.uint8))


def _onto(values: Image.Image, size: tuple[int, int], preprocess: Preprocess) -> Image.Image:
    """A map of the network's square, on a photo of this size."""
    width, height = size
    smooth = Image.Resampling.BICUBIC
    if preprocess.resize == "crop":
        edge = min(size)
        whole = Image.new("F", size)
        whole.paste(
            values.resize((edge, edge), smooth), ((width - edge) // 2, (height - edge) // 2)
        )
        return whole
    if preprocess.resize == "pad":
        edge = max(size)
        left, top = (edge - width) // 2, (edge - height) // 2
        square = values.resize((edge, edge), smooth)
        return square.crop((left, top, left + width, top + height))
    return values.resize(size, smooth)
