"""What `--data` means: from a path or a name to labelled photos with their splits."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Literal

from PIL import Image

from catordog.errors import CatordogError, PhotoError
from catordog.photos import drawn
from catordog.photos.decode import SUFFIXES, decode
from catordog.photos.split import SPLITS, Fractions, Split, content_key, split_of
from catordog.photos.stores import Folder, Store, Zip, is_zip

FORMS = (
    "a folder with a sub-folder per class, the same under train/ val/ test/, files named "
    "cat.N.jpg and dog.N.jpg, a zip of any of these, the Oxford-IIIT Pet layout, or 'drawn'"
)

_SPLIT_FOLDERS: dict[str, Split] = {
    "train": "train", "training": "train", "trainval": "train",
    "val": "val", "valid": "val", "validation": "val",
    "test": "test", "testing": "test", "test1": "test",  # test1: Kaggle's, without labels
}  # fmt: skip
_FLAT_NAME = re.compile(r"(?P<label>[^\W\d][^.]*)\.\d+\.\w+", re.UNICODE)
_SPECIES = {"1": "cat", "2": "dog"}  # Oxford-IIIT Pet, annotations/README


@dataclass(frozen=True, slots=True)
class Photo:
    """One labelled photo, not yet read.

    Attributes:
        path: what its owner calls it.
        label: index into the data set's classes.
        own_split: the side that the data set itself puts it on, if it does.
    """

    path: str
    label: int
    own_split: Split | None
    _image: Callable[[int | None], Image.Image] = field(repr=False, compare=False)
    _key: Callable[[], int] = field(repr=False, compare=False)

    def image(self, near: int | None = None) -> Image.Image:
        """Read and decode it (see `decode.decode`). Raises `PhotoError`."""
        return self._image(near)

    def key(self) -> int:
        """Its content key (see `split.content_key`). Raises `PhotoError`."""
        return self._key()


@dataclass(frozen=True, slots=True)
class PhotoSet:
    """A data set: its classes and its labelled photos.

    Attributes:
        name: as the user gave it.
        classes: names in lower case, sorted; a photo's label is an index into them.
        photos: in the order of their paths.
        unlabelled: how many photos were left out because nothing says what they show.
    """

    name: str
    classes: tuple[str, ...]
    photos: tuple[Photo, ...]
    unlabelled: int = 0

    def split(self, which: Split | Literal["all"], fractions: Fractions) -> list[Photo]:
        """The photos of one side.

        The data set's own split wins where it has one; only validation photos are cut from its
        training photos if it names none. Otherwise a photo's content decides. A photo that
        can't be read stays with the training photos, where it will be reported.

        Raises:
            CatordogError: this side has no photo, or a class has none on it.
        """
        sides = self.sides(fractions)
        chosen = [
            photo for photo, side in zip(self.photos, sides, strict=True) if which in (side, "all")
        ]
        self._check(which, chosen, sides)
        return chosen

    def sides(self, fractions: Fractions) -> list[Split]:
        """The side of every photo, in their order."""
        own = {photo.own_split for photo in self.photos} - {None}
        if not own:
            return self._by_content(self.photos, fractions)
        sides: list[Split] = [photo.own_split or "train" for photo in self.photos]
        if "train" in own and "val" not in own:
            places = [place for place, side in enumerate(sides) if side == "train"]
            only_val = Fractions(fractions.val / (1 - fractions.test), 0)
            cut = self._by_content([self.photos[place] for place in places], only_val)
            for place, side in zip(places, cut, strict=True):
                sides[place] = side
        return sides

    @staticmethod
    def _by_content(photos: Sequence[Photo], fractions: Fractions) -> list[Split]:
        def side(photo: Photo) -> Split:
            try:
                return split_of(photo.key(), fractions)
            except PhotoError:
                return "train"

        with ThreadPoolExecutor() as pool:
            return list(pool.map(side, photos, chunksize=64))

    def _check(self, which: str, chosen: Sequence[Photo], sides: Sequence[Split]) -> None:
        counts = Counter(self.classes[photo.label] for photo in chosen)
        if not chosen:
            there = [split for split in SPLITS if split in set(sides)]
            raise CatordogError(
                f"{self.name} has no {which} photos; it has {', '.join(there)}: "
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
        counts = Counter(self.classes[photo.label] for photo in self.photos)
        left_out = f", {self.unlabelled:,} without a label left out" if self.unlabelled else ""
        return f"{self.name}: {len(self.photos):,} photos ({_tally(counts)}){left_out}"


def open_data(data: str) -> PhotoSet:
    """Find the labelled photos that `--data` names. Only names and folders are read here.

    Args:
        data: a path or a name, in any of the forms that `FORMS` lists. `drawn` takes settings:
            `drawn:n=8000,seed=0,size=64,morph=0`.

    Raises:
        CatordogError: there is no such data set, or it is not one.
    """
    name, _, settings = data.partition(":")
    if name == "drawn" and not Path(data).exists():
        return _drawn(data, settings)
    path = Path(data).expanduser()
    if not path.exists():
        raise CatordogError(f"--data {data}: no such file or folder; give {FORMS}")
    if path.is_dir():
        return _labelled(data, Folder(path))
    if is_zip(path):
        return _labelled(data, Zip(path))
    raise CatordogError(f"--data {data}: neither a folder nor a zip archive; give {FORMS}")


def is_photo_name(name: str) -> bool:
    """Whether a file of this name is taken for a photo when a folder is listed."""
    return PurePosixPath(name).suffix.lower() in SUFFIXES


@dataclass(frozen=True, slots=True)
class _Entry:
    name: str  # in its store
    label: str
    split: Split | None


def _labelled(data: str, store: Store) -> PhotoSet:
    names = list(store.names())
    photos = [name for name in names if is_photo_name(name)]
    if not photos:
        raise CatordogError(f"--data {data}: no photos in it; give {FORMS}")
    entries = _oxford(names, photos, store) or _by_folder(photos)
    classes = tuple(sorted({entry.label for entry in entries}))
    if not classes:
        raise CatordogError(f"--data {data}: {len(photos):,} photos but no labels; give {FORMS}")
    if len(classes) == 1:
        raise CatordogError(
            f"--data {data}: all {len(entries):,} labelled photos are of one class, "
            f"{classes[0]!r}; a classifier needs at least two"
        )
    index = {label: place for place, label in enumerate(classes)}
    return PhotoSet(
        data,
        classes,
        tuple(_photo(store, entry.name, index[entry.label], entry.split) for entry in entries),
        unlabelled=len(photos) - len(entries),
    )


def _photo(store: Store, name: str, label: int, split: Split | None) -> Photo:
    path = store.path(name)
    return Photo(
        path,
        label,
        split,
        lambda near: decode(store.read(name), path, near=near),
        lambda: store.key(name),
    )


def _by_folder(photos: Sequence[str]) -> list[_Entry]:
    """Labels and splits from the names of folders, or of files, below any wrapping folders."""
    inside = _unwrap([PurePosixPath(name).parts for name in photos])
    tops = {parts[0].casefold() for parts in inside if len(parts) > 1}
    own_splits = {_SPLIT_FOLDERS[top] for top in tops if top in _SPLIT_FOLDERS}
    entries = []
    # A lone train/ folder, as in Kaggle's archive, says nothing about a test split.
    if len(own_splits) > 1 or (own_splits and len(tops) == len(own_splits)):
        for name, parts in zip(photos, inside, strict=True):
            split = _SPLIT_FOLDERS.get(parts[0].casefold()) if len(parts) > 1 else None
            label = _label(parts[1:]) if split else None
            if label:
                entries.append(_Entry(name, label, split))
        if len({entry.split for entry in entries}) < 2:
            entries = [_Entry(entry.name, entry.label, None) for entry in entries]
        return entries
    for name, parts in zip(photos, inside, strict=True):
        if label := _label(parts):
            entries.append(_Entry(name, label, None))
    return entries


def _label(parts: Sequence[str]) -> str | None:
    """The label of one photo: its outermost folder, or the first part of a flat file's name."""
    if len(parts) > 1:
        return parts[0].casefold()
    match = _FLAT_NAME.fullmatch(parts[-1])
    return match["label"].casefold() if match else None


