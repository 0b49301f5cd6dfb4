"""Which photos train, which choose, which judge: decided by what a photo shows.

A photo's side depends on its own bytes, and on those of its copies. So copies never straddle two
sides, adding photos moves none of the old ones, and a zip splits like the folder it was made from.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Self

from catordog.errors import CatordogError

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")


@dataclass(frozen=True, slots=True)
class SplitFractions:
    """The shares of validation and test photos; the rest trains. Travels inside the checkpoint.

    Attributes:
        val: share of photos that choose the checkpoint and calibrate it, 0…1.
        test: share of photos that judge it and take part in nothing else, 0…1.
    """

    val: float = 0.1
    test: float = 0.2

    def __post_init__(self) -> None:
        if not (0 <= self.val < 1 and 0 <= self.test < 1 and self.val + self.test < 1):
            raise CatordogError(
                f"split fractions val={self.val} and test={self.test} leave nothing to train on: "
                "each must be at least 0 and their sum below 1"
            )

    @classmethod
    def of(cls, val: object, test: object) -> Self:
        """Check values read from a file."""
        if not isinstance(val, (int, float)) or not isinstance(test, (int, float)):
            raise CatordogError("unusable split fractions in the model file")
        return cls(float(val), float(test))


def content_key(crc32: int, size: int) -> int:
    """A photo's identity by content, as 64 bits, from its CRC-32 and its length in bytes.

    Both are in a zip's directory, so that an archive of any size is split without reading it.
    Two different photos that share both fall on the same side, which harms nobody.
    """
    digest = hashlib.blake2b(f"{crc32:08x}:{size}".encode(), digest_size=8, person=b"catordog")
    return int.from_bytes(digest.digest(), "big")


def split_of(key: int, fractions: SplitFractions) -> Split:
    """The side of the photo with this content key."""
    position = key / 2**64
    if position < fractions.test:
        return "test"
    return "val" if position < fractions.test + fractions.val else "train"


def splits_of(
    keys: Sequence[int | None],
    labels: Sequence[int],
    fractions: SplitFractions,
    groups: Sequence[int] | None = None,
) -> list[Split]:
    """The side of every photo: that of its group, so that copies never straddle two sides.

    One photo of a group, chosen by its content, decides for all. As keys are spread evenly, each
    class has its share on each side, and adding photos moves no old one, except that a photo whose
    near copy arrives may follow it. Only a class so small that a side would have none of its photos
    lends it the group that was closest to falling there.

    Args:
        keys: content keys of N photos; None for one that can't be read, which stays in training.
        labels: their classes.
        fractions: the shares of validation and test photos.
        groups: for each photo a number that its copies share; None if nothing is a copy.
    """
    members: dict[int, list[int]] = {}
    for place, key in enumerate(keys):
        if key is not None:
            members.setdefault(place if groups is None else groups[place], []).append(place)
    deciding = {group: min(_rank(keys[place]) for place in places)[1]
                for group, places in members.items()}  # fmt: skip
    sides: list[Split] = ["train"] * len(keys)
    for group, places in members.items():
        for place in places:
            sides[place] = split_of(deciding[group], fractions)
    _lend(sides, labels, fractions, members, deciding)
    return sides


def _rank(key: int | None) -> tuple[int, int]:
    """Who decides for a group: the least of its low bits, which say nothing about the side."""
    assert key is not None
    return key & 0xFFFFFFFF, key


def _lend(
    sides: list[Split],
    labels: Sequence[int],
    fractions: SplitFractions,
    members: dict[int, list[int]],
    deciding: dict[int, int],
) -> None:
    """Give each class a group on each side that has a share, if it has groups enough."""
    test, val = fractions.test, fractions.test + fractions.val
    ranges: dict[Split, tuple[float, float]] = {
        "test": (0, test),
        "val": (test, val),
        "train": (val, 1),
    }
    wanted = [side for side, (low, high) in ranges.items() if low < high]
    there = set(zip(labels, sides, strict=True))
    for label in sorted(set(labels)):
        if all((label, side) in there for side in wanted):
            continue
        pure = [
            group for group, places in members.items() if all(labels[x] == label for x in places)
        ]
        for side in wanted:
            held = Counter(sides[members[group][0]] for group in pure)
            spare = [group for group in pure if held[sides[members[group][0]]] > 1]
            if held[side] or (label, side) in there or not spare:
                continue
            low, high = ranges[side]
            chosen = min(
                spare, key=lambda x: max(low - deciding[x] / 2**64, deciding[x] / 2**64 - high)
            )
            for place in members[chosen]:
                sides[place] = side
