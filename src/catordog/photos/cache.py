"""Cache decoded photos on disk: decoded once, memory-mapped by every later run.

A cache is a file of `uint8` rows beside a JSON file that lists the unreadable photos. Its name is
a digest of the photos' contents, their preprocessing and the versions of what decodes them: a photo
that changes makes another cache, and a dataset that is moved finds its cache again. Unreadable
photos are tried again by every run.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import astuple, replace
from itertools import islice
from pathlib import Path

import numpy as np
import numpy.typing as npt

from catordog.errors import CatordogError, PhotoError
from catordog.files import write_text
from catordog.photos.data_folder import data_folder
from catordog.photos.decode import DEFAULT_RULES, DecodeRules, decoder_versions
from catordog.photos.parallel import in_parallel
from catordog.photos.photo import Photo, key_or_none
from catordog.photos.preprocess import Preprocess
from catordog.photos.reading import Pixels, decoded, none_read

_VERSION = 1
_SPARE = 256 * 2**20
"""Bytes that have to remain free on the disk when the cache is complete."""


def cached_pixels(
    photos: Sequence[Photo],
    preprocess: Preprocess,
    rules: DecodeRules = DEFAULT_RULES,
    progress: Callable[[int], None] = lambda _: None,
) -> Pixels:
    """Photos as pixels in a memory-mapped file of `data/cache`, decoded if they aren't there yet.

    An interrupted build is resumed where it stopped. Processes that need the same photos wait for
    the one that decodes them.

    Args:
        photos: in the order in which they are returned.
        preprocess: their size and resize rule.
        rules: that the photos are decoded by; other rules make another cache.
        progress: called with the number of photos decoded so far.

    Raises:
        CatordogError: the disk is full or can't be written, or no photo is readable.
    """
    from filelock import FileLock

    cache = _Cache(data_folder() / "cache", photos, preprocess, rules)
    found = cache.read()
    if found is None or found.failures:
        try:
            cache.folder.mkdir(parents=True, exist_ok=True)
            with FileLock(cache.file(".lock")):
                found = cache.read()
                found = cache.build(progress) if found is None else cache.retry(found)
        except OSError as error:
            if found is not None:  # complete, in a folder that can't be written
                return found
            raise CatordogError(
                f"can't write the decoded photos to {cache.folder} ({error.strerror or error}): "
                "make room there, let CATORDOG_DATA name another folder, or use --data.cache false"
            ) from None
    return found


class _Cache:
    """The cache of these photos with this preprocessing."""

    def __init__(
        self, folder: Path, photos: Sequence[Photo], preprocess: Preprocess, rules: DecodeRules
    ) -> None:
        self.folder, self.photos, self.preprocess = folder, photos, preprocess
        size = preprocess.size
        self.row = (size, size, 3)
        self.row_bytes = size * size * 3
        keys = list(in_parallel(key_or_none, photos))
        padding = preprocess.padding if preprocess.resize == "pad" else None
        settings = (
            _VERSION, size, preprocess.resize, preprocess.resample, padding, astuple(rules),
            decoder_versions(),
        )  # fmt: skip
        digest = hashlib.blake2b(repr(settings).encode(), digest_size=8)
        digest.update(np.array([key or 0 for key in keys], np.uint64).tobytes())
        self.name = f"pixels-{size}-{digest.hexdigest()}"

    def file(self, suffix: str) -> Path:
        return self.folder / (self.name + suffix)

    def read(self) -> Pixels | None:
        """The cached pixels, if they are complete."""
        try:
            facts = json.loads(self.file(".json").read_text("utf-8"))
            failures = {int(index): str(reason) for index, reason in facts["failures"]}
            rows = len(self.photos) - len(failures)
            if self.file(".u8").stat().st_size != rows * self.row_bytes or not rows:
                return None
            pixels = np.memmap(self.file(".u8"), np.uint8, "r", shape=(rows, *self.row))
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return self._pixels(pixels, failures)

    def build(self, progress: Callable[[int], None]) -> Pixels:
        """Decode the photos, from where an interrupted build stopped."""
        partial, journal = self.file(".partial"), self.file(".failures")
        done, failures = self._read_interrupted(partial, journal)
        rows = done - len(failures)
        needed = (len(self.photos) - done) * self.row_bytes
        free = shutil.disk_usage(self.folder).free
        if needed + _SPARE > free:
            raise CatordogError(
                f"the decoded photos need {needed / 2**30:.1f} GiB more in {self.folder}, whose "
                f"disk has {free / 2**30:.1f} GiB left: make room, let CATORDOG_DATA name a folder "
                "on another disk, or use --data.cache false"
            )
        with (
            partial.open("r+b" if partial.exists() else "w+b") as file,
            journal.open("w", encoding="utf-8") as notes,
        ):
            file.truncate(rows * self.row_bytes)
            file.seek(0, 2)
            notes.writelines(f"{index}\t{reason}\n" for index, reason in failures.items())
            results = decoded(islice(self.photos, done, None), self.preprocess)
            for index, result in enumerate(results, done):
                if isinstance(result, PhotoError):
                    failures[index] = result.reason
                    notes.write(f"{index}\t{result.reason}\n")
                    notes.flush()
                else:
                    file.write(result.tobytes())
                progress(index + 1)
        if len(failures) == len(self.photos):
            for leftover in (partial, journal):
                leftover.unlink()
            raise none_read(self._errors(failures))
        found = self._complete(partial, failures)
        journal.unlink()
        return found

    def retry(self, found: Pixels) -> Pixels:
        """Decode the unreadable photos again, since what failed may have been the disk or network.

        The cache is rewritten only if one of them is readable now.
        """
        if not found.failures:
            return found
        readable = set(found.photos)
        failed = [index for index, photo in enumerate(self.photos) if photo not in readable]
        results = decoded((self.photos[index] for index in failed), self.preprocess)
        failures: dict[int, str] = {}
        gained: dict[int, npt.NDArray[np.uint8]] = {}
        for index, result in zip(failed, results, strict=True):
            if isinstance(result, PhotoError):
                failures[index] = result.reason
            else:
                gained[index] = result
        if not gained:
            return replace(found, failures=self._errors(failures))
        rows = iter(found.pixels)
        partial = self.file(".partial")
        with partial.open("wb") as file:
            for index in range(len(self.photos)):
                if index not in failures:
                    file.write((gained[index] if index in gained else next(rows)).tobytes())
        return self._complete(partial, failures)

    def _complete(self, partial: Path, failures: dict[int, str]) -> Pixels:
        """Put a complete file of rows in its place."""
        write_text(self.file(".json"), json.dumps({"failures": list(failures.items())}))
        partial.replace(self.file(".u8"))  # atomic: from here on the cache is complete
        found = self.read()
        assert found is not None
        return found

    def _read_interrupted(self, partial: Path, journal: Path) -> tuple[int, dict[int, str]]:
        """How many photos an interrupted build has done, and which of them are unreadable."""
        failures: dict[int, str] = {}
        rows = 0
        with suppress(OSError, ValueError):
            rows = partial.stat().st_size // self.row_bytes
            for line in journal.read_text("utf-8").splitlines():
                index, _, reason = line.partition("\t")
                failures[int(index)] = reason
        done = rows
        for failed in sorted(failures):
            if failed > done:
                break
            done += 1
        return done, {failed: why for failed, why in failures.items() if failed < done}

    def _pixels(self, pixels: npt.NDArray[np.uint8], failures: dict[int, str]) -> Pixels:
        return Pixels(
            pixels,
            [photo for index, photo in enumerate(self.photos) if index not in failures],
            self._errors(failures),
        )

    def _errors(self, failures: dict[int, str]) -> list[PhotoError]:
        return [PhotoError(self.photos[index].path, failures[index]) for index in sorted(failures)]
