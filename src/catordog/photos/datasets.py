"""What `--data` means: from a path or a name to labelled photos with their splits."""

from __future__ import annotations

import csv
import hashlib
import io
import os
import re
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Literal

from PIL import Image

from catordog.errors import CatordogError
from catordog.photos import shards, synthetic
from catordog.photos.decode import (
    DEFAULT_RULES,
    Decoded,
    DecodeRules,
    decode,
    examine,
    is_photo_name,
)
from catordog.photos.downloads import DOWNLOADS, fetch
from catordog.photos.photo import Photo, Photos, keys_of
from catordog.photos.splits import SPLITS, Split, SplitFractions, content_key, splits_of
from catordog.photos.stores import Store, open_store
from catordog.terminal import progress

FORMS = (
    "a folder with a sub-folder per class, the same under train/ val/ test/, files named "
    "cat.N.jpg and dog.N.jpg, a zip or tar of any of these, the Oxford-IIIT Pet layout, a folder "
    "of 'catordog shard', or 'drawn', 'oxford-pets', 'microsoft'"
)

_SPLIT_FOLDERS: dict[str, Split] = {
    "train": "train", "training": "train", "trainval": "train",
    "val": "val", "valid": "val", "validation": "val",
    "test": "test", "testing": "test", "test1": "test",  # test1: Kaggle's, without labels
}  # fmt: skip
_FLAT_NAME = re.compile(r"(?P<label>[^\W\d][^.]*)\.\d+\.\w+", re.UNICODE)
_SPECIES = {"1": "cat", "2": "dog"}  # Oxford-IIIT Pet, annotations/README


@dataclass(frozen=True, slots=True)
class PhotoDataset:
    """A data set: its classes and its labelled photos.

    Attributes:
        name: as the user gave it.
        classes: names in lower case, sorted; a photo's label is an index into them.
        photos: in the order of their names.
        unlabelled: how many photos were left out because nothing says what they show.
        excluded: names of photos that the user has left out.
        distinct: no two pictures are alike, so nobody has to look for copies.
    """

    name: str
    classes: tuple[str, ...]
    photos: Photos
    unlabelled: int = 0
    excluded: frozenset[str] = frozenset()
    distinct: bool = False
    packed: bool = False
    _splits: dict[SplitFractions, list[Split]] = field(
        default_factory=dict, repr=False, compare=False
    )

    def split(
        self, which: Split | Literal["all"], fractions: SplitFractions, *, excluded: bool = False
    ) -> list[Photo]:
        """The photos of one side.

        The data set's own split wins where it has one; only validation photos are cut from its
        training photos if it names none. Otherwise a photo's content decides, and copies and
        near copies of it follow. A photo that can't be read stays with the training photos,
        where it will be reported.

        Args:
            which: train, val, test, or all.
            fractions: the shares of validation and test photos.
            excluded: also those that the user has left out.

        Raises:
            CatordogError: this side has no photo, or a class has none on it.
        """
        there: Sequence[Split] = ()
        if which != "all":
            there = self.splits(fractions)
        chosen = [
            photo
            for place, photo in enumerate(self.photos)
            if which in ("all", *there[place : place + 1])
            and (excluded or photo.name not in self.excluded)
        ]
        self._check(which, chosen, there)
        return chosen

    def splits(self, fractions: SplitFractions) -> list[Split]:
        """The side of every photo, in their order, also of the excluded ones."""
        if fractions not in self._splits:
            self._splits[fractions] = self._find_splits(fractions)
        return self._splits[fractions]

    def _find_splits(self, fractions: SplitFractions) -> list[Split]:
        own = {split for split in self.photos.own_splits if split}
        if not own:
            return self._by_content(range(len(self.photos)), fractions)
        sides: list[Split] = [split or "train" for split in self.photos.own_splits]
        if "train" in own and "val" not in own:
            places = [place for place, side in enumerate(sides) if side == "train"]
            only_val = SplitFractions(fractions.val / (1 - fractions.test), 0)
            for place, side in zip(places, self._by_content(places, only_val), strict=True):
                sides[place] = side
        return sides

    def _by_content(self, places: Sequence[int], fractions: SplitFractions) -> list[Split]:
        from catordog.photos.near_copies import groups_of

        photos = [self.photos[place] for place in places]
        keys = keys_of(photos)
        groups = None if self.distinct else groups_of(photos, keys)
        return splits_of(keys, [photo.label for photo in photos], fractions, groups)

    def _check(self, which: str, chosen: Sequence[Photo], sides: Sequence[Split]) -> None:
        counts = Counter(self.classes[photo.label] for photo in chosen)
        if not chosen:
            there = [split for split in SPLITS if split in set(sides)]
            raise CatordogError(
                f"{self.name} has no {which} photos; it has {', '.join(there) or 'none at all'}: "
                f"choose one of them, or all, with --split"
            )
        missing = [name for name in self.classes if not counts[name]]
        if missing:
            raise CatordogError(
                f"{self.name}: the {which} split has no photo of {' or '.join(missing)} "
                f"({_tally(counts)}); add photos of each class"
            )

    def summary(self) -> str:
        """One line for people: how many photos of which classes."""
        counts = Counter(self.classes[label] for label in self.photos.labels)
        words = f"{self.name}: {len(self.photos):,} photos ({_tally(counts)})"
        if self.unlabelled:
            words += f", {self.unlabelled:,} without a label left out"
        if self.excluded:
            words += f", {len(self.excluded):,} excluded"
        return words


