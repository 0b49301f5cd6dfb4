"""The order of training photos: shuffled, shard by shard, balanced, and split among ranks.

Every order depends on the seed and the epoch alone, so all ranks compute the same one and a resumed
run continues it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import islice

import numpy as np
import numpy.typing as npt
from torch.utils.data import Sampler

SHARDS_AT_ONCE = 16
"""Shards that are shuffled together: more mixes photos better, fewer reads files in sequence."""


class EpochShuffle(Sampler[int]):
    """A new permutation of `n` indices in every epoch.

    Args:
        n: number of photos.
        seed: of the run.
        repeat: use the order of epoch 0 in every epoch (`--trainer.overfit_batches`).
    """

    def __init__(self, n: int, seed: int, *, repeat: bool = False) -> None:
        self.n, self.seed, self.repeat = n, seed, repeat
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Lightning calls this before each epoch."""
        self.epoch = 0 if self.repeat else epoch

    def __len__(self) -> int:
        return self.n

    def __iter__(self) -> Iterator[int]:
        return iter(self._generator().permutation(self.n).tolist())

    def _generator(self) -> np.random.Generator:
        return np.random.default_rng((self.seed, self.epoch))


class ShardShuffle(EpochShuffle):
    """A new order in every epoch that reads a few shards at a time.

    Shards are shuffled; then photos are shuffled within each group of `SHARDS_AT_ONCE` shards.

    Args:
        shards: the name of each photo's shard.
        seed: of the run.
        repeat: as of `EpochShuffle`.
    """

    def __init__(self, shards: Sequence[str], seed: int, *, repeat: bool = False) -> None:
        super().__init__(len(shards), seed, repeat=repeat)
        _, shard, counts = np.unique(shards, return_inverse=True, return_counts=True)
        self.members = np.split(np.argsort(shard, kind="stable"), np.cumsum(counts)[:-1])

    def __iter__(self) -> Iterator[int]:
        generator = self._generator()
        order = generator.permutation(len(self.members)).tolist()
        for start in range(0, len(order), SHARDS_AT_ONCE):
            group = [self.members[shard] for shard in order[start : start + SHARDS_AT_ONCE]]
            yield from generator.permutation(np.concatenate(group)).tolist()


class BalancedSampler(EpochShuffle):
    """An order in which every class comes equally often: photos of rare classes are repeated.

    An epoch keeps its length; of common classes it shows a random part.

    Args:
        labels: `int64 [n]`.
        seed: of the run.
        repeat: as of `EpochShuffle`.
    """

    def __init__(self, labels: npt.NDArray[np.int64], seed: int, *, repeat: bool = False) -> None:
        super().__init__(len(labels), seed, repeat=repeat)
        self.members = [np.flatnonzero(labels == label) for label in np.unique(labels)]

    def __iter__(self) -> Iterator[int]:
        generator = self._generator()
        per_class = -(-self.n // len(self.members))
        drawn = [
            np.concatenate(
                [generator.permutation(members) for _ in range(-(-per_class // len(members)))]
            )[:per_class]
            for members in self.members
        ]
        order = generator.permutation(np.concatenate(drawn))[: self.n]
        return iter(order.tolist())


class RankSampler(Sampler[int]):
    """The indices that one rank takes from each global batch.

    torch's `DistributedSampler` pads or drops photos per rank and can't start within an epoch.

    Args:
        order: of all photos; the same on every rank.
        rank: of this process.
        ranks: number of processes.
        batch_size: photos of a batch per rank.
        batches_done: called when an epoch begins; how many of its batches a resumed run has done.
    """

    def __init__(
        self,
        order: EpochShuffle,
        rank: int,
        ranks: int,
        batch_size: int,
        batches_done: Callable[[], int],
    ) -> None:
        self.order, self.rank, self.ranks = order, rank, ranks
        self.batch_size, self.batches_done = batch_size, batches_done

    def set_epoch(self, epoch: int) -> None:
        """Lightning calls this before each epoch."""
        self.order.set_epoch(epoch)

    def __len__(self) -> int:
        return len(self.order) // (self.batch_size * self.ranks) * self.batch_size

    def __iter__(self) -> Iterator[int]:
        own = islice(self.order, self.rank, len(self) * self.ranks, self.ranks)
        return islice(own, self.batches_done() * self.batch_size, None)
