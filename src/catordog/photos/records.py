"""Records of photos by content, kept on disk, so that later runs need not compute them again."""

from __future__ import annotations

import hashlib
import io
from contextlib import suppress
from dataclasses import astuple
from pathlib import Path

import numpy as np
import numpy.typing as npt

from catordog.errors import CatordogError
from catordog.files import write_bytes
from catordog.photos.data_folder import data_folder
from catordog.photos.decode import DecodeRules, decoder_versions

Records = npt.NDArray[np.void]
"""A row for each photo, whose field `key` is the photo's content key."""


def records_file(kind: str, rules: DecodeRules, *settings: object) -> Path:
    """The file of records that depend on how photos are decoded, and on further settings.

    Args:
        kind: what the records are of; the file's name begins with it.
        rules: that the photos are decoded by.
        settings: whose `repr` tells them apart.
    """
    text = repr((1, astuple(rules), decoder_versions(), *settings))
    digest = hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
    return data_folder() / "cache" / f"{kind}-{digest}.npy"


def load_records(file: Path, kind: np.dtype[np.void]) -> Records:
    """The records of a file; none if it is missing, damaged or of another type."""
    try:
        records: Records = np.load(file, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return np.zeros(0, kind)
    return records if records.dtype == kind and records.ndim == 1 else np.zeros(0, kind)


def save_records(file: Path, records: Records) -> None:
    """Replace a file of records; where that is impossible, a later run computes them anew."""
    packed = io.BytesIO()
    np.save(packed, records)
    with suppress(CatordogError, OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(file, packed.getvalue())
