"""What an audit needs of each photo: its format, size, digest and perceptual hash; cached on disk.

The cache is by content key, so that auditing the same photos again decodes none of them. Photos
that share a key are also compared by digest: two different files with the same CRC-32 and length
are no exact copies, in the first audit as in later ones. A file that shares both with one of an
earlier audit, and with none of this one, is taken for that file. Unreadable photos are tried again
each time.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import numpy.typing as npt

from catordog.errors import PhotoError
from catordog.photos.near_copies import (
    BLANK_STD,
    HASH_BYTES,
    THUMBNAIL_SIZE,
    Bits,
    grey_thumbnail,
    hashes_of_thumbnails,
)
from catordog.photos.parallel import in_parallel
from catordog.photos.photo import Photo, Photos, StoreSource, keys_of
from catordog.photos.records import Records, load_records, records_file, save_records
from catordog.terminal import progress

MOST_CACHED = 500_000
"""Photos in a file: 70 MB. The newest are kept."""

_CHUNK = 64
"""Photos that are hashed together."""

_DIGEST_BYTES = 16
_RECORD = np.dtype(  # a width of 0: the photo is unreadable
    [
        ("key", "<u8"),
        ("format", "S12"),
        ("mode", "S12"),
        ("width", "<u4"),
        ("height", "<u4"),
        ("digest", "u1", _DIGEST_BYTES),
        ("blank", "?"),
        ("hash", "u1", HASH_BYTES),
        ("mirrored", "u1", HASH_BYTES),
    ]
)


@dataclass(frozen=True, slots=True)
class PhotoFacts:
    """What is known of one readable photo.

    Attributes:
        format, mode: as Pillow names those of its file: JPEG, RGB, …
        width, height: in pixels, as stored.
        digest: of the file's bytes: equal for exact copies only.
        blank: whether it has one colour all over.
        hash: perceptual, `uint8 [32]`; all zeros if it is blank.
        mirrored: that of its mirror image.
    """

    format: str
    mode: str
    width: int
    height: int
    digest: bytes
    blank: bool
    hash: Bits
    mirrored: Bits


def facts_of(photos: Photos) -> list[PhotoFacts | PhotoError]:
    """The facts of N photos, or why one is unreadable; those that are not cached are read once."""
    count = len(photos)
    records = np.zeros(count, _RECORD)
    errors: dict[int, PhotoError] = {}
    cached, file = records[:0], None
    if isinstance(photos.source, StoreSource):  # others draw their pictures
        file = records_file("facts", photos.source.rules)
        cached = load_records(file, _RECORD)
        keys = [0 if key is None else key for key in keys_of(photos)]
        records["key"] = keys
        row_of = {key: row for row, key in enumerate(cached["key"].tolist())}
        rows = np.array([row_of.get(key, -1) for key in keys], np.intp)
        records[rows >= 0] = cached[rows[rows >= 0]]
        uses = Counter(keys)
        shared = [index for index in np.flatnonzero(rows >= 0).tolist() if uses[keys[index]] > 1]
        digests = in_parallel(_digest, (photos[index] for index in shared))
        for index, digest in zip(shared, digests, strict=True):
            if digest != bytes(records["digest"][index]):
                records["width"][index] = 0  # the record is of another file
    new = np.flatnonzero(records["width"] == 0)
    stream = zip(
        new.tolist(), in_parallel(_examine, (photos[index] for index in new.tolist())), strict=True
    )
    with progress("inspecting photos", count) as done:
        while chunk := list(islice(stream, _CHUNK)):
            good = [(index, one) for index, one in chunk if not isinstance(one, PhotoError)]
            errors |= {index: one for index, one in chunk if isinstance(one, PhotoError)}
            if good:
                read = np.array([index for index, _ in good])
                _fill(records, read, [one for _, one in good])
            done(count - len(new) + int(np.searchsorted(new, chunk[-1][0], "right")))
    if file is not None:
        _save(file, cached, records[new])
    return [errors.get(index, one) for index, one in enumerate(_facts_in(records))]


def _digest(photo: Photo) -> bytes | None:
    try:
        return hashlib.blake2b(photo.read(), digest_size=_DIGEST_BYTES).digest()
    except PhotoError:
        return None


_Examined = tuple[str, str, int, int, bytes, Bits]
"""Format, mode, width, height, digest and thumbnail of a photo."""


def _examine(photo: Photo) -> _Examined | PhotoError:
    try:
        found, digest = photo.examine(near=THUMBNAIL_SIZE)
    except PhotoError as error:
        return error
    thumbnail = grey_thumbnail(found.image)
    return found.format, found.mode, found.width, found.height, digest, thumbnail


def _fill(records: Records, rows: npt.NDArray[np.intp], found: Sequence[_Examined]) -> None:
    """Fill rows of the records with what was found in as many photos."""
    formats, modes, widths, heights, digests, thumbnails = zip(*found, strict=True)
    grey = np.stack(thumbnails)
    hashes = hashes_of_thumbnails(grey)
    records["format"][rows], records["mode"][rows] = formats, modes
    records["width"][rows], records["height"][rows] = widths, heights
    padded = b"".join(digest.ljust(_DIGEST_BYTES, b"\0") for digest in digests)
    records["digest"][rows] = np.frombuffer(padded, np.uint8).reshape(-1, _DIGEST_BYTES)
    records["blank"][rows] = grey.std(axis=(1, 2)) < BLANK_STD
    records["hash"][rows], records["mirrored"][rows] = hashes.plain, hashes.mirrored


def _facts_in(records: Records) -> Iterator[PhotoFacts]:
    columns = (records[name].astype(str).tolist() for name in ("format", "mode"))
    sizes = (records[name].tolist() for name in ("width", "height"))
    digests = map(bytes, records["digest"])
    rest = (records["blank"].tolist(), records["hash"], records["mirrored"])
    return map(PhotoFacts, *columns, *sizes, digests, *rest)


def _save(file: Path, cached: Records, new: Records) -> None:
    """Add the readable ones of new records to the cache."""
    _, first = np.unique(new["key"], return_index=True)
    added = new[np.sort(first)]
    added = added[(added["width"] > 0) & (added["key"] > 0)]
    added = added[~np.isin(added["key"], cached["key"])]
    if not len(added):
        return
    save_records(file, np.concatenate([cached, added])[-MOST_CACHED:])
