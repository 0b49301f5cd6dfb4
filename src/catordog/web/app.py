"""The HTTP API and the page: everything comes from this process, nothing leaves it."""

from __future__ import annotations

import asyncio
import html
import io
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib.resources import files
from pathlib import PurePath
from typing import Any

import numpy as np
import numpy.typing as npt
from fastapi import FastAPI, HTTPException, Query, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse
from PIL import Image
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Histogram
from prometheus_client.exposition import generate_latest
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.middleware.trustedhost import TrustedHostMiddleware

from catordog import __version__
from catordog.classifier import BATCH, Classifier, Output
from catordog.errors import PhotoError
from catordog.explain import explain, heat
from catordog.photos.decode import DecodeRules, decode
from catordog.rows import row_of
from catordog.web.batches import Batches, BusyError
from catordog.web.limits import Limits, Rate

Pixels = npt.NDArray[np.uint8]

_STATIC = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/app.js": ("app.js", "text/javascript; charset=utf-8"),
    "/app.css": ("app.css", "text/css; charset=utf-8"),
}

_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' blob: data:; object-src 'none'; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}

_PHOTOS = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "properties": {
                        "files": {"type": "array", "items": {"type": "string", "format": "binary"}}
                    },
                }
            },
            "image/*": {"schema": {"type": "string", "format": "binary"}},
        },
    }
}


@dataclass(frozen=True, slots=True)
class Upload:
    """A photo that somebody sent."""

    name: str
    data: bytes


