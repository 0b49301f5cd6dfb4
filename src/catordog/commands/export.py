"""`catordog export`: write a model as one ONNX file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from catordog.errors import CatordogError
from catordog.files import write_bytes
from catordog.model.backends import TorchBackend
from catordog.model.classifier import Classifier, load
from catordog.model.export import quantise, to_onnx
from catordog.photos.datasets import open_data
from catordog.photos.reading import read_pixels
from catordog.photos.splits import Split
from catordog.terminal import say

CHECKED = 64
"""So many drawn pictures go through both formats after writing."""


MEASURED = 2000
"""So many photos of the user's do."""


RANGED = 256
"""So many photos show which numbers 8 bits have to hold."""


def run(model: str, out: str, data: str | None, *, half: bool = False, int8: bool = False) -> int:
    """`catordog export`. Returns 0.

    Args:
        model: a `.ckpt`.
        out: the `.onnx` to write.
        data: photos to check the file on (None: drawn ones); `int8` is fitted to its validation
            split, and measured on its test split.
        half: keep weights in 16 bits: half the size, and the same speed.
        int8: compute in 8 bits: a quarter of the size, and faster where the CPU has it.
    """
    if int8 and data is None:
        raise CatordogError("--int8 needs --data: photos show which numbers 8 bits have to hold")
    if Path(out).suffix != ".onnx":
        raise CatordogError(f"--out {out}: the name of an ONNX file ends in .onnx")
    classifier = load(model)
    if not isinstance(classifier.backend, TorchBackend):
        raise CatordogError(f"{model} is an ONNX file already")
    proto = to_onnx(classifier, half=half)
    if int8:
        proto = quantise(proto, classifier, _read(classifier, data, "val", RANGED)[0])
    write_bytes(Path(out), proto)
    written = load(out)
    pixels, labels = _read(classifier, data, "test", MEASURED if data else CHECKED)
    wanted, got = classifier.logits_of_pixels(pixels), written.logits_of_pixels(pixels)
    apart = float(np.abs(wanted - got).max())
    say(
        f"{out}: {len(proto) / 1e6:.1f} MB; on {len(pixels):,} photos its logits are within "
        f"{apart:.1e} of the original's"
    )
    if not (half or int8) and apart > 1e-3 * max(1.0, float(np.abs(wanted).max())):
        raise CatordogError(f"{out} says something else than {model}: don't use it")
    if data:
        before, after = ((x.argmax(axis=1) == labels).mean() for x in (wanted, got))
        say(f"accuracy on them: {before:.2%} before, {after:.2%} after ({after - before:+.2%})")
    print(out)
    return 0


def _read(classifier: Classifier, data: str | None, split: Split, most: int) -> tuple[Any, Any]:
    """Preprocessed photos of a split, evenly chosen, with their labels."""
    photos = open_data(data or "drawn:n=400").split(split, classifier.model.split_fractions)
    chosen = [photos[place] for place in range(0, len(photos), max(1, len(photos) // most))][:most]
    found = read_pixels(chosen, classifier.model.preprocess)
    return found.pixels, np.array([photo.label for photo in found.photos])
