"""`catordog calibrate`: fit a model's confidence to labelled photos."""

from __future__ import annotations

import argparse

from catordog.commands.options import DATA_HELP, add_decoding, add_exclude, decode_rules

DESCRIPTION = """Fit the temperature of a model, its conformal scores and its ood detector to
labelled photos that it was not trained on. Weights and raw logits stay as they are."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this command."""
    parser.add_argument(
        "model",
        metavar="MODEL",
        help="a .ckpt of catordog train, or an .onnx of catordog export; it is rewritten",
    )
    parser.add_argument("--data", required=True, metavar="D", help=DATA_HELP)
    parser.add_argument(
        "--split",
        default="val",
        choices=["train", "val", "test", "all"],
        help="which photos (default: val, the validation photos)",
    )
    parser.add_argument(
        "--general",
        action="store_true",
        help="decide 'neither' by the general backbone of the included model, which rejects more "
        "than the model's own network, and runs beside it",
    )
    add_exclude(parser)
    add_decoding(parser)


def run(args: argparse.Namespace) -> int:
    """Calibrate. Returns 1 if a photo was unreadable."""
    from catordog.commands.unreadable import report_unreadable
    from catordog.model.calibrate import calibrate

    result = calibrate(
        args.model,
        args.data,
        args.split,
        general=args.general,
        exclude=args.exclude,
        decisions=args.decisions,
        rules=decode_rules(args),
    )
    report_unreadable(result.failures, args.model, args.split)
    print(args.model)
    return 1 if result.failures else 0