class Metrics:
    """What Prometheus reads."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "catordog_requests", "Requests", ["route", "code"], registry=self.registry
        )
        self.seconds = Histogram(
            "catordog_request_seconds", "Seconds for a request", ["route"], registry=self.registry
        )
        self.photos = Counter(
            "catordog_photos", "Photos by verdict", ["verdict"], registry=self.registry
        )
        self.batches = Histogram(
            "catordog_batch_photos", "Photos in a batch", buckets=[1, 2, 4, 8, 16],
            registry=self.registry,
        )  # fmt: skip


def create_app(
    classifier: Classifier,
    limits: Limits = Limits(),  # noqa: B008
    hosts: list[str] | None = None,
) -> FastAPI:
    """The application.

    Args:
        classifier: any model.
        limits: what is taken from anybody.
        hosts: names under which it may be called; others are refused, so that no other site can
            make a browser talk to it (DNS rebinding). None: any.
    """
    metrics = Metrics()
    batches: Batches[Pixels, Output] = Batches(
        classifier.outputs, BATCH, seen=metrics.batches.observe
    )
    decoders = ThreadPoolExecutor(thread_name_prefix="decode")
    rate = Rate(limits.rate)
    rules = DecodeRules(max_megapixels=limits.megapixels)
    side = classifier.model.preprocess.size

    @asynccontextmanager
    async def life(_: FastAPI) -> AsyncIterator[None]:
        batches.start()
        yield
        await batches.stop()
        decoders.shutdown(wait=False, cancel_futures=True)

    app = FastAPI(
        title="catordog", version=__version__, lifespan=life, docs_url=None, redoc_url=None,
        description="What is on photos: raw logits, confidences, and a verdict.",
    )  # fmt: skip
    if hosts is not None:
        app.add_middleware(TrustedHostMiddleware, allowed_hosts=hosts, www_redirect=False)

    @app.middleware("http")
    async def around(
        request: Request, proceed: Callable[[Request], Awaitable[Response]]
    ) -> Response:
        start = time.perf_counter()
        client = request.client.host if request.client else ""
        if not rate.allows(client):
            response: Response = _problem(429, "too many requests: try again in a second")
            response.headers["Retry-After"] = "1"
        else:
            try:
                async with asyncio.timeout(limits.seconds):
                    response = await proceed(request)
            except TimeoutError:
                response = _problem(408, f"it took longer than {limits.seconds:g} seconds")
        for name, value in _HEADERS.items():
            response.headers.setdefault(name, value)
        route = request.url.path if request.url.path in _ROUTES else "other"
        metrics.requests.labels(route, response.status_code).inc()
        metrics.seconds.labels(route).observe(time.perf_counter() - start)
        return response

    async def picture(upload: Upload) -> Image.Image:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(
            decoders, lambda: decode(upload.data, upload.name, near=side, rules=rules)
        )

    async def look(upload: Upload) -> dict[str, Any]:
        try:
            loop = asyncio.get_running_loop()
            pixels = await loop.run_in_executor(
                decoders, classifier.model.preprocess.pixels, await picture(upload)
            )
        except PhotoError as error:
            metrics.photos.labels("unreadable").inc()
            return row_of(upload.name, error)
        said = classifier.judge(await batches.ask(pixels))
        metrics.photos.labels(said.verdict).inc()
        return row_of(upload.name, said)

    @app.exception_handler(HTTPException)
    async def told(_: Request, error: HTTPException) -> Response:
        return _problem(error.status_code, str(error.detail))

    @app.exception_handler(BusyError)
    async def busy(_: Request, __: BusyError) -> Response:
        response = _problem(503, "too many photos are waiting: try again in a second")
        response.headers["Retry-After"] = "1"
        return response

    @app.post("/predict", openapi_extra=_PHOTOS)
    async def predict(request: Request) -> Response:
        """What is on photos.

        Send a photo as the body, and get an object; or send a form with files, and get a list.
        A photo that can't be read has an `error`, and the others are answered all the same.
        """
        uploads, several = await _uploads(request, limits)
        rows = await asyncio.gather(*(look(upload) for upload in uploads))
        if several:
            return JSONResponse(rows)
        return JSONResponse(rows[0], 422 if rows[0]["error"] else 200)

    @app.post(
        "/explain",
        openapi_extra=_PHOTOS,
        response_class=Response,
        responses={200: {"content": {"image/png": {}}}},
    )
    async def explained(
        request: Request,
        name: str | None = Query(
            None, alias="class", description="which class; else the likeliest"
        ),
    ) -> Response:
        """Where the network looked, as PNG: orange speaks for the class, purple against it."""
        if name is not None and name not in classifier.classes:
            raise HTTPException(422, f"no class is called {name!r}")
        uploads, _ = await _uploads(request, limits)
        try:
            image = await picture(uploads[0])
        except PhotoError as error:
            return JSONResponse(row_of(uploads[0].name, error), 422)

        def draw() -> bytes:
            found = explain(classifier, image)
            values = found.maps[name or found.prediction.label]
            small = image.copy()
            small.thumbnail((800, 800))
            strongest = float(np.abs(values).max()) or 1.0
            packed = io.BytesIO()
            heat(small, values / strongest, classifier.model.preprocess).save(packed, "PNG")
            return packed.getvalue()

        png = await asyncio.get_running_loop().run_in_executor(decoders, draw)
        return Response(png, media_type="image/png")

    @app.get("/healthz")
    async def health() -> dict[str, Any]:
        """Whether it is up, and what it knows."""
        model = classifier.model
        return {
            "status": "ok",
            "version": __version__,
            "classes": list(model.classes),
            "temperature": model.temperature,
            "photo_bytes": limits.photo_bytes,
        }

    @app.get("/metrics", response_class=Response)
    async def read_metrics() -> Response:
        """Counters and histograms for Prometheus."""
        return Response(generate_latest(metrics.registry), media_type=CONTENT_TYPE_LATEST)

    @app.get("/docs", include_in_schema=False)
    async def docs() -> Response:
        return HTMLResponse(_docs(app.openapi()))

    for path, (name, kind) in _STATIC.items():
        content = (files("catordog.web") / "static" / name).read_bytes()
        app.add_api_route(path, _fixed(content, kind), include_in_schema=False)
    return app


_ROUTES = {*_STATIC, "/predict", "/explain", "/healthz", "/metrics", "/docs", "/openapi.json"}


def _fixed(content: bytes, kind: str) -> Callable[[], Awaitable[Response]]:
    async def serve() -> Response:
        return Response(content, media_type=kind)

    return serve


def _problem(code: int, reason: str) -> JSONResponse:
    return JSONResponse({"error": reason}, code)


async def _uploads(request: Request, limits: Limits) -> tuple[list[Upload], bool]:
    """The photos of a request, in memory only, and whether they came as a form.

    Raises:
        HTTPException: there is none, or too much.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    several = kind == "multipart/form-data"
    most = limits.request_bytes if several else limits.photo_bytes
    if int(request.headers.get("content-length") or 0) > most:
        raise HTTPException(413, f"over {most / 2**20:.0f} MiB")

    async def bounded() -> AsyncIterator[bytes]:
        taken = 0
        async for chunk in request.stream():
            taken += len(chunk)
            if taken > most:
                raise HTTPException(413, f"over {most / 2**20:.0f} MiB")
            yield chunk

    if not several:
        data = b"".join([chunk async for chunk in bounded()])
        if not data:
            raise HTTPException(422, "no photo was sent")
        return [Upload("photo", data)], False
    parser = MultiPartParser(request.headers, bounded(), max_files=limits.photos, max_fields=8)
    parser.spool_max_size = most  # photos never touch the disk
    try:
        form = await parser.parse()
    except MultiPartException as error:
        raise HTTPException(400, error.message) from None
    found = [part for _, part in form.multi_items() if not isinstance(part, str)]
    uploads = [Upload(PurePath(part.filename or "photo").name, await part.read()) for part in found]
    await form.close()
    if not uploads:
        raise HTTPException(422, "no photo was sent")
    for upload in uploads:
        if len(upload.data) > limits.photo_bytes:
            raise HTTPException(413, f"{upload.name}: over {limits.photo_bytes / 2**20:.0f} MiB")
    return uploads, True


def _docs(schema: dict[str, Any]) -> str:
    """The API on one page that needs nothing from elsewhere."""
    parts = []
    for path, methods in schema["paths"].items():
        for method, operation in methods.items():
            words = html.escape(operation.get("description") or operation.get("summary", ""))
            parts.append(
                f"<h2><code>{method.upper()} {html.escape(path)}</code></h2><p>{words}</p>"
            )
    example = html.escape(json.dumps(_EXAMPLE, indent=2))
    return (
        "<!doctype html><html lang=en><meta charset=utf-8><title>catordog: API</title>"
        "<meta name=viewport content='width=device-width'><link rel=stylesheet href=/app.css>"
        f"<main><h1>The API</h1><p>As <a href=/openapi.json>OpenAPI</a>.</p>{''.join(parts)}"
        f"<h2>An answer</h2><pre>{example}</pre>"
        "<pre>curl --data-binary @photo.jpg -H 'Content-Type: image/jpeg' …/predict\n"
        "curl -F files=@a.jpg -F files=@b.jpg …/predict</pre></main></html>"
    )


_EXAMPLE = {
    "path": "photo",
    "label": "dog",
    "confidence": 0.5732,
    "confidences": {"cat": 0.4268, "dog": 0.5732},
    "logits": {"cat": 0.709, "dog": 1.004},
    "verdict": "not sure",
    "error": None,
}
