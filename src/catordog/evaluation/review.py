"""The queues of a review: the photos that are worth a look, the worst first."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from itertools import chain, groupby, zip_longest

from catordog.confidence.verdict import NEITHER, Prediction
from catordog.evaluation.judging import Judgement
from catordog.photos.findings import Findings
from catordog.photos.photo import NO_LABEL, Photos

MOST_LEAST_SURE = 1000
"""Photos in the queue of those that a model is least sure about."""


@dataclass(frozen=True, slots=True)
class Item:
    """A photo in a queue.

    Attributes:
        index: of the photo in the dataset.
        reason: why it is in the queue, for people.
        suggested: name of the class that it seems to show; None: no other than its label.
        group: the number of the group of copies that it is judged with; None: it is judged alone.
    """

    index: int
    reason: str = ""
    suggested: str | None = None
    group: int | None = None


@dataclass(frozen=True, slots=True)
class QueueKind:
    """What a queue holds.

    Attributes:
        name: in the API and in files of decisions.
        title: for people.
        hint: what to do with its photos.
        judges_labels: whether leaving out a photo of this queue says that its label is wrong.
    """

    name: str
    title: str
    hint: str
    judges_labels: bool = True


QUEUES = {
    kind.name: kind
    for kind in (
        QueueKind(
            "next",
            "Ask me next",
            "The photos whose labels teach the most. After each dozen, the next ones follow.",
        ),
        QueueKind(
            "doubtful",
            "Most doubtful",
            "Suspect labels, contradictions, photos of neither class and bad files in turn, the "
            "worst first.",
        ),
        QueueKind(
            "suspects",
            "Suspect labels",
            "A classifier that was not fitted on these photos disagrees with their labels.",
        ),
        QueueKind(
            "contradictions",
            "Contradictions",
            "The same picture under different labels. Choose the photo to keep.",
            judges_labels=False,
        ),
        QueueKind(
            "neither",
            "Neither",
            "Photos unlike all others: they may show none of the classes.",
        ),
        QueueKind(
            "unreadable",
            "Unreadable",
            "Files that can't be decoded. Leave them out, or repair them.",
            judges_labels=False,
        ),
        QueueKind(
            "suspicious",
            "Suspicious files",
            "Blank, tiny, very long, or with the suffix of another format.",
            judges_labels=False,
        ),
        QueueKind(
            "copies",
            "Copies",
            "The same picture more than once. Choose the photo to keep.",
            judges_labels=False,
        ),
        QueueKind("least-sure", "Least sure", "Photos that the model is least sure about."),
        QueueKind(
            "random",
            "Random",
            "Photos in random order. Judge them one after the other, without gaps: they show how "
            "many labels are wrong.",
        ),
        QueueKind("all", "All photos", "Every photo, in the order of the names."),
    )
}
"""The queues in the order in which they are shown."""


def first_queues(photos: Photos) -> dict[str, list[Item]]:
    """The queues that need nothing but the names of the photos: `random` and `all`.

    The random order depends on each photo's name alone, so it is the same in every review, and new
    photos don't change the order of the others.
    """

    def digest(index: int) -> bytes:
        name = photos.names[index].encode("utf-8", "surrogateescape")
        return blake2b(name, digest_size=8).digest()

    labelled = (index for index, label in enumerate(photos.labels) if label != NO_LABEL)
    return {
        "random": [Item(index) for index in sorted(labelled, key=digest)],
        "all": [Item(index) for index in range(len(photos))],
    }


def queues_of_findings(found: Findings) -> dict[str, list[Item]]:
    """The queues that need no model: contradictions, copies, unreadable and suspicious files."""
    indices = {photo.path: index for index, photo in enumerate(found.photos)}
    groups: list[list[int]] = []
    containing: defaultdict[int, list[set[int]]] = defaultdict(list)  # groups of each photo so far
    for group in found.contradictions:
        _contain(containing, group)
    for kind in (found.near_copies, found.exact_copies):
        for group in kind:
            if not any(set(group) <= other for other in containing[group[0]]):
                groups.append(group)
                _contain(containing, group)
    return {
        "contradictions": _grouped(found.contradictions, "the same picture, another label"),
        "copies": _grouped(groups, "the same picture"),
        "unreadable": [Item(indices[error.path], error.reason) for error in found.unreadable],
        "suspicious": [Item(index, reason) for index, reason in found.suspicious],
    }


def _contain(containing: defaultdict[int, list[set[int]]], group: Sequence[int]) -> None:
    members = set(group)
    for index in members:
        containing[index].append(members)


def _grouped(groups: Iterable[Sequence[int]], reason: str) -> list[Item]:
    return [
        Item(index, reason, group=number) for number, group in enumerate(groups) for index in group
    ]


def queues_of_judgement(found: Judgement, classes: Sequence[str]) -> dict[str, list[Item]]:
    """The queues that need features of the photos: suspect labels, and `neither`."""
    return {
        "suspects": [
            Item(x.index, f"suspect label, score {x.score:.3f}", classes[x.suggested])
            for x in found.suspects
        ],
        "neither": [
            Item(index, f"unlike the others, score {score:.1f}") for index, score in found.ood
        ],
    }


_DOUBTFUL = ("suspects", "contradictions", "neither", "unreadable", "suspicious")


def most_doubtful(queues: Mapping[str, Sequence[Item]]) -> list[Item]:
    """The queue of photos that are worth a look for any reason, each once.

    Args:
        queues: those of the findings and of the judgement, as far as they are known; their photos
            are taken in turn. A photo of a contradiction is shown with it only.
    """
    grouped = {item.index for item in queues.get("contradictions", ())}
    seen: set[int] = set()
    result: list[Item] = []
    kinds = [places_of(queues.get(name, ())) for name in _DOUBTFUL]
    for place in chain.from_iterable(zip_longest(*kinds, fillvalue=())):
        for item in place:
            if item.index not in seen and (item.group is not None or item.index not in grouped):
                seen.add(item.index)
                result.append(item)
    return result


def places_of(items: Sequence[Item]) -> list[Sequence[Item]]:
    """The items of a queue, those of one group together."""
    groups = groupby(enumerate(items), lambda x: -1 - x[0] if x[1].group is None else x[1].group)
    return [[item for _, item in group] for _, group in groups]


def least_sure(predictions: Mapping[int, Prediction]) -> list[Item]:
    """The photos with the lowest confidence, those whose verdict is `neither` aside.

    Args:
        predictions: by the index of the photo.
    """
    ranked = sorted(
        (one.confidence, index) for index, one in predictions.items() if one.verdict != NEITHER
    )
    return [Item(index, predictions[index].in_words()) for _, index in ranked[:MOST_LEAST_SURE]]


def with_rejected(neither: Sequence[Item], predictions: Mapping[int, Prediction]) -> list[Item]:
    """The queue `neither`, followed by the photos that the model itself calls `neither`.

    Args:
        neither: what the audit has found.
        predictions: by the index of the photo.
    """
    known = {item.index for item in neither}
    rejected = sorted(
        (-(one.ood_score or 0), index)
        for index, one in predictions.items()
        if one.verdict == NEITHER and index not in known
    )
    return [*neither, *(Item(index, predictions[index].in_words()) for _, index in rejected)]
