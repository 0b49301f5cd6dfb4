"""`catordog export`: write a model as one ONNX file."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from catordog.model.classifier import Classifier
    from catordog.photos.splits import Split

DESCRIPTION = """Write a model as one ONNX file, with its class names, preprocessing and calibration
inside: for other programs, and for predictions without torch."""

CHECKED = 64
"""Synthetic pictures that go through both formats after writing."""

MEASURED = 2000
"""Photos of --data that do."""

RANGED = 256
"""Photos that set the ranges of 8-bit numbers."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this command."""
    parser.add_argument("model", metavar="MODEL", help="a .ckpt that catordog train has written")
    parser.add_argument("--out", required=True, metavar="F", help="the .onnx file to write")
    parser.add_argument("--data", metavar="D", help="check the file on these photos as well")
    smaller = parser.add_mutually_exclusive_group()
    smaller.add_argument("--half", action="store_true", help="half the size: weights in 16 bits")
    smaller.add_argument(
        "--int8", action="store_true", help="a quarter of the size: compute in 8 bits; needs --data"
    )


def run(args: argparse.Namespace) -> int:
    """Export a model, and check the file against it. Returns 0."""
    from pathlib import Path

    import numpy as np

    from catordog.errors import CatordogError
    from catordog.files import write_bytes
    from catordog.model.backends import TorchBackend
    from catordog.model.classifier import load
    from catordog.model.export import quantise, to_onnx
    from catordog.terminal import info

    model, out, data = args.model, args.out, args.data
    if args.int8 and data is None:
        raise CatordogError("--int8 needs --data: photos set the ranges of 8-bit numbers")
    if Path(out).suffix != ".onnx":
        raise CatordogError(f"--out {out}: the name of an ONNX file ends in .onnx")
    classifier = load(model)
    if not isinstance(classifier.backend, TorchBackend):
        raise CatordogError(f"{model} is an ONNX file already")
    proto = to_onnx(classifier, half=args.half)
    if args.int8:
        proto = quantise(proto, classifier, _read(classifier, data, "val", RANGED)[0])
    write_bytes(Path(out), proto)
    written = load(out)
    pixels, labels = _read(classifier, data, "test", MEASURED if data else CHECKED)
    wanted, got = classifier.logits_of_pixels(pixels), written.logits_of_pixels(pixels)
    apart = float(np.abs(wanted - got).max())
    info(
        f"{out}: {len(proto) / 1e6:.1f} MB; on {len(pixels):,} photos its logits are within "
        f"{apart:.1e} of the original's"
    )
    if not (args.half or args.int8) and apart > 1e-3 * max(1.0, float(np.abs(wanted).max())):
        raise CatordogError(f"{out} gives other logits than {model}: don't use it")
    if data:
        before, after = ((x.argmax(axis=1) == labels).mean() for x in (wanted, got))
        info(f"accuracy on them: {before:.2%} before, {after:.2%} after ({after - before:+.2%})")
    print(out)
    return 0


def _read(classifier: Classifier, data: str | None, split: Split, most: int) -> tuple[Any, Any]:
    """Preprocessed photos of a split, evenly spaced, with their labels."""
    import numpy as np

    from catordog.photos.datasets import open_dataset
    from catordog.photos.reading import read_pixels

    photos = open_dataset(data or "drawn:n=400").split(split, classifier.model.split_fractions)
    chosen = [photos[index] for index in range(0, len(photos), max(1, len(photos) // most))][:most]
    found = read_pixels(chosen, classifier.model.preprocess)
    return found.pixels, np.array([photo.label for photo in found.photos])
