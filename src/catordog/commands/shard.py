"""`catordog shard`: a data set packed for a slow disk, or for many of them."""

from __future__ import annotations

import shlex
from pathlib import Path

from catordog.errors import CatordogError
from catordog.photos.datasets import open_data
from catordog.photos.decode import DecodeRules
from catordog.photos.pack import pack
from catordog.photos.reading import report_failures
from catordog.photos.shards import INDEX, Shards
from catordog.photos.splits import SplitFractions
from catordog.terminal import progress, say


def run(
    data: str,
    out: str,
    photos: int = 1000,
    exclude: str | None = None,
    rules: DecodeRules = DecodeRules(),  # noqa: B008 - frozen
) -> int:
    """Pack the photos of `--data` into shards, and print the command that trains on them.

    Args:
        data: as everywhere.
        out: a folder; shards that an earlier run has packed are kept.
        photos: to a shard.
        exclude: a CSV file with photos to leave out.
        rules: what is decoded.

    Returns:
        0; 1 if some photos could not be read.

    Raises:
        CatordogError: the data set is none, or the folder can't be written.
    """
    if photos < 1:
        raise CatordogError(f"--photos {photos} is not a number of photos")
    folder = Path(out)
    if (folder / INDEX).exists():
        raise CatordogError(f"--out {out}: it has shards already; give another folder")
    found = open_data(data, rules=rules, exclude=exclude)
    say(found.summary())
    found.splits(SplitFractions())
    with progress("packing photos", len(found.photos)) as done:
        failures = pack(found, folder, photos, progress=done)
    shards = len(Shards(folder).shards)
    say(f"{len(found.photos) - len(failures):,} photos in {shards:,} shards; train on them with:")
    print(shlex.join(["catordog", "train", "--data", out]), flush=True)
    report_failures(failures, folder / "unreadable.txt")
    return 1 if failures else 0
