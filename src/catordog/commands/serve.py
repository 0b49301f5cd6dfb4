"""`catordog serve`: a web page and an HTTP API on this machine."""

from __future__ import annotations

import ipaddress
from contextlib import suppress

from catordog.errors import CatordogError, missing_package
from catordog.model.classifier import load
from catordog.terminal import say


def run(model: str | None, host: str, port: int, rate: float) -> int:
    """`catordog serve`. Returns 0 after Ctrl-C.

    Args:
        model: see `load`.
        host: an address of this machine; loopback: nobody else can reach it.
        port: 0: any that is free.
        rate: requests a second from one address; 0: any.
    """
    try:
        import uvicorn

        from catordog.web.app import create_app
        from catordog.web.limits import Limits
    except ModuleNotFoundError as error:
        raise missing_package(error, "serve") from None
    import socket

    classifier = load(model)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio sends small answers at once only where it sees that this is TCP.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen()  # so that the address that is told now can be called now
    except OSError as error:
        raise CatordogError(f"can't listen on {host}:{port}: {error.strerror or error}") from None
    port = listener.getsockname()[1]
    local = _is_loopback(host)
    names = ["localhost", "127.0.0.1", "[::1]", host] if local else None
    app = create_app(classifier, Limits(rate=rate), names)
    shown = f"[{host}]" if ":" in host else host
    say(f"http://{shown}:{port}  (API: /docs; Ctrl-C stops)")
    if not local:
        say("everybody who reaches this machine can use it; photos are looked at and not stored")
    config = uvicorn.Config(
        app, log_level="warning", access_log=False, timeout_keep_alive=5, server_header=False,
        limit_concurrency=512, timeout_graceful_shutdown=5,
    )  # fmt: skip
    with suppress(KeyboardInterrupt):  # how it is stopped
        uvicorn.Server(config).run(sockets=[listener])
    return 0


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
