"""`catordog evaluate`: measure a model on held-out photos."""

from __future__ import annotations

import argparse

from catordog.commands.options import (
    ANY_MODEL_HELP,
    add_accept,
    add_decoding,
    add_exclude,
    add_held_out,
    decode_rules,
    error_rate,
)

DESCRIPTION = """Evaluate a model on photos that it was not trained on: accuracy, loss, calibration,
and how far its confidence can be trusted."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this command."""
    parser.add_argument("model", metavar="MODEL", help=ANY_MODEL_HELP)
    add_held_out(parser)
    parser.add_argument("--html", metavar="F", help="write a page with figures to this file")
    parser.add_argument("--json", metavar="F", help="write the metrics to this file")
    parser.add_argument("--csv", metavar="F", help="write a row for each photo to this file")
    parser.add_argument(
        "--neither",
        nargs="+",
        action="extend",
        default=[],
        metavar="PATH",
        help="photos that show none of the classes: measure how often the model accepts those of "
        "each path",
    )
    parser.add_argument(
        "--also",
        nargs="+",
        action="extend",
        default=[],
        metavar="D",
        help="further labelled datasets: measure accuracy and confidence on all photos of each",
    )
    parser.add_argument(
        "--error-rate",
        type=error_rate,
        metavar="E",
        help="check whether the model keeps this error budget (default: 0.01 and 0.05)",
    )
    add_accept(parser)
    add_exclude(parser)
    add_decoding(parser)


def run(args: argparse.Namespace) -> int:
    """Evaluate, print the result and write the files. Returns 1 if a photo was unreadable."""
    from functools import partial
    from pathlib import Path

    from catordog.commands.unreadable import report_unreadable
    from catordog.confidence.ood import ACCEPT
    from catordog.escaping import json_text, printable
    from catordog.evaluation.evaluate import evaluate
    from catordog.files import write_text
    from catordog.model.classifier import load
    from catordog.outputs import check_outputs
    from catordog.report.evaluation_text import report
    from catordog.terminal import info, show

    check_outputs(
        {"--html": args.html, "--json": args.json, "--csv": args.csv},
        [args.model, args.data, *args.neither, *args.also, args.exclude, args.decisions],
    )
    classifier = load(args.model)
    result = evaluate(
        classifier,
        args.data,
        args.split,
        exclude=args.exclude,
        decisions=args.decisions,
        error_rates=None if args.error_rate is None else (args.error_rate,),
        accept=ACCEPT if args.accept is None else args.accept,
        ood_photos=args.neither,
        also=args.also,
        corruptions=bool(args.html),
        rules=decode_rules(args),
        name=args.model,
    )
    show(report(result))
    if args.json:
        write_text(Path(args.json), json_text(result.to_dict(), indent=2) + "\n")
    if args.html:
        from catordog.report.evaluation_page import evaluation_page
        from catordog.report.explanation import heat_of

        write_text(Path(args.html), evaluation_page(result, partial(heat_of, classifier)))
    if args.csv:
        from catordog.report.evaluation_csv import evaluation_csv

        write_text(Path(args.csv), evaluation_csv(result))
    report_unreadable(result.failures, args.model, args.split)
    unreadable = {
        "--neither": result.ood.failures if result.ood else (),
        "--also": [failure for source in result.also for failure in source.failures],
    }
    for option, failures in unreadable.items():
        for failure in failures:
            info(f"{option}: can't be read: {printable(str(failure))}")
    return 1 if result.failures or any(unreadable.values()) else 0
