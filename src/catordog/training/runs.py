"""Folders of runs, and checkpoints that survive a kill, a full disk and a second run.

A run is `runs/NAME/version_N`. Its `checkpoints` are `best.ckpt`, `last.ckpt`, and `previous.ckpt`:
the former `last.ckpt`, in case the new one gets damaged.
"""

from __future__ import annotations

import io
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from lightning.pytorch.plugins.io import TorchCheckpointIO

from catordog.errors import CatordogError
from catordog.files import write_bytes

LAST, PREVIOUS = "last.ckpt", "previous.ckpt"
FOLDS_COMMAND = "folds.json"
"""In the folder of a run with `--folds`: the configs and options that it was started with."""
_LOCK = ".lock"


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes checkpoints atomically: at every moment there is a complete one.

    Lightning writes to the system's temporary folder and moves the file, which copies it piece by
    piece where that is another disk.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None
    ) -> None:
        """Write a checkpoint; before, an existing `last.ckpt` becomes `previous.ckpt`.

        Raises:
            CatordogError: the disk is full or not writable; the files are unchanged.
        """
        del storage_options
        path = Path(path)
        packed = io.BytesIO()
        torch.save(checkpoint, packed)
        write_bytes(path, packed.getvalue(), before=lambda: _keep_previous(path))


def _keep_previous(path: Path) -> None:
    """Give `last.ckpt` a second name, before the new one replaces it."""
    if path.name != LAST or not path.exists():
        return
    spare = path.with_name(f".{PREVIOUS}")
    spare.unlink(missing_ok=True)
    try:
        os.link(path, spare)
    except OSError:  # no hard links here: `last.ckpt` is missing for a moment, but never damaged
        path.replace(path.with_name(PREVIOUS))
    else:
        spare.replace(path.with_name(PREVIOUS))


class RunFolder:
    """The folder of a run, locked so that no other run writes to it at the same time.

    Args:
        path: `runs/NAME/version_N`.

    Raises:
        CatordogError: another process trains in it, or it can't be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = FileLock(path / _LOCK)
        try:
            self._lock.acquire(timeout=0)
            os.utime(path / _LOCK)  # when the run was started, for `newest_run`
        except Timeout:
            raise CatordogError(
                f"{path} is being trained by another process: wait for it, or stop it"
            ) from None
        except OSError as error:
            raise _unwritable(path, error) from None

    @classmethod
    def new(cls, runs: Path) -> RunFolder:
        """The first free `version_N`, also where several runs look for one at the same time."""
        try:
            runs.mkdir(parents=True, exist_ok=True)
            number = max((_number(path) for path in runs.glob("version_*")), default=-1) + 1
            while True:
                path = runs / f"version_{number}"
                try:
                    path.mkdir()
                except FileExistsError:
                    number += 1
                else:
                    return cls(path)
        except OSError as error:
            raise _unwritable(runs, error) from None

    def release(self) -> None:
        """Unlock the folder, and remove it if the run has written nothing."""
        self._lock.release()
        with suppress(OSError):  # another run may just have taken the folder
            files = [*self.path.iterdir()]
            if all(path.name == _LOCK or "tfevents" in path.name for path in files):
                for path in files:
                    path.unlink()
                self.path.rmdir()

    @property
    def name(self) -> str:
        """`version_N`."""
        return self.path.name


def _unwritable(path: Path, error: OSError) -> CatordogError:
    return CatordogError(
        f"can't write to {path} ({error.strerror or error}): free disk space, or start from a "
        "folder that you can write to"
    )


def _number(path: Path) -> int:
    number = path.name.rpartition("_")[2]
    return int(number) if number.isdigit() else -1


def newest_run(runs: Path) -> Path | None:
    """The run of this name that was started last; None if there is none."""

    def started(run: Path) -> float:
        for file in (run / _LOCK, run / "checkpoints" / LAST, run):
            if file.exists():
                return file.stat().st_mtime
        return 0.0

    return max(runs.glob("version_*"), key=started, default=None)


def shown_path(path: Path) -> str:
    """A path for messages: relative to the current folder if it lies below."""
    try:
        return str(path.resolve().relative_to(Path.cwd()))
    except ValueError:
        return str(path)
