"""Cache features of photos on disk, by content, so that teaching again takes a second.

The file's name says which backbone and which decoders the features come from. Features are rounded
to 16 bits, also on their first use, so that a second run learns exactly the same. A photo is known
by its content key: two different files with the same CRC-32 and length count as one photo.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from catordog.errors import PhotoError
from catordog.model.backbone import Backbone
from catordog.model.backends import BATCH
from catordog.photos.decode import DecodeRules
from catordog.photos.near_copies import HASH_BYTES, hashes_of_pixels
from catordog.photos.parallel import batched
from catordog.photos.photo import Photo, keys_of
from catordog.photos.reading import decoded
from catordog.photos.records import Records, load_records, records_file, save_records
from catordog.terminal import progress

MOST_CACHED = 60_000
"""Photos in a file: 160 MB for 1,280 features. The newest are kept."""

SAVE_EVERY = 4_000
"""New photos between two writes of the file: under a minute's work is lost when a run is killed."""


def record_type(width: int) -> np.dtype[np.void]:
    """A photo: its content key, its perceptual hash, that of its mirror image, and D features."""
    return np.dtype(
        [
            ("key", "<u8"),
            ("hash", "u1", HASH_BYTES),
            ("mirrored", "u1", HASH_BYTES),
            ("features", "<f2", width),
        ]
    )


def features_of(
    photos: Sequence[Photo], backbone: Backbone, rules: DecodeRules
) -> tuple[Records, list[int], list[PhotoError]]:
    """Features of photos, from the cache where it has them.

    Args:
        photos: any number.
        backbone: that computes the features of the others.
        rules: that the photos are decoded by.

    Returns:
        A record for each readable photo, its index in `photos`, and the errors of the others.
    """
    file = records_file("features", rules, backbone.digest)
    kind = record_type(backbone.width)
    cached = load_records(file, kind)
    row_of = {key: row for row, key in enumerate(cached["key"].tolist())}
    keys = keys_of(photos)
    failures: list[PhotoError] = []
    new: dict[int, Photo] = {}
    for photo, key in zip(photos, keys, strict=True):
        if key is None:
            failures.append(_error(photo))
        elif key not in row_of:
            new.setdefault(key, photo)

    def save_so_far(parts: list[Records]) -> None:
        so_far = np.concatenate([cached, *parts])
        _save(file, so_far, np.arange(len(cached), len(so_far)))

    added, errors = _compute(new, backbone, kind, save_so_far)
    failures += errors
    everything = np.concatenate([cached, added])
    row_of.update({key: len(cached) + row for row, key in enumerate(added["key"].tolist())})
    found = [index for index, key in enumerate(keys) if key in row_of]
    rows = np.array([row_of[keys[index] or 0] for index in found], np.intp)
    if len(added):
        _save(file, everything, rows)
    return everything[rows], found, failures


def _compute(
    photos: dict[int, Photo],
    backbone: Backbone,
    kind: np.dtype[np.void],
    save: Callable[[list[Records]], None],
) -> tuple[Records, list[PhotoError]]:
    parts = [np.zeros(0, kind)]
    failures: list[PhotoError] = []
    pairs = zip(photos, decoded(photos.values(), backbone.preprocess), strict=True)
    done = 0
    with progress("reading photos", len(photos)) as report:
        for batch in batched(pairs, BATCH):
            read = [(key, result) for key, result in batch if not isinstance(result, PhotoError)]
            failures += [result for _, result in batch if isinstance(result, PhotoError)]
            if read:
                parts.append(records_of([key for key, _ in read], [x for _, x in read], backbone))
            done += len(batch)
            report(done)
            if done // SAVE_EVERY > (done - len(batch)) // SAVE_EVERY:
                save(parts)
    return np.concatenate(parts), failures


def records_of(
    keys: Iterable[int], pixels: list[npt.NDArray[np.uint8]], backbone: Backbone
) -> Records:
    """Records of N photos.

    Args:
        keys: their content keys.
        pixels: preprocessed for the backbone, `uint8 [S, S, 3]` each, N ≥ 1.
        backbone: that computes their features.
    """
    records = np.zeros(len(pixels), record_type(backbone.width))
    hashes = hashes_of_pixels(pixels)
    records["key"] = list(keys)
    records["hash"], records["mirrored"] = hashes.plain, hashes.mirrored
    records["features"] = backbone.features(np.stack(pixels))
    return records


def _error(photo: Photo) -> PhotoError:
    try:
        photo.key()
    except PhotoError as error:
        return error
    return PhotoError(photo.path, "it was unreadable a moment ago")


def _save(file: Path, records: Records, used: npt.NDArray[np.intp]) -> None:
    """Write the cache. Where it would be too large, what this run used is kept first."""
    if len(records) > MOST_CACHED:
        order = np.zeros(len(records), np.int64)
        order[used] = 1
        kept = np.lexsort((np.arange(len(records)), order))[-MOST_CACHED:]
        records = records[np.sort(kept)]
    save_records(file, records)
