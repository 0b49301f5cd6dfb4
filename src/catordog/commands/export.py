"""`catordog export`: write a model as one ONNX file."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from catordog.model.classifier import Classifier
    from catordog.model.export import Precision
    from catordog.photos.splits import Split

    _Read = Callable[[Split, int], tuple[Any, Any]]

DESCRIPTION = """Write a model as one ONNX file, with its class names, preprocessing and calibration
inside: for other programs, and for predictions without torch."""

DRAWN = "drawn:n=400"
"""Synthetic pictures, on whose test split the file is compared with the original without --data."""

MEASURED = 2000
"""Photos on which it is compared, at most."""

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
    """Export a model, compare it with the original, and write it. Returns 0."""
    from pathlib import Path

    from catordog.errors import CatordogError
    from catordog.files import check_outputs, write_bytes
    from catordog.model.classifier import load
    from catordog.model.export import check_suffix, export
    from catordog.model.export.check import check_deterministic
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
    read = _reader(classifier, data)  # refuses data of other classes before any work
    precision: Precision = "int8" if args.int8 else "float16" if args.half else "float32"
    try:
        check_deterministic(classifier)
        ranges = read("val", RANGED)[0] if args.int8 else None
        content = export(classifier, out, precision, ranges)
        found = (
            _compare(classifier, content, out.suffix, read, exact=precision == "float32")
            if out.suffix in FORMATS
            else None
        )
    except CatordogError as error:
        raise CatordogError(f"{out} is not written: {error}") from None
    write_bytes(out, content)
    size = f"{out}: {len(content) / 1e6:.1f} MB"
    if found is None:
        info(size)
    else:
        n, difference, before, after = found
        info(f"{size}; on {n:,} photos its logits are within {difference:.1e} of {model}'s")
        if data:
            info(
                f"accuracy on them: {before:.2%} before, {after:.2%} after ({after - before:+.2%})"
            )
    print(out)
    return 0


def _compare(
    classifier: Classifier, content: bytes, suffix: str, read: _Read, *, exact: bool
) -> tuple[int, float, float, float]:
    """Compare an exported file with the original on photos.

    Returns:
        the number of photos, the largest difference of their logits, and the accuracies of the
        original and of the file.

    Raises:
        CatordogError: the file is not the same classifier.
    """
    from catordog.model.export.check import check_batches, check_logits, read_back

    exported = read_back(content, suffix)
    check_batches(classifier, exported)
    pixels, labels = read("test", MEASURED)
    expected, logits = classifier.logits_of_pixels(pixels), exported.logits_of_pixels(pixels)
    difference = check_logits(expected, logits, exact=exact)
    before, after = (float((x.argmax(axis=1) == labels).mean()) for x in (expected, logits))
    return len(pixels), difference, before, after


def _reader(classifier: Classifier, data: str | None) -> _Read:
    """A function that reads photos of a split, evenly spaced, with the model's labels.

    Raises:
        CatordogError: the data can't be opened, or the model lacks a class of theirs.
    """
    import numpy as np

    from catordog.model.class_matching import match_classes
    from catordog.photos.datasets import open_dataset
    from catordog.photos.reading import read_pixels
    from catordog.photos.splits import SplitFractions

    dataset = open_dataset(data or DRAWN)
    # The labels of synthetic pictures, on which any model can be compared, are not used.
    indices = match_classes(dataset.classes, classifier.classes, data) if data else [0, 1]
    # A model that has learnt from all photos of its own holds none of them out.
    fractions = classifier.model.split_fractions if data else SplitFractions()

    def read(split: Split, most: int) -> tuple[Any, Any]:
        photos = dataset.split(split, fractions)
        step = max(1, len(photos) // most)
        chosen = [photos[index] for index in range(0, len(photos), step)][:most]
        found = read_pixels(chosen, classifier.model.preprocess)
        labels = [indices[photo.label] for photo in found.photos if photo.label is not None]
        return found.pixels, np.array(labels)

    return read
