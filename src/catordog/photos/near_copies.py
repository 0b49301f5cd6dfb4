"""Find near copies of photos by perceptual hash, mirrored ones included.

The hash is pHash (Zauner 2010, *Implementation and Benchmarking of Perceptual Image Hash
Functions*): the grey photo at 32×32 pixels, its cosine transform, and one bit for each of the
16×16 lowest frequencies, set if the coefficient is above their median. Scaling, re-encoding and
small changes of colour flip few bits. Mirroring negates every odd column of the transform, so the
hash of the mirror image costs nothing.

We compute it ourselves because the imagehash library hashes one image at a time and doesn't hash
its mirror image; a test checks that the bits agree with that library's.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from catordog.errors import PhotoError
from catordog.photos.data_folder import data_folder
from catordog.photos.parallel import in_parallel
from catordog.photos.photo import Photo
from catordog.photos.records import Records, load_records, save_records
from catordog.terminal import progress

Bits = npt.NDArray[np.uint8]

THUMBNAIL_SIZE = 32
"""Side length of the grey image that is hashed, in pixels."""

FREQUENCIES = 16
"""Number of cosine frequencies in each direction that the hash uses."""

HASH_BYTES = FREQUENCIES * FREQUENCIES // 8

MAX_DISTANCE = 52
"""Near copies differ in at most this many of the 256 bits; unrelated photos in 128 ± 20."""

_FEW = 1000
"""Photos that are compared all at once, which is faster than by bands."""

BLANK_STD = 2.0
"""Below this standard deviation of grey (0…255) a photo is blank, and similar to no other."""

_RECORD = np.dtype([("key", "<u8"), ("hash", "u1", HASH_BYTES), ("mirrored", "u1", HASH_BYTES)])


@dataclass(frozen=True, slots=True)
class Hashes:
    """Perceptual hashes of N photos.

    Attributes:
        plain: `uint8 [N, 32]`; all zeros for a photo that is blank or unreadable.
        mirrored: the hashes of the mirror images, `uint8 [N, 32]`.
    """

    plain: Bits
    mirrored: Bits

    def __len__(self) -> int:
        return len(self.plain)


def grey_thumbnail(image: Image.Image) -> Bits:
    """The grey pixels that are hashed, `uint8 [32, 32]`."""
    size = (THUMBNAIL_SIZE, THUMBNAIL_SIZE)
    return np.asarray(image.convert("L").resize(size, Image.Resampling.LANCZOS))


def hashes_of_thumbnails(thumbnails: Bits) -> Hashes:
    """Perceptual hashes of grey thumbnails `uint8 [N, 32, 32]`."""
    grey = thumbnails.astype(np.float64)
    low = _COSINES @ grey @ _COSINES.T
    negated = low * np.where(np.arange(FREQUENCIES) % 2, -1.0, 1.0)
    plain, mirrored = _bits(low), _bits(negated)
    blank = grey.std(axis=(1, 2)) < BLANK_STD
    plain[blank] = mirrored[blank] = 0
    return Hashes(plain, mirrored)


def hashes_of_pixels(pixels: Iterable[Bits]) -> Hashes:
    """Perceptual hashes of photos, each `uint8 [S, S, 3]`."""
    return hashes_of_thumbnails(np.stack([grey_thumbnail(Image.fromarray(x)) for x in pixels]))


def _cosines() -> npt.NDArray[np.float64]:
    """The first rows of the cosine transform (DCT-II), `[16, 32]`."""
    frequency, position = np.arange(FREQUENCIES)[:, None], np.arange(THUMBNAIL_SIZE)[None, :]
    return 2 * np.cos(np.pi * frequency * (2 * position + 1) / (2 * THUMBNAIL_SIZE))


_COSINES = _cosines()


def _bits(low: npt.NDArray[np.float64]) -> Bits:
    flat = low.reshape(len(low), -1)
    return np.packbits(flat > np.median(flat, axis=1, keepdims=True), axis=1)


def similar_pairs(hashes: Hashes, max_distance: int = MAX_DISTANCE) -> Iterator[tuple[int, int]]:
    """Yield pairs `i < j` of photos that are near copies, one of them mirrored or not.

    Only photos whose hashes agree in at least one byte are compared: this finds nearly all pairs
    and saves nearly all comparisons. Photos with the same hash are compared once.

    Args:
        hashes: of N photos.
        max_distance: the number of bits, of 256, in which a pair may differ.
    """
    hashed = np.flatnonzero(hashes.plain.any(axis=1))
    _, first, group_of = np.unique(
        hashes.plain[hashed], axis=0, return_index=True, return_inverse=True
    )
    for number, group in enumerate(group_of.ravel()):
        if first[group] != number:
            yield _ordered(int(hashed[first[group]]), int(hashed[number]))
    indices = hashed[first]
    width = 1 if len(indices) < 100_000 else 2
    for other in (hashes.plain, hashes.mirrored):
        yield from _close(hashes.plain[indices], other[indices], indices, max_distance, width)


def _close(
    left: Bits, right: Bits, indices: npt.NDArray[np.intp], max_distance: int, width: int
) -> Iterator[tuple[int, int]]:
    """Pairs whose hashes share a band of `width` bytes and differ in few enough bits."""
    if width == 1 and len(indices) <= _FEW:
        yield from _close_of_few(left, right, indices, max_distance)
        return
    kind = np.dtype(f"u{width}")
    left_bands = np.ascontiguousarray(left).view(kind)
    right_bands = np.ascontiguousarray(right).view(kind)
    left_words = np.ascontiguousarray(left).view(np.uint64)
    right_words = np.ascontiguousarray(right).view(np.uint64)
    for band in range(HASH_BYTES // width):
        right_rows_by_value = dict(_rows_by_value(right_bands[:, band]))
        for value, left_rows in _rows_by_value(left_bands[:, band]):
            right_rows = right_rows_by_value.get(value)
            if right_rows is None:
                continue
            for start in range(0, len(left_rows), 1024):
                block = left_rows[start : start + 1024]
                distance = np.zeros((len(block), len(right_rows)), np.uint16)
                for word in range(left_words.shape[1]):
                    distance += np.bitwise_count(
                        left_words[block, word, None] ^ right_words[None, right_rows, word]
                    )
                for row, column in np.argwhere(distance <= max_distance):
                    i, j = int(indices[block[row]]), int(indices[right_rows[column]])
                    if i < j:
                        yield i, j


def _close_of_few(
    left: Bits, right: Bits, indices: npt.NDArray[np.intp], max_distance: int
) -> Iterator[tuple[int, int]]:
    """The same pairs with bands of a byte, by comparing all hashes at once."""
    words = [np.ascontiguousarray(hashes).view(np.uint64) for hashes in (left, right)]
    distance = np.zeros((len(left), len(right)), np.uint16)
    for word in range(words[0].shape[1]):
        distance += np.bitwise_count(words[0][:, word, None] ^ words[1][None, :, word])
    rows, columns = np.nonzero(distance <= max_distance)
    shares = (left[rows] == right[columns]).any(axis=1)
    found = [indices[each[shares]].tolist() for each in (rows, columns)]
    for i, j in zip(*found, strict=True):
        if i < j:
            yield i, j


def _rows_by_value(
    values: npt.NDArray[np.integer],
) -> Iterator[tuple[int, npt.NDArray[np.intp]]]:
    """Each distinct value, with the indices where it occurs."""
    order = np.argsort(values, kind="stable")
    edges = np.flatnonzero(np.diff(values[order])) + 1
    for rows in np.split(order, edges):
        if len(rows):
            yield int(values[rows[0]]), rows


def _ordered(i: int, j: int) -> tuple[int, int]:
    return (i, j) if i < j else (j, i)


def copy_groups(hashes: Hashes) -> npt.NDArray[np.int64]:
    """A number for each of N photos that its near copies share, `[N]`."""
    return np.array(groups_of_pairs(len(hashes.plain), similar_pairs(hashes)), np.int64)


def groups_of_pairs(n: int, pairs: Iterable[tuple[int, int]]) -> list[int]:
    """Connected components: for each of n photos the least index in its group.

    >>> groups_of_pairs(6, [(0, 3), (3, 5), (1, 2)])
    [0, 1, 1, 0, 4, 0]
    """
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
    """The group of each photo, as a number shared by exactly its copies and near copies.

    Args:
        photos: N of them.
        keys: their content keys, `[N]`; None for an unreadable one, which forms its own group.
    """
    return groups_of_pairs(len(photos), similar_pairs(hashes_of(photos, keys)))


def labels_of_copies(
    photos: Sequence[Photo], labels: Sequence[int], groups: Sequence[int]
) -> dict[int | None, int]:
    """The labels whose readable photos, at least two, are all copies of one another: how many.

    Args:
        photos: N of them.
        labels: their classes, `[N]`.
        groups: as `groups_of` gives them, `[N]`.

    Returns:
        The number of photos for each such label; None stands for the photos of all labels.
    """
    few: dict[int | None, set[int]] = {None: set()}
    for label, group in zip(labels, groups, strict=True):
        for own in (few.setdefault(label, set()), few[None]):
            if len(own) <= 1 + _BROKEN:
                own.add(group)
    found: dict[int | None, int] = {}
    for key, own in few.items():
        if len(own) <= 1 + _BROKEN:
            members: dict[int, list[Photo]] = {group: [] for group in own}
            for photo, label, group in zip(photos, labels, groups, strict=True):
                if key in (None, label):
                    members[group].append(photo)
            sizes = [len(x) for x in members.values() if len(x) > 1 or _is_readable(x[0])]
            if len(sizes) == 1 and sizes[0] > 1:
                found[key] = sizes[0]
    return found


_BROKEN = 5
"""So many broken photos, each of a group of its own, are looked for beside one group of copies."""


def _is_readable(photo: Photo) -> bool:
    try:
        photo.image(near=1)
    except PhotoError:
        return False
    return True


def hashes_of(photos: Sequence[Photo], keys: Sequence[int | None]) -> Hashes:
    """Perceptual hashes of photos, decoding only those that were never hashed before.

    Hashes are cached by content in `data/cache`, so any dataset that has the same photos finds
    them. If that file is damaged or can't be written, the photos are decoded again. Photos with the
    same key get the same hash: they are in the same split in any case.

    Args:
        photos: N of them.
        keys: their content keys, `[N]`; None for an unreadable one, whose hash is all zeros.
    """
    cached = load_records(_file(), _RECORD)
    wanted = {key: index for index, key in enumerate(keys) if key is not None}
    new = np.array(sorted(set(wanted).difference(cached["key"].tolist())), np.uint64)
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
    everything = np.sort(np.concatenate([cached, found[read]]), order="key")
    if read.sum() >= _WORTH_CACHING:
        save_records(_file(), everything if len(everything) <= _MOST_CACHED else found[read])
    return _look_up(everything, keys)


_CHUNK = 1024
_WORTH_CACHING = 1000
_MOST_CACHED = 2_000_000


def _thumbnail_or_none(photo: Photo) -> Bits | None:
    try:
        return grey_thumbnail(photo.image(near=THUMBNAIL_SIZE))
    except PhotoError:
        return None


def _look_up(records: Records, keys: Sequence[int | None]) -> Hashes:
    plain, mirrored = np.zeros((2, len(keys), HASH_BYTES), np.uint8)
    readable = np.array([index for index, key in enumerate(keys) if key is not None], int)
    if len(records) and len(readable):
        wanted = np.array([key for key in keys if key is not None], np.uint64)
        rows = np.searchsorted(records["key"], wanted).clip(max=len(records) - 1)
        hit = records["key"][rows] == wanted
        plain[readable[hit]] = records["hash"][rows[hit]]
        mirrored[readable[hit]] = records["mirrored"][rows[hit]]
    return Hashes(plain, mirrored)


def _file() -> Path:
    return data_folder() / "cache" / "perceptual-hashes-2.npy"
