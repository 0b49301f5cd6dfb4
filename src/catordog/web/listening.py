"""Listen on an address, and serve an application there until Ctrl-C."""

from __future__ import annotations

import ipaddress
import socket
from contextlib import suppress
from typing import TYPE_CHECKING

import uvicorn

from catordog.errors import CatordogError

if TYPE_CHECKING:
    from fastapi import FastAPI


def listen(host: str, port: int) -> tuple[socket.socket, str]:
    """Open a port, and return its socket and its address: `http://127.0.0.1:7860`.

    Args:
        host: a name or an address of this machine.
        port: 0…65535; 0: any that is free.

    Raises:
        CatordogError: the port is in use, or the host is not of this machine.
    """
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
    shown = f"[{host}]" if ":" in host else host
    return listener, f"http://{shown}:{listener.getsockname()[1]}"


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a host."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


LOCAL_NAMES = ("localhost", "127.0.0.1", "[::1]")
"""Host names of requests from this machine."""


def serve_until_interrupted(app: FastAPI, listener: socket.socket) -> None:
    """Serve until Ctrl-C."""
    config = uvicorn.Config(
        app, log_level="warning", access_log=False, timeout_keep_alive=5, server_header=False,
        limit_concurrency=512, timeout_graceful_shutdown=5,
    )  # fmt: skip
    with suppress(KeyboardInterrupt):  # the way to stop it
        uvicorn.Server(config).run(sockets=[listener])
