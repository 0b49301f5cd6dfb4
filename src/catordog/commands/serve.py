"""`catordog serve`: a web page and an HTTP API on this machine."""

from __future__ import annotations

import argparse

from catordog.commands.options import MODEL_HELP

DESCRIPTION = """Serve a web page and an HTTP API. Nothing leaves the machine, and no photo is
stored."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this command."""
    parser.add_argument("--model", metavar="M", help=MODEL_HELP)
    parser.add_argument(
        "--host", default="127.0.0.1", metavar="H", help="default: 127.0.0.1, this machine only"
    )
    parser.add_argument(
        "--port", type=_port, default=7860, metavar="N", help="default: 7860; 0: any"
    )
    parser.add_argument(
        "--rate",
        type=_rate,
        default=200,
        metavar="R",
        help="requests per second from one address (default: 200; 0: unlimited)",
    )


def _port(text: str) -> int:
    try:
        port = int(text)
    except ValueError:
        port = -1
    if not 0 <= port <= 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port: give a number from 0 to 65535")
    return port


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
    import socket
    from contextlib import suppress

    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # the network needs the cores
    from catordog.errors import CatordogError, missing_package

    try:
        import uvicorn

        from catordog.web.app import create_app
        from catordog.web.limits import Limits
    except ModuleNotFoundError as error:
        raise missing_package(error, "serve") from None
    from catordog.model.classifier import load
    from catordog.terminal import info

    host, port = args.host, args.port
    classifier = load(args.model)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio disables Nagle's algorithm only on sockets that name their protocol.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen()  # before the address is printed, so that it answers
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise CatordogError(f"can't listen on {host}:{port}: {reason}") from None
    port = listener.getsockname()[1]
    local = _is_loopback(host)
    names = ["localhost", "127.0.0.1", "[::1]", host] if local else None
    app = create_app(classifier, Limits(rate=args.rate), names)
    shown = f"[{host}]" if ":" in host else host
    info(f"http://{shown}:{port}  (API: /docs; Ctrl-C stops)")
    if not local:
        info("anyone who can reach this machine can use it; photos are not stored")
    config = uvicorn.Config(
        app, log_level="warning", access_log=False, timeout_keep_alive=5, server_header=False,
        limit_concurrency=512, timeout_graceful_shutdown=5,
    )  # fmt: skip
    with suppress(KeyboardInterrupt):  # the way to stop it
        uvicorn.Server(config).run(sockets=[listener])
    return 0


def _is_loopback(host: str) -> bool:
    import ipaddress

    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
