"""Results on disk: whole, or not there at all."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from catordog.errors import CatordogError


def write_text(path: Path, text: str) -> None:
    """Write a file so that no reader ever finds half of it.

    Raises:
        CatordogError: it can't be written; what was there before is untouched.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as error:
        raise CatordogError(f"can't write {path}: {error.strerror or error}") from None
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="") as file:
            file.write(text)
        Path(name).chmod(0o666 & ~_umask())
        Path(name).replace(path)
    except OSError as error:
        raise CatordogError(f"can't write {path}: {error.strerror or error}") from None
    finally:
        Path(name).unlink(missing_ok=True)


def _umask() -> int:
    """The permissions that this process takes away; the system only tells when it is set."""
    mask = os.umask(0o022)
    os.umask(mask)
    return mask
