"""`catordog shard`: a data set packed into tars of a thousand photos (see `shards`)."""

from __future__ import annotations

import io
import json
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from catordog.errors import PhotoError
from catordog.files import write_bytes, write_text
from catordog.photos.datasets import PhotoDataset
from catordog.photos.photo import Photo
from catordog.photos.shards import FORMAT, INDEX, ROW
from catordog.photos.splits import SPLITS, Split, SplitFractions, content_key


def pack(
    dataset: PhotoDataset,
    out: Path,
    photos_to_a_shard: int = 1000,
    fractions: SplitFractions = SplitFractions(),  # noqa: B008 - frozen
    progress: Callable[[int], None] = lambda _: None,
) -> list[PhotoError]:
    """Pack a data set into shards. What breaks off goes on where it stopped.

    Photos come in an order of their own in each side, so that every shard has all classes. Their
    bytes stay as they are.

    Args:
        dataset: what to pack.
        out: the folder for the shards.
        photos_to_a_shard: at most.
        fractions: the shares of validation and test photos, where the data set names none.
        progress: called with the number of photos packed so far.

    Returns:
        The photos that can't be read, which are left out.

    Raises:
        CatordogError: it can't be written.
    """
    failures: list[PhotoError] = []
    listed: list[tuple[str, Split, int]] = []
    done = 0
    sides = dataset.splits(fractions)
    for split in SPLITS:
        chosen = [
            photo
            for photo, side in zip(dataset.photos, sides, strict=True)
            if side == split and photo.name not in dataset.excluded
        ]
        order = np.random.default_rng(len(chosen)).permutation(len(chosen)).tolist()
        for number, start in enumerate(range(0, len(order), photos_to_a_shard)):
            photos = [chosen[place] for place in order[start : start + photos_to_a_shard]]
            file = out / f"{split}-{number:05d}.tar"
            rows, failed = _pack_one(photos, file)
            failures += failed
            if len(rows):
                listed.append((file.name, split, len(rows)))
            done += len(photos)
            progress(done)
    facts = {"format": FORMAT, "classes": list(dataset.classes), "shards": listed}
    write_text(out / INDEX, json.dumps(facts))
    return failures


def _pack_one(photos: list[Photo], file: Path) -> tuple[npt.NDArray[Any], list[PhotoError]]:
    """Write a shard and its index, unless both are there, with these photos."""
    read: list[tuple[Photo, int]] = []
    failures: list[PhotoError] = []
    for photo in photos:
        try:
            read.append((photo, photo.key()))
        except PhotoError as error:
            failures.append(error)
    if (known := _known(file, [key for _, key in read])) is not None:
        return known, failures
    packed = io.BytesIO()
    rows: list[tuple[int, int, int, int]] = []
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for photo, _ in read:
            try:
                data = photo.read()
            except PhotoError as error:
                failures.append(error)
                continue
            stem = f"{len(rows):08d}"
            _add(tar, stem + photo.suffix, data)
            offset = packed.tell() - len(data) - (-len(data) % tarfile.BLOCKSIZE)
            assert photo.label is not None  # a dataset's photos have labels
            rows.append((offset, len(data), photo.label, content_key(zlib.crc32(data), len(data))))
            _add(tar, f"{stem}.cls", str(photo.label).encode())
    made = np.array(rows, ROW)
    if rows:
        index = io.BytesIO()
        np.save(index, made, allow_pickle=False)
        write_bytes(file, packed.getvalue())
        write_bytes(file.with_suffix(".npy"), index.getvalue())
    return made, failures


def _known(file: Path, keys: list[int]) -> npt.NDArray[Any] | None:
    try:
        rows: npt.NDArray[Any] = np.load(file.with_suffix(".npy"), allow_pickle=False)
        end = int(rows["offset"][-1]) + int(rows["size"][-1])
        if rows.dtype == ROW and rows["key"].tolist() == keys and file.stat().st_size >= end:
            return rows
    except (OSError, ValueError, KeyError, IndexError):
        pass
    return None


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    tar.addfile(info, io.BytesIO(data))
