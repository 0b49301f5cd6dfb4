"""`catordog export`: write a model as one ONNX file."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from catordog.model.classifier import Classifier
    from catordog.model.export import Precision
    from catordog.photos.splits import Split

DESCRIPTION = """Write a model as one ONNX file, with its class names, preprocessing and calibration
inside: for other programs, and for predictions without torch."""

CHECKED = 64
"""Synthetic pictures on which the written file is compared with the original."""

MEASURED = 2000
"""The same for photos of --data, at most."""

RANGED = 256
"""Photos that set the ranges of 8-bit numbers, at most."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this command."""
    parser.add_argument("model", metavar="MODEL", help="a .ckpt that catordog train has written")
    parser.add_argument(
        "--out", required=True, metavar="F", help="the file to write; it ends in .onnx"
    )
    parser.add_argument("--data", metavar="D", help="compare accuracy on these photos")
    smaller = parser.add_mutually_exclusive_group()
    smaller.add_argument("--half", action="store_true", help="half the size: weights in 16 bits")
    smaller.add_argument(
        "--int8", action="store_true", help="a quarter of the size: compute in 8 bits; needs --data"
    )


def run(args: argparse.Namespace) -> int:
    """Export a model, and compare the file with it. Returns 0."""
    from pathlib import Path

    import numpy as np

    from catordog.errors import CatordogError
    from catordog.files import check_outputs, write_bytes
    from catordog.model.classifier import load
    from catordog.model.export import check_suffix, export
    from catordog.model.formats import FORMATS
    from catordog.terminal import info

    model, out, data = args.model, Path(args.out), args.data
    check_outputs({"--out": args.out}, [model, data])
    if args.int8 and data is None:
        raise CatordogError("--int8 needs --data: photos set the ranges of 8-bit numbers")
    check_suffix(out)
    classifier = load(model)
    if model == "bundled" or Path(model).suffix == out.suffix:
        raise CatordogError(f"{model} is an ONNX file already")
    ranges = _read(classifier, data, "val", RANGED)[0] if args.int8 else None
    precision: Precision = "int8" if args.int8 else "float16" if args.half else "float32"
    content = export(classifier, out, precision, ranges)
    write_bytes(out, content)
    size = f"{out}: {len(content) / 1e6:.1f} MB"
    if out.suffix not in FORMATS:
        info(size)
        print(out)
        return 0
    written = load(out)
    pixels, labels = _read(classifier, data, "test", MEASURED if data else CHECKED)
    expected, logits = classifier.logits_of_pixels(pixels), written.logits_of_pixels(pixels)
    difference = float(np.abs(expected - logits).max())
    info(f"{size}; on {len(pixels):,} photos its logits are within {difference:.1e} of {model}'s")
    if precision == "float32" and difference > 1e-3 * max(1.0, float(np.abs(expected).max())):
        raise CatordogError(f"{out} gives other logits than {model}: don't use it")
    if data:
        before, after = ((x.argmax(axis=1) == labels).mean() for x in (expected, logits))
        info(f"accuracy on them: {before:.2%} before, {after:.2%} after ({after - before:+.2%})")
    print(out)
    return 0


def _read(classifier: Classifier, data: str | None, split: Split, most: int) -> tuple[Any, Any]:
    """Preprocessed photos of a split, evenly spaced, with the model's labels."""
    import numpy as np

    from catordog.model.class_matching import match_classes
    from catordog.photos.datasets import open_dataset
    from catordog.photos.reading import read_pixels

    dataset = open_dataset(data or "drawn:n=400")
    # The labels of synthetic pictures, on which any model can be compared, are not used.
    indices = match_classes(dataset.classes, classifier.classes, data) if data else [0, 1]
    photos = dataset.split(split, classifier.model.split_fractions)
    chosen = [photos[index] for index in range(0, len(photos), max(1, len(photos) // most))][:most]
    found = read_pixels(chosen, classifier.model.preprocess)
    labels = [indices[photo.label] for photo in found.photos if photo.label is not None]
    return found.pixels, np.array(labels)
