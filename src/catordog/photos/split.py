"""Which photos train, which choose, which judge: decided by what a photo shows.

A photo's side depends on nothing but its own bytes. So copies never straddle two sides, adding
photos moves none of the old ones, and a zip splits like the folder it was made from.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Literal, Self

from catordog.errors import CatordogError

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")


@dataclass(frozen=True, slots=True)
class Fractions:
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


def split_of(key: int, fractions: Fractions) -> Split:
    """The side of the photo with this content key."""
    position = key / 2**64
    if position < fractions.test:
        return "test"
    return "val" if position < fractions.test + fractions.val else "train"
