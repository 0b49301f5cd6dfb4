"""Pack a dataset into shards, for `catordog shard`; `shards` describes and reads them."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from catordog.errors import CatordogError, PhotoError
from catordog.escaping import printable
from catordog.files import write_bytes, write_text
from catordog.photos.photo import Photo
from catordog.photos.photo_dataset import PhotoDataset
from catordog.photos.shards import FORMAT, INDEX, ROW
from catordog.photos.splits import SPLITS, Split, SplitFractions, content_key_of


def pack(
    dataset: PhotoDataset,
    out: Path,
    photos_to_a_shard: int = 1000,
    fractions: SplitFractions = SplitFractions(),  # noqa: B008 - frozen
    progress: Callable[[int], None] = lambda _: None,
) -> list[PhotoError]:
    """Pack a dataset into shards. An interrupted run is resumed: complete shards stay as they are.

    The photos of each split are shuffled, so that every shard has all classes. Their bytes are
    copied unchanged.

    Args:
        dataset: excluded photos are left out.
        out: the folder for the shards.
        photos_to_a_shard: the largest number of photos in one shard.
        fractions: of validation and test photos, if the dataset has no splits of its own.
        progress: called with the number of photos packed so far.

    Returns:
        One error for each unreadable photo, and for each folder or archive that can't be opened;
        these are left out.

    Raises:
        CatordogError: the folder can't be written.
    """
    failures = list(dataset.unopened)
    listed: list[tuple[str, Split, int]] = []
    done = 0
    splits = dataset.splits(fractions)
    for split in SPLITS:
        chosen = [
            photo
            for photo, own in zip(dataset.photos, splits, strict=True)
            if own == split and photo.name not in dataset.excluded
        ]
        order = np.random.default_rng(len(chosen)).permutation(len(chosen)).tolist()
        for number, start in enumerate(range(0, len(order), photos_to_a_shard)):
            photos = [chosen[index] for index in order[start : start + photos_to_a_shard]]
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


def check_interrupted(out: Path) -> None:
    """Refuse a folder with tars that are not of an interrupted `pack`: they could be replaced.

    Raises:
        CatordogError: none of them has an index beside it, which `pack` writes first.
    """
    tars = sorted(out.glob("*.tar"))
    if tars and not any(tar.with_suffix(".npy").is_file() for tar in tars):
        raise CatordogError(
            f"--out {printable(out)} already holds {printable(tars[0].name)}, which 'catordog "
            "shard' did not write: give another folder"
        )


def _pack_one(photos: list[Photo], file: Path) -> tuple[npt.NDArray[Any], list[PhotoError]]:
    """Write a shard and its index, unless both exist and hold these photos."""
    read: list[tuple[Photo, int]] = []
    failures: list[PhotoError] = []
    for photo in photos:
        try:
            read.append((photo, photo.key()))
        except PhotoError as error:
            failures.append(error)
    if (known := _known_rows(file, [(key, photo.label) for photo, key in read])) is not None:
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
            rows.append((offset, len(data), photo.label, content_key_of(data)))
            _add(tar, f"{stem}.cls", str(photo.label).encode())
    packed_rows = np.array(rows, ROW)
    if rows:
        index = io.BytesIO()
        np.save(index, packed_rows, allow_pickle=False)
        file.unlink(missing_ok=True)  # of photos that have changed since an interrupted run
        write_bytes(file.with_suffix(".npy"), index.getvalue())  # first: see `check_interrupted`
        write_bytes(file, packed.getvalue())
    return packed_rows, failures


def _known_rows(file: Path, wanted: list[tuple[int, int | None]]) -> npt.NDArray[Any] | None:
    """The index of a shard that is complete and holds just photos with these keys and labels."""
    try:
        rows: npt.NDArray[Any] = np.load(file.with_suffix(".npy"), allow_pickle=False)
        end = int(rows["offset"][-1]) + int(rows["size"][-1])
        held = list(zip(rows["key"].tolist(), rows["label"].tolist(), strict=True))
        if rows.dtype == ROW and held == wanted and file.stat().st_size >= end:
            return rows
    except (OSError, ValueError, KeyError, IndexError):
        pass
    return None


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    tar.addfile(info, io.BytesIO(data))
