"""`catordog export`: write a model for other programs, for phones, or as a web page."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from catordog.errors import PhotoError
    from catordog.model.classifier import Classifier
    from catordog.model.export import Content, Precision
    from catordog.photos.splits import Split

    _Read = Callable[[Split, int], tuple[Any, Any]]

DESCRIPTION = """Write a model as one file with its class names, preprocessing and calibration
inside. An .onnx file is for other programs, and for predictions without torch. An .html file is a
page that predicts photos in a browser: it opens by a double click and needs no server, no network
and no catordog. For apps, an .mlpackage runs on Apple devices (Core ML), and a .tflite file on
phones of any make (LiteRT)."""

DRAWN = "drawn:n=400"
"""Synthetic pictures, on whose test split the file is compared with the original without --data."""

MEASURED = 2000
"""Photos on which it is compared, at most."""

RANGED = 256
"""Photos that set the ranges of 8-bit numbers, at most."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this command."""
    parser.add_argument(
        "model", metavar="MODEL", nargs="?", default="bundled",
        help="a .ckpt that catordog train has written; for .html and .tflite also an .onnx, or "
        "bundled, the default; for .mlpackage also an .onnx that catordog teach has written",
    )  # fmt: skip
    parser.add_argument(
        "--out", required=True, metavar="F",
        help="the file to write; it ends in .onnx, .html, .mlpackage or .tflite",
    )  # fmt: skip
    parser.add_argument("--data", metavar="D", help="compare accuracy on these photos")
    smaller = parser.add_mutually_exclusive_group()
    smaller.add_argument("--half", action="store_true", help="half the size: weights in 16 bits")
    smaller.add_argument(
        "--int8", action="store_true", help="a quarter of the size: compute in 8 bits; needs --data"
    )
    parser.add_argument(
        "--runtime",
        metavar="P",
        help="for a page: npm's onnxruntime-web as a folder or .tgz, instead of a download",
    )


def run(args: argparse.Namespace) -> int:
    """Export a model, compare it with the original, and write it.

    Returns:
        0, or 1 if a photo of `--data` was unreadable.
    """
    from pathlib import Path

    from catordog.commands.unreadable import print_unreadable
    from catordog.errors import CatordogError
    from catordog.files import write_bytes
    from catordog.folders import check_replaceable, write_folder
    from catordog.model.classifier import load
    from catordog.model.export import format_of
    from catordog.outputs import check_outputs
    from catordog.terminal import info

    model, out = args.model, Path(args.out)
    if not out.name:
        check_outputs({"--out": args.out}, [])  # refuses it
    form = format_of(out, _precision(args))
    if form.marker:
        check_replaceable("--out", args.out, form.marker)
    else:
        check_outputs({"--out": args.out}, [model, args.data, args.runtime])
    if args.int8 and args.data is None:
        raise CatordogError("--int8 needs --data: photos set the ranges of 8-bit numbers")
    if args.runtime is not None and out.suffix.lower() != ".html":
        raise CatordogError("--runtime is for a page: let --out end in .html")
    classifier = load(model)
    is_onnx = model == "bundled" or Path(model).suffix.lower() == ".onnx"
    failures: dict[str, PhotoError] = {}
    content, facts = _content(classifier, args, failures, is_onnx=is_onnx)
    if isinstance(content, bytes):
        write_bytes(out, content)
        size = len(content)
    else:
        write_folder(out, content)
        size = sum(map(len, content.values()))
    first, *others = facts or [""]
    info(f"{out}: {size / 1e6:.1f} MB{first}")
    for fact in others:
        info(fact)
    print_unreadable(list(failures.values()))
    print(out)
    return 1 if failures else 0


def _content(
    classifier: Classifier,
    args: argparse.Namespace,
    failures: dict[str, PhotoError],
    *,
    is_onnx: bool,
) -> tuple[Content, list[str]]:
    """What to write, and what is known of it as text; `failures` gets what was unreadable, by path.

    Raises:
        CatordogError: the model can't be exported in this format.
    """
    from pathlib import Path

    from catordog.errors import CatordogError
    from catordog.model.export import Settings, export, format_of
    from catordog.model.export.check import check_deterministic, read_back

    out = Path(args.out)
    form = format_of(out)
    settings = Settings(runtime=None if args.runtime is None else Path(args.runtime))
    if form.marker:
        if args.data:
            raise CatordogError(f"--data: only Apple devices run {out}, so photos can't check it")
        check_deterministic(classifier)
        content = export(classifier, out, Settings(_precision(args)))
        return content, ["; only Apple devices run it, so its logits are not compared here"]
    if not is_onnx:
        if out.suffix.lower() == ".html":
            from catordog.web.runtime import open_runtime

            open_runtime(settings.runtime)  # if it is missing, say so before the long work
        file, facts = _export_checkpoint(classifier, args, failures)
        if form.from_onnx:
            return export(read_back(file, ".onnx"), out, settings), facts
        return file, facts
    if not form.from_onnx:
        raise CatordogError(f"{args.model} is an ONNX file already")
    if args.data or args.half:
        option = "--data" if args.data else "--half"
        raise CatordogError(f"{option}: {args.model} is an ONNX file, which is taken as it is")
    return export(classifier, out, settings), []


def _precision(args: argparse.Namespace) -> Precision:
    return "int8" if args.int8 else "float16" if args.half else "float32"


def _export_checkpoint(
    classifier: Classifier, args: argparse.Namespace, failures: dict[str, PhotoError]
) -> tuple[bytes, list[str]]:
    """Export a checkpoint as an ONNX file that gives the same logits.

    Returns:
        The file, and what is known of it as text: how it compares with the original.

    Raises:
        CatordogError: it can't be exported.
    """
    from pathlib import Path

    from catordog.errors import CatordogError
    from catordog.model.export import Settings, export
    from catordog.model.export.check import check_deterministic

    read = _reader(classifier, args.data, failures)  # refuses data of other classes before any work
    precision = _precision(args)
    try:
        check_deterministic(classifier)
        ranges = read("val", RANGED)[0] if args.int8 else None
        content = export(classifier, Path("model.onnx"), Settings(precision, ranges))
        assert isinstance(content, bytes)
        n, difference, before, after = _compare(
            classifier, content, ".onnx", read, exact=precision == "float32"
        )
    except CatordogError as error:
        raise CatordogError(f"{args.out} is not written: {error}") from None
    facts = [f"; on {n:,} photos its logits are within {difference:.1e} of {args.model}'s"]
    if args.data:
        change = f"{before:.2%} before, {after:.2%} after ({after - before:+.2%})"
        facts.append(f"accuracy on them: {change}")
    return content, facts


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


def _reader(classifier: Classifier, data: str | None, failures: dict[str, PhotoError]) -> _Read:
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

    failures.update((error.path, error) for error in dataset.unopened)

    def read(split: Split, most: int) -> tuple[Any, Any]:
        photos = dataset.split(split, fractions)
        step = max(1, len(photos) // most)
        chosen = [photos[index] for index in range(0, len(photos), step)][:most]
        found = read_pixels(chosen, classifier.model.preprocess)
        failures.update((error.path, error) for error in found.failures)
        labels = [indices[photo.label] for photo in found.photos if photo.label is not None]
        return found.pixels, np.array(labels)

    return read
