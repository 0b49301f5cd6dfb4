"""The page of `catordog review` and its API. Every request needs the token in the printed URL."""

from __future__ import annotations

import io
import secrets
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict
from typing import Any, Literal

from fastapi import FastAPI, HTTPException, Query, Request, Response
from fastapi.responses import JSONResponse, RedirectResponse
from pydantic import BaseModel, Field

from catordog import __version__
from catordog.errors import CatordogError, PhotoError
from catordog.escaping import printable
from catordog.evaluation.review import Item
from catordog.model.active_learning import pays
from catordog.photos.layouts import class_name
from catordog.photos.preprocess import thumbnail
from catordog.report.explanation import heat_of
from catordog.web.responses import (
    READ,
    add_error_handlers,
    add_headers,
    add_static,
    problem,
    refused_origin,
)
from catordog.web.review_session import PAGE, Choice
from catordog.web.review_work import ReviewWork

LARGE = 1600
"""Pixels of the longer side of a photo in the large view."""

EXPLAINED = 900
"""Pixels of the longer side of a heat map."""

NEAREST = 6
"""Photos that are shown beside a photo, because they look most like it."""

MOST_BYTES = 4 * 2**20
"""Of a request."""

MOST_CHOICES = 20_000
"""In a request."""

_STATIC = ("app.css", "softmax.js", "review.css", "review.js", "review_api.js", "review_classes.js",
           "review_grid.js", "review_large.js", "review_moves.js", "review_state.js",
           "review_view.js")  # fmt: skip

_KEEP = {"Cache-Control": "private, max-age=3600"}
"""Photos don't change during a review, and the browser may keep them for a while."""


class _Choice(BaseModel):
    """A decision in a request."""

    id: int
    action: Literal["keep", "relabel", "leave_out", "skip", "clear"]
    label: str | None = Field(None, max_length=200)
    queue: str | None = Field(None, max_length=200)


class _Choices(BaseModel):
    """Decisions in a request."""

    choices: list[_Choice] = Field(min_length=1, max_length=MOST_CHOICES)


class _Api:
    """The routes.

    Args:
        work: of the review.
        model: what the page calls the model; None: there is none.
    """

    def __init__(self, work: ReviewWork, model: str | None) -> None:
        self.work, self.session, self.model = work, work.session, model
        self._explaining = threading.Lock()

    @asynccontextmanager
    async def life(self, _: FastAPI) -> AsyncIterator[None]:
        """Start and stop with the application."""
        self.work.start()
        yield
        self.work.stop()

    def state(self, since: int = 0) -> dict[str, Any]:
        """Everything that changes: decisions since a version, queues, progress, the estimate."""
        version, changed = self.session.changes(since)
        model, estimate = self.work.classifier, self.session.estimate()
        return {
            "data": printable(self.session.dataset.name),
            "photos": len(self.session.dataset.photos),
            "file": printable(self.session.file),
            "classes": list(self.session.classes),
            "model": self.model,
            "model_classes": list(model.classes) if model else [],
            "version": version,
            "changes": {index: self.session.decision(index) for index in changed},
            "queues": self.session.counts(),
            "progress": asdict(self.work.progress),
            "estimate": asdict(estimate) if estimate else None,
            "rounds": [asdict(each) for each in self.work.rounds],
            "pays": pays(self.work.rounds),
        }

    def queue(
        self, name: str, start: int = Query(0, ge=0), label: str | None = None
    ) -> dict[str, Any]:
        """A part of a queue: lists of photos that are judged together."""
        try:
            places = self.session.places(name, label)
        except KeyError:
            raise HTTPException(404, f"there is no queue {name!r} yet") from None
        shown = places[start : start + PAGE]
        return {"total": len(places), "places": [self._place(place) for place in shown]}

    def find(self, words: str = Query(max_length=1000)) -> dict[str, Any]:
        """The photos whose names contain these words."""
        places = [self._place([item]) for item in self.session.find(words)]
        return {"total": len(places), "places": places}

    def photo(self, index: int) -> dict[str, Any]:
        """What is known of a photo."""
        self._check(index)
        row: dict[str, Any] = {"id": index, "prediction": None, "error": None}
        try:
            prediction = self.work.prediction(index)
        except PhotoError as error:
            row["error"] = error.reason
        else:
            if prediction is not None:
                row["prediction"] = {**prediction.to_dict(), "words": prediction.in_words()}
        neighbours = self.work.neighbours
        near = neighbours.of(index, NEAREST) if neighbours else []
        row["nearest"] = [
            {"id": other, "label": self.session.label(other), "name": self.session.name(other)}
            for other, _ in near
        ]
        history = self.session.history(index)
        row["history"] = [
            {"time": x.time, "action": x.action, "label": x.label} for x in history[-20:]
        ]
        return row

    def thumbnail(self, index: int) -> Response:
        """A thumbnail, as JPEG."""
        self._check(index)
        return _jpeg(self.work.thumbnails.get(index))

    def large(self, index: int) -> Response:
        """A photo at the size of a screen, as JPEG."""
        self._check(index)
        return _jpeg(thumbnail(self.session.dataset.photos[index].image(near=LARGE), LARGE))

    def explanation(self, index: int, label: str = Query(alias="class")) -> Response:
        """A heat map of the evidence for a class, as PNG."""
        self._check(index)
        classifier = self.work.classifier
        if classifier is None or label not in classifier.classes:
            raise HTTPException(422, f"no model knows the class {label!r}")
        photo = self.session.dataset.photos[index]
        with self._explaining:
            image = heat_of(classifier, photo, classifier.classes.index(label), EXPLAINED)
        packed = io.BytesIO()
        image.save(packed, "PNG")
        return Response(packed.getvalue(), media_type="image/png", headers=_KEEP)

    def decide(self, asked: _Choices) -> dict[str, Any]:
        """Store decisions. They are on the disk when this answers."""
        choices = []
        for each in asked.choices:
            self._check(each.id)
            choices.append(Choice(each.id, each.action, self._label(each), each.queue))
        changed = self.session.decide(choices)
        return {"changes": {index: self.session.decision(index) for index in changed}}

    def _label(self, asked: _Choice) -> str | None:
        if asked.action != "relabel":
            return None
        label = class_name(asked.label or "")
        if label not in self.session.classes:
            raise HTTPException(422, f"no class of the dataset: {printable(label)!r}")
        return label

    def _check(self, index: int) -> None:
        if not 0 <= index < len(self.session.dataset.photos):
            raise HTTPException(404, f"there is no photo {index}")

    def _place(self, items: Sequence[Item]) -> list[dict[str, Any]]:
        return [
            {
                "id": item.index,
                "name": self.session.name(item.index),
                "label": self.session.label(item.index),
                "suggested": item.suggested,
                "reason": printable(item.reason),
                "decision": self.session.decision(item.index),
            }
            for item in items
        ]


