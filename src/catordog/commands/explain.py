"""`catordog explain`: which parts of a photo speak for which class."""

from __future__ import annotations

import io
from pathlib import Path

from catordog.errors import CatordogError
from catordog.evaluation.explain import explain
from catordog.files import write_bytes
from catordog.model.classifier import load
from catordog.photos.decode import DEFAULT_RULES, DecodeRules, decode
from catordog.photos.stores import read_file
from catordog.report.explanation import draw
from catordog.terminal import say


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
