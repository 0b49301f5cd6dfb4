"""The photos of a training run: found, split, decoded once, and handed over in batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import lightning as L
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from catordog.errors import CatordogError, PhotoError
from catordog.photos.cache import cached_pixels
from catordog.photos.decode import DecodeRules
from catordog.photos.preprocess import MEAN, STD, Preprocess, Resize
from catordog.photos.reading import Pixels, read_pixels
from catordog.photos.sources import open_data
from catordog.photos.split import Fractions, Split
from catordog.terminal import progress, say
from catordog.training.augment import Augment

Batch = tuple[Tensor, Tensor]


class PhotosDataModule(L.LightningDataModule):
    """Labelled photos for training and validation.

    Args:
        source: the data set; `--data D` is short for `--data.source D`.
        size: side S of the network's input, in pixels.
        resize: how a photo becomes square: squash, crop or pad (see `Preprocess`).
        mean: of the pixels in 0…1: red, green, blue.
        std: their spread.
        start_size: side of the training photos at first; it grows to `size` over the first three
            quarters of the run, since small photos teach the coarse things faster (Howard 2018).
            None: `size` from the start.
        decode_size: side at which training photos are decoded, in pixels; crops are taken from
            them. None: a quarter more than `size`.
        cache: keep decoded photos in `data/cache`, where every later run finds them; otherwise
            they are decoded into memory at every start.
        batch_size: photos to a step.
        val: share of photos for validation.
        test: share of photos that are held out for `catordog evaluate`.
        exclude: a CSV file with a column `path`: photos to leave out; `--exclude F` is short for
            `--data.exclude F`.
        allow_truncated: read what is there of photos that end too early (`--allow-truncated`).
        max_megapixels: larger photos are refused unread (`--max-megapixels N`).
        augment: random changes to training photos.
        seed: of the order of photos and of their random changes; the run's seed.
    """

    def __init__(
        self,
        source: str = "drawn",
        size: int = 64,
        resize: Resize = "squash",
        mean: tuple[float, float, float] = MEAN,
        std: tuple[float, float, float] = STD,
        start_size: int | None = None,
        decode_size: int | None = None,
        cache: bool = True,
        batch_size: int = 128,
        val: float = 0.1,
        test: float = 0.2,
        exclude: str | None = None,
        allow_truncated: bool = False,
        max_megapixels: float = 200,
        augment: Augment = Augment(),  # noqa: B008 - frozen
        seed: int = 0,
    ) -> None:
        super().__init__()
        if batch_size < 1:
            raise CatordogError(f"data.batch_size = {batch_size} is not a number of photos")
        self.source = source
        self.preprocess = Preprocess(size, resize, _three(mean), _three(std))
        self.start_size = start_size or size
        if not 8 <= self.start_size <= size:
            raise CatordogError(f"data.start_size = {start_size} is not within 8…{size}")
        self.decode_size = decode_size or size + size // 4
        if self.decode_size < size:
            raise CatordogError(f"data.decode_size = {decode_size} is below data.size = {size}")
        self.batch_size = batch_size
        self.fractions = Fractions(val, test)
        self.augment = augment
        self.seed = seed
        self.rules = DecodeRules(allow_truncated, max_megapixels)
        self.photo_set = open_data(source, rules=self.rules, exclude=exclude)
        self.cache = cache and not self.photo_set.distinct  # drawn pictures have no files
        self.exclude = exclude
        self.failures: list[PhotoError] = []
        self._train: _Decoded | None = None
        self._val: _Decoded | None = None

    @property
    def classes(self) -> list[str]:
        """The names of the classes, in the order of the logits."""
        return list(self.photo_set.classes)

    def setup(self, stage: str) -> None:
        """Decode the training and validation photos, once."""
        if stage != "fit" or self._train:
            return
        say(self.photo_set.summary())
        larger = replace(self.preprocess, size=self.decode_size)
        train = self._read("train", larger)
        val = self._read("val", self.preprocess)
        self._train, self._val = _Decoded(train), _Decoded(val)
        self.failures = train.failures + val.failures

    def _read(self, split: Split, preprocess: Preprocess, *, excluded: bool = False) -> Pixels:
        photos = self.photo_set.split(split, self.fractions, excluded=excluded)
        with progress(f"reading {split} photos", len(photos)) as done:
            if self.cache:
                pixels = cached_pixels(photos, preprocess, self.rules, done)
            else:
                pixels = read_pixels(photos, preprocess, done)
        left = {photo.label for photo in pixels.photos}
        for label, name in enumerate(self.classes):
            if label not in left:
                raise CatordogError(f"{self.source}: no {split} photo of {name} could be read")
        return pixels

    def accuracies(self, network: Callable[[Tensor], Tensor]) -> tuple[float, float]:
        """Accuracy on the validation photos, without and with those that the user has excluded.

        Args:
            network: maps `float32 [N, 3, S, S]` to raw logits, on the CPU.
        """
        read = self._read("val", self.preprocess, excluded=True)
        right: list[bool] = []
        for start in range(0, len(read.photos), self.batch_size):
            pixels = self.preprocess.normalise(read.pixels[start : start + self.batch_size])
            with torch.inference_mode():
                said = network(torch.from_numpy(pixels)).argmax(1).tolist()
            photos = read.photos[start : start + self.batch_size]
            right += [photo.label == label for photo, label in zip(photos, said, strict=True)]
        kept = [
            good
            for good, photo in zip(right, read.photos, strict=True)
            if photo.name not in self.photo_set.excluded
        ]
        return sum(kept) / len(kept), sum(right) / len(right)

    def train_dataloader(self) -> DataLoader[Batch]:
        """Shuffled batches `uint8 [B, 3, T, T]`, labels `int64 [B]`."""
        assert self._train is not None
        n = len(self._train)
        return DataLoader(
            self._train,
            batch_size=min(self.batch_size, n),
            sampler=_Shuffle(n, self.seed),
            drop_last=True,  # a last batch of one photo would upset the batch norms
            collate_fn=_as_it_is,
        )

    def val_dataloader(self) -> DataLoader[Batch]:
        """Batches `uint8 [B, 3, S, S]` in a fixed order."""
        assert self._val is not None
        return DataLoader(self._val, batch_size=self.batch_size, collate_fn=_as_it_is)

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Augment training photos, on their device; normalise all: `float32 [B, 3, S, S]`."""
        del dataloader_idx
        photos, labels = batch
        assert self.trainer is not None
        if self.trainer.training:
            step = (
                self.trainer.fit_loop.epoch_loop.total_batch_idx + 1
            )  # of the batch before: −1 at first
            draw = np.random.SeedSequence((self.seed, step, self.trainer.global_rank))
            pixels = self.augment(photos, self._side(), int(draw.generate_state(1)[0]))
        else:
            pixels = photos.float().div_(255)
        mean, std = (
            torch.tensor(values, device=pixels.device)[:, None, None]
            for values in (self.preprocess.mean, self.preprocess.std)
        )
        normal = pixels.sub_(mean).div_(std)
        return normal.contiguous(memory_format=torch.channels_last), labels

    def _side(self) -> int:
        """The side of training photos in this epoch, in steps of 16 pixels."""
        assert self.trainer is not None
        size, epochs = self.preprocess.size, self.trainer.max_epochs or 0
        if epochs <= 1:
            return size
        grown = min(1.0, self.trainer.current_epoch / (0.75 * epochs))
        side = self.start_size + grown * (size - self.start_size)
        return size if grown == 1 else min(size, max(self.start_size, int(side) // 16 * 16))


class _Decoded(Dataset[Batch]):
    """Decoded photos, taken a batch at a time."""

    def __init__(self, read: Pixels) -> None:
        self.pixels: npt.NDArray[np.uint8] = np.asarray(read.pixels)
        self.labels = np.array([photo.label for photo in read.photos], dtype=np.int64)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> Batch:
        return self.__getitems__([index])

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        """A whole batch: DataLoader asks so where it finds this method."""
        photos = torch.from_numpy(self.pixels[indices]).permute(0, 3, 1, 2)
        return photos, torch.from_numpy(self.labels[indices])


class _Shuffle(Sampler[int]):
    """A new order in every epoch that depends on nothing but the seed and the epoch."""

    def __init__(self, n: int, seed: int) -> None:
        self.n, self.seed, self.epoch = n, seed, 0

    def set_epoch(self, epoch: int) -> None:
        """Lightning says which epoch begins."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.n

    def __iter__(self) -> Iterator[int]:
        order = np.random.default_rng((self.seed, self.epoch)).permutation(self.n)
        return iter(order.tolist())


def _as_it_is(batch: Any) -> Any:
    """`__getitems__` has made the batch already."""
    return batch


def _three(values: Sequence[float]) -> tuple[float, float, float]:
    red, green, blue = values
    return red, green, blue
