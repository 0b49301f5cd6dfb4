"""The work of a review in the background: the audit, predictions, and thumbnails."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

from catordog.confidence.verdict import Prediction
from catordog.errors import CatordogError, PhotoError
from catordog.evaluation.asking import Asking
from catordog.evaluation.judging import Judgement
from catordog.evaluation.neighbours import Neighbours
from catordog.evaluation.review import (
    Item,
    least_sure,
    queues_of_findings,
    queues_of_judgement,
    with_rejected,
)
from catordog.model.active_learning import Round
from catordog.model.classifier import Classifier
from catordog.photos.findings import Findings
from catordog.photos.findings import audit as find
from catordog.photos.preprocess import thumbnail
from catordog.terminal import info, progress_to
from catordog.web.review_session import ReviewSession

THUMBNAIL = 256
"""Pixels of the longer side."""

MOST_THUMBNAIL_BYTES = 128 * 2**20

AHEAD = 200
"""Photos at the start of each queue whose thumbnails are made before they are asked for."""


_SECONDS_BETWEEN_LOOKS = 0.2
"""At the decisions, while the page asks for labels: another process may make them, too."""

_SECONDS_TO_STOP = 2
"""A batch in the network can't be interrupted, and may take longer."""


class _Stopped(Exception):  # noqa: N818 - no error
    """The review has ended."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the work is.

    Attributes:
        what: the present step; empty when all is done.
        done: items of this step.
        total: items of this step; None if it is unknown.
        notes: what could not be done, and why.
    """

    what: str = "starting"
    done: int = 0
    total: int | None = None
    notes: tuple[str, ...] = ()


