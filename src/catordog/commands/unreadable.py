"""Report the photos that a run could not read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from catordog.errors import PhotoError
from catordog.escaping import printable
from catordog.terminal import info


def report_unreadable(failures: Sequence[PhotoError], model: str, split: str) -> None:
    """Report unreadable photos: in the folder of the model's run, or else on the terminal.

    A model that lies elsewhere, as one that was exported or bundled, has no folder for lists.

    Args:
        failures: the errors.
        model: as the user named it.
        split: of the photos.
    """
    from catordog.model.checkpoint import run_folder
    from catordog.photos.reading import report_failures

    path = Path(model)
    if path.parent.name == "checkpoints":
        report_failures(failures, run_folder(path) / f"unreadable-{split}.txt")
        return
    print_unreadable(failures)


def print_unreadable(failures: Sequence[PhotoError]) -> None:
    """Name unreadable photos on the terminal, and count them."""
    for failure in failures:
        info(f"can't be read: {printable(str(failure))}")
    if failures:
        photos = "photo" if len(failures) == 1 else "photos"
        info(f"{len(failures):,} {photos} could not be read")