def _jpeg(data: bytes) -> Response:
    return Response(data, media_type="image/jpeg", headers=_KEEP)


def create_review_app(
    work: ReviewWork, token: str, known_host: Callable[[str], bool], model: str | None = None
) -> FastAPI:
    """Create the application.

    Args:
        work: of the review; it starts and stops with the application.
        token: the first part of the path of every request, and a secret.
        known_host: tells whether requests with a `Host` header are answered (DNS rebinding).
        model: what the page calls the model; None: there is none.
    """
    api = _Api(work, model)
    app = FastAPI(
        title="catordog review", version=__version__, lifespan=api.life,
        docs_url=None, redoc_url=None, openapi_url=None,
    )  # fmt: skip
    app.middleware("http")(_guard(token, known_host))
    add_error_handlers(app)
    app.exception_handler(PhotoError)(_photo_error)
    app.exception_handler(CatordogError)(_error)
    reads: dict[str, Callable[..., Any]] = {
        "/state": api.state, "/queues/{name}": api.queue, "/find": api.find,
        "/photos/{index}": api.photo, "/photos/{index}/thumbnail": api.thumbnail,
        "/photos/{index}/large": api.large, "/photos/{index}/explanation": api.explanation,
    }  # fmt: skip
    for path, answer in reads.items():
        app.api_route(path, methods=READ, response_model=None)(answer)
    app.post("/decisions", response_model=None)(api.decide)
    add_static(app, "/", "review.html")
    for name in _STATIC:
        add_static(app, f"/{name}", name)
    return app


_Proceed = Callable[[Request], Awaitable[Response]]


def _guard(
    token: str, known_host: Callable[[str], bool]
) -> Callable[[Request, _Proceed], Awaitable[Response]]:
    """Refuse requests without the token, from other sites, or too large; add the headers."""

    async def guard(request: Request, proceed: _Proceed) -> Response:
        response = refused(request)
        if response is None:
            request.scope["path"] = request.scope["path"][len(token) + 1 :]
            response = await proceed(request)
        add_headers(response)
        return response

    def refused(request: Request) -> Response | None:
        host = request.headers.get("host", "")
        if not known_host(host):
            return problem(400, "no name of this machine: use the address that was printed")
        given, slash, _ = request.scope["path"].removeprefix("/").partition("/")
        if not secrets.compare_digest(given.encode(), token.encode()):
            return problem(403, "open the address that catordog review has printed")
        if not slash:
            return RedirectResponse(f"/{token}/")
        if (refusal := refused_origin(request, ["http"])) is not None:
            return refusal
        if request.method in READ:
            return None
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if request.method == "POST" and kind != "application/json":
            return problem(415, "send JSON")
        length = request.headers.get("content-length", "")
        if not length.isascii() or not length.isdigit():
            return problem(411, "the request does not say how long it is")
        if int(length) > MOST_BYTES:
            return problem(413, f"the request is over {MOST_BYTES / 2**20:.0f} MiB")
        return None

    return guard


async def _photo_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, PhotoError)
    return JSONResponse({"error": printable(error.reason)}, 422)


async def _error(_: Request, error: Exception) -> Response:
    return problem(500, printable(str(error)))
