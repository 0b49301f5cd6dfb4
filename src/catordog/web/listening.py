"""Listen on an address, and serve an application there until Ctrl-C."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import uvicorn

from catordog.errors import CatordogError

if TYPE_CHECKING:
    from fastapi import FastAPI


def listen(host: str, port: int) -> tuple[socket.socket, str]:
    """Open a port, and return its socket and its address: `http://127.0.0.1:7860`.

    Where it is open on all addresses of this machine, the address is one that others can reach.

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
    shown = _address_in_network() if _is_wildcard(host) else host
    shown = f"[{shown}]" if ":" in shown else shown
    return listener, f"http://{shown}:{listener.getsockname()[1]}"


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a host."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _is_wildcard(host: str) -> bool:
    try:
        return not host or ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return False


def _address_in_network() -> str:
    """The address from which packets leave this machine; its name if it has no network."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # of documentation; connecting by UDP sends nothing
        except OSError:
            return socket.gethostname()
        return str(probe.getsockname()[0])


LOCAL_NAMES = ("localhost", "127.0.0.1", "[::1]")
"""Host names of requests from this machine."""


def host_check(host: str) -> Callable[[str], bool]:
    """Return what tells whether requests with a `Host` header may be answered.

    A web page can point a name of its own at this machine (DNS rebinding), and its requests are
    then of the same origin. It can't do that with an address, or with a name of this machine.

    Args:
        host: that the application listens on.
    """
    own = socket.gethostname().lower()
    names = {"localhost", host.lower()} - {""}
    if not is_loopback(host):
        names |= {own, f"{own}.local"}

    def check(header: str) -> bool:
        try:
            name = urlsplit(f"//{header}").hostname or ""
        except ValueError:
            return False
        if name in names:
            return True
        try:
            address = ipaddress.ip_address(name)
        except ValueError:
            return False
        return address.is_loopback or not is_loopback(host)

    return check


def serve_until_interrupted(app: FastAPI, listener: socket.socket) -> None:
    """Serve until Ctrl-C."""
    config = uvicorn.Config(
        app, log_level="warning", access_log=False, timeout_keep_alive=5, server_header=False,
        limit_concurrency=512, timeout_graceful_shutdown=5,
    )  # fmt: skip
    with suppress(KeyboardInterrupt):  # the way to stop it
        uvicorn.Server(config).run(sockets=[listener])
