"""The HTTP API and the page: everything comes from this process, nothing leaves it."""

from __future__ import annotations

import asyncio
import html
import io
import json
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib.resources import files
from pathlib import PurePath
from typing import Any

import numpy as np
import numpy.typing as npt
from fastapi import FastAPI, HTTPException, Query, Request, Response
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Histogram
from prometheus_client.exposition import generate_latest
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.middleware.trustedhost import TrustedHostMiddleware

from catordog import __version__
from catordog.errors import PhotoError
from catordog.evaluation.explain import explain
from catordog.model.classifier import BATCH, Classifier, Output
from catordog.photos.decode import DecodeRules
from catordog.photos.photo import Photo
from catordog.report.explanation import heat
from catordog.report.rows import row_of
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


class Service:
    """What the routes do.

    Args:
        classifier: any model.
        limits: what is taken from anybody.
    """

    def __init__(self, classifier: Classifier, limits: Limits) -> None:
        self.classifier, self.limits = classifier, limits
        self.metrics = Metrics()
        self.batches: Batches[Pixels, Output] = Batches(
            classifier.outputs, BATCH, seen=self.metrics.batches.observe
        )
        self._threads = ThreadPoolExecutor(thread_name_prefix="decode")
        self._rules = DecodeRules(max_megapixels=limits.megapixels)
        self._rate = Rate(limits.rate)

    @asynccontextmanager
    async def life(self, _: FastAPI) -> AsyncIterator[None]:
        """From start to stop."""
        self.batches.start()
        yield
        await self.batches.stop()
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def around(
        self, request: Request, proceed: Callable[[Request], Awaitable[Response]]
    ) -> Response:
        """What every request goes through: rate, time, headers and metrics."""
        start = time.perf_counter()
        if not self._rate.allows(request.client.host if request.client else ""):
            response: Response = _problem(429, "too many requests: try again in a second")
        else:
            try:
                async with asyncio.timeout(self.limits.seconds):
                    response = await proceed(request)
            except TimeoutError:
                response = _problem(408, f"it took longer than {self.limits.seconds:g} seconds")
        for name, value in _HEADERS.items():
            response.headers.setdefault(name, value)
        route = request.url.path if request.url.path in _ROUTES else "other"
        self.metrics.requests.labels(route, response.status_code).inc()
        self.metrics.seconds.labels(route).observe(time.perf_counter() - start)
        return response

    async def predict(self, request: Request) -> Response:
        """What is on photos.

        Send a photo as the body, and get an object; or send a form with files, and get a list.
        A photo that can't be read has an `error`, and the others are answered all the same.
        """
        uploads, several = await _uploads(request, self.limits)
        rows = await asyncio.gather(*(self._look(upload) for upload in uploads))
        if several:
            return JSONResponse(rows)
        return JSONResponse(rows[0], 422 if rows[0]["error"] else 200)

    async def explain(
        self,
        request: Request,
        name: str | None = Query(
            None, alias="class", description="which class; else the likeliest"
        ),
    ) -> Response:
        """Where the network looked, as PNG: orange speaks for the class, purple against it."""
        if name is not None and name not in self.classifier.classes:
            raise HTTPException(422, f"no class is called {name!r}")
        uploads, _ = await _uploads(request, self.limits)
        try:
            png = await self._thread(self._drawn, uploads[0], name)
        except PhotoError as error:
            return JSONResponse(row_of(uploads[0].name, error), 422)
        return Response(png, media_type="image/png")

    async def health(self) -> dict[str, Any]:
        """Whether it is up, and what it knows."""
        model = self.classifier.model
        return {
            "status": "ok",
            "version": __version__,
            "classes": list(model.classes),
            "temperature": model.temperature,
            "photo_bytes": self.limits.photo_bytes,
        }

    async def read_metrics(self) -> Response:
        """Counters and histograms for Prometheus."""
        return Response(generate_latest(self.metrics.registry), media_type=CONTENT_TYPE_LATEST)

    async def _look(self, upload: Upload) -> dict[str, Any]:
        try:
            pixels = await self._thread(self._pixels, upload)
        except PhotoError as error:
            self.metrics.photos.labels("unreadable").inc()
            return row_of(upload.name, error)
        said = self.classifier.judge(await self.batches.ask(pixels))
        self.metrics.photos.labels(said.verdict).inc()
        return row_of(upload.name, said)

    async def _thread(self, work: Callable[..., Any], *given: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work, *given)

    def _photo(self, upload: Upload) -> Photo:
        return Photo.from_bytes(upload.data, upload.name, self._rules)

    def _pixels(self, upload: Upload) -> Pixels:
        return self.classifier.model.preprocess.load(self._photo(upload))

    def _drawn(self, upload: Upload, name: str | None) -> bytes:
        image = self._photo(upload).image(near=self.classifier.model.preprocess.size)
        found = explain(self.classifier, image)
        values = found.maps[name or found.prediction.label]
        image.thumbnail((800, 800))
        strongest = float(np.abs(values).max()) or 1.0
        packed = io.BytesIO()
        heat(image, values / strongest, self.classifier.model.preprocess).save(packed, "PNG")
        return packed.getvalue()


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
    service = Service(classifier, limits)
    app = FastAPI(
        title="catordog", version=__version__, lifespan=service.life, docs_url=None, redoc_url=None,
        description="What is on photos: raw logits, confidences, and a verdict.",
    )  # fmt: skip
    if hosts is not None:
        app.add_middleware(TrustedHostMiddleware, allowed_hosts=hosts, www_redirect=False)
    app.middleware("http")(service.around)
    app.exception_handler(HTTPException)(_told)
    app.exception_handler(BusyError)(_busy)
    app.post("/predict", openapi_extra=_PHOTOS)(service.predict)
    png: dict[int | str, Any] = {200: {"content": {"image/png": {}}}}
    app.post("/explain", openapi_extra=_PHOTOS, response_class=Response, responses=png)(
        service.explain
    )
    app.get("/healthz")(service.health)
    app.get("/metrics", response_class=Response)(service.read_metrics)
    for path, (name, kind) in _STATIC.items():
        content = (files("catordog.web") / "static" / name).read_bytes()
        app.get(path, include_in_schema=False)(_fixed(content, kind))
    docs = _docs(app.openapi()).encode()
    app.get("/docs", include_in_schema=False)(_fixed(docs, "text/html; charset=utf-8"))
    return app


