"""Decode many photos in parallel, in order, and report the unreadable ones."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from catordog.errors import CatordogError, PhotoError
from catordog.escaping import printable
from catordog.files import write_text
from catordog.photos.parallel import in_parallel
from catordog.photos.photo import Photo
from catordog.photos.preprocess import Preprocess
from catordog.terminal import info

_SHOWN = 5
"""Number of unreadable photos that are listed on the terminal."""


@dataclass(frozen=True, slots=True)
class Pixels:
    """Photos that were read, and errors for those that were not.

    Attributes:
        pixels: `uint8 [N, S, S, 3]`.
        photos: the N photos, in the order asked for.
        failures: one `PhotoError` for each unreadable photo.
    """

    pixels: npt.NDArray[np.uint8]
    photos: list[Photo]
    failures: list[PhotoError]


def read_pixels(
    photos: list[Photo], preprocess: Preprocess, progress: Callable[[int], None] = lambda _: None
) -> Pixels:
    """Decode photos into memory.

    Args:
        photos: in the order in which they are returned.
        preprocess: their size and resize rule.
        progress: called with the number of photos done so far.

    Raises:
        CatordogError: they don't fit into memory, or none of them is readable.
    """
    size = preprocess.size
    _check_memory(len(photos) * size * size * 3, size)
    pixels = np.empty((len(photos), size, size, 3), np.uint8)
    read: list[Photo] = []
    failures: list[PhotoError] = []

    results = decoded(photos, preprocess)
    for done, (photo, result) in enumerate(zip(photos, results, strict=True), 1):
        if isinstance(result, PhotoError):
            failures.append(result)
        else:
            pixels[len(read)] = result
            read.append(photo)
        progress(done)
    if photos and not read:
        raise none_read(failures)
    return Pixels(pixels[: len(read)], read, failures)


def decoded(
    photos: Iterable[Photo], preprocess: Preprocess
) -> Iterator[npt.NDArray[np.uint8] | PhotoError]:
    """Yield `uint8 [S, S, 3]` for each photo in its order, or the error of an unreadable one."""
    return in_parallel(lambda photo: decoded_one(photo, preprocess), photos)


def decoded_one(photo: Photo, preprocess: Preprocess) -> npt.NDArray[np.uint8] | PhotoError:
    """A photo as `uint8 [S, S, 3]`, or the error if it is unreadable."""
    try:
        return preprocess.load(photo)
    except PhotoError as error:
        return error


def none_read(failures: Sequence[PhotoError]) -> CatordogError:
    """The error to raise when none of the photos could be read."""
    first = printable(str(failures[0]))
    return CatordogError(f"none of the {len(failures):,} photos could be read; first: {first}")


def report_failures(failures: Sequence[PhotoError], file: Path) -> None:
    """Report unreadable photos: a few of them on the terminal, all of them in a file."""
    if not failures:
        return
    for failure in failures[:_SHOWN]:
        info(f"can't be read: {printable(str(failure))}")
    if len(failures) > _SHOWN:
        info(f"can't be read: {len(failures) - _SHOWN:,} more")
    photos = "photo" if len(failures) == 1 else "photos"
    try:
        write_text(file, "".join(f"{printable(str(failure))}\n" for failure in failures))
    except CatordogError as error:
        info(f"{len(failures):,} {photos} could not be read; {error}")
    else:
        info(f"{len(failures):,} {photos} could not be read; all are listed in {file}")


def _check_memory(needed: int, size: int) -> None:
    try:
        free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # this system doesn't report it
        return
    # The system can free what it caches; half of the memory is a cautious guess.
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if needed > max(free, total // 2):
        raise CatordogError(
            f"the decoded photos take {needed / 2**30:.1f} GiB at {size} pixels, more than this "
            "machine's free memory: choose a smaller --data.size"
        )
