"""`catordog compare`: several models on the same held-out photos."""

from __future__ import annotations

import argparse

from catordog.commands.options import add_decoding, add_exclude, add_held_out, decode_rules

DESCRIPTION = """Run the same held-out photos through several models: accuracy, calibration, where
they disagree, and which differences are significant."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this command."""
    parser.add_argument("models", nargs="+", metavar="MODEL", help="two or more model files")
    add_held_out(parser)
    parser.add_argument("--html", metavar="F", help="write a page with thumbnails to this file")
    parser.add_argument("--json", metavar="F", help="write the metrics to this file")
    add_exclude(parser)
    add_decoding(parser)


def run(args: argparse.Namespace) -> int:
    """Compare, print the result and write the files. Returns 1 if a photo was unreadable."""
    from pathlib import Path

    from catordog.escaping import json_text, printable
    from catordog.evaluation.compare import compare
    from catordog.files import write_text
    from catordog.outputs import check_outputs
    from catordog.report.comparison_text import report
    from catordog.terminal import info, show

    check_outputs(
        {"--html": args.html, "--json": args.json},
        [*args.models, args.data, args.exclude, args.decisions],
    )
    result = compare(
        args.models,
        args.data,
        args.split,
        exclude=args.exclude,
        decisions=args.decisions,
        rules=decode_rules(args),
    )
    show(report(result))
    if args.json:
        write_text(Path(args.json), json_text(result.to_dict(), indent=2) + "\n")
    if args.html:
        from catordog.report.comparison_page import comparison_page

        write_text(Path(args.html), comparison_page(result))
    failures = result.results[0].failures
    for failure in failures:
        info(f"unreadable: {printable(str(failure))}")
    return 1 if failures else 0
