"""`catordog explain`: which regions of a photo are evidence for which class."""

from __future__ import annotations

import argparse

from catordog.commands.options import MODEL_HELP, add_decoding, decode_rules

DESCRIPTION = """Draw which regions of a photo are evidence for each class: each region is hidden in
turn, and the drop in a class's logit is that region's contribution."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this command."""
    parser.add_argument("photo", metavar="PHOTO", help="a photo")
    parser.add_argument("--model", metavar="M", help=MODEL_HELP)
    parser.add_argument(
        "--out",
        metavar="F",
        help="the PNG file to write (default: PHOTO-explained.png in this folder)",
    )
    add_decoding(parser)


def run(args: argparse.Namespace) -> int:
    """Explain a photo and write the picture. Returns 0."""
    import os
    from pathlib import Path

    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # leave the cores to the network
    from catordog.errors import CatordogError
    from catordog.evaluation.explain import explain
    from catordog.files import file_name, is_stream, write_bytes
    from catordog.model.classifier import load
    from catordog.outputs import check_outputs
    from catordog.photos.photo import Photo
    from catordog.report.explanation import draw
    from catordog.report.pictures import check_replaceable, to_png
    from catordog.terminal import info

    photo = args.photo
    default = file_name(Path(photo).stem, "-explained.png")
    out = default if args.out is None else args.out
    check_outputs({"--out": out}, [photo, args.model], pictures=True)
    file = Path(out)
    if not is_stream(file) and file.suffix.lower() != ".png":
        raise CatordogError(f"--out {args.out}: the picture is a PNG file; end its name in .png")
    check_replaceable("--out", file, "explain")
    classifier = load(args.model)
    size = classifier.model.preprocess.size
    image = Photo.from_file(photo, decode_rules(args)).image(near=size)
    explanation = explain(classifier, image)
    drawn = draw(image, explanation, classifier.model.preprocess)
    write_bytes(file, to_png(drawn, "explain"))
    info(f"{photo}: {explanation.prediction.in_words()}")
    if not is_stream(file):
        print(file)
    return 0
