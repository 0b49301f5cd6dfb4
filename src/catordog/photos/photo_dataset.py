"""A dataset: its classes, its labelled photos, and their splits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from catordog.errors import CatordogError, PhotoError
from catordog.escaping import printable
from catordog.photos.near_copies import groups_of, labels_of_copies
from catordog.photos.photo import Photo, Photos, keys_of
from catordog.photos.splits import SPLITS, Split, SplitFractions, folds_of, splits_of


@dataclass(frozen=True, slots=True)
class PhotoDataset:
    """A dataset: its classes and its labelled photos.

    Attributes:
        name: as the user gave it.
        classes: names in lower case, sorted; a photo's label is an index into them. None at all if
            labels are optional, and there are none.
        photos: in the order of their names.
        unlabelled: number of photos left out because the layout gives them no label.
        left_out: names of these, and of the folders that hold no others; as many as are shown.
        unopened: the errors of folders, and of archives in an archive, that can't be opened and
            have no label. Those that have one are among the photos.
        excluded: names of photos that the user has excluded.
        relabelled: names of photos that the user has relabelled, with the label that the dataset
            itself gives them. They stay in the split that it puts them into.
        confirmed: names of photos whose label the user has given or confirmed.
        distinct: whether all pictures are known to differ, so that no copies need to be found.
        packed: whether the photos are in shards.
    """

    name: str
    classes: tuple[str, ...]
    photos: Photos
    unlabelled: int = 0
    left_out: tuple[str, ...] = ()
    unopened: tuple[PhotoError, ...] = ()
    excluded: frozenset[str] = frozenset()
    relabelled: Mapping[str, int] = field(default_factory=dict)
    confirmed: frozenset[str] = frozenset()
    distinct: bool = False
    packed: bool = False
    _splits: dict[SplitFractions, list[Split]] = field(
        default_factory=dict, repr=False, compare=False
    )
    _one_picture: dict[int | None, int] = field(default_factory=dict, repr=False, compare=False)
    """Labels, or None for all photos, whose photos are copies of one another: how many."""

    def split(
        self, which: Split | Literal["all"], fractions: SplitFractions, *, excluded: bool = False
    ) -> list[Photo]:
        """The photos of one split.

        The dataset's own splits win where it has any; if they lack validation photos, those are
        taken from its training photos. Otherwise a photo's content decides, and its copies and
        near copies follow. An unreadable photo stays in training, where it is reported.

        Args:
            which: train, val, test, or all.
            fractions: of validation and test photos.
            excluded: include those that the user has excluded.

        Raises:
            CatordogError: this split has no photo, or none of some class.
        """
        splits: Sequence[Split] = ()
        if which != "all":
            splits = self.splits(fractions)
        chosen = [
            photo
            for index, photo in enumerate(self.photos)
            if (which == "all" or splits[index] == which)
            and (excluded or photo.name not in self.excluded)
        ]
        self._check(which, chosen, splits)
        return chosen

    def splits(self, fractions: SplitFractions) -> list[Split]:
        """The split of every photo, in their order, also of the excluded ones."""
        if fractions not in self._splits:
            self._splits[fractions] = self._find_splits(fractions)
        return self._splits[fractions]

    def _find_splits(self, fractions: SplitFractions) -> list[Split]:
        own = {split for split in self.photos.own_splits if split}
        if not own:
            return self._by_content(range(len(self.photos)), fractions)
        splits: list[Split] = [split or "train" for split in self.photos.own_splits]
        if "train" in splits and "val" not in own:
            train = [index for index, split in enumerate(splits) if split == "train"]
            only_val = SplitFractions(fractions.val / (1 - fractions.test), 0)
            for index, split in zip(train, self._by_content(train, only_val), strict=True):
                splits[index] = split
        return splits

    def _by_content(self, indices: Sequence[int], fractions: SplitFractions) -> list[Split]:
        photos = [self.photos[index] for index in indices]
        labels = [self.own_label(index) for index in indices]
        keys = keys_of(photos)
        groups = None if self.distinct else groups_of(photos, keys)
        if groups is not None:
            decided = [self.photos.labels[index] for index in indices]
            self._one_picture.update(labels_of_copies(photos, decided, groups))
        return splits_of(keys, labels, fractions, groups)

    def with_fold(self, count: int, number: int) -> PhotoDataset:
        """The same photos, of which one fold is for validation, and the others are for training.

        Test photos stay those of the dataset's own split; it has none otherwise.

        Args:
            count: the number of folds, 2 or more.
            number: of this fold, 1…count.

        Raises:
            CatordogError: a class has too few different photos.
        """
        own = self.photos.own_splits
        used = [i for i, name in enumerate(self.photos.names)
                if own[i] != "test" and name not in self.excluded]  # fmt: skip
        photos, labels = [self.photos[i] for i in used], [self.photos.labels[i] for i in used]
        keys = keys_of(photos)
        groups = None if self.distinct else groups_of(photos, keys)
        folds, different = folds_of(keys, labels, count, groups)
        for label, name in enumerate(self.classes):
            if different[label] < count:
                raise CatordogError(
                    f"{self.name}: {different[label]} different photos of {name} for {count} "
                    f"folds: add photos, or give --folds {max(2, different[label])}"
                )
        splits: list[Split | None] = ["test" if split == "test" else "train" for split in own]
        for index, fold in zip(used, folds, strict=True):
            splits[index] = "val" if fold == number - 1 else "train"
        columns = Photos(self.photos.source, self.photos.names, self.photos.labels, splits)
        return replace(self, photos=columns, _splits={}, _one_picture={})

    def _check(self, which: str, chosen: Sequence[Photo], splits: Sequence[Split]) -> None:
        counts = Counter(self.classes[x.label] for x in chosen if x.label is not None)
        missing = [name for name in self.classes if not counts[name]]
        for label, count in self._one_picture.items() if which != "all" else ():
            if not chosen or (label is not None and self.classes[label] in missing):
                of = "" if label is None else f" of {self.classes[label]}"
                raise CatordogError(
                    f"{self.name}: all {count:,} readable photos{of} are copies or near copies of "
                    f"one another, so only one split has them, and not {which}; add different "
                    "photos"
                )
        if not chosen:
            there = [split for split in SPLITS if split in set(splits)]
            raise CatordogError(
                f"{self.name} has no {which} photos; it has {', '.join(there) or 'none at all'}: "
                f"choose one of them, or all, with --split"
            )
        if missing:
            raise CatordogError(
                f"{self.name}: the {which} split has no photo of {' or '.join(missing)} "
                f"({_format_counts(counts)}); add photos of each class"
            )

    def own_label(self, index: int) -> int:
        """The label that the dataset itself gives a photo, whatever the user has decided."""
        label = self.photos.labels[index]
        return self.relabelled.get(self.photos.names[index], label) if self.relabelled else label

    def without_excluded(self) -> PhotoDataset:
        """The dataset without the photos that the user has excluded."""
        kept = [i for i, name in enumerate(self.photos.names) if name not in self.excluded]
        return replace(self, photos=self.photos.subset(kept), _splits={}, _one_picture={})

    def summary(self) -> str:
        """One line for people: how many photos of which classes."""
        counts = Counter(self.classes[label] for label in self.photos.labels if label >= 0)
        words = f"{self.name}: {len(self.photos):,} photos"
        words += f" ({_format_counts(counts)})" if counts else ""
        if self.unlabelled:
            words += f", {self.unlabelled:,} without a label left out"
            words += f": {', '.join(map(printable, self.left_out))}" if self.left_out else ""
        if self.excluded:
            words += f", {len(self.excluded):,} excluded"
        if self.relabelled:
            words += f", {len(self.relabelled):,} relabelled"
        return words


def _format_counts(counts: Counter[str]) -> str:
    return ", ".join(f"{counts[name]:,} {name}" for name in sorted(counts))