def open_dataset(
    data: str, *, rules: DecodeRules = DEFAULT_RULES, exclude: str | None = None
) -> PhotoDataset:
    """Find the labelled photos that `--data` names. Only names and folders are read here.

    Args:
        data: a path or a name, in any of the forms that `FORMS` lists. `drawn` takes settings:
            `drawn:n=8000,seed=0,size=64,morph=0`, and `animals=3` for rabbits too.
        rules: what is decoded.
        exclude: a CSV file with a column `path`: photos to leave out.

    Raises:
        CatordogError: there is no such data set, or it is not one.
    """
    found = _open(data, rules)
    return found if exclude is None else _without(found, Path(exclude))


def _open(data: str, rules: DecodeRules) -> PhotoDataset:
    name, _, settings = data.partition(":")
    path = Path(data).expanduser()
    if not path.exists():
        if name == "drawn":
            return _drawn(data, settings)
        if data not in DOWNLOADS:
            raise CatordogError(f"--data {data}: no such file or folder; give {FORMS}")
        path = fetch(data)
    if (path / shards.INDEX).is_file():
        return _packed(data, shards.Shards(path), rules)
    store = open_store(path)
    if store is None:
        raise CatordogError(f"--data {data}: neither a folder nor an archive; give {FORMS}")
    return _labelled(data, store, rules)


def _packed(data: str, store: shards.Shards, rules: DecodeRules) -> PhotoDataset:
    """Photos that `catordog shard` has packed: their labels and sides are known."""
    photos = Photos(_Files(store, rules), shards.Names(store), store.labels(), list(store.splits()))
    if not len(photos):
        raise CatordogError(f"--data {data}: its shards are empty; pack them again")
    return PhotoDataset(data, store.classes, photos, packed=True)


def _without(found: PhotoDataset, file: Path) -> PhotoDataset:
    """The data set, with those photos marked that a list names."""
    listed = _listed(file)
    pictures = found.photos.pictures
    paths = ((name, os.path.normpath(pictures.path(name))) for name in found.photos.names)
    excluded = frozenset(name for name, path in paths if path in listed or name in listed)
    if listed and not excluded:
        raise CatordogError(
            f"--exclude {file}: none of its {len(listed):,} paths is in {found.name}, where they "
            f"look like {pictures.path(found.photos.names[0])}"
        )
    return replace(found, excluded=excluded)


def _listed(file: Path) -> set[str]:
    """The paths in a CSV file."""
    try:
        with file.open(encoding="utf-8-sig", newline="") as opened:
            rows = csv.DictReader(opened)
            if "path" not in (rows.fieldnames or ()):
                raise CatordogError(f"--exclude {file}: it has no column 'path'")
            return {os.path.normpath(row["path"]) for row in rows if row["path"]}
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no CSV file in UTF-8"
        raise CatordogError(f"--exclude {file}: {reason}") from None


