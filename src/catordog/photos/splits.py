"""Assign photos to training, validation and test by their content.

A photo's split depends on its own bytes, and on those of its copies. So copies never straddle two
splits, adding photos moves none of the old ones, and a zip is split like the folder it was made
from.
"""

from __future__ import annotations

import hashlib
import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Self

from catordog.errors import CatordogError

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")


@dataclass(frozen=True, slots=True)
class SplitFractions:
    """The fractions of validation and test photos; the rest is for training.

    They travel inside the checkpoint, so that evaluation holds out the same photos.

    Attributes:
        val: fraction of photos that select the checkpoint and calibrate it, 0…1.
        test: fraction of photos that evaluate it and are used for nothing else, 0…1.

    Raises:
        CatordogError: a fraction is negative, or they leave nothing for training.
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
        """Check values read from a model file.

        Raises:
            CatordogError: they are not numbers, or out of their range.
        """
        if not isinstance(val, (int, float)) or not isinstance(test, (int, float)):
            raise CatordogError(
                f"unusable split fractions in the model file: val={val!r}, test={test!r}"
            )
        return cls(float(val), float(test))


def content_key(crc32: int, size: int) -> int:
    """A photo's content as a number of 64 bits, made from its CRC-32 and its length in bytes.

    Both are in a zip's directory, so an archive of any size is split without reading its photos.
    Two different photos that share both are in the same split, which does no harm.
    """
    digest = hashlib.blake2b(f"{crc32:08x}:{size}".encode(), digest_size=8, person=b"catordog")
    return int.from_bytes(digest.digest(), "big")


def content_key_of(data: bytes) -> int:
    """The content key of a file, from its bytes.

    >>> content_key_of(b"photo") == content_key(zlib.crc32(b"photo"), 5)
    True
    """
    return content_key(zlib.crc32(data), len(data))


def split_of(key: int, fractions: SplitFractions) -> Split:
    """The split of the photo with this content key.

    >>> split_of(content_key(0xDEADBEEF, 12345), SplitFractions())
    'test'
    """
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
    """The split of every photo: that of its group, so that copies never straddle two splits.

    One photo of a group, chosen by its content, decides for the group. Keys are uniformly
    distributed, so each class has the same fractions, and adding photos moves none of the old
    ones, except that a photo may follow its new near copy. Only if a class is so small that it has
    no photo in some split, the group of it whose key is nearest is moved there.

    Args:
        keys: content keys of N photos; None for an unreadable one, which stays in training.
        labels: their classes, `[N]`.
        fractions: of validation and test photos.
        groups: for each photo a number that only its copies share, `[N]`; None if there are no
            copies.
    """
    members = _members(keys, groups)
    group_keys = {group: min(_rank(keys[index]) for index in indices)[1]
                  for group, indices in members.items()}  # fmt: skip
    splits: list[Split] = ["train"] * len(keys)
    for group, indices in members.items():
        for index in indices:
            splits[index] = split_of(group_keys[group], fractions)
    _fill_empty_splits(splits, labels, fractions, members, group_keys)
    return splits


def folds_of(
    keys: Sequence[int | None],
    labels: Sequence[int],
    folds: int,
    groups: Sequence[int] | None = None,
) -> tuple[list[int | None], Counter[int]]:
    """The fold of every photo, 0…folds − 1: each class is dealt to them in the order of its keys.

    So folds depend on content alone, copies share one, and each has as many photos of a class as
    any other, give or take a group of copies.

    Args:
        keys: content keys of N photos; None for an unreadable one, which is in no fold.
        labels: their classes, `[N]`.
        folds: 2 or more.
        groups: for each photo a number that only its copies share, `[N]`; None if there are no
            copies.

    Returns:
        The folds, and for each class the number of its photos, copies counted once.
    """
    members = _members(keys, groups)
    order = sorted(members.values(), key=lambda rows: min(_rank(keys[row]) for row in rows))
    result: list[int | None] = [None] * len(keys)
    dealt: Counter[int] = Counter()
    for rows in order:
        label = labels[rows[0]]
        for row in rows:
            result[row] = dealt[label] % folds
        dealt[label] += 1
    return result, dealt


def _members(keys: Sequence[int | None], groups: Sequence[int] | None) -> dict[int, list[int]]:
    """The indices of the readable photos of each group of copies."""
    members: dict[int, list[int]] = {}
    for index, key in enumerate(keys):
        if key is not None:
            members.setdefault(index if groups is None else groups[index], []).append(index)
    return members


def _rank(key: int | None) -> tuple[int, int]:
    """The least rank decides for a group: by the low bits, which don't depend on the split."""
    assert key is not None
    return key & 0xFFFFFFFF, key


def _fill_empty_splits(
    splits: list[Split],
    labels: Sequence[int],
    fractions: SplitFractions,
    members: dict[int, list[int]],
    group_keys: dict[int, int],
) -> None:
    """Give each class a group in each split whose fraction is above 0, if it has groups enough."""
    test, val = fractions.test, fractions.test + fractions.val
    ranges: dict[Split, tuple[float, float]] = {
        "test": (0, test),
        "val": (test, val),
        "train": (val, 1),
    }
    wanted = [split for split, (low, high) in ranges.items() if low < high]
    present = set(zip(labels, splits, strict=True))
    pure_groups: dict[int, list[int]] = {}  # by label: those whose photos all have it
    for group, rows in members.items():
        if len(own := {labels[row] for row in rows}) == 1:
            pure_groups.setdefault(own.pop(), []).append(group)
    for label in sorted(set(labels)):
        if all((label, split) in present for split in wanted):
            continue
        pure = pure_groups.get(label, [])
        for split in wanted:
            groups_in = Counter(splits[members[group][0]] for group in pure)
            spare = [group for group in pure if groups_in[splits[members[group][0]]] > 1]
            if groups_in[split] or (label, split) in present or not spare:
                continue
            low, high = ranges[split]
            nearest = min(
                spare, key=lambda x: max(low - group_keys[x] / 2**64, group_keys[x] / 2**64 - high)
            )
            for index in members[nearest]:
                splits[index] = split
