"""Responses that the pages share: security headers, refusals, fixed files, and errors as JSON."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from importlib.resources import files

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException as StarletteHTTPException

from catordog.web.pages import render

HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' blob: data:; object-src 'none'; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}

READ = ["GET", "HEAD"]  # servers send no body after HEAD

_KINDS = {".html": "text/html", ".js": "text/javascript", ".css": "text/css"}


def refused_origin(request: Request, schemes: Sequence[str] = ("http", "https")) -> Response | None:
    """The refusal of a request that a page of another site makes a browser send; else None.

    Browsers say so in `Sec-Fetch-Site`, which no page can set. Where they don't send it, such as
    over HTTP to another machine, the host in `Origin` tells. Programs other than browsers send
    neither.

    Args:
        request: any.
        schemes: of the addresses of this server's own pages. With `https`, a proxy may add TLS.
    """
    origin, site = (request.headers.get(name) for name in ("origin", "sec-fetch-site"))
    host = request.headers.get("host", "").lower()
    own = {f"{scheme}://{host}" for scheme in schemes}
    if origin is None or (origin.lower() in own if site is None else site == "same-origin"):
        return None
    return problem(403, "requests from other sites are refused")


def add_headers(response: Response) -> None:
    """Add the security headers that the response does not set itself."""
    for name, value in HEADERS.items():
        response.headers.setdefault(name, value)


def add_static(app: FastAPI, path: str, name: str) -> None:
    """Serve a file of this package's folder `static`, or a page of its templates, under a path."""
    kind = _KINDS["." + name.rpartition(".")[2]]
    if kind == "text/html":
        content = render(name).encode()
    else:
        content = (files("catordog.web") / "static" / name).read_bytes()
    add_fixed(app, path, content, f"{kind}; charset=utf-8")


def add_fixed(app: FastAPI, path: str, content: bytes, kind: str) -> None:
    """Serve the same content for every GET and HEAD of a path."""
    app.api_route(path, methods=READ, include_in_schema=False)(_fixed(content, kind))


def _fixed(content: bytes, kind: str) -> Callable[[], Awaitable[Response]]:
    async def serve() -> Response:
        return Response(content, media_type=kind)

    return serve


def add_error_handlers(app: FastAPI) -> None:
    """Answer errors with `{"error": reason}`, those of unknown paths and methods included."""
    # Starlette's own class, of which FastAPI's is one: it also has unknown paths and methods.
    app.exception_handler(StarletteHTTPException)(_http_error)
    app.exception_handler(RequestValidationError)(_invalid)


def problem(code: int, reason: str) -> JSONResponse:
    """An error as JSON."""
    headers = {"Retry-After": "1"} if code in {429, 503} else {}
    if code == 413:
        headers = {"Connection": "close"}  # the rest of the body is not read
    return JSONResponse({"error": reason}, code, headers)


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, StarletteHTTPException)
    reason, headers = str(error.detail), dict(error.headers or {})
    if error.status_code == 405:
        # Starlette joins a set, whose order changes from process to process.
        headers["Allow"] = ", ".join(sorted(headers.get("Allow", "another method").split(", ")))
        reason = f"{request.method} is not allowed here: use {headers['Allow']}"
    response = problem(error.status_code, reason)
    response.headers.update(headers)
    return response


async def _invalid(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    return problem(422, "; ".join(str(each.get("msg")) for each in error.errors()))
