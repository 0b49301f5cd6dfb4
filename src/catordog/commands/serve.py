"""`catordog serve`: a web page and an HTTP API on this machine."""

from __future__ import annotations

import argparse

from catordog.commands.options import MODEL_HELP, add_host, add_port

DESCRIPTION = """Serve a web page and an HTTP API. Nothing leaves the machine, and no photo is
stored."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this command."""
    parser.add_argument("--model", metavar="M", help=MODEL_HELP)
    add_host(parser)
    add_port(parser, 7860)
    parser.add_argument(
        "--rate",
        type=_rate,
        default=200,
        metavar="R",
        help="requests per second from one address (default: 200; 0: unlimited)",
    )


def _rate(text: str) -> float:
    try:
        rate = float(text)
    except ValueError:
        rate = -1.0
    if not 0 <= rate < float("inf"):
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a rate: give requests per second, 0 or more; 0 is unlimited"
        )
    return rate


def run(args: argparse.Namespace) -> int:
    """Serve until Ctrl-C. Returns 0."""
    import os

    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # the network needs the cores
    from catordog.errors import missing_package

    try:
        from catordog.web.app import create_app
        from catordog.web.limits import Limits
        from catordog.web.listening import LOCAL_NAMES, is_loopback, listen, serve_until_interrupted
    except ModuleNotFoundError as error:
        raise missing_package(error, "serve") from None
    from catordog.model.classifier import load
    from catordog.terminal import info

    classifier = load(args.model)
    listener, address = listen(args.host, args.port)
    local = is_loopback(args.host)
    names = [*LOCAL_NAMES, args.host] if local else None
    app = create_app(classifier, Limits(rate=args.rate), names)
    info(f"{address}  (API: /docs; Ctrl-C stops)")
    if not local:
        info("anyone who can reach this machine can use it; photos are not stored")
    serve_until_interrupted(app, listener)
    return 0
