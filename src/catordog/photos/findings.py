"""What is in a photo folder: sizes, copies, contradictions, and files that are no good."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

import numpy as np
import numpy.typing as npt

from catordog.errors import PhotoError
from catordog.photos.datasets import PhotoDataset
from catordog.photos.near_copies import (
    FLAT,
    SIDE,
    Hashes,
    groups_of_pairs,
    hashes_of_thumbnails,
    pairs_alike,
    thumbnail,
)
from catordog.photos.parallel import in_parallel
from catordog.photos.photo import Photo
from catordog.photos.splits import SplitFractions
from catordog.terminal import progress

TINY = 32
"""A photo whose shorter side has fewer pixels than this shows too little."""

LONG = 4.0
"""A photo this many times longer than wide, or wider than long, is rarely a photo."""

_SUFFIXES = {
    "JPEG": {".jpg", ".jpeg", ".jpe", ".jfif"},
    "MPO": {".jpg", ".jpeg", ".jpe", ".mpo"},
    "TIFF": {".tif", ".tiff"},
    "HEIF": {".heic", ".heif"},
}


@dataclass(frozen=True, slots=True)
class Look:
    """What one readable photo is.

    Attributes:
        format, mode: as its file says.
        width, height: in pixels, as stored.
        digest: of the file: equal for byte copies only.
        thumbnail: grey, `uint8 [32, 32]`.
    """

    format: str
    mode: str
    width: int
    height: int
    digest: bytes
    thumbnail: npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Findings:
    """What an audit has found; places are indices into `photos`.

    Attributes:
        dataset: what was audited.
        photos: all N of them, readable or not.
        looks: for each photo what it is; None if it can't be read.
        unreadable: the errors, in the order of the photos.
        suspicious: places with a reason: blank, tiny, very long, or misnamed.
        exact_copies: groups of byte-identical files.
        near_copies: groups that look alike, mirrored or not, and are not all byte-identical; the
            most alike first.
        contradictions: groups of either kind under more than one label.
        groups: for each photo the number of its group of copies.
    """

    dataset: PhotoDataset
    photos: Sequence[Photo]
    looks: list[Look | None]
    unreadable: list[PhotoError]
    suspicious: list[tuple[int, str]]
    exact_copies: list[list[int]]
    near_copies: list[list[int]]
    contradictions: list[list[int]]
    groups: list[int]

    def path(self, place: int) -> str:
        """What the owner of a photo calls it."""
        return self.photos[place].path

    def label(self, place: int) -> str:
        """The label of a photo, by name."""
        return self.dataset.classes[self.dataset.photos.labels[place]]

    def leak(self, fractions: SplitFractions) -> tuple[float, int]:
        """What a split photo by photo, at random, would do to the copies.

        Returns:
            how many groups of copies it would tear apart, as the expectation over all random
            splits, and how many groups there are.
        """
        sizes = [size for size in Counter(self.groups).values() if size > 1]
        shares = (fractions.test, fractions.val, 1 - fractions.test - fractions.val)
        torn = sum(1 - sum(share**size for share in shares) for size in sizes)
        return torn, len(sizes)

    def to_dict(self) -> dict[str, Any]:
        """The keys of `catordog audit --json` that need no model."""
        counts = Counter(self.label(place) for place in range(len(self.photos)))

        def paths(groups: list[list[int]]) -> list[list[str]]:
            return [[self.path(place) for place in group] for group in groups]

        seen = [look for look in self.looks if look]
        return {
            "data": self.dataset.name,
            "n": len(self.photos),
            "classes": {name: counts[name] for name in self.dataset.classes},
            "unlabelled": self.dataset.unlabelled,
            "formats": dict(Counter(look.format for look in seen).most_common()),
            "modes": dict(Counter(look.mode for look in seen).most_common()),
            "width": _spread([look.width for look in seen]),
            "height": _spread([look.height for look in seen]),
            "aspect_ratio": _spread([look.width / look.height for look in seen]),
            "unreadable": [
                {"path": error.path, "reason": error.reason} for error in self.unreadable
            ],
            "suspicious": [
                {"path": self.path(place), "reason": reason} for place, reason in self.suspicious
            ],
            "exact_copies": paths(self.exact_copies),
            "near_copies": paths(self.near_copies),
            "contradictions": paths(self.contradictions),
        }


def _spread(values: Sequence[float]) -> dict[str, float] | None:
    if not values:
        return None
    low, middle, high = (float(x) for x in np.percentile(values, [0, 50, 100]))
    return {"min": round(low, 4), "median": round(middle, 4), "max": round(high, 4)}


def audit(dataset: PhotoDataset) -> Findings:
    """Look at every photo of a data set once."""
    photos = dataset.photos
    looks: list[Look | None] = []
    unreadable: list[PhotoError] = []
    with progress("looking at photos", len(photos)) as done:
        for result in in_parallel(_look, photos):
            if isinstance(result, PhotoError):
                unreadable.append(result)
                looks.append(None)
            else:
                looks.append(result)
            done(len(looks))
    hashes = _hashes(looks)
    exact = _groups(None if look is None else look.digest for look in looks)
    groups = groups_of_pairs(len(photos), [*_chains(exact), *pairs_alike(hashes)])
    alike = _groups(groups)
    near = [group for group in alike if len({looks[place].digest for place in group}) > 1]  # type: ignore[union-attr]
    near.sort(key=lambda group: _distance(hashes, group))
    labels = photos.labels
    return Findings(
        dataset=dataset,
        photos=photos,
        looks=looks,
        unreadable=unreadable,
        suspicious=_suspicious(photos, looks),
        exact_copies=sorted(exact, key=len, reverse=True),
        near_copies=near,
        contradictions=[
            group
            for group in sorted(alike, key=lambda group: _distance(hashes, group))
            if len({labels[place] for place in group}) > 1
        ],
        groups=groups,
    )


def _look(photo: Photo) -> Look | PhotoError:
    try:
        seen, digest = photo.examine(near=SIDE)
    except PhotoError as error:
        return error
    return Look(seen.format, seen.mode, seen.width, seen.height, digest, thumbnail(seen.image))


def _hashes(looks: Sequence[Look | None]) -> Hashes:
    nothing = np.zeros((SIDE, SIDE), np.uint8)  # blank: like no other
    parts = []
    for start in range(0, len(looks), 4096):
        chunk = looks[start : start + 4096]
        parts.append(hashes_of_thumbnails(np.stack([x.thumbnail if x else nothing for x in chunk])))
    return Hashes(
        np.concatenate([part.plain for part in parts]),
        np.concatenate([part.mirrored for part in parts]),
    )


def _groups(marks: Iterable[object]) -> list[list[int]]:
    """The places that share a mark, where two or more do; None is no mark."""
    places: defaultdict[object, list[int]] = defaultdict(list)
    for place, mark in enumerate(marks):
        if mark is not None:
            places[mark].append(place)
    return [group for group in places.values() if len(group) > 1]


def _chains(groups: Sequence[Sequence[int]]) -> list[tuple[int, int]]:
    return [(group[0], other) for group in groups for other in group[1:]]


def _distance(hashes: Hashes, group: Sequence[int]) -> int:
    """How far the photos of a group are from its first one, at most, in bits."""
    first = hashes.plain[group[0]]
    return max(
        min(
            int(np.bitwise_count(first ^ side[place]).sum())
            for side in (hashes.plain, hashes.mirrored)
        )
        for place in group[1:]
    )


def _suspicious(photos: Sequence[Photo], looks: Sequence[Look | None]) -> list[tuple[int, str]]:
    found = []
    for place, look in enumerate(looks):
        if look is None:
            continue
        size = f"{look.width} × {look.height} pixels"
        ratio = max(look.width, look.height) / min(look.width, look.height)
        suffix = PurePath(photos[place].name).suffix.lower()
        if look.thumbnail.std() < FLAT:
            found.append((0, place, "blank: one colour all over"))
        elif min(look.width, look.height) < TINY:
            found.append((1, place, f"tiny: {size}"))
        elif ratio > LONG:
            found.append((2, place, f"very long: {size}"))
        elif suffix not in _SUFFIXES.get(look.format, {f".{look.format.lower()}"}):
            found.append((3, place, f"misnamed: {suffix or 'no suffix'}, but it is {look.format}"))
    return [(place, reason) for _, place, reason in sorted(found)]
