"""The data of a training run: photos found, split, decoded once, augmented and batched."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, Literal

import lightning as L
import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader

from catordog.errors import CatordogError, PhotoError
from catordog.photos.cache import cached_pixels
from catordog.photos.datasets import open_dataset
from catordog.photos.decode import DecodeRules
from catordog.photos.photo import keys_of
from catordog.photos.preprocess import MEAN, STD, Preprocess, Resize
from catordog.photos.reading import Pixels, none_read, read_pixels
from catordog.photos.splits import Split, SplitFractions
from catordog.terminal import info, progress
from catordog.training.augment import Augment, resized
from catordog.training.datasets import DecodedDataset, LazyLoader, StreamedDataset, unchanged
from catordog.training.module import ClassifierModule
from catordog.training.samplers import BalancedSampler, EpochShuffle, RankSampler, ShardShuffle
from catordog.training.seeding import step_seed

Batch = tuple[Tensor, Tensor]
"""Photos and labels."""

Balance = Literal["no", "sampler", "loss"]


class PhotosDataModule(L.LightningDataModule):
    """Labelled photos for training and validation.

    Args:
        source: the dataset; `--data D` is short for `--data.source D`.
        size: width and height S of the network's input, in pixels.
        resize: how a photo becomes square: squash, crop or pad (see `Preprocess`).
        mean: of pixels in 0…1: red, green, blue.
        std: standard deviation of pixels.
        start_size: size of training photos at first; it grows to `end_size` over the first three
            quarters of the run, since small photos are faster and teach coarse features first
            (Howard 2018). None: `end_size` from the start.
        end_size: size of training photos at last. Below `size` it saves time at no loss of
            accuracy: a random crop shows objects larger than the full photo does (Touvron et al.
            2019). None: `size`.
        decode_size: size at which training photos are decoded, before they are cropped. None: a
            quarter more than `end_size`.
        cache: store decoded photos in `data/cache`, where later runs find them; otherwise they are
            decoded in every epoch. None: yes, except for shards, which may exceed the disk.
        workers: processes that decode photos if there is no cache; None: one per core.
        batch_size: photos per step over all processes: the number of GPUs does not change what is
            trained.
        balance: how to treat classes with many more photos than others: `sampler` shows each class
            equally often, `loss` weighs each photo by the inverse frequency of its class. Either
            way, confidence assumes equally frequent classes.
        val: fraction of photos for validation.
        test: fraction of photos held out for `catordog evaluate`.
        exclude: a CSV file with a column `path`: photos to leave out (`--exclude F`).
        decisions: a file of decisions: labels to replace, photos to leave out (`--decisions F`).
        allow_truncated: read the intact part of truncated photos (`--allow-truncated`).
        max_megapixels: refuse larger photos before they are decoded (`--max-megapixels N`).
        augment: random augmentation of training photos.
        folds: number of folds; `--folds` sets it.
        fold: validate on this fold, 1…folds, instead of on the fraction `val`.
        seed: of the order and the augmentation; `--seed_everything` sets it.

    Raises:
        CatordogError: a setting is out of range, or the dataset can't be opened.
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
        decisions: str | None = None,
        allow_truncated: bool = False,
        max_megapixels: float = 200,
        augment: Augment = Augment(),  # noqa: B008 - frozen
        folds: int | None = None,
        fold: int | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if batch_size < 1:
            raise CatordogError(f"data.batch_size = {batch_size} is not a number of photos")
        if workers is not None and workers < 0:
            raise CatordogError(f"data.workers = {workers} is not a number of processes")
        self.source = source
        self.preprocess = Preprocess(size, resize, _rgb(mean), _rgb(std))
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
        self.dataset = open_dataset(source, rules=self.rules, exclude=exclude, decisions=decisions)
        if folds is not None and fold is not None:
            self.dataset = self.dataset.with_fold(folds, fold)
            self.split_fractions = SplitFractions(0, 0)  # no photo is held out from all folds
        self.cache = cache if cache is not None else not self.dataset.packed
        self.workers = workers
        self.balance = balance
        self.exclude, self.decisions = exclude, decisions
        self.failures: list[PhotoError] = list(self.dataset.unopened)
        self._digest: str | None = None
        self._train: DecodedDataset | StreamedDataset | None = None
        self._val: DecodedDataset | StreamedDataset | None = None

    @property
    def classes(self) -> list[str]:
        """The names of the classes, in the order of the logits."""
        return list(self.dataset.classes)

    def setup(self, stage: str) -> None:
        """Decode training and validation photos once, and tell the module about them.

        Raises:
            CatordogError: no photo of a class could be read, or they don't fit into memory.
        """
        if stage != "fit":
            return
        if self._train is None:
            info(self.dataset.summary())
            self._train = self._open("train", replace(self.preprocess, size=self.decode_size))
            self._val = self._open("val", self.preprocess)
            if self.class_weights is not None:
                pairs = zip(self.classes, self.class_weights.tolist(), strict=True)
                weights = ", ".join(f"{name} {weight:.2f}" for name, weight in pairs)
                info(f"class weights: {weights}")
        module = self.trainer and self.trainer.lightning_module
        if isinstance(module, ClassifierModule):
            module.use_data(self.preprocess, self.split_fractions, self.class_weights, self.sample)

    def _open(self, split: Split, preprocess: Preprocess) -> DecodedDataset | StreamedDataset:
        if split not in self.dataset.splits(self.split_fractions):
            raise CatordogError(self._empty(split))
        photos = self.dataset.split(split, self.split_fractions)
        synthetic = self.dataset.distinct  # drawn in memory: there are no files to cache
        if not self.cache and not synthetic:
            return StreamedDataset(photos, preprocess)
        with progress(f"reading {split} photos", len(photos)) as done:
            if synthetic:
                read = read_pixels(photos, preprocess, done)
            else:
                read = cached_pixels(photos, preprocess, self.rules, done)
        self._check_every_class(split, read)
        self.failures += read.failures
        return DecodedDataset(read)

    def _empty(self, split: Split) -> str:
        if split == "val" and not self.split_fractions.val:
            return f"{self.source}: --data.val 0 leaves no validation photos: give at least 0.05"
        return f"{self.source} has no {split} photos: add some, or a folder for this split"

    @property
    def has_test_photos(self) -> bool:
        """Whether the test split has photos of every class, so that it can evaluate a model."""
        try:
            return bool(self.dataset.split("test", self.split_fractions))
        except CatordogError:
            return False

    def _check_every_class(self, split: Split, read: Pixels) -> None:
        labels = {photo.label for photo in read.photos}
        for label, name in enumerate(self.classes):
            if label not in labels:
                problem = f"{self.source}: no {split} photo of {name} could be read"
                raise CatordogError(f"{problem}: replace the broken ones, or add others")

    @property
    def class_weights(self) -> Tensor | None:
        """Weight of each class in the loss, `float32 [C]`; None: equal, or not set up yet."""
        if self.balance != "loss" or self._train is None:
            return None
        counts = torch.bincount(torch.from_numpy(self._train.labels), minlength=len(self.classes))
        return counts.sum() / (len(counts) * counts.float())

    def validation(
        self, batch_size: int = 256
    ) -> Iterator[tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]]:
        """Readable validation photos in batches: `uint8 [N, S, S, 3]`, with labels `[N]`."""
        assert self._val is not None
        for start in range(0, len(self._val), batch_size):
            indices = range(start, min(start + batch_size, len(self._val)))
            photos, labels, _ = self._val.__getitems__(indices)
            if len(labels):
                yield photos.permute(0, 2, 3, 1).numpy(), labels.numpy()

    def sample(self, n: int = 512) -> Tensor:
        """Evenly spaced training photos, without augmentation: normalised, `float32 [N, 3, S, S]`.

        Args:
            n: N is smaller if there are fewer photos, or some can't be read.

        Raises:
            CatordogError: none of them can be read.
        """
        return self._normalise(resized(self._training_photos(self._spread(n)), self.end_size))

    def views(self, n: int) -> Iterator[Tensor]:
        """Evenly spaced training photos as prediction shows them: normalised, of the input size.

        Args:
            n: there are fewer if there are fewer photos, or some can't be read.

        Yields:
            `float32 [B, 3, S, S]`; each batch spans all photos, and so all classes.

        Raises:
            CatordogError: none of a batch can be read.
        """
        indices, size = self._spread(n), self.preprocess.size
        batches = math.ceil(len(indices) / self.batch_size)
        for first in range(batches):
            photos = self._training_photos(indices[first::batches]).float().div_(255)
            if photos.shape[-1] != size:  # as PIL resizes
                photos = F.interpolate(photos, size, mode="bicubic", antialias=True).clamp_(0, 1)
            yield self._normalise(photos).contiguous(memory_format=torch.channels_last)

    def _spread(self, n: int) -> list[int]:
        """Indices of at most n training photos, evenly spaced."""
        assert self._train is not None
        return [*map(int, np.linspace(0, len(self._train) - 1, min(n, len(self._train))))]

    def _training_photos(self, indices: list[int]) -> Tensor:
        """Those of them that can be read, `uint8 [N, 3, T, T]`."""
        assert self._train is not None
        photos, _, failures = self._train.__getitems__(indices)
        if isinstance(self._train, StreamedDataset) and not len(photos):
            unreadable = self._train.photos
            raise none_read([PhotoError(unreadable[i].path, reason) for i, reason in failures])
        return photos

    def train_dataloader(self) -> DataLoader[Any]:
        """Shuffled batches: `uint8 [B, 3, T, T]`, labels `int64 [B]`, and unreadable photos.

        Raises:
            CatordogError: a batch can't be divided among the processes.
        """
        assert self._train is not None
        n, rank, ranks = len(self._train), self._rank, self._ranks
        if self.batch_size % ranks:
            raise CatordogError(
                f"data.batch_size = {self.batch_size} photos can't be divided among {ranks} "
                f"processes: give a multiple of {ranks}"
            )
        if n < ranks:
            raise CatordogError(f"{self.source}: {n} train photos for {ranks} processes")
        batch_size = min(self.batch_size, n) // ranks
        return self._loader(
            self._train,
            batch_size=batch_size,
            sampler=RankSampler(self._order(), rank, ranks, batch_size, self._batches_done),
            drop_last=True,  # a last batch of one photo would distort batch norms
        )

    def _order(self) -> EpochShuffle:
        assert self._train is not None
        if self.balance == "sampler":
            return BalancedSampler(self._train.labels, self.seed, repeat=self._overfits)
        if isinstance(self._train, StreamedDataset) and self.dataset.packed:
            shards = [photo.name.partition("/")[0] for photo in self._train.photos]
            return ShardShuffle(shards, self.seed, repeat=self._overfits)
        return EpochShuffle(len(self._train), self.seed, repeat=self._overfits)

    def val_dataloader(self) -> DataLoader[Any]:
        """The same for validation photos, `uint8 [B, 3, S, S]`, in a fixed order.

        With several processes, each photo is validated by exactly one.
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

    def _batches_done(self) -> int:
        """Batches of this epoch that were trained on before a run was resumed within it."""
        if self.trainer is None or not self.trainer.fit_loop.restarting:
            return 0
        progress = self.trainer.fit_loop.epoch_loop.batch_progress
        return 0 if progress.is_last_batch else progress.current.ready

    def state_dict(self) -> dict[str, Any]:
        """What identifies the photos, for a run that resumes with them."""
        assert self._train is not None
        digest = self._photos_digest()
        return {"classes": self.classes, "photos": len(self._train), "digest": digest}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Compare the photos with those of the run that resumes; report a difference.

        Raises:
            CatordogError: they have other classes.
        """
        assert self._train is not None
        if state_dict["classes"] != self.classes:
            raise CatordogError(
                f"{self.source} has the classes {', '.join(self.classes)}, and this run was "
                f"started with {', '.join(state_dict['classes'])}: start a new run, without "
                "--ckpt_path"
            )
        if state_dict["digest"] != self._photos_digest():
            info(
                f"the photos have changed since this run was started: {state_dict['photos']:,} "
                f"training photos then, {len(self._train):,} now; it resumes with those of now, "
                "so results will differ from an uninterrupted run"
            )

    def _photos_digest(self) -> str:
        """A hash of the training photos, their labels and the split."""
        if self._digest is None:
            photos = self.dataset.split("train", self.split_fractions)
            digest = hashlib.blake2b(digest_size=16)
            for key, photo in zip(keys_of(photos), photos, strict=True):
                digest.update(f"{key} {photo.label}\n".encode())
            self._digest = digest.hexdigest()
        return self._digest

    def _loader(self, dataset: DecodedDataset | StreamedDataset, **options: Any) -> DataLoader[Any]:
        workers = 0  # decoded photos are in memory; workers would only copy them
        if isinstance(dataset, StreamedDataset):
            workers = (os.cpu_count() or 1) if self.workers is None else self.workers
        return LazyLoader(
            dataset,
            collate_fn=unchanged,
            num_workers=workers,
            persistent_workers=workers > 0,
            **options,
        )

    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Collect unreadable photos."""
        del dataloader_idx
        if isinstance(batch, Tensor):  # the example input, from Lightning's model summary
            return batch
        photos, labels, failures = batch
        assert self.trainer is not None
        dataset = self._train if self.trainer.training else self._val
        if isinstance(dataset, StreamedDataset):
            self.failures += dataset.new_failures(failures, len(labels), self.batch_size)
        return photos, labels

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """On the device, augment training photos and normalise all: `float32 [B, 3, S, S]`."""
        del dataloader_idx
        if isinstance(batch, Tensor):
            return batch
        photos, labels = batch
        assert self.trainer is not None
        if not len(labels):
            return photos.float(), labels
        if self.trainer.training and self._overfits:
            pixels = resized(photos, self.end_size)
        elif self.trainer.training:
            # Lightning counts this batch only when it has been transferred: −1 before the first.
            step = self.trainer.fit_loop.epoch_loop.total_batch_idx + 1
            seed = step_seed(self.seed, step)
            pixels = self.augment(photos, self._train_size(), seed, self._rank, self._ranks)
        else:
            pixels = photos.float().div_(255)
        return self._normalise(pixels).contiguous(memory_format=torch.channels_last), labels

    def _normalise(self, pixels: Tensor) -> Tensor:
        """Pixels in 0…1, `float32 [B, 3, S, S]`, normalised in place."""
        mean, std = (
            torch.tensor(values, device=pixels.device)[:, None, None]
            for values in (self.preprocess.mean, self.preprocess.std)
        )
        return pixels.sub_(mean).div_(std)

    @property
    def _overfits(self) -> bool:
        """Whether this run only checks that the network can overfit a few batches."""
        return bool(self.trainer and getattr(self.trainer, "overfit_batches", 0))

    def _train_size(self) -> int:
        """The size of training photos in this epoch, in steps of 16 pixels."""
        assert self.trainer is not None
        start, end, epochs = self.start_size, self.end_size, self.trainer.max_epochs or 0
        if epochs <= 1:
            return end
        progress = min(1.0, self.trainer.current_epoch / (0.75 * epochs))
        size = start + progress * (end - start)
        return end if progress == 1 else min(end, max(start, int(size) // 16 * 16))


def _rgb(values: Sequence[float]) -> tuple[float, float, float]:
    red, green, blue = values
    return red, green, blue
