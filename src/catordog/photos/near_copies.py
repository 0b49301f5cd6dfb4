"""Which photos look alike: perceptual hashes, also of the mirror image.

The hash is the pHash of the field (Zauner 2010, as in the imagehash library), for many photos at
once: 32×32 grey pixels, their cosine transform, and of its 16×16 lowest frequencies one bit each,
whether it is above their median. Scaling, re-encoding and small changes of colour leave most bits
as they are. Mirroring changes the sign of every odd column, so the mirror image costs nothing.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from catordog.errors import CatordogError, PhotoError
from catordog.files import write_bytes
from catordog.photos.data_folder import data_folder
from catordog.photos.parallel import in_parallel
from catordog.photos.photo import Photo
from catordog.terminal import progress

Bits = npt.NDArray[np.uint8]

SIDE = 32
LOW = 16
BYTES = LOW * LOW // 8

ALIKE = 52
"""Near copies differ in at most this many of the 256 bits; unrelated photos in 128 ± 20."""

FLAT = 2.0
"""Below this standard deviation of grey (0…255) a picture is blank, and like no other."""

_RECORD = np.dtype([("key", "<u8"), ("hash", "u1", BYTES), ("mirrored", "u1", BYTES)])


@dataclass(frozen=True, slots=True)
class Hashes:
    """Perceptual hashes of N photos.

    Attributes:
        plain: `uint8 [N, 32]`; all zeros for a photo that is blank or can't be read.
        mirrored: those of the mirror images.
    """

    plain: Bits
    mirrored: Bits

    def __len__(self) -> int:
        return len(self.plain)


def thumbnail(image: Image.Image) -> Bits:
    """The grey pixels that the hash is made from, `uint8 [32, 32]`."""
    return np.asarray(image.convert("L").resize((SIDE, SIDE), Image.Resampling.LANCZOS))


def hashes_of_thumbnails(thumbnails: Bits) -> Hashes:
    """Perceptual hashes of `uint8 [N, 32, 32]`."""
    grey = thumbnails.astype(np.float64)
    low = _COSINES @ grey @ _COSINES.T
    turned = low * np.where(np.arange(LOW) % 2, -1.0, 1.0)
    plain, mirrored = _bits(low), _bits(turned)
    flat = grey.std(axis=(1, 2)) < FLAT
    plain[flat] = mirrored[flat] = 0
    return Hashes(plain, mirrored)


def _cosines() -> npt.NDArray[np.float64]:
    """The first rows of the cosine transform (DCT-II), `[16, 32]`."""
    frequency, place = np.arange(LOW)[:, None], np.arange(SIDE)[None, :]
    return 2 * np.cos(np.pi * frequency * (2 * place + 1) / (2 * SIDE))


_COSINES = _cosines()


def _bits(low: npt.NDArray[np.float64]) -> Bits:
    flat = low.reshape(len(low), -1)
    return np.packbits(flat > np.median(flat, axis=1, keepdims=True), axis=1)


def pairs_alike(hashes: Hashes, limit: int = ALIKE) -> Iterator[tuple[int, int]]:
    """Yield pairs `i < j` of photos that look alike, one of them mirrored or not.

    Only photos that agree in at least one byte of their hashes are compared, which finds nearly
    all pairs and spares nearly all comparisons; equal photos are compared once for all.
    """
    known = np.flatnonzero(hashes.plain.any(axis=1))
    _, first, which = np.unique(hashes.plain[known], axis=0, return_index=True, return_inverse=True)
    for place, group in enumerate(which.ravel()):
        if first[group] != place:
            yield _ordered(int(known[first[group]]), int(known[place]))
    places = known[first]
    width = 1 if len(places) < 100_000 else 2
    yield from _close(hashes.plain[places], hashes.plain[places], places, limit, width)
    yield from _close(hashes.plain[places], hashes.mirrored[places], places, limit, width)


def _close(
    left: Bits, right: Bits, places: npt.NDArray[np.intp], limit: int, width: int
) -> Iterator[tuple[int, int]]:
    """Pairs whose hashes share a band of `width` bytes and differ in at most `limit` bits."""
    kind = np.dtype(f"u{width}")
    left_bands = np.ascontiguousarray(left).view(kind)
    right_bands = np.ascontiguousarray(right).view(kind)
    left_words = np.ascontiguousarray(left).view(np.uint64)
    right_words = np.ascontiguousarray(right).view(np.uint64)
    for band in range(BYTES // width):
        rights: dict[int, npt.NDArray[np.intp]] = dict(_buckets(right_bands[:, band]))
        for value, ours in _buckets(left_bands[:, band]):
            theirs = rights.get(value)
            if theirs is None:
                continue
            for start in range(0, len(ours), 1024):
                block = ours[start : start + 1024]
                distance = np.zeros((len(block), len(theirs)), np.uint16)
                for word in range(left_words.shape[1]):
                    distance += np.bitwise_count(
                        left_words[block, word, None] ^ right_words[None, theirs, word]
                    )
                for row, column in np.argwhere(distance <= limit):
                    i, j = int(places[block[row]]), int(places[theirs[column]])
                    if i < j:
                        yield i, j


def _buckets(values: npt.NDArray[np.integer]) -> Iterator[tuple[int, npt.NDArray[np.intp]]]:
    """The places of each value."""
    order = np.argsort(values, kind="stable")
    edges = np.flatnonzero(np.diff(values[order])) + 1
    for places in np.split(order, edges):
        if len(places):
            yield int(values[places[0]]), places


def _ordered(i: int, j: int) -> tuple[int, int]:
    return (i, j) if i < j else (j, i)


def groups_of_pairs(n: int, pairs: Iterable[tuple[int, int]]) -> list[int]:
    """For each of n photos the least number in its group: pairs join groups."""
    parent = list(range(n))

    def root(x: int) -> int:
        while parent[x] != x:
            parent[x] = parent[parent[x]]
            x = parent[x]
        return x

    for i, j in pairs:
        a, b = root(i), root(j)
        parent[max(a, b)] = min(a, b)
    return [root(x) for x in range(n)]


def groups_of(photos: Sequence[Photo], keys: Sequence[int | None]) -> list[int]:
    """For each photo a number that it shares with its copies and near copies only.

    Args:
        photos: any number of them.
        keys: their content keys; None for one that can't be read, which is like no other.
    """
    return groups_of_pairs(len(photos), pairs_alike(hashes_of(photos, keys)))


def hashes_of(photos: Sequence[Photo], keys: Sequence[int | None]) -> Hashes:
    """Perceptual hashes, decoding only photos that were never seen before.

    What is found is kept by content in `data/cache`, where any data set that has the same photos
    finds it again. A file there that is damaged or can't be written costs nothing but time.
    """
    known = _load()
    wanted = {key: place for place, key in enumerate(keys) if key is not None}
    new = np.array(sorted(set(wanted).difference(known["key"].tolist())), np.uint64)
    found = np.zeros(len(new), _RECORD)
    found["key"] = new
    read = np.zeros(len(new), bool)
    with progress("comparing photos", len(new)) as done:
        thumbnails = in_parallel(_thumbnail_or_none, (photos[wanted[key]] for key in new.tolist()))
        for start in range(0, len(new), _CHUNK):
            chunk = list(islice(thumbnails, _CHUNK))
            here = np.array([start + i for i, one in enumerate(chunk) if one is not None], int)
            if len(here):
                hashes = hashes_of_thumbnails(np.stack([one for one in chunk if one is not None]))
                found["hash"][here], found["mirrored"][here] = hashes.plain, hashes.mirrored
                read[here] = True
            done(start + len(chunk))
    everything = np.sort(np.concatenate([known, found[read]]), order="key")
    if read.sum() >= _WORTH_KEEPING:
        _save(everything if len(everything) <= _MOST_KEPT else found[read])
    return _look_up(everything, keys)


_CHUNK = 1024
_WORTH_KEEPING = 1000
_MOST_KEPT = 2_000_000


def _thumbnail_or_none(photo: Photo) -> Bits | None:
    try:
        return thumbnail(photo.image(near=SIDE))
    except PhotoError:
        return None


def _look_up(known: npt.NDArray[np.void], keys: Sequence[int | None]) -> Hashes:
    plain, mirrored = np.zeros((2, len(keys), BYTES), np.uint8)
    there = np.array([place for place, key in enumerate(keys) if key is not None], int)
    if len(known) and len(there):
        asked = np.array([key for key in keys if key is not None], np.uint64)
        rows = np.searchsorted(known["key"], asked).clip(max=len(known) - 1)
        hit = known["key"][rows] == asked
        plain[there[hit]] = known["hash"][rows[hit]]
        mirrored[there[hit]] = known["mirrored"][rows[hit]]
    return Hashes(plain, mirrored)


def _file() -> Path:
    return data_folder() / "cache" / "likeness-1.npy"


def _load() -> npt.NDArray[np.void]:
    try:
        known: npt.NDArray[np.void] = np.load(_file(), allow_pickle=False)
    except (OSError, ValueError, EOFError):
        known = np.zeros(0, _RECORD)
    return known if known.dtype == _RECORD and known.ndim == 1 else np.zeros(0, _RECORD)


def _save(records: npt.NDArray[np.void]) -> None:
    packed = io.BytesIO()
    np.save(packed, np.sort(records, order="key"))
    with suppress(CatordogError):
        write_bytes(_file(), packed.getvalue())
