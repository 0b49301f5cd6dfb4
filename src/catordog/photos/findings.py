"""Find problems in a dataset: copies, contradicting labels, unreadable and unsuitable files."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

import numpy as np

from catordog.errors import PhotoError
from catordog.escaping import printable
from catordog.photos.facts import PhotoFacts, facts_of
from catordog.photos.near_copies import HASH_BYTES, Hashes, groups_of_pairs, similar_pairs
from catordog.photos.photo import NO_LABEL, Photo
from catordog.photos.photo_dataset import PhotoDataset
from catordog.photos.splits import SplitFractions

TINY = 32
"""A photo whose shorter side has fewer pixels than this is reported as tiny."""

LONG = 4.0
"""A photo whose longer side is more than this many times the shorter is reported as very long."""

_SUFFIXES = {
    "JPEG": {".jpg", ".jpeg", ".jpe", ".jfif"},
    "MPO": {".jpg", ".jpeg", ".jpe", ".mpo"},
    "TIFF": {".tif", ".tiff"},
    "HEIF": {".heic", ".heif"},
}


@dataclass(frozen=True, slots=True)
class Findings:
    """What an audit has found without a model. Photos are given by their index in `photos`.

    Attributes:
        dataset: what was audited.
        photos: all N photos of it, readable or not.
        facts: of each photo, `[N]`; None if it is unreadable.
        unreadable: the errors, in the order of the photos.
        suspicious: photos with a reason: blank, tiny, very long, or misnamed.
        exact_copies: groups of byte-identical files, the largest first.
        near_copies: groups that look alike, mirrored or not, and are not all byte-identical; the
            most similar first.
        contradictions: groups of either kind under more than one label, the most similar first.
        groups: for each photo the number of its group of copies, `[N]`.
    """

    dataset: PhotoDataset
    photos: Sequence[Photo]
    facts: list[PhotoFacts | None]
    unreadable: list[PhotoError]
    suspicious: list[tuple[int, str]]
    exact_copies: list[list[int]]
    near_copies: list[list[int]]
    contradictions: list[list[int]]
    groups: list[int]

    @property
    def failures(self) -> list[PhotoError]:
        """All that can't be read: photos, folders and archives."""
        return [*self.unreadable, *self.dataset.unopened]

    @property
    def confirmed(self) -> frozenset[int]:
        """The photos whose label a person has given or confirmed: they are doubted no more."""
        confirmed, names = self.dataset.confirmed, self.dataset.photos.names
        return frozenset(i for i, name in enumerate(names) if name in confirmed)

    def path(self, index: int) -> str:
        """The path of a photo."""
        return self.photos[index].path

    def name(self, index: int) -> str:
        """The name of a photo, on one line (see `escaping.printable`)."""
        return printable(self.photos[index].name)

    def label(self, index: int) -> str:
        """The label of a photo, as the name of its class; empty if it has none."""
        label = self.dataset.photos.labels[index]
        return "" if label == NO_LABEL else self.dataset.classes[label]

    def leak(self, fractions: SplitFractions) -> tuple[float, int]:
        """How much a random split, photo by photo, would leak from one split into another.

        Returns:
            the number of groups of copies that it would divide between splits, as the expectation
            over all random splits, and the number of groups.
        """
        sizes = [size for size in Counter(self.groups).values() if size > 1]
        each = (fractions.test, fractions.val, 1 - fractions.test - fractions.val)
        divided = sum(1 - sum(fraction**size for fraction in each) for size in sizes)
        return divided, len(sizes)

    def to_dict(self) -> dict[str, Any]:
        """The keys of `catordog audit --json` that need no model."""
        counts = Counter(self.label(index) for index in range(len(self.photos)))

        def paths(groups: list[list[int]]) -> list[list[str]]:
            return [[self.path(index) for index in group] for group in groups]

        known = [facts for facts in self.facts if facts]
        return {
            "data": self.dataset.name,
            "n": len(self.photos),
            "classes": {name: counts[name] for name in self.dataset.classes},
            "unlabelled": self.dataset.unlabelled,
            "formats": dict(Counter(facts.format for facts in known).most_common()),
            "modes": dict(Counter(facts.mode for facts in known).most_common()),
            "width": _range([facts.width for facts in known]),
            "height": _range([facts.height for facts in known]),
            "aspect_ratio": _range([facts.width / facts.height for facts in known]),
            "unreadable": [{"path": error.path, "reason": error.reason} for error in self.failures],
            "suspicious": [
                {"path": self.path(index), "reason": reason} for index, reason in self.suspicious
            ],
            "exact_copies": paths(self.exact_copies),
            "near_copies": paths(self.near_copies),
            "contradictions": paths(self.contradictions),
        }


