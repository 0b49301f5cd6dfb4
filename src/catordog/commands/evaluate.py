"""`catordog evaluate`: measure a model on held-out photos."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from catordog.commands.options import (
    ANY_MODEL_HELP,
    add_decoding,
    add_exclude,
    add_held_out,
    decode_rules,
)

if TYPE_CHECKING:
    from PIL import Image

    from catordog.model.classifier import Classifier
    from catordog.photos.photo import Photo

DESCRIPTION = """Measure a model on photos that it was not trained on: accuracy, loss, calibration,
and what its raw logits and softmax confidences are worth."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this command."""
    parser.add_argument("model", metavar="MODEL", help=ANY_MODEL_HELP)
    add_held_out(parser)
    parser.add_argument("--html", metavar="F", help="write a page with figures to this file")
    parser.add_argument("--json", metavar="F", help="write the metrics to this file")
    parser.add_argument("--csv", metavar="F", help="write a row for each photo to this file")
    parser.add_argument(
        "--neither",
        metavar="PATH",
        help="photos that show none of the classes: measure how often they are accepted",
    )
    parser.add_argument(
        "--error-rate",
        type=float,
        metavar="E",
        help="check whether the model keeps this error budget (default: 0.01 and 0.05)",
    )
    add_exclude(parser)
    add_decoding(parser)


def run(args: argparse.Namespace) -> int:
    """Evaluate, print the result and write the files. Returns 1 if a photo was unreadable."""
    import json
    from dataclasses import asdict
    from functools import partial
    from pathlib import Path

    from catordog.evaluation.evaluate import ERROR_RATES, compare_with_truth, evaluate
    from catordog.evaluation.ood import measure_ood, ood_unavailable
    from catordog.evaluation.robustness import robustness
    from catordog.files import write_text
    from catordog.model.checkpoint import run_folder
    from catordog.model.classifier import load
    from catordog.photos.reading import report_failures
    from catordog.report.evaluation_text import report, rows_csv

    classifier = load(args.model)
    if args.error_rate is not None:
        classifier.quantile_for(args.error_rate)  # refuse it before any photo is read
    if args.neither and classifier.model.ood is None:
        raise ood_unavailable()
    result = evaluate(
        classifier,
        args.data,
        args.split,
        model=args.model,
        exclude=args.exclude,
        error_rates=ERROR_RATES if args.error_rate is None else (args.error_rate,),
        rules=decode_rules(args),
    )
    truth = compare_with_truth(result)
    ood = measure_ood(classifier, result, [args.neither]) if args.neither else None
    corrupted = robustness(classifier, result) if args.html else None
    if args.json:
        figures = result.to_dict()
        figures["truth"] = truth and truth.error
        figures["damage"] = corrupted and corrupted.to_dict()
        figures["neither"] = ood and asdict(ood)
        write_text(Path(args.json), json.dumps(figures, indent=2, allow_nan=False) + "\n")
    if args.html:
        from catordog.report.evaluation_page import evaluation_page

        heat = partial(_heat, classifier)
        threshold = classifier.model.threshold
        page = evaluation_page(result, threshold, corrupted, truth, ood, heat)
        write_text(Path(args.html), page)
    if args.csv:
        write_text(Path(args.csv), rows_csv(result))
    print(report(result, truth, ood))
    report_failures(result.failures, run_folder(Path(args.model)) / f"unreadable-{args.split}.txt")
    return 1 if result.failures else 0


def _heat(classifier: Classifier, photo: Photo, label: int) -> Image.Image:
    """The explanation of a class, drawn on a photo. Raises `PhotoError`."""
    import numpy as np

    from catordog.evaluation.explain import explain
    from catordog.report.explanation import heat

    preprocess = classifier.model.preprocess
    image = photo.image(near=preprocess.size)
    found = explain(classifier, image).maps[classifier.classes[label]]
    image.thumbnail((320, 320))
    return heat(image, found / (float(np.abs(found).max()) or 1.0), preprocess)