class Thumbnails:
    """Thumbnails as JPEG files, made once each and kept in bounded memory.

    Args:
        session: has the photos.
    """

    def __init__(self, session: ReviewSession) -> None:
        self._photos = session.dataset.photos
        self._threads = ThreadPoolExecutor(2, thread_name_prefix="thumbnail")
        self._lock = threading.Lock()
        self._kept: OrderedDict[int, bytes] = OrderedDict()
        self._bytes = 0
        self._waiting: dict[int, Future[bytes]] = {}

    def get(self, index: int) -> bytes:
        """The thumbnail of a photo. Raises `PhotoError`."""
        with self._lock:
            if index in self._kept:
                self._kept.move_to_end(index)
                return self._kept[index]
            waiting = self._waiting.get(index)
        if waiting is not None and (waiting.running() or waiting.done()):
            return waiting.result()
        return self._make(index)  # those that are asked for don't queue behind those that are not

    def prepare(self, index: int) -> None:
        """Make a thumbnail in the background."""
        with self._lock:
            if index not in self._kept and index not in self._waiting:
                self._waiting[index] = self._threads.submit(self._make, index)

    def stop(self) -> None:
        """Make no more."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _make(self, index: int) -> bytes:
        with self._lock:
            if index in self._kept:
                return self._kept[index]
        try:
            made = thumbnail(self._photos[index].image(near=THUMBNAIL), THUMBNAIL)
        finally:
            with self._lock:
                self._waiting.pop(index, None)
        with self._lock:
            if index not in self._kept:
                self._kept[index] = made
                self._bytes += len(made)
            while self._bytes > MOST_THUMBNAIL_BYTES:
                self._bytes -= len(self._kept.popitem(last=False)[1])
        return made


class ReviewWork:
    """Finds the photos that are worth a look, in a thread of its own.

    Args:
        session: gets the queues.
        classifier: predicts the photos; None: no model knows their classes.
        judge: judges the labels; None: nothing does.
        compare: finds the photos that look most alike; None: nothing does.
        ask: instead of all these, ask for the labels of unlabelled photos; None: there are none.

    Attributes:
        thumbnails: of the photos.
        predictions: so far, by the index of the photo.
        neighbours: of the photos; None: they are not known yet.
        rounds: what the labels have taught so far, where labels are asked for.
    """

    def __init__(
        self,
        session: ReviewSession,
        classifier: Classifier | None = None,
        judge: Callable[[Findings], Judgement] | None = None,
        compare: Callable[[Findings], Neighbours] | None = None,
        ask: Callable[[], Asking] | None = None,
    ) -> None:
        self.session, self.classifier = session, classifier
        self.thumbnails = Thumbnails(session)
        self.predictions: dict[int, Prediction] = {}
        self.neighbours: Neighbours | None = None
        self.rounds: list[Round] = []
        self._judge, self._compare, self._ask = judge, compare, ask
        self._progress = Progress()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="review", daemon=True)

    @property
    def running(self) -> bool:
        """Whether the thread still works, also after `stop`."""
        return self._thread.is_alive()

    @property
    def progress(self) -> Progress:
        """How far the work is."""
        return self._progress

    def start(self) -> None:
        """Start to work."""
        self._prepare_thumbnails("random")
        self._thread.start()

    def stop(self) -> None:
        """Stop as soon as possible."""
        self._stopping.set()
        self.thumbnails.stop()
        if self.running:
            self._thread.join(_SECONDS_TO_STOP)

    def prediction(self, index: int) -> Prediction | None:
        """The prediction for a photo, made now if need be; None: there is no model.

        Raises:
            PhotoError: the photo can't be read.
        """
        if index not in self.predictions and self.classifier is not None:
            classifier, photo = self.classifier, self.session.dataset.photos[index]
            (output,) = classifier.outputs_of([classifier.prepare(photo.image)])
            if isinstance(output, PhotoError):
                raise output
            self.predictions[index] = classifier.judge(output)
        return self.predictions.get(index)

    def _run(self) -> None:
        try:
            with progress_to(self._observe):
                if self._ask is None:
                    self._find()
                else:
                    with self._noted("asking"):
                        self._ask_for_labels(self._ask())
        except _Stopped:
            return
        self._progress = Progress("", notes=self._progress.notes)

    def _find(self) -> None:
        dataset = self.session.dataset
        with self._noted("the audit"):
            findings = find(dataset)
            self._add(queues_of_findings(findings))
            if self._judge is not None:
                self._add(queues_of_judgement(self._judge(findings), dataset.classes))
            if self._compare is not None:
                self.neighbours = self._compare(findings)
        if self.classifier is not None:
            with self._noted("predicting"):
                self._predict(self.classifier)

    def _ask_for_labels(self, asking: Asking) -> None:
        shown: list[Item] = []
        while True:
            self._observe("teaching", 0, None)
            asked = asking.next(self.session.labels())
            self.rounds.append(asked.round)
            classes = self.session.classes
            shown += [Item(index, suggested=classes[label]) for index, label in asked.proposed]
            self._add({"next": shown})
            if not asked.proposed:
                return
            self._progress = Progress("", notes=self._progress.notes)
            while any(self.session.decision(index) is None for index, _ in asked.proposed):
                if self._stopping.wait(_SECONDS_BETWEEN_LOOKS):
                    raise _Stopped
                self.session.refresh()

    def _predict(self, classifier: Classifier) -> None:
        photos = self.session.dataset.photos
        readable = {item.index for item in self.session.queue("all")}
        readable -= {item.index for item in self._queue("unreadable")}
        waiting = [x.index for name in ("suspects", "neither", "random") for x in self._queue(name)]
        order = [index for index in dict.fromkeys(waiting) if index in readable]
        neither = self._queue("neither")
        outputs = classifier.stream(order, lambda index, near: photos[index].image(near))
        for done, (index, output) in enumerate(outputs, 1):
            if not isinstance(output, PhotoError):
                self.predictions[index] = classifier.judge(output)
            self._observe("predicting", done, len(order))
            if done in {1000, len(order)}:
                made = dict(self.predictions)
                self._add({"least-sure": least_sure(made), "neither": with_rejected(neither, made)})

    @contextmanager
    def _noted(self, what: str) -> Iterator[None]:
        """Note an error on the page: what was found before stays there."""
        try:
            yield
        except _Stopped:
            raise
        except Exception as error:
            if self._stopping.is_set():  # executors take no more work
                raise _Stopped from error
            reason = str(error) if isinstance(error, CatordogError) else f"{what}: {error!r}"
            info(reason)
            before = self._progress
            self._progress = Progress(before.what, notes=(*before.notes, reason))

    def _queue(self, name: str) -> Sequence[Item]:
        try:
            return self.session.queue(name)
        except KeyError:
            return ()

    def _add(self, queues: Mapping[str, Sequence[Item]]) -> None:
        self.session.add_queues(queues)
        for name in ("doubtful", *queues):
            self._prepare_thumbnails(name)

    def _prepare_thumbnails(self, name: str) -> None:
        for item in self._queue(name)[:AHEAD]:
            self.thumbnails.prepare(item.index)

    def _observe(self, what: str, done: int, total: int | None) -> None:
        if self._stopping.is_set():
            raise _Stopped
        self._progress = Progress(what, done, total, self._progress.notes)
