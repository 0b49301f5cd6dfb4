"""Draw an explanation: heat maps on the photo."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from catordog.confidence.softmax import format_percent
from catordog.escaping import printable
from catordog.evaluation.explain import Explanation, Floats, explain
from catordog.model.classifier import Classifier
from catordog.photos.photo import Photo
from catordog.photos.preprocess import Preprocess

FOR, AGAINST = (230, 97, 1), (94, 60, 153)
"""Orange and purple: colour-blind people can tell them apart (colorbrewer2.org, PuOr)."""

_HEIGHT = 360


def draw(image: Image.Image, explanation: Explanation, preprocess: Preprocess) -> Image.Image:
    """The photo, and beside it the evidence for the two classes with the highest logits.

    Args:
        image: the one that was given to `explain`.
        explanation: of this image.
        preprocess: of the same model.
    """
    prediction = explanation.prediction
    ranked = sorted(prediction.logits, key=lambda name: -prediction.logits[name])[:2]
    width = max(200, min(3 * _HEIGHT, round(_HEIGHT * image.width / image.height)))
    photo = image.resize((width, _HEIGHT), Image.Resampling.BICUBIC)
    strongest = max(float(np.abs(explanation.maps[name]).max()) for name in ranked) or 1.0
    gap, line = 12, 24
    page = Image.new("RGB", (3 * width + 4 * gap, _HEIGHT + 2 * gap + 2 * line + 8), "white")
    pen, font = ImageDraw.Draw(page), ImageFont.load_default(15)
    panels = [(photo, printable(prediction.in_words()), "orange: evidence for, purple: against")]
    for name in ranked:
        overlay = heat(photo, explanation.maps[name] / strongest, preprocess)
        confidence = format_percent(prediction.confidences[name])
        words = f"logit {prediction.logits[name]:.3f}, confidence {confidence}"
        panels.append((overlay, f"evidence for {printable(name)}", words))
    for column, (picture, title, words) in enumerate(panels):
        left = gap + column * (width + gap)
        page.paste(picture, (left, gap))
        pen.text((left, gap + _HEIGHT + 6), title, fill="black", font=font)
        pen.text((left, gap + _HEIGHT + 6 + line), words, fill=(70, 70, 70), font=font)
    return page


def heat(photo: Image.Image, values: Floats, preprocess: Preprocess) -> Image.Image:
    """Lay a heat map over its photo.

    Args:
        photo: RGB, of any size.
        values: `[G, G]`, each in −1…1, over the network's input.
        preprocess: how the photo became the network's input.
    """
    over = np.asarray(
        _onto_photo(Image.fromarray(values.astype(np.float32)), photo.size, preprocess)
    )
    base = np.asarray(photo.convert("L").convert("RGB"), np.float32)
    colour = np.where(over[..., None] > 0, np.array(FOR), np.array(AGAINST)).astype(np.float32)
    strength = np.clip(np.abs(over), 0, 1)[..., None] ** 0.7 * 0.8
    return Image.fromarray(np.rint(base + (colour - base) * strength).astype(np.uint8))


def heat_of(classifier: Classifier, photo: Photo, label: int, size: int = 320) -> Image.Image:
    """A heat map of the evidence for one class on a copy of a photo, `size` pixels at most.

    Raises:
        PhotoError: the photo can't be read.
    """
    preprocess = classifier.model.preprocess
    image = photo.image(near=preprocess.size)
    values = explain(classifier, image).maps[classifier.classes[label]]
    image.thumbnail((size, size))
    return heat(image, values / (float(np.abs(values).max()) or 1.0), preprocess)


def _onto_photo(values: Image.Image, size: tuple[int, int], preprocess: Preprocess) -> Image.Image:
    """A map of the network's square input, scaled and cropped to a photo of this size."""
    width, height = size
    smooth = Image.Resampling.BICUBIC
    if preprocess.resize == "crop":
        edge = min(size)
        result = Image.new("F", size)
        result.paste(
            values.resize((edge, edge), smooth), ((width - edge) // 2, (height - edge) // 2)
        )
        return result
    if preprocess.resize == "pad":
        edge = max(size)
        left, top = (edge - width) // 2, (edge - height) // 2
        square = values.resize((edge, edge), smooth)
        return square.crop((left, top, left + width, top + height))
    return values.resize(size, smooth)
