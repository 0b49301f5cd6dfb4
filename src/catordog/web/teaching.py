"""The part of the HTTP API that teaches own classes, for the page `/teach`.

A session holds features of its photos, and no photo. It lives in memory, for as long as its page is
open. Its name is a random token in a header, which no other site can send.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt
from fastapi import FastAPI, HTTPException, Query, Request, Response
from fastapi.responses import JSONResponse

from catordog.confidence.softmax import softmax
from catordog.confidence.verdict import judge
from catordog.errors import CatordogError, PhotoError
from catordog.model.backbone import Backbone
from catordog.model.backends import BATCH
from catordog.model.feature_cache import records_of
from catordog.model.taught_file import Examples
from catordog.model.taught_layer import TaughtLayer, learn_layer
from catordog.photos.class_names import check_class_names
from catordog.photos.photo import Photo
from catordog.photos.preprocess import Preprocess
from catordog.photos.records import Records
from catordog.photos.splits import content_key_of
from catordog.report.rows import row_of
from catordog.web.batches import Batches, BusyError
from catordog.web.limits import Limits
from catordog.web.sessions import Example, Session, Sessions
from catordog.web.uploads import Upload, read_body, read_uploads

SESSION = "X-Catordog-Session"
"""The header that names a session."""

MOST_WAITING = 8
"""Models that wait to be learnt; further requests are refused."""

LONGEST_NAME = 100
"""Characters of a class name."""

_SETTINGS_BYTES = 64 * 2**10
_IDS = "^[0-9]{1,20}(,[0-9]{1,20})*$"

Pixels = npt.NDArray[np.uint8]


class Teaching:
    """The work behind the routes.

    Args:
        limits: of requests and sessions.
        thread: runs a function in a thread that decodes.
        photo: of an upload.
    """

    def __init__(
        self,
        limits: Limits,
        thread: Callable[..., Awaitable[Any]],
        photo: Callable[[Upload], Photo],
    ) -> None:
        self.limits, self.sessions = limits, Sessions(limits)
        self._thread, self._photo = thread, photo
        self._backbone: Backbone | None = None
        self._learning = ThreadPoolExecutor(1, thread_name_prefix="learn")
        self._waiting = 0
        self._features: Batches[tuple[int, Pixels], Records] = Batches(self._records, BATCH)

    def start(self) -> None:
        """Start to compute features, in the running event loop."""
        self._features.start()

    async def stop(self) -> None:
        """Stop, and forget every session."""
        await self._features.stop()
        self._learning.shutdown(wait=False, cancel_futures=True)
        self.sessions = Sessions(self.limits)

    def add_routes(self, app: FastAPI, photos: dict[str, Any]) -> None:
        """Add the routes to an application.

        Args:
            app: any.
            photos: the schema of a request with photos.
        """
        app.post("/teach/session", status_code=201)(self.open)
        app.post("/teach/photos", openapi_extra=photos)(self.add)
        app.delete("/teach/photos", status_code=204, response_class=Response)(self.remove)
        app.post("/teach/learn")(self.learn)
        app.post("/teach/predict", openapi_extra=photos)(self.predict)
        app.get("/teach/model", response_class=Response)(self.download)
        app.delete("/teach/session", status_code=204, response_class=Response)(self.close)

    async def open(self) -> dict[str, Any]:
        """Start a session: send its token as the header `X-Catordog-Session` from then on."""
        return {
            "session": self.sessions.new(),
            "photo_bytes": self.limits.photo_bytes,
            "photos": self.limits.session_photos,
            "classes": self.limits.session_classes,
        }

    async def close(self, request: Request) -> Response:
        """Forget a session."""
        self.sessions.drop(request.headers.get(SESSION, ""))
        return Response(status_code=204)

    async def add(
        self,
        request: Request,
        group: int = Query(description="number of the class", ge=0, le=10**6),
    ) -> Response:
        """Add photos to a class. Only their features are kept.

        The answer is a list with an `id` for each photo, or an `error`.
        """
        session = self._session(request)
        uploads, _ = await read_uploads(request, self.limits)
        rows = await asyncio.gather(*(self._add(session, group, upload) for upload in uploads))
        return JSONResponse(rows)

    async def remove(
        self,
        request: Request,
        photo: str = Query(description="ids, with commas between them", pattern=_IDS),
    ) -> Response:
        """Remove photos. Ids of none are ignored."""
        session = self._session(request)
        for each in photo.split(","):
            session.examples.pop(int(each), None)
        return Response(status_code=204)

    async def learn(self, request: Request) -> Response:
        """Learn from the photos so far.

        The body is `{"classes": {"0": "cat", "1": "dog"}}`: names by the numbers of their photos.
        """
        session = self._session(request)
        names = await self._names(request)
        async with session.lock:
            groups = {example.group for example in session.examples.values()}
            chosen = {group: name for group, name in names.items() if group in groups}
            if not chosen:
                raise HTTPException(422, "no class has photos: add some")
            if self._waiting >= MOST_WAITING:
                raise BusyError
            self._waiting += 1
            try:
                loop = asyncio.get_running_loop()
                result = await loop.run_in_executor(self._learning, self._learn, session, chosen)
            except CatordogError as error:
                raise HTTPException(422, str(error)) from None
            finally:
                self._waiting -= 1
        return JSONResponse(result)

    async def predict(self, request: Request) -> Response:
        """Predict what photos show with the newest model; as `/predict`."""
        session = self._session(request)
        if session.layer is None:
            raise HTTPException(422, "there is no model yet: add photos")
        uploads, several = await read_uploads(request, self.limits)
        rows = await asyncio.gather(*(self._row(session.layer, each) for each in uploads))
        return JSONResponse(rows if several else rows[0])

    async def download(self, request: Request) -> Response:
        """The newest model as a file that every command of catordog takes."""
        session = self._session(request)
        if session.layer is None or session.taught is None:
            raise HTTPException(422, "there is no model yet: add photos")
        content = await self._thread(self._file, session.layer, session.taught)
        headers = {"Content-Disposition": 'attachment; filename="taught.onnx"'}
        return Response(content, media_type="application/octet-stream", headers=headers)

    def _session(self, request: Request) -> Session:
        session = self.sessions.get(request.headers.get(SESSION, ""))
        if session is None:
            raise HTTPException(410, "the session has ended, and its photos are gone: reload")
        return session

    async def _names(self, request: Request) -> dict[int, str]:
        body = b"".join([chunk async for chunk in read_body(request, _SETTINGS_BYTES)])
        try:
            given: Mapping[str, str] = json.loads(body)["classes"]
            names = {int(group): name for group, name in given.items()}
            if not all(isinstance(name, str) for name in names.values()):
                raise TypeError("a name is no text")
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise HTTPException(422, 'send {"classes": {"0": "cat", "1": "dog"}}') from None
        if len(names) > self.limits.session_classes:
            raise HTTPException(422, f"at most {self.limits.session_classes} classes")
        try:
            check_class_names("classes", (name[:LONGEST_NAME] for name in names.values()))
        except CatordogError as error:
            raise HTTPException(422, str(error)) from None
        return {group: name[:LONGEST_NAME] for group, name in names.items()}

    async def _add(self, session: Session, group: int, upload: Upload) -> dict[str, Any]:
        try:
            key = content_key_of(upload.data)
            self._check_new(session, group, upload, key)
            record = await self._record(upload, key)
            self._check_new(session, group, upload, key)  # others may have come meanwhile
        except PhotoError as error:
            return {"path": upload.name, "id": None, "error": error.reason}
        session.examples[key] = Example(group, record)
        return {"path": upload.name, "id": str(key), "error": None}

    def _check_new(self, session: Session, group: int, upload: Upload, key: int) -> None:
        most = self.limits.session_photos
        if key in session.examples:
            where = "this class" if session.examples[key].group == group else "another class"
            raise PhotoError(upload.name, f"the same photo is in {where} already")
        if len(session.examples) >= most:
            raise PhotoError(upload.name, f"no more than {most} photos: use 'catordog teach'")

    async def _row(self, layer: TaughtLayer, upload: Upload) -> dict[str, Any]:
        try:
            record = await self._record(upload, 0)
        except PhotoError as error:
            return row_of(upload.name, error)
        return await self._thread(self._judged, layer, upload.name, record)  # type: ignore[no-any-return]

    async def _record(self, upload: Upload, key: int) -> Records:
        backbone = await self._thread(self._loaded)
        pixels = await self._thread(self._pixels, upload, backbone.preprocess)
        return await self._features.ask((key, pixels))

    def _loaded(self) -> Backbone:
        """The backbone, which is read on its first use."""
        if self._backbone is None:
            self._backbone = Backbone.read()
        return self._backbone

    def _pixels(self, upload: Upload, preprocess: Preprocess) -> Pixels:
        return preprocess.load(self._photo(upload))

    def _records(self, photos: list[tuple[int, Pixels]]) -> list[Records]:
        keys, pixels = [key for key, _ in photos], [each for _, each in photos]
        return list(np.split(records_of(keys, pixels, self._loaded()), len(photos)))

    def _learn(self, session: Session, names: dict[int, str]) -> dict[str, Any]:
        """Learn, in the thread that learns. Sets the model of the session."""
        groups = list(names)
        chosen = [each for each in list(session.examples.values()) if each.group in names]
        labels = np.array([groups.index(each.group) for each in chosen], np.int64)
        if not chosen or len(set(labels.tolist())) < len(groups):
            raise CatordogError("a class has lost its last photo: try again")
        examples = Examples(np.concatenate([each.record for each in chosen]), labels)
        layer = learn_layer(examples, tuple(names.values()), self._loaded())
        session.layer, session.taught = layer, examples
        return _report(layer, examples)

    def _judged(self, layer: TaughtLayer, name: str, record: Records) -> dict[str, Any]:
        features = record["features"].astype(np.float32)
        (output,) = layer.outputs(features, self._loaded().concepts(features))
        model = layer.model
        return row_of(
            name,
            judge(
                output.logits,
                model.classes,
                temperature=model.temperature,
                threshold=model.threshold,
                ood_score=output.ood_score,
            ),
        )

    def _file(self, layer: TaughtLayer, examples: Examples) -> bytes:
        return layer.to_onnx(self._loaded(), examples.limited().to_text())


def _report(layer: TaughtLayer, examples: Examples) -> dict[str, Any]:
    """What the page shows of a model; fractions, not percent."""
    counts = np.bincount(examples.labels, minlength=len(layer.model.classes)).tolist()
    learned = layer.learned
    report: dict[str, Any] = {
        "classes": dict(zip(layer.model.classes, counts, strict=True)),
        "accuracy": learned and learned.accuracy,
        "interval": learned and list(learned.interval),
        "twice": learned and learned.expected_with(2),
        "neither": layer.model.ood is not None,
        "hardest": [],
    }
    if learned is not None and len(learned.tested):
        confidences = softmax(learned.logits, learned.temperature)
        right = examples.labels[learned.tested]
        own = confidences[np.arange(len(right)), right]
        keys = examples.records["key"][learned.tested]
        report["hardest"] = [
            {
                "id": str(keys[row]),
                "confidence": float(own[row]),
                "predicted": layer.model.classes[int(confidences[row].argmax())],
            }
            for row in np.argsort(own, kind="stable")[:8].tolist()
            if confidences[row].argmax() != right[row] or own[row] < 0.9
        ]
    return report


TEACHING_ROUTES = (
    "/teach/session",
    "/teach/photos",
    "/teach/learn",
    "/teach/predict",
    "/teach/model",
)
"""For counters."""