class _Files:
    """Pictures that are files of a store."""

    def __init__(self, store: Store, rules: DecodeRules) -> None:
        self.store = store
        self.rules = rules
        self._keys: dict[str, int] = {}

    def image(self, name: str, near: int | None) -> Image.Image:
        return decode(self.store.read(name), self.path(name), near=near, rules=self.rules)

    def examine(self, name: str, near: int) -> tuple[Decoded, int, bytes]:
        data = self.store.read(name)
        seen = examine(data, self.path(name), near=near, rules=self.rules)
        return seen, len(data), hashlib.blake2b(data, digest_size=16).digest()

    def key(self, name: str) -> int:
        if name not in self._keys:  # for a file in a folder it takes reading the whole of it
            self._keys[name] = self.store.key(name)
        return self._keys[name]

    def path(self, name: str) -> str:
        return self.store.path(name)

    def data(self, name: str) -> tuple[bytes, str]:
        return self.store.read(name), PurePosixPath(name).suffix.lower() or ".jpg"

    def probability(self, name: str) -> float | None:
        del name
        return None


@dataclass(frozen=True, slots=True)
class _Labels:
    """What names say: which photos have a label, in three lists of the same length."""

    names: list[str]
    labels: list[str]
    splits: list[Split | None]

    def add(self, name: str, label: str, split: Split | None) -> None:
        self.names.append(name)
        self.labels.append(sys.intern(label))
        self.splits.append(split)


def _labelled(data: str, store: Store, rules: DecodeRules) -> PhotoDataset:
    photos: list[str] = []
    annotations: list[str] = []
    with progress("listing files") as done:
        for count, name in enumerate(store.names(), 1):
            if is_photo_name(name):
                photos.append(name)
            elif name.endswith(("annotations/trainval.txt", "annotations/test.txt")):
                annotations.append(name)
            if count % 1000 == 0:
                done(count)
    if not photos:
        raise CatordogError(f"--data {data}: no photos in it; give {FORMS}")
    photos.sort()
    found = _oxford(annotations, photos, store) if annotations else None
    found = found if found and found.names else _by_name(photos)
    classes = tuple(sorted(set(found.labels)))
    if not classes:
        raise CatordogError(f"--data {data}: {len(photos):,} photos but no labels; give {FORMS}")
    if len(classes) == 1:
        raise CatordogError(
            f"--data {data}: all {len(found.names):,} labelled photos are of one class, "
            f"{classes[0]!r}; a classifier needs at least two"
        )
    index = {label: place for place, label in enumerate(classes)}
    return PhotoDataset(
        data,
        classes,
        Photos(
            _Files(store, rules), found.names, map(index.__getitem__, found.labels), found.splits
        ),
        unlabelled=len(photos) - len(found.names),
    )


def _by_name(photos: Sequence[str]) -> _Labels:
    """Labels and splits from the names of folders, or of files, below any wrapping folders."""
    start = _wrapping(photos)
    tops = {name[start:].partition("/")[0].casefold() for name in photos if "/" in name[start:]}
    own_splits = {_SPLIT_FOLDERS[top] for top in tops if top in _SPLIT_FOLDERS}
    found = _Labels([], [], [])
    # A lone train/ folder, as in Kaggle's archive, says nothing about a test split.
    if len(own_splits) > 1 or (own_splits and len(tops) == len(own_splits)):
        for name in photos:
            top, slash, rest = name[start:].partition("/")
            split = _SPLIT_FOLDERS.get(top.casefold()) if slash else None
            if split and (label := _label(rest)):
                found.add(name, label, split)
        if len(set(found.splits)) < 2:
            found.splits[:] = [None] * len(found.splits)
        return found
    for name in photos:
        if label := _label(name[start:]):
            found.add(name, label, None)
    return found


def _label(name: str) -> str | None:
    """The label of one photo: its outermost folder, or the first part of a flat file's name."""
    folder, slash, _ = name.partition("/")
    if slash:
        return folder.casefold()
    match = _FLAT_NAME.fullmatch(name)
    return match["label"].casefold() if match else None


def _wrapping(photos: Sequence[str]) -> int:
    """The length of the folders that hold everything, such as PetImages/ in Microsoft's archive.

    A folder counts as such unless nothing below it has a label: then it is a class, the only one.
    """
    start = 0
    while True:
        folder, slash, _ = photos[0][start:].partition("/")
        inside = start + len(folder) + 1
        wrapper = photos[0][:inside]
        if not slash or not all(name.startswith(wrapper) for name in photos):
            return start
        if not any(_label(name[inside:]) for name in photos):
            return start
        start = inside


