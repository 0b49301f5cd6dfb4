"""Write a folder of files that belong together: beside the old one, which it then replaces."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

from catordog.errors import CatordogError
from catordog.escaping import AnyPath, printable
from catordog.files import resolved
from catordog.outputs import check_folder


def check_replaceable(option: str, path: AnyPath, marker: str) -> None:
    """Refuse a folder that can't be written, or that would replace something else, before any work.

    Args:
        option: that names it.
        path: the folder.
        marker: a file that is in every folder of this kind; nothing else is ever replaced.

    Raises:
        CatordogError: it can't be written, or something else is there.
    """
    target = resolved(path)
    check_folder(option, target.parent)
    if os.path.lexists(target) and not (target / marker).is_file():
        raise CatordogError(
            f"{option} {printable(path)} exists, and is no folder with a {marker}: "
            "give another name"
        )


def write_folder(path: Path, files: Mapping[str, bytes]) -> None:
    """Write a folder; see `check_replaceable`.

    Args:
        path: the folder.
        files: their contents, by their paths in the folder.

    Raises:
        CatordogError: it can't be written; an existing folder is unchanged.
    """
    target = resolved(path)
    prefix = f".{target.name[:30]}."
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=prefix) as made:
            new, old = Path(made) / "new", Path(made) / "old"
            for name, data in files.items():
                (new / name).parent.mkdir(parents=True, exist_ok=True)
                with (new / name).open("wb") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
            try:
                if target.exists():
                    target.rename(old)
                new.rename(target)
            except BaseException:  # Ctrl-C included: what is in `made` is removed
                if old.exists() and not target.exists():
                    old.rename(target)
                raise
    except OSError as error:
        raise CatordogError(f"can't write {printable(path)}: {error.strerror or error}") from None
