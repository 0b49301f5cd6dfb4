"""`catordog calibrate`: fit a model's confidence to labelled photos."""

from __future__ import annotations

import argparse

from catordog.commands.options import DATA_HELP

DESCRIPTION = """Fit the temperature of a model, its conformal scores and its ood threshold to
labelled photos that it was not trained on. Weights and raw logits stay as they are."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this command."""
    parser.add_argument("model", metavar="MODEL", help="a .ckpt of catordog train; it is rewritten")
    parser.add_argument("--data", required=True, metavar="D", help=DATA_HELP)


def run(args: argparse.Namespace) -> int:
    """Calibrate. Returns 0."""
    raise NotImplementedError