def _oxford(annotations: Sequence[str], photos: Sequence[str], store: Store) -> _Labels:
    """The official Oxford-IIIT Pet layout: lists of `name id species breed` beside images/."""
    by_stem = {
        PurePosixPath(photo).stem: photo
        for photo in photos
        if PurePosixPath(photo).parent.name == "images"
    }
    entries: dict[str, tuple[str, Split]] = {}
    for listed in sorted(annotations, reverse=True):  # trainval.txt, then test.txt
        side: Split = "test" if PurePosixPath(listed).name == "test.txt" else "train"
        for line in store.read(listed).decode("utf-8", "replace").splitlines():
            fields = line.split()
            if len(fields) == 4 and fields[0] in by_stem and fields[2] in _SPECIES:
                entries[by_stem[fields[0]]] = (_SPECIES[fields[2]], side)
    found = _Labels([], [], [])
    for name, (label, side) in sorted(entries.items()):
        found.add(name, label, side)
    return found


_DRAWN_EXAMPLE = "drawn:n=8000,seed=0,size=64,morph=0,animals=2"


@dataclass(frozen=True, slots=True)
class _Drawn:
    """Pictures that we draw ourselves; a name ends in `.INDEX.png`."""

    seed: int
    picture_size: int
    morph: float
    animals: int

    def image(self, name: str, near: int | None) -> Image.Image:
        del near
        return synthetic.draw(
            _index(name),
            self.seed,
            size=self.picture_size,
            morph=self.morph,
            animals=self.animals,
        ).image

    def examine(self, name: str, near: int) -> tuple[Decoded, int, bytes]:
        image = self.image(name, near)
        key = self.key(name).to_bytes(8, "big")
        return Decoded(image, "PNG", image.mode, image.width, image.height), 0, key

    def key(self, name: str) -> int:
        return content_key(_index(name), self.seed)

    def data(self, name: str) -> tuple[bytes, str]:
        file = io.BytesIO()
        self.image(name, None).save(file, "PNG")
        return file.getvalue(), ".png"

    def path(self, name: str) -> str:
        return name

    def probability(self, name: str) -> float | None:
        if not self.morph:
            return None
        knob = synthetic.label_of(_index(name), self.seed, self.morph)[1]
        return synthetic.probability_of_dog(knob)


def _index(name: str) -> int:
    return int(name.split(".")[-2])


def _drawn(data: str, settings: str) -> PhotoDataset:
    values: dict[str, float] = {"n": 8000, "seed": 0, "size": 64, "morph": 0, "animals": 2}
    for setting in filter(None, settings.split(",")):
        key, _, value = setting.partition("=")
        try:
            if key not in values:
                raise ValueError
            values[key] = float(value) if key == "morph" else int(value)
        except ValueError:
            raise CatordogError(
                f"--data {data}: {setting!r} is no setting; write {_DRAWN_EXAMPLE}"
            ) from None
    n, seed, size = int(values["n"]), int(values["seed"]), int(values["size"])
    morph, animals = values["morph"], int(values["animals"])
    if not (n > 0 and seed >= 0 and 16 <= size <= 1024 and 0 <= morph <= 1 and animals in {2, 3}):
        raise CatordogError(
            f"--data {data}: needs n > 0, seed ≥ 0, size in 16…1024, morph in 0…1, animals 2 or 3"
        )
    if morph and animals == 3:
        raise CatordogError(f"--data {data}: a rabbit morphs into nothing; leave out morph")
    labels = [synthetic.label_of(index, seed, morph, animals)[0] for index in range(n)]
    names = [f"drawn/{synthetic.CLASSES[label]}.{index}.png" for index, label in enumerate(labels)]
    photos = Photos(_Drawn(seed, size, morph, animals), names, labels, [None] * n)
    return PhotoDataset(data, synthetic.CLASSES[:animals], photos, distinct=True)


def _tally(counts: Counter[str]) -> str:
    return ", ".join(f"{counts[name]:,} {name}" for name in sorted(counts))
