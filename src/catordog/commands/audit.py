"""`catordog audit`: find problems in a photo folder."""

from __future__ import annotations

import argparse

from catordog.commands.options import DATA_HELP, add_decisions, add_decoding, decode_rules

DESCRIPTION = """Find problems in a photo folder: unreadable files, copies, near copies, one picture
under several labels, labels that are probably wrong, and photos that show none of the classes."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this command."""
    parser.add_argument("--data", required=True, metavar="D", help=DATA_HELP)
    judge = parser.add_mutually_exclusive_group()
    judge.add_argument(
        "--model",
        metavar="M",
        help="a model whose features judge the labels (default: the bundled general backbone)",
    )
    judge.add_argument(
        "--no-labels", action="store_true", help="judge no labels, which takes the most time"
    )
    parser.add_argument("--html", metavar="F", help="write a page with thumbnails to this file")
    parser.add_argument("--json", metavar="F", help="write the findings to this file")
    parser.add_argument(
        "--fix-list", metavar="F", help="write photos to leave out, for --exclude, to this CSV file"
    )
    add_decisions(parser)
    add_decoding(parser)


def run(args: argparse.Namespace) -> int:
    """Audit, print the findings and write the files. Returns 1 if a photo was unreadable."""
    from pathlib import Path

    from catordog.escaping import json_text
    from catordog.evaluation.audit import audit
    from catordog.files import write_text
    from catordog.outputs import check_outputs
    from catordog.report.audit_text import fix_list, report
    from catordog.terminal import info, show

    check_outputs(
        {"--html": args.html, "--json": args.json, "--fix-list": args.fix_list},
        [args.data, args.model, args.decisions],
    )
    result = audit(
        args.data,
        args.model,
        labels=not args.no_labels,
        decisions=args.decisions,
        rules=decode_rules(args),
    )
    show(report(result))
    if args.json:
        write_text(Path(args.json), json_text(result.to_dict(), indent=1) + "\n")
    if args.fix_list:
        write_text(Path(args.fix_list), fix_list(result))
    if args.html:
        from catordog.report.audit_page import audit_page

        write_text(Path(args.html), audit_page(result))
    for what, file in (("page", args.html), ("JSON", args.json), ("fix list", args.fix_list)):
        if file:
            info(f"{what}: {file}")
    return 1 if result.findings.failures else 0