def _unwrap(paths: list[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """Drop folders that hold everything else, such as PetImages/ in Microsoft's archive.

    A folder stays if nothing below it has a label: then it is a class, and the only one.
    """
    while all(len(parts) > 1 for parts in paths) and len({parts[0] for parts in paths}) == 1:
        inside = [parts[1:] for parts in paths]
        if not any(_label(parts) for parts in inside):
            break
        paths = inside
    return paths


def _oxford(names: Iterable[str], photos: Iterable[str], store: Store) -> list[_Entry]:
    """The official Oxford-IIIT Pet layout: lists of `name id species breed` beside images/."""
    lists = {name for name in names if PurePosixPath(name).parent.name == "annotations"}
    entries: dict[str, _Entry] = {}
    by_stem = {
        PurePosixPath(photo).stem: photo
        for photo in photos
        if PurePosixPath(photo).parent.name == "images"
    }
    for file, split in (("trainval.txt", "train"), ("test.txt", "test")):
        for listed in (name for name in lists if PurePosixPath(name).name == file):
            for line in store.read(listed).decode("utf-8", "replace").splitlines():
                fields = line.split()
                if len(fields) == 4 and fields[0] in by_stem and fields[2] in _SPECIES:
                    photo = by_stem[fields[0]]
                    side: Split = "train" if split == "train" else "test"
                    entries[photo] = _Entry(photo, _SPECIES[fields[2]], side)
    return sorted(entries.values(), key=lambda entry: entry.name)


_DRAWN_EXAMPLE = "drawn:n=8000,seed=0,size=64,morph=0"


def _drawn(data: str, settings: str) -> PhotoSet:
    values: dict[str, float] = {"n": 8000, "seed": 0, "size": 64, "morph": 0}
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
    morph = values["morph"]
    if not (n > 0 and seed >= 0 and 16 <= size <= 1024 and 0 <= morph <= 1):
        raise CatordogError(f"--data {data}: needs n > 0, seed ≥ 0, size in 16…1024, morph in 0…1")

    def photo(index: int) -> Photo:
        def image(_near: int | None) -> Image.Image:
            return drawn.draw(index, seed, size=size, morph=morph).image

        def key() -> int:
            return content_key(index, seed)

        label, _ = drawn.label_of(index, seed, morph)
        return Photo(f"drawn/{drawn.CLASSES[label]}.{index}.png", label, None, image, key)

    return PhotoSet(data, drawn.CLASSES, tuple(photo(index) for index in range(n)))


def _tally(counts: Counter[str]) -> str:
    return ", ".join(f"{counts[name]:,} {name}" for name in sorted(counts))
