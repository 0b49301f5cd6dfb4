"""Options that several commands share."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from catordog.photos.decode import DecodeRules

DATA_HELP = (
    "labelled photos: a folder with a sub-folder per class, the same under train/ val/ test/, a "
    "flat folder of cat.N.jpg and dog.N.jpg, a zip or tar of any of these, the Oxford-IIIT Pet "
    "layout, shards, or a name: drawn, oxford-pets, microsoft"
)

ANY_MODEL_HELP = "a .ckpt of catordog train, an .onnx of catordog export, or 'bundled'"

MODEL_HELP = (
    "a .ckpt of catordog train, or an .onnx of catordog export (default: the bundled model)"
)


def error_rate(text: str) -> float:
    """Return the value of `--error-rate`.

    Raises:
        CatordogError: it is not between 0 and 1.

    >>> error_rate("0.05")
    0.05
    """
    from catordog.errors import CatordogError

    value = float(text)
    if not 0 < value < 1:
        raise CatordogError(f"--error-rate {text} is not between 0 and 1: give one such as 0.01")
    return value


def add_accept(parser: argparse.ArgumentParser) -> None:
    """Add `--accept A`."""
    parser.add_argument(
        "--accept",
        type=float,
        metavar="A",
        help="true-accept rate: the fraction of photos of the classes whose verdict is not "
        "'neither' (default: 0.99; 1: never 'neither')",
    )


def add_decoding(parser: argparse.ArgumentParser) -> None:
    """Add `--allow-truncated` and `--max-megapixels`; see `decode_rules`."""
    parser.add_argument(
        "--allow-truncated",
        action="store_true",
        help="read truncated photos as far as possible, instead of skipping them",
    )
    parser.add_argument(
        "--max-megapixels",
        type=float,
        default=200,
        metavar="N",
        help="skip larger photos without decoding them (default: 200)",
    )


def decode_rules(args: argparse.Namespace) -> DecodeRules:
    """Return the rules that the options of `add_decoding` set."""
    from catordog.photos.decode import DecodeRules

    return DecodeRules(args.allow_truncated, args.max_megapixels)


def add_exclude(parser: argparse.ArgumentParser) -> None:
    """Add `--exclude F` and `--decisions F`."""
    parser.add_argument(
        "--exclude", metavar="F", help="leave out the photos that a CSV file or a plain list names"
    )
    add_decisions(parser)


DECISIONS_HELP = (
    "relabel and leave out photos, as decided in a review; or relabel those whose label in a fix "
    "list (CSV) was changed"
)


def add_decisions(parser: argparse.ArgumentParser) -> None:
    """Add `--decisions F`."""
    parser.add_argument("--decisions", metavar="F", help=DECISIONS_HELP)


def add_held_out(parser: argparse.ArgumentParser) -> None:
    """Add `--data D` and `--split S`: the photos that a model is measured on."""
    parser.add_argument("--data", required=True, metavar="D", help=DATA_HELP)
    parser.add_argument(
        "--split",
        default="test",
        choices=["train", "val", "test", "all"],
        help="the part of the data (default: test, the held-out photos)",
    )


def add_host(parser: argparse.ArgumentParser) -> None:
    """Add `--host H`."""
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        metavar="H",
        help="default: 127.0.0.1, this machine only; 0.0.0.0: others can reach it, too",
    )


def add_port(parser: argparse.ArgumentParser, default: int) -> None:
    """Add `--port N`."""
    parser.add_argument(
        "--port", type=_port, default=default, metavar="N", help=f"default: {default}; 0: any"
    )


def _port(text: str) -> int:
    try:
        port = int(text)
    except ValueError:
        port = -1
    if not 0 <= port <= 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port: give a number from 0 to 65535")
    return port
