"""The HTTP API and the web page of `catordog serve`. Photos stay in the memory of this process."""

from __future__ import annotations

import asyncio
import io
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
from fastapi import FastAPI, HTTPException, Query, Request, Response
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Histogram
from prometheus_client.exposition import generate_latest
from starlette.middleware.trustedhost import TrustedHostMiddleware

from catordog import __version__
from catordog.errors import PhotoError
from catordog.evaluation.explain import explain
from catordog.model.backends import BATCH
from catordog.model.classifier import Classifier
from catordog.model.first_stage import Output, Prepared
from catordog.photos.decode import DecodeRules
from catordog.photos.photo import Photo
from catordog.report.explanation import heat
from catordog.report.rows import row_of
from catordog.web.batches import Batches, BusyError
from catordog.web.limits import Limits, Rate
from catordog.web.pages import render
from catordog.web.responses import (
    READ,
    add_error_handlers,
    add_fixed,
    add_headers,
    add_static,
    problem,
    refused_origin,
)
from catordog.web.teaching import TEACHING_ROUTES, Teaching
from catordog.web.uploads import Upload, read_uploads

Pixels = npt.NDArray[np.uint8]

_STATIC = {
    "/": "index.html",
    "/app.js": "app.js",
    "/cards.js": "cards.js",
    "/softmax.js": "softmax.js",
    "/verdict.js": "verdict.js",
    "/app.css": "app.css",
    "/teach": "teach.html",
    "/teach.js": "teach.js",
    "/teach.css": "teach.css",
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


class Metrics:
    """Counters and histograms for Prometheus."""

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
    """The work behind the routes.

    Args:
        classifier: any model.
        limits: of requests.
    """

    def __init__(self, classifier: Classifier, limits: Limits) -> None:
        self.classifier, self.limits = classifier, limits
        self.metrics = Metrics()
        self.batches: Batches[Prepared, Output | PhotoError] = Batches(
            classifier.outputs_of, BATCH, observe=self.metrics.batches.observe
        )
        self._threads = ThreadPoolExecutor(thread_name_prefix="decode")
        self._rules = DecodeRules(max_megapixels=limits.megapixels)
        self.teaching = Teaching(limits, self._thread, self._photo)
        self._rate = Rate(limits.rate)

    @asynccontextmanager
    async def life(self, _: FastAPI) -> AsyncIterator[None]:
        """Start and stop with the application."""
        self.batches.start()
        self.teaching.start()
        yield
        await self.batches.stop()
        await self.teaching.stop()
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def around(
        self, request: Request, proceed: Callable[[Request], Awaitable[Response]]
    ) -> Response:
        """Apply origin check, rate limit, timeout, headers and metrics to a request."""
        start = time.perf_counter()
        # First, so that other sites don't use up the rate of this machine. Reading changes nothing.
        refusal = None if request.method in READ else refused_origin(request)
        if refusal is not None:
            response = refusal
        elif not self._rate.allows(request.client.host if request.client else ""):
            response = problem(429, "too many requests: try again in a second")
        else:
            try:
                async with asyncio.timeout(self.limits.seconds):
                    response = await proceed(request)
            except TimeoutError:
                response = problem(408, f"the request took over {self.limits.seconds:g} seconds")
        add_headers(response)
        route = request.url.path if request.url.path in _ROUTES else "other"
        self.metrics.requests.labels(route, response.status_code).inc()
        self.metrics.seconds.labels(route).observe(time.perf_counter() - start)
        return response

    async def predict(self, request: Request) -> Response:
        """Predict what photos show.

        Send a photo as the body to get an object, or a form with files to get a list. A photo that
        can't be read has an `error` in its row.
        """
        uploads, several = await read_uploads(request, self.limits)
        rows = await asyncio.gather(*(self._row(upload) for upload in uploads))
        if several:
            return JSONResponse(rows)
        return JSONResponse(rows[0], 422 if rows[0]["error"] else 200)

    async def explain(
        self,
        request: Request,
        name: str | None = Query(
            None, alias="class", description="the class to explain; default: the predicted one"
        ),
    ) -> Response:
        """Explain a prediction with a heat map, as PNG.

        Orange regions speak for the class, purple ones against it.
        """
        if name is not None and name not in self.classifier.classes:
            raise HTTPException(
                422, f"unknown class {name!r}: the model has {', '.join(self.classifier.classes)}"
            )
        uploads, _ = await read_uploads(request, self.limits)
        try:
            png = await self._thread(self._heat_map, uploads[0], name)
        except PhotoError as error:
            return JSONResponse(row_of(uploads[0].name, error), 422)
        return Response(png, media_type="image/png")

    async def health(self) -> dict[str, Any]:
        """Report that the service is up, and describe its model."""
        model = self.classifier.model
        return {
            "status": "ok",
            "version": __version__,
            "classes": list(model.classes),
            "temperature": model.temperature,
            "photo_bytes": self.limits.photo_bytes,
        }

    async def read_metrics(self) -> Response:
        """Report counters and histograms for Prometheus."""
        return Response(generate_latest(self.metrics.registry), media_type=CONTENT_TYPE_LATEST)

    async def _row(self, upload: Upload) -> dict[str, Any]:
        try:
            prepared = await self._thread(self._prepared, upload)
            output = await self.batches.ask(prepared)
            if isinstance(output, PhotoError):
                raise output
        except PhotoError as error:
            self.metrics.photos.labels("unreadable").inc()
            return row_of(upload.name, error)
        prediction = self.classifier.judge(output)
        self.metrics.photos.labels(prediction.verdict).inc()
        return row_of(upload.name, prediction)

    async def _thread(self, work: Callable[..., Any], *given: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work, *given)

    def _photo(self, upload: Upload) -> Photo:
        return Photo.from_bytes(upload.data, upload.name, self._rules)

    def _prepared(self, upload: Upload) -> Prepared:
        return self.classifier.prepare(self._photo(upload).image)

    def _heat_map(self, upload: Upload, name: str | None) -> bytes:
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
    """Create the application.

    Args:
        classifier: any model.
        limits: of requests.
        hosts: host names that requests may use; others are refused, so that no other site can
            reach it through a browser (DNS rebinding). None: any.
    """
    service = Service(classifier, limits)
    app = FastAPI(
        title="catordog", version=__version__, lifespan=service.life, docs_url=None, redoc_url=None,
        description="Raw logits, confidences and a verdict for photos.",
    )  # fmt: skip
    if hosts is not None:
        app.add_middleware(TrustedHostMiddleware, allowed_hosts=hosts, www_redirect=False)
    app.middleware("http")(service.around)
    add_error_handlers(app)
    app.exception_handler(BusyError)(_busy)
    app.post("/predict", openapi_extra=_PHOTOS)(service.predict)
    png: dict[int | str, Any] = {200: {"content": {"image/png": {}}}}
    app.post("/explain", openapi_extra=_PHOTOS, response_class=Response, responses=png)(
        service.explain
    )
    app.get("/healthz")(service.health)
    app.get("/metrics", response_class=Response)(service.read_metrics)
    service.teaching.add_routes(app, _PHOTOS)
    app.head("/healthz", include_in_schema=False)(service.health)
    app.head("/metrics", include_in_schema=False)(service.read_metrics)
    for path, name in _STATIC.items():
        add_static(app, path, name)
    add_fixed(app, "/docs", _api_page(app.openapi()).encode(), "text/html; charset=utf-8")
    return app


_ROUTES = {
    *_STATIC, *TEACHING_ROUTES, "/predict", "/explain", "/healthz", "/metrics", "/docs",
    "/openapi.json",
}  # fmt: skip


async def _busy(_: Request, __: Exception) -> Response:
    return problem(503, "too many photos are queued: try again in a second")


def _api_page(schema: dict[str, Any]) -> str:
    """The API as a page that loads nothing from elsewhere."""
    routes = [
        {
            "method": method.upper(),
            "path": path,
            "text": operation.get("description") or operation.get("summary", ""),
        }
        for path, methods in schema["paths"].items()
        for method, operation in methods.items()
    ]
    return render("api.html", routes=routes, example=_EXAMPLE)


_EXAMPLE = {
    "path": "photo",
    "label": "dog",
    "confidence": 0.5732,
    "confidences": {"cat": 0.4268, "dog": 0.5732},
    "logits": {"cat": 0.709, "dog": 1.004},
    "verdict": "not sure",
    "error": None,
}