def _range(values: Sequence[float]) -> dict[str, float] | None:
    if not values:
        return None
    low, middle, high = (float(x) for x in np.percentile(values, [0, 50, 100]))
    return {"min": round(low, 4), "median": round(middle, 4), "max": round(high, 4)}


def audit(dataset: PhotoDataset) -> Findings:
    """Find problems in a dataset. Photos that an earlier audit has read are not read again."""
    photos = dataset.photos
    found = facts_of(photos)
    facts = [None if isinstance(one, PhotoError) else one for one in found]
    hashes = _hashes(facts)
    exact = _groups_of_equal(None if one is None else one.digest for one in facts)
    groups = groups_of_pairs(len(photos), [*_pairs_of_groups(exact), *similar_pairs(hashes)])
    similar = sorted(_groups_of_equal(groups), key=lambda group: _distance(hashes, group))
    labels = photos.labels
    return Findings(
        dataset=dataset,
        photos=photos,
        facts=facts,
        unreadable=[one for one in found if isinstance(one, PhotoError)],
        suspicious=_suspicious(dataset, facts),
        exact_copies=sorted(exact, key=len, reverse=True),
        near_copies=[
            group
            for group in similar
            if len({one.digest for index in group if (one := facts[index])}) > 1
        ],
        contradictions=[group for group in similar if len({labels[i] for i in group}) > 1],
        groups=groups,
    )


def _hashes(facts: Sequence[PhotoFacts | None]) -> Hashes:
    plain, mirrored = np.zeros((2, len(facts), HASH_BYTES), np.uint8)
    readable = [(index, one) for index, one in enumerate(facts) if one]
    if readable:
        rows = [index for index, _ in readable]
        plain[rows] = np.stack([one.hash for _, one in readable])
        mirrored[rows] = np.stack([one.mirrored for _, one in readable])
    return Hashes(plain, mirrored)


def _groups_of_equal(values: Iterable[object]) -> list[list[int]]:
    """The indices that share a value, where two or more do; None is no value."""
    indices: defaultdict[object, list[int]] = defaultdict(list)
    for index, value in enumerate(values):
        if value is not None:
            indices[value].append(index)
    return [group for group in indices.values() if len(group) > 1]


def _pairs_of_groups(groups: Sequence[Sequence[int]]) -> list[tuple[int, int]]:
    return [(group[0], other) for group in groups for other in group[1:]]


def _distance(hashes: Hashes, group: Sequence[int]) -> int:
    """The largest distance of a photo in the group from its first one, in bits."""
    first = hashes.plain[group[0]]
    return max(
        min(
            int(np.bitwise_count(first ^ bits[index]).sum())
            for bits in (hashes.plain, hashes.mirrored)
        )
        for index in group[1:]
    )


def _suspicious(dataset: PhotoDataset, facts: Sequence[PhotoFacts | None]) -> list[tuple[int, str]]:
    found = []
    names = dataset.photos.names
    for index, one in enumerate(facts):
        if one is None or names[index] in dataset.confirmed:
            continue
        size = f"{one.width} × {one.height} pixels"
        ratio = max(one.width, one.height) / min(one.width, one.height)
        suffix = PurePath(names[index]).suffix.lower()
        if one.blank:
            found.append((0, index, "blank: one colour all over"))
        elif min(one.width, one.height) < TINY:
            found.append((1, index, f"tiny: {size}"))
        elif ratio > LONG:
            found.append((2, index, f"very long: {size}"))
        elif not dataset.packed and suffix not in _SUFFIXES.get(
            one.format, {f".{one.format.lower()}"}
        ):
            found.append((3, index, f"misnamed: {suffix or 'no suffix'}, but it is {one.format}"))
    return [(index, reason) for _, index, reason in sorted(found)]
