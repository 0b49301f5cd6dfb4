"""The photos of a training run: found, split, decoded once, and handed over in batches."""

from __future__ import annotations

import hashlib
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any, Literal

import lightning as L
import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from catordog.errors import CatordogError, PhotoError
from catordog.photos.cache import cached_pixels
from catordog.photos.datasets import open_dataset
from catordog.photos.decode import DecodeRules
from catordog.photos.photo import Photo, keys_of
from catordog.photos.preprocess import MEAN, STD, Preprocess, Resize
from catordog.photos.reading import Pixels, decoded_one, none_read, read_pixels
from catordog.photos.splits import Split, SplitFractions
from catordog.terminal import info, progress
from catordog.training.augment import Augment

Batch = tuple[Tensor, Tensor]
"""Photos and labels."""

Failures = list[tuple[int, str]]
"""Which photos of a data set could not be read, and why."""

Balance = Literal["no", "sampler", "loss"]


class PhotosDataModule(L.LightningDataModule):
    """Labelled photos for training and validation.

    Args:
        source: the data set; `--data D` is short for `--data.source D`.
        size: side S of the network's input, in pixels.
        resize: how a photo becomes square: squash, crop or pad (see `Preprocess`).
        mean: of the pixels in 0…1: red, green, blue.
        std: their spread.
        start_size: side of the training photos at first; it grows to `end_size` over the first
            three quarters of the run, since small photos teach the coarse things faster (Howard
            2018). None: `end_size` from the start.
        end_size: side of the training photos at last. Below `size` it saves time, and the network
            does no worse: a random crop shows things larger than the whole photo does (Touvron et
            al. 2019). None: `size`.
        decode_size: side at which training photos are decoded, in pixels; crops are taken from
            them. None: a quarter more than `end_size`.
        cache: keep decoded photos in `data/cache`, where every later run finds them; otherwise
            they are decoded anew in every epoch, and nothing is kept. None: keep them, but not
            those of shards, which may be more than a disk holds.
        workers: processes that decode photos where there is no cache; None: one for each core.
        batch_size: photos to a step, of all processes together: the same command trains the same
            network, whatever the number of GPUs.
        balance: what to do where some classes have many more photos than others: `sampler` shows
            each class equally often, `loss` weighs each photo by how rare its class is. Confidence
            then takes all classes for equally common, whatever they are among the photos.
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
        end_size: int | None = None,
        decode_size: int | None = None,
        cache: bool | None = None,
        workers: int | None = None,
        batch_size: int = 128,
        balance: Balance = "no",
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
        if workers is not None and workers < 0:
            raise CatordogError(f"data.workers = {workers} is not a number of processes")
        self.source = source
        self.preprocess = Preprocess(size, resize, _three(mean), _three(std))
        self.end_size = end_size or size
        if self.end_size < 8:
            raise CatordogError(f"data.end_size = {end_size} is below 8 pixels")
        self.start_size = start_size or self.end_size
        if not 8 <= self.start_size <= self.end_size:
            raise CatordogError(f"data.start_size = {start_size} is not within 8…{self.end_size}")
        self.decode_size = decode_size or self.end_size + self.end_size // 4
        if self.decode_size < self.end_size:
            raise CatordogError(
                f"data.decode_size = {decode_size} is below the {self.end_size} pixels of training"
            )
        self.batch_size = batch_size
        self.split_fractions = SplitFractions(val, test)
        self.augment = augment
        self.seed = seed
        self.rules = DecodeRules(allow_truncated, max_megapixels)
        self.dataset = open_dataset(source, rules=self.rules, exclude=exclude)
        self.cache = cache if cache is not None else not self.dataset.packed
        self.workers = workers
        self.balance = balance
        self.exclude = exclude
        self.failures: list[PhotoError] = []
        self._known: str | None = None
        self._train: _Decoded | _Streamed | None = None
        self._val: _Decoded | _Streamed | None = None

    @property
    def classes(self) -> list[str]:
        """The names of the classes, in the order of the logits."""
        return list(self.dataset.classes)

    def setup(self, stage: str) -> None:
        """Decode the training and validation photos, once; or find out which they are."""
        if stage != "fit" or self._train:
            return
        info(self.dataset.summary())
        larger = replace(self.preprocess, size=self.decode_size)
        self._train = self._dataset("train", larger)
        self._val = self._dataset("val", self.preprocess)
        if self.balance == "loss":
            info("photos weigh: " + self._weights_in_words())

    def _dataset(self, split: Split, preprocess: Preprocess) -> _Decoded | _Streamed:
        if not self.cache and not self.dataset.distinct:
            return _Streamed(self.dataset.split(split, self.split_fractions), preprocess)
        read = self._read(split, preprocess)
        self.failures += read.failures
        return _Decoded(read)

    def _read(self, split: Split, preprocess: Preprocess, *, excluded: bool = False) -> Pixels:
        photos = self.dataset.split(split, self.split_fractions, excluded=excluded)
        with progress(f"reading {split} photos", len(photos)) as done:
            if self.cache and not self.dataset.distinct:  # drawn pictures have no files
                pixels = cached_pixels(photos, preprocess, self.rules, done)
            else:
                pixels = read_pixels(photos, preprocess, done)
        left = {photo.label for photo in pixels.photos}
        for label, name in enumerate(self.classes):
            if label not in left:
                raise CatordogError(f"{self.source}: no {split} photo of {name} could be read")
        return pixels

    @property
    def class_weights(self) -> Tensor | None:
        """How much a photo of each class counts in the loss, `float32 [C]`; None: all the same."""
        if self.balance != "loss" or self._train is None:
            return None
        counts = torch.bincount(torch.from_numpy(self._train.labels), minlength=len(self.classes))
        return counts.sum() / (len(counts) * counts.float())

    def _weights_in_words(self) -> str:
        weights = self.class_weights
        assert weights is not None
        pairs = zip(self.classes, weights.tolist(), strict=True)
        return ", ".join(f"{name} {weight:.2f}" for name, weight in pairs)

    def validation(
        self, batch_size: int = 256
    ) -> Iterator[tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]]:
        """The validation photos that can be read, `uint8 [N, S, S, 3]`, with labels `[N]`."""
        assert self._val is not None
        for start in range(0, len(self._val), batch_size):
            places = range(start, min(start + batch_size, len(self._val)))
            photos, labels, _ = self._val.__getitems__(places)
            if len(labels):
                yield photos.permute(0, 2, 3, 1).numpy(), labels.numpy()

    def sample(self, most: int = 512) -> Tensor:
        """Training photos from all over, whole, `float32 [N, 3, S, S]`, normalised.

        Args:
            most: N, unless there are fewer, or some can't be read.

        Raises:
            CatordogError: not one of them can be read.
        """
        assert self._train is not None
        places = np.linspace(0, len(self._train) - 1, min(most, len(self._train))).astype(int)
        photos, _, failures = self._train.__getitems__(places.tolist())
        if isinstance(self._train, _Streamed) and not len(photos):
            found = [PhotoError(self._train.photos[i].path, reason) for i, reason in failures]
            raise none_read(found)
        return self._normal(F.interpolate(photos.float().div_(255), self.end_size, mode="area"))

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
            if photo.name not in self.dataset.excluded
        ]
        return sum(kept) / len(kept), sum(right) / len(right)

    def train_dataloader(self) -> DataLoader[Any]:
        """Shuffled batches: `uint8 [B, 3, T, T]`, labels `int64 [B]`, and what can't be read."""
        assert self._train is not None
        n, rank, ranks = len(self._train), self._rank, self._ranks
        if self.batch_size % ranks:
            raise CatordogError(
                f"data.batch_size = {self.batch_size} photos can't be shared by {ranks} processes: "
                f"give a multiple of {ranks}"
            )
        if n < ranks:
            raise CatordogError(f"{self.source}: {n} train photos for {ranks} processes")
        each = min(self.batch_size, n) // ranks  # of a batch, to each process
        order = _Shuffle(n, self.seed)
        if isinstance(self._train, _Streamed) and self.dataset.packed:
            shards = [photo.name.partition("/")[0] for photo in self._train.photos]
            order = _ByShard(shards, self.seed)
        if self.balance == "sampler":
            order = _Balanced(self._train.labels, self.seed)
        order.same = self._overfits  # the same batches in every epoch
        return self._loader(
            self._train,
            batch_size=each,
            sampler=_Share(order, rank, ranks, each, self._batches_behind),
            drop_last=True,  # a last batch of one photo would upset the batch norms
        )

    def val_dataloader(self) -> DataLoader[Any]:
        """The same of validation photos, `uint8 [B, 3, S, S]`, in a fixed order.

        Of several processes, each takes photos of its own: none is left out, none comes twice.
        """
        assert self._val is not None
        own = range(self._rank, len(self._val), self._ranks)
        batch_size = max(1, self.batch_size // self._ranks)
        return self._loader(self._val, batch_size=batch_size, sampler=own)

    @property
    def _rank(self) -> int:
        return self.trainer.global_rank if self.trainer else 0

    @property
    def _ranks(self) -> int:
        return self.trainer.world_size if self.trainer else 1

    def _batches_behind(self) -> int:
        """How many batches of this epoch a run has done that goes on in the middle of one."""
        if self.trainer is None or not self.trainer.fit_loop.restarting:
            return 0
        progress = self.trainer.fit_loop.epoch_loop.batch_progress
        return 0 if progress.is_last_batch else progress.current.ready

    def state_dict(self) -> dict[str, Any]:
        """What the photos are, for a run that goes on with them."""
        assert self._train is not None
        return {"classes": self.classes, "photos": len(self._train), "digest": self._digest()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Make sure that a run goes on with the photos that it began with, or say that it doesn't.

        Raises:
            CatordogError: they are of other classes.
        """
        assert self._train is not None
        if state_dict["classes"] != self.classes:
            raise CatordogError(
                f"{self.source} has the classes {', '.join(self.classes)}, and this run began with "
                f"{', '.join(state_dict['classes'])}: start a new one, without --ckpt_path"
            )
        if state_dict["digest"] != self._digest():
            info(
                f"the photos have changed since this run began: {state_dict['photos']:,} to train "
                f"on then, {len(self._train):,} now; it goes on with those of now, and is not the "
                "run that it would have been"
            )

    def _digest(self) -> str:
        """Another one for other photos, other labels, or another split."""
        if self._known is None:
            photos = self.dataset.split("train", self.split_fractions)
            digest = hashlib.blake2b(digest_size=16)
            for key, photo in zip(keys_of(photos), photos, strict=True):
                digest.update(f"{key} {photo.label}\n".encode())
            self._known = digest.hexdigest()
        return self._known

    def _loader(self, photos: _Decoded | _Streamed, **options: Any) -> DataLoader[Any]:
        workers = 0  # decoded photos lie in memory; a worker would only copy them
        if isinstance(photos, _Streamed):
            workers = (os.cpu_count() or 1) if self.workers is None else self.workers
        return _Loader(
            photos,
            collate_fn=_as_it_is,
            num_workers=workers,
            persistent_workers=workers > 0,
            **options,
        )

    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Batch:
        """Note which photos of this batch could not be read."""
        del dataloader_idx
        photos, labels, failures = batch
        assert self.trainer is not None
        streamed = self._train if self.trainer.training else self._val
        if isinstance(streamed, _Streamed):
            self.failures += streamed.note(failures, len(labels), self.batch_size)
        return photos, labels

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Augment training photos, on their device; normalise all: `float32 [B, 3, S, S]`."""
        del dataloader_idx
        photos, labels = batch
        assert self.trainer is not None
        if not len(labels):
            return photos.float(), labels
        if self.trainer.training and self._overfits:
            pixels = F.interpolate(photos.float().div_(255), self.end_size, mode="area")
        elif self.trainer.training:
            step = (
                self.trainer.fit_loop.epoch_loop.total_batch_idx + 1
            )  # of the batch before: −1 at first
            draw = np.random.SeedSequence((self.seed, step))
            share = (self._rank, self._ranks)
            pixels = self.augment(photos, self._side(), int(draw.generate_state(1)[0]), share)
        else:
            pixels = photos.float().div_(255)
        return self._normal(pixels).contiguous(memory_format=torch.channels_last), labels

    def _normal(self, pixels: Tensor) -> Tensor:
        """Pixels in 0…1, `float32 [B, 3, S, S]`, normalised in place."""
        mean, std = (
            torch.tensor(values, device=pixels.device)[:, None, None]
            for values in (self.preprocess.mean, self.preprocess.std)
        )
        return pixels.sub_(mean).div_(std)

    @property
    def _overfits(self) -> bool:
        """Whether this run only checks that a few batches can be learnt by heart."""
        return bool(self.trainer and getattr(self.trainer, "overfit_batches", 0))

    def _side(self) -> int:
        """The side of training photos in this epoch, in steps of 16 pixels."""
        assert self.trainer is not None
        start, end, epochs = self.start_size, self.end_size, self.trainer.max_epochs or 0
        if epochs <= 1:
            return end
        grown = min(1.0, self.trainer.current_epoch / (0.75 * epochs))
        side = start + grown * (end - start)
        return end if grown == 1 else min(end, max(start, int(side) // 16 * 16))


class _Batches(Dataset[tuple[Tensor, Tensor, Failures]], ABC):
    """Photos that are taken a batch at a time: DataLoader does so where it finds `__getitems__`."""

    labels: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, Failures]:
        return self.__getitems__([index])

    @abstractmethod
    def __getitems__(self, indices: Sequence[int]) -> tuple[Tensor, Tensor, Failures]:
        """Photos `uint8 [B, 3, S, S]`, labels `int64 [B]`, and which could not be read."""


class _Decoded(_Batches):
    """Decoded photos."""

    def __init__(self, read: Pixels) -> None:
        self.pixels: npt.NDArray[np.uint8] = np.asarray(read.pixels)
        self.labels = np.array([photo.label for photo in read.photos], dtype=np.int64)

    def __getitems__(self, indices: Sequence[int]) -> tuple[Tensor, Tensor, Failures]:
        """Taken from memory; all of them can be read."""
        photos = torch.from_numpy(self.pixels[indices]).permute(0, 3, 1, 2)
        return photos, torch.from_numpy(self.labels[indices]), []


class _Streamed(_Batches):
    """Photos that are decoded when they are asked for, in DataLoader's workers."""

    def __init__(self, photos: Sequence[Photo], preprocess: Preprocess) -> None:
        self.photos, self.preprocess = photos, preprocess
        self.labels = np.array([photo.label for photo in photos], dtype=np.int64)
        self._failed: dict[int, PhotoError] = {}
        self._asked = self._read = 0

    def __getitems__(self, indices: Sequence[int]) -> tuple[Tensor, Tensor, Failures]:
        """Decoded here and now, without the photos that can't be read."""
        side = self.preprocess.size
        read: list[npt.NDArray[np.uint8]] = []
        kept: list[int] = []
        failures: Failures = []
        for index in indices:
            result = decoded_one(self.photos[index], self.preprocess)
            if isinstance(result, PhotoError):
                failures.append((index, result.reason))
            else:
                read.append(result)
                kept.append(index)
        pixels = np.stack(read) if read else np.empty((0, side, side, 3), np.uint8)
        return (
            torch.from_numpy(pixels).permute(0, 3, 1, 2),
            torch.from_numpy(self.labels[kept]),
            failures,
        )

    def note(self, failures: Failures, read: int, batch_size: int) -> list[PhotoError]:
        """The failures of a batch that are new.

        Raises:
            CatordogError: after a whole epoch, or many photos, not one could be read.
        """
        self._read += read
        self._asked += read + len(failures)
        found = []
        for index, reason in failures:
            if index not in self._failed:
                self._failed[index] = PhotoError(self.photos[index].path, reason)
                found.append(self._failed[index])
        epoch = len(self) // batch_size * batch_size
        if not self._read and self._asked >= min(epoch, _MANY):
            raise none_read([*self._failed.values()])
        return found


_MANY = 1024


class _Shuffle(Sampler[int]):
    """A new order in every epoch that depends on nothing but the seed and the epoch."""

    def __init__(self, n: int, seed: int) -> None:
        self.n, self.seed, self.epoch = n, seed, 0
        self.same = False

    def set_epoch(self, epoch: int) -> None:
        """Lightning says which epoch begins."""
        self.epoch = 0 if self.same else epoch

    def __len__(self) -> int:
        return self.n

    def __iter__(self) -> Iterator[int]:
        order = np.random.default_rng((self.seed, self.epoch)).permutation(self.n)
        return iter(order.tolist())


class _ByShard(_Shuffle):
    """A new order in every epoch that reads a few shards at a time.

    Shards are shuffled, and photos within each few of them.
    """

    def __init__(self, names: Sequence[str], seed: int) -> None:
        super().__init__(len(names), seed)
        _, shard, counts = np.unique(names, return_inverse=True, return_counts=True)
        self.shards = np.split(np.argsort(shard, kind="stable"), np.cumsum(counts)[:-1])

    def __iter__(self) -> Iterator[int]:
        generator = np.random.default_rng((self.seed, self.epoch))
        order = generator.permutation(len(self.shards)).tolist()
        for start in range(0, len(order), _SHARDS_AT_ONCE):
            together = [self.shards[shard] for shard in order[start : start + _SHARDS_AT_ONCE]]
            yield from generator.permutation(np.concatenate(together)).tolist()


_SHARDS_AT_ONCE = 16


class _Balanced(_Shuffle):
    """An order in which every class comes equally often: rare ones are repeated."""

    def __init__(self, labels: npt.NDArray[np.int64], seed: int) -> None:
        super().__init__(len(labels), seed)
        self.members = [np.flatnonzero(labels == label) for label in np.unique(labels)]

    def __iter__(self) -> Iterator[int]:
        generator = np.random.default_rng((self.seed, self.epoch))
        each = -(-self.n // len(self.members))
        drawn = [
            np.concatenate(
                [generator.permutation(members) for _ in range(-(-each // len(members)))]
            )[:each]
            for members in self.members
        ]
        order = generator.permutation(np.concatenate(drawn))[: self.n]
        return iter(order.tolist())


class _Share(Sampler[int]):
    """What one of several processes takes of each batch, in the order that all of them know.

    Args:
        order: of all photos.
        rank: which process.
        ranks: of how many.
        each: photos of a batch to each process.
        behind: tells, when an epoch begins, how many batches of it are done already.
    """

    def __init__(
        self, order: _Shuffle, rank: int, ranks: int, each: int, behind: Callable[[], int]
    ) -> None:
        self.order, self.rank, self.ranks, self.each = order, rank, ranks, each
        self.behind = behind

    def set_epoch(self, epoch: int) -> None:
        """Lightning says which epoch begins."""
        self.order.set_epoch(epoch)

    def __len__(self) -> int:
        return len(self.order) // (self.each * self.ranks) * self.each

    def __iter__(self) -> Iterator[int]:
        own = islice(self.order, self.rank, len(self) * self.ranks, self.ranks)
        return islice(own, self.behind() * self.each, None)


class _Loader(DataLoader[Any]):
    """A DataLoader that begins when its first batch is asked for.

    Lightning asks for an iterator before it knows where in which epoch a run goes on.
    """

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        yield from super().__iter__()


def _as_it_is(batch: Any) -> Any:
    """`__getitems__` has made the batch already."""
    return batch


def _three(values: Sequence[float]) -> tuple[float, float, float]:
    red, green, blue = values
    return red, green, blue
