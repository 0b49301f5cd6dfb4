"""Read shards: photos packed into tars of a thousand, for a slow disk or for many disks.

A folder of shards has tars in WebDataset's layout (`00000017.jpg` beside `00000017.cls`), each with
an index beside it (`train-00000.npy`: offset, size, label and content key of each photo), and
`shards.json`, which is written last. A shard may be a link to another disk. Photos are read by
offset, so any order is possible.
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any, overload

import numpy as np
import numpy.typing as npt

from catordog.errors import CatordogError, PhotoError
from catordog.escaping import encodable
from catordog.photos.listing import check_size
from catordog.photos.splits import SPLITS, Split, content_key_of

INDEX = "shards.json"
FORMAT = 1
"""The version of the layout that this file reads and `pack` writes."""
_MAX_INDEX_BYTES = 2**28
ROW = np.dtype([("offset", "<u8"), ("size", "<u4"), ("label", "<u2"), ("key", "<u8")])
"""Of one photo: offset of its bytes in the tar, their number, its label, its content key."""


@dataclass(frozen=True, slots=True)
class Shard:
    """A tar of photos of one split.

    Attributes:
        file: the tar.
        split: of all its photos.
        first: the number of its first photo among those of all shards.
        rows: one of type `ROW` for each photo.
    """

    file: Path
    split: Split
    first: int
    rows: npt.NDArray[Any]


class Shards:
    """A store of the photos in a folder of shards. A photo's name is `SHARD/NUMBER.jpg`.

    Args:
        root: the folder with `shards.json`.

    Raises:
        CatordogError: the index is damaged, or a shard is missing.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        try:
            if (root / INDEX).stat().st_size > _MAX_INDEX_BYTES:
                raise ValueError("over 256 MiB")
            facts = json.loads((root / INDEX).read_text("utf-8"))
            if facts["format"] != FORMAT:
                raise ValueError(f"format {facts['format']}, and this version reads {FORMAT}")
            self.classes = tuple(str(name) for name in facts["classes"])
            self.shards: list[Shard] = []
            first = 0
            for number, (name, split, photos) in enumerate(facts["shards"]):
                shard = self._shard(str(name), str(split), first)
                if len(shard.rows) != photos or number > 10**6:
                    raise ValueError(f"{name} has {len(shard.rows)} photos, not {photos}")
                self.shards.append(shard)
                first += len(shard.rows)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise CatordogError(
                f"{root / INDEX}: unusable index of shards ({error}): pack the photos again with "
                "'catordog shard'"
            ) from None
        self._firsts = np.array([shard.first for shard in self.shards], np.int64)

    def _shard(self, name: str, split: str, first: int) -> Shard:
        if split not in SPLITS or PurePosixPath(name).name != name:
            raise ValueError(f"unusable shard name or split: {name!r}, {split!r}")
        file = self.root / name
        rows = np.load(file.with_suffix(".npy"), mmap_mode="r", allow_pickle=False)
        if rows.dtype != ROW or rows.ndim != 1:
            raise ValueError(f"{name}: its index has other columns")
        if len(rows) and int(rows["label"].max()) >= len(self.classes):
            raise ValueError(f"{name}: a label without a class")
        if not file.is_file():
            raise FileNotFoundError(f"{name} is missing")
        return Shard(file, split, first, rows)

    def __len__(self) -> int:
        return sum(len(shard.rows) for shard in self.shards)

    def labels(self) -> Iterator[int]:
        """The label of each photo."""
        for shard in self.shards:
            yield from shard.rows["label"].tolist()

    def splits(self) -> Iterator[Split]:
        """The split of each photo."""
        for shard in self.shards:
            yield from (shard.split for _ in range(len(shard.rows)))

    def names(self) -> Iterator[str]:  # noqa: D102
        return iter(Names(self))

    def name(self, number: int) -> str:
        """The name of a photo, by its number among all."""
        shard = self.shards[self._shard_index(number)]
        return f"{shard.file.stem}/{number:09d}.jpg"

    def _shard_index(self, number: int) -> int:
        return int(np.searchsorted(self._firsts, number, "right")) - 1

    def _row(self, name: str) -> tuple[Path, int, int, int]:
        number = _number(name)
        shard = self.shards[self._shard_index(number)]
        row = shard.rows[number - shard.first]
        return shard.file, int(row["offset"]), int(row["size"]), int(row["key"])

    def read(self, name: str) -> bytes:  # noqa: D102
        file, offset, size, key = self._row(name)
        check_size(size, self.path(name))
        try:
            data = _read_at(file, offset, size)
        except OSError as error:
            raise PhotoError(self.path(name), error.strerror or str(error)) from None
        if content_key_of(data) != key:
            raise PhotoError(
                self.path(name), "its bytes differ from those packed: its shard is damaged"
            )
        return data

    def key(self, name: str) -> int:  # noqa: D102
        return self._row(name)[3]

    def path(self, name: str) -> str:  # noqa: D102
        return encodable(f"{self.root}/{name}")

    def file(self, name: str) -> Path | None:  # noqa: D102
        del name
        return None


def _read_at(file: Path, offset: int, size: int) -> bytes:
    if not hasattr(os, "pread"):  # Windows
        with file.open("rb") as opened:
            opened.seek(offset)
            return opened.read(size)
    handle = _handle(file, os.getpid())
    return os.pread(handle.fileno(), size, offset)


@lru_cache(maxsize=128)
def _handle(file: Path, process: int) -> io.FileIO:
    """A file that stays open for its many photos, shared by threads until others are in use."""
    del process
    return io.FileIO(file)


class Names(Sequence[str]):
    """The names of all photos, computed when they are asked for."""

    def __init__(self, shards: Shards) -> None:
        self.shards = shards

    def __len__(self) -> int:
        return len(self.shards)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self.shards.name(number) for number in range(len(self))[index]]
        return self.shards.name(range(len(self))[index])


def _number(name: str) -> int:
    return int(PurePosixPath(name).stem)
