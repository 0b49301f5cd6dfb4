"""What a review knows: the photos, their queues, and the decisions, those of others included."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from catordog.errors import CatordogError
from catordog.escaping import encodable, printable
from catordog.evaluation.labels_left import LabelsLeft, labels_left
from catordog.evaluation.review import QUEUES, Item, first_queues, most_doubtful, places_of
from catordog.photos.decisions import Action, Decision, DecisionLog
from catordog.photos.exclude import photos_listed
from catordog.photos.layouts import class_name
from catordog.photos.photo import NO_LABEL
from catordog.photos.photo_dataset import PhotoDataset

PAGE = 500
"""Photos of a queue in one answer."""


@dataclass(frozen=True, slots=True)
class Choice:
    """A decision that the page asks for.

    Attributes:
        index: of the photo.
        action: see `Decision`.
        label: name of the new class, to relabel.
        queue: the one that showed the photo.
    """

    index: int
    action: Action
    label: str | None = None
    queue: str | None = None


class ReviewSession:
    """The state of a review. Its methods may be called from any thread.

    Args:
        dataset: as opened, without decisions.
        file: of decisions; the first one creates it.

    Attributes:
        classes: names that a photo can be relabelled to.

    Raises:
        CatordogError: the file of decisions is damaged, or belongs to another dataset.
    """

    def __init__(self, dataset: PhotoDataset, file: Path) -> None:
        self.dataset, self.file = dataset, file
        self.classes = dataset.classes
        self._log = DecisionLog(file)
        self._lock = threading.RLock()
        self._queues: dict[str, list[Item]] = dict(first_queues(dataset.photos))
        self._places: dict[str, list[Sequence[Item]]] = {}
        # Names, and not paths, so that the file stays right where the folder is moved with it.
        names = enumerate(dataset.photos.names)
        self._index_of = {encodable(name): index for index, name in names}
        self._unreadable: frozenset[int] = frozenset()
        self._decisions: dict[int, Decision] = {}
        self._history: dict[int, list[Decision]] = {}
        self._changed: list[int] = []  # indices of photos, in the order of the decisions
        self._offset = self._size = 0  # how much of the file is read, and how large it was
        self._counts: list[dict[str, Any]] = []
        self._estimate: LabelsLeft | None = None
        self._computed: tuple[int, int] | None = None  # for which state the two were computed
        self._additions = 0  # of queues
        self.refresh()

    def name(self, index: int) -> str:
        """The name of a photo, on one line."""
        return printable(self.dataset.photos.names[index])

    def label(self, index: int) -> str | None:
        """The label of a photo in the dataset, as the name of its class."""
        label = self.dataset.photos.labels[index]
        return None if label == NO_LABEL else self.classes[label]

    def add_queues(self, queues: Mapping[str, Sequence[Item]]) -> None:
        """Add queues, or replace them."""
        with self._lock:
            self._queues.update({name: list(items) for name, items in queues.items()})
            self._queues["doubtful"] = most_doubtful(self._queues)
            self._places.clear()
            self._unreadable = frozenset(x.index for x in self._queues.get("unreadable", ()))
            self._additions += 1

    def queue(self, name: str) -> Sequence[Item]:
        """The photos of a queue, the worst first.

        Raises:
            KeyError: there is no such queue yet.
        """
        with self._lock:
            return self._queues[name]

    def decide(self, choices: Iterable[Choice]) -> list[int]:
        """Store decisions. They are safe on the disk when this returns.

        Args:
            choices: of the person.

        Returns:
            The indices of the photos.

        Raises:
            CatordogError: they can't be written.
        """
        made = [self._decision(choice) for choice in choices]
        with self._lock:
            self._log.append(*made)
            self.refresh()
        return [self._index_of[decision.path] for decision in made]

    def _decision(self, choice: Choice) -> Decision:
        was, action, label = self.label(choice.index), choice.action, choice.label
        if action == "relabel" and label == was:
            action = "keep"
        if action == "keep":
            label = was
        path = encodable(self.dataset.photos.names[choice.index])
        return Decision(path, action, label, was, choice.queue)

    def refresh(self) -> int:
        """Read what was decided since the last call, in this process or another.

        Returns:
            The number of decisions so far: the version of the state.

        Raises:
            CatordogError: the file can't be read, or is damaged.
        """
        with self._lock:
            try:
                size = self.file.stat().st_size
            except OSError:
                size = 0
            if size < self._offset:  # someone has replaced the file
                self._changed += self._decisions
                self._decisions.clear()
                self._history.clear()
                self._offset = self._size = 0
            if size > self._offset and size != self._size:  # what a crash leaves is read once
                self._size = size
                found, self._offset = self._log.since(self._offset)
                self._take(found)
            return len(self._changed)

    def _take(self, found: Sequence[Decision]) -> None:
        unknown = dict.fromkeys(x.path for x in found if x.path not in self._index_of)
        if unknown:
            self._find_paths(list(unknown), alone=len(unknown) == len({x.path for x in found}))
        for decision in found:
            index = self._index_of.get(decision.path, -1)
            if index < 0:
                continue
            self._history.setdefault(index, []).append(decision)
            self._decisions.pop(index, None)
            if decision.action != "clear":
                label = None if decision.label is None else class_name(decision.label)
                self._decisions[index] = replace(decision, label=label)  # as `decisions.apply`
            self._changed.append(index)

    def _find_paths(self, paths: list[str], *, alone: bool) -> None:
        """Find photos by other forms of their paths, such as relative ones."""
        index_of_name = {name: index for index, name in enumerate(self.dataset.photos.names)}
        self._index_of.update(dict.fromkeys(paths, -1))
        option = f"--decisions {printable(self.file)}"
        try:
            names, _ = photos_listed(
                self.dataset.photos, paths, self.file, self.dataset.name, option
            )
        except CatordogError:
            if alone and not self._changed:  # nothing in this file is about the dataset
                raise
            return
        for name, forms in names.items():
            self._index_of.update(dict.fromkeys(forms, index_of_name[name]))

    def changes(self, since: int) -> tuple[int, list[int]]:
        """The version, and the indices of the photos with a new decision since an older one."""
        with self._lock:
            version = self.refresh()
            return version, list(dict.fromkeys(self._changed[max(0, since) :]))

    def decision(self, index: int) -> dict[str, Any] | None:
        """The last decision about a photo, as the page needs it; None: there is none."""
        with self._lock:
            found = self._decisions.get(index)
        if found is None:
            return None
        return {"action": found.action, "label": found.label, "queue": found.queue}

    def labels(self) -> dict[int, int | None]:
        """By index, the label that each decided photo was given; None: it was given none."""
        with self._lock:
            number = {name: label for label, name in enumerate(self.classes)}
            return {
                index: number.get(found.label or "") for index, found in self._decisions.items()
            }

    def history(self, index: int) -> list[Decision]:
        """All decisions about a photo, the first one first."""
        with self._lock:
            return list(self._history.get(index, ()))

    def counts(self) -> list[dict[str, Any]]:
        """Each queue that has photos: name, title, hint, and how many are judged of how many."""
        with self._lock:
            self._compute()
            return self._counts

    def estimate(self) -> LabelsLeft | None:
        """How many wrong labels are left; None: no photo has a label."""
        with self._lock:
            self._compute()
            return self._estimate

    def _compute(self) -> None:
        state = (self.refresh(), self._additions)
        if self._computed == state:
            return
        self._counts = [
            {
                "name": kind.name,
                "title": kind.title,
                "hint": kind.hint,
                "count": len(items),
                "judged": sum(item.index in self._decisions for item in items),
            }
            for kind in QUEUES.values()
            if (items := self._queues.get(kind.name))
        ]
        self._estimate, self._computed = self._labels_left(), state

    def places(self, name: str, label: str | None) -> list[Sequence[Item]]:
        """A queue as the page shows it: the photos that are judged together, place by place.

        Args:
            name: of the queue.
            label: only places with a photo of this class; None: all.

        Raises:
            KeyError: there is no such queue yet.
        """
        with self._lock:
            if name not in self._places:
                self._places[name] = places_of(self._queues[name])
            found = self._places[name]
        if label is None:
            return found
        return [place for place in found if any(self.label(x.index) == label for x in place)]

    def find(self, words: str) -> list[Item]:
        """The first photos whose names contain these words, in any case."""
        wanted = words.casefold().split()
        found = []
        for index, name in enumerate(self.dataset.photos.names):
            folded = encodable(name).casefold()
            if all(word in folded for word in wanted):
                found.append(Item(index))
                if len(found) == PAGE:
                    break
        return found

    def _labels_left(self) -> LabelsLeft | None:
        if not self._queues["random"]:
            return None
        judged: dict[int, bool] = {}
        passed = set(self._unreadable)
        for index, decision in self._decisions.items():
            kind = QUEUES.get(decision.queue or "")
            about_label = kind is None or kind.judges_labels
            if decision.action == "skip" or (decision.action == "leave_out" and not about_label):
                passed.add(index)
            elif index not in self._unreadable:
                judged[index] = decision.action != "keep"
        order = [item.index for item in self._queues["random"]]
        suspects = [item.index for item in self._queues.get("suspects", ())]
        return labels_left(order, suspects, judged, passed)
