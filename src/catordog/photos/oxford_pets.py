"""The official layout of Oxford-IIIT Pet: lists of `name id species breed` beside `images/`.

Parkhi, Vedaldi, Zisserman, Jawahar (2012), *Cats and Dogs*, CVPR; `annotations/README` there.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePosixPath

from catordog.photos.layouts import Labels
from catordog.photos.splits import Split
from catordog.photos.stores import Store

ANNOTATIONS = ("annotations/trainval.txt", "annotations/test.txt")
"""The lists that a dataset in this layout has, below any wrapper folders."""

_SPECIES = {"1": "cat", "2": "dog"}


def labels_from_annotations(
    annotations: Sequence[str], photos: Sequence[str], store: Store
) -> Labels:
    """Labels by species, and the official test split.

    Args:
        annotations: names of the lists in the store; see `ANNOTATIONS`.
        photos: names of the photos in the store.
        store: where both are.

    Returns:
        The photos under `images/` that a list names; empty if there are none.

    Raises:
        PhotoError: a list can't be read.
    """
    by_stem = {
        PurePosixPath(photo).stem: photo
        for photo in photos
        if PurePosixPath(photo).parent.name == "images"
    }
    entries: dict[str, tuple[str, Split]] = {}
    for annotation in sorted(annotations, reverse=True):  # trainval.txt, then test.txt
        split: Split = "test" if PurePosixPath(annotation).name == "test.txt" else "train"
        for line in store.read(annotation).decode("utf-8", "replace").splitlines():
            fields = line.split()
            if len(fields) == 4 and fields[0] in by_stem and fields[2] in _SPECIES:
                entries[by_stem[fields[0]]] = (_SPECIES[fields[2]], split)
    found = Labels()
    for name, (label, split) in sorted(entries.items()):
        found.add(name, label, split)
    return found
