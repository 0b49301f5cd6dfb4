"""Folders of runs, and checkpoints in them that outlive a kill, a full disk and a second run.

A run is `runs/NAME/version_N`. In its `checkpoints` there are `best.ckpt`, `last.ckpt`, and
`previous.ckpt`: what `last.ckpt` was before, for the day that it can't be read.
"""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from lightning.pytorch.plugins.io import TorchCheckpointIO

from catordog.errors import CatordogError
from catordog.files import write_bytes
from catordog.model.checkpoint import load_checkpoint
from catordog.terminal import info

LAST, PREVIOUS = "last.ckpt", "previous.ckpt"
_LOCK = ".lock"


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes checkpoints so that at every moment a whole one is there.

    Lightning's own writes to the system's temporary folder and moves the file, which copies it
    bit by bit where that is another disk.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None
    ) -> None:
        """Write a checkpoint under its name, at once; `last.ckpt` becomes `previous.ckpt` first.

        Raises:
            CatordogError: the disk is full, or can't be written; the files are as they were.
        """
        del storage_options
        path = Path(path)
        packed = io.BytesIO()
        torch.save(checkpoint, packed)
        write_bytes(path, packed.getvalue(), before=lambda: _keep(path))


def _keep(path: Path) -> None:
    """Give the last checkpoint a second name, so that the new one may take its first."""
    if path.name != LAST or not path.exists():
        return
    spare = path.with_name(f".{PREVIOUS}")
    spare.unlink(missing_ok=True)
    try:
        os.link(path, spare)
    except OSError:  # a file system without links; then it is gone for a moment, never damaged
        path.replace(path.with_name(PREVIOUS))
    else:
        spare.replace(path.with_name(PREVIOUS))


class RunFolder:
    """A folder that belongs to one run, which no other may write to at the same time.

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
            os.utime(path / _LOCK)  # when it was started, for `newest`
        except Timeout:
            raise CatordogError(
                f"{path} is being trained by another process: wait for it, or stop it"
            ) from None
        except OSError as error:
            raise _unwritable(path, error) from None

    @classmethod
    def new(cls, runs: Path) -> RunFolder:
        """The first `version_N` that is not there yet, even if others look for one right now."""
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
        """Let others in."""
        self._lock.release()

    @property
    def name(self) -> str:
        """`version_N`."""
        return self.path.name


def _unwritable(path: Path, error: OSError) -> CatordogError:
    return CatordogError(
        f"can't write to {path} ({error.strerror or error}): start from a folder of your own, "
        "or make room"
    )


def _number(path: Path) -> int:
    number = path.name.rpartition("_")[2]
    return int(number) if number.isdigit() else -1


def find_checkpoint(ckpt_path: str | None, runs: Path) -> tuple[Path | None, Path | None]:
    """The checkpoint to go on from, one that can be read to its end, and the run's folder.

    Args:
        ckpt_path: a file; `last` for the newest of `runs`; None for none.
        runs: the runs of this name, `runs/NAME`.

    Returns:
        A checkpoint; None where nobody asked for one, and where the newest run was stopped before
        its first, and has to begin again. And the folder to go on in; None for a new one.

    Raises:
        CatordogError: there is no such file, or it is no whole checkpoint.
    """
    if ckpt_path is None:
        return None, None
    if ckpt_path != "last":
        path = Path(ckpt_path)
        if not path.is_file():
            raise CatordogError(f"--ckpt_path {ckpt_path}: no such file")
        load_checkpoint(path)  # says what is wrong with it before any photo is read
        run = path.parent.parent
        return path, run if run.parent == runs else None
    newest = _newest(runs)
    folder = (newest or runs) / "checkpoints"
    last, previous = folder / LAST, folder / PREVIOUS
    if not (last.is_file() or previous.is_file()):
        info(
            f"--ckpt_path last: no checkpoint in {newest or runs} yet; starting from the beginning"
        )
        return None, newest
    try:
        load_checkpoint(last)
    except CatordogError as error:
        if not previous.is_file():
            raise
        load_checkpoint(previous)
        info(f"{error}; going on from the one before")
        return previous, newest
    return last, newest


def _newest(runs: Path) -> Path | None:
    """The run that was started last; None if there is none."""

    def started(run: Path) -> float:
        for file in (run / _LOCK, run / "checkpoints" / LAST, run):
            if file.exists():
                return file.stat().st_mtime
        return 0.0

    return max(runs.glob("version_*"), key=started, default=None)
