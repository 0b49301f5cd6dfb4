"""Datasets that DataLoader reads a batch at a time: decoded in memory, or decoded on demand."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from catordog.errors import PhotoError
from catordog.photos.photo import Photo
from catordog.photos.preprocess import Preprocess
from catordog.photos.reading import Pixels, decoded_one, none_read

Failures = list[tuple[int, str]]
"""Index and reason of each photo of a batch that could not be read."""

ENOUGH_UNREADABLE = 1024
"""If none of so many photos could be read, the others are not tried."""


class PhotoBatches(Dataset[tuple[Tensor, Tensor, Failures]], ABC):
    """A dataset with `__getitems__`, which DataLoader calls with a whole batch of indices."""

    labels: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, Failures]:
        return self.__getitems__([index])

    @abstractmethod
    def __getitems__(self, indices: Sequence[int]) -> tuple[Tensor, Tensor, Failures]:
        """Photos `uint8 [B, 3, S, S]`, labels `int64 [B]`, and which could not be read."""


class DecodedDataset(PhotoBatches):
    """Photos that are decoded already, in memory or in the memory-mapped cache."""

    def __init__(self, read: Pixels) -> None:
        self.pixels: npt.NDArray[np.uint8] = np.asarray(read.pixels)
        self.labels = np.array([photo.label for photo in read.photos], dtype=np.int64)

    def __getitems__(self, indices: Sequence[int]) -> tuple[Tensor, Tensor, Failures]:
        """Copy a batch; there are no failures."""
        photos = torch.from_numpy(self.pixels[indices]).permute(0, 3, 1, 2)
        return photos, torch.from_numpy(self.labels[indices]), []


class StreamedDataset(PhotoBatches):
    """Photos that are decoded on demand, in DataLoader's workers."""

    def __init__(self, photos: Sequence[Photo], preprocess: Preprocess) -> None:
        self.photos, self.preprocess = photos, preprocess
        self.labels = np.array([photo.label for photo in photos], dtype=np.int64)
        self._failed: dict[int, PhotoError] = {}
        self._requested = self._read = 0

    def __getitems__(self, indices: Sequence[int]) -> tuple[Tensor, Tensor, Failures]:
        """Decode a batch; unreadable photos are missing from it."""
        size = self.preprocess.size
        read: list[npt.NDArray[np.uint8]] = []
        readable: list[int] = []
        failures: Failures = []
        for index in indices:
            result = decoded_one(self.photos[index], self.preprocess)
            if isinstance(result, PhotoError):
                failures.append((index, result.reason))
            else:
                read.append(result)
                readable.append(index)
        pixels = np.stack(read) if read else np.empty((0, size, size, 3), np.uint8)
        return (
            torch.from_numpy(pixels).permute(0, 3, 1, 2),
            torch.from_numpy(self.labels[readable]),
            failures,
        )

    def new_failures(self, failures: Failures, read: int, batch_size: int) -> list[PhotoError]:
        """Record a batch, and return the failures that no batch before had.

        Args:
            failures: of this batch.
            read: number of its photos that could be read.
            batch_size: of training.

        Raises:
            CatordogError: none of an epoch's photos, or of `ENOUGH_UNREADABLE`, could be read.
        """
        self._read += read
        self._requested += read + len(failures)
        found = []
        for index, reason in failures:
            if index not in self._failed:
                self._failed[index] = PhotoError(self.photos[index].path, reason)
                found.append(self._failed[index])
        epoch = len(self) // batch_size * batch_size
        if not self._read and self._requested >= min(epoch, ENOUGH_UNREADABLE):
            raise none_read([*self._failed.values()])
        return found


class LazyLoader(DataLoader[Any]):
    """A DataLoader that starts when its first batch is requested.

    Lightning creates the iterator before it has restored the position within an epoch.
    """

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        yield from super().__iter__()


def unchanged(batch: Any) -> Any:
    """No collation: `__getitems__` returns the batch as tensors."""
    return batch