_ROUTES = {*_STATIC, "/predict", "/explain", "/healthz", "/metrics", "/docs", "/openapi.json"}


def _fixed(content: bytes, kind: str) -> Callable[[], Awaitable[Response]]:
    async def serve() -> Response:
        return Response(content, media_type=kind)

    return serve


def _problem(code: int, reason: str) -> JSONResponse:
    headers = {"Retry-After": "1"} if code in {429, 503} else {}
    if code == 413:
        headers = {"Connection": "close"}  # whoever goes on sending is not listened to
    return JSONResponse({"error": reason}, code, headers)


async def _told(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return _problem(error.status_code, str(error.detail))


async def _busy(_: Request, __: Exception) -> Response:
    return _problem(503, "too many photos are waiting: try again in a second")


_DRAINED = 160 * 2**20
"""What is too large is thrown away as it comes, up to here; then nobody listens any more."""


async def _uploads(request: Request, limits: Limits) -> tuple[list[Upload], bool]:
    """The photos of a request, in memory only, and whether they came as a form.

    Raises:
        HTTPException: there is none, or too much.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    several = kind == "multipart/form-data"
    most = limits.request_bytes if several else limits.photo_bytes

    async def bounded() -> AsyncGenerator[bytes, None]:
        taken = 0
        async for chunk in request.stream():
            taken += len(chunk)
            if taken <= most:
                yield chunk
            elif taken > _DRAINED:
                break
        if taken > most:  # told when all was sent, as most programs listen only then
            raise HTTPException(413, f"over {most / 2**20:.0f} MiB")

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
