"""An explanation as a picture."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from catordog.confidence.softmax import format_percent
from catordog.evaluation.explain import Explanation, Floats
from catordog.photos.preprocess import Preprocess

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
        words = (
            f"logit {said.logits[name]:.3f}, confidence {format_percent(said.confidences[name])}"
        )
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
