"""The table of model file formats, by suffix. To add one, add a row and a module."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from catordog.model import checkpoint, onnx_file
from catordog.model.backends import Backend
from catordog.model.info import ModelInfo


@dataclass(frozen=True, slots=True)
class Format:
    """How a kind of model file is read and rewritten.

    Attributes:
        open: reads a file: a backend that runs its network, and its description.
        rewrite: replaces the description in a file, atomically.
    """

    open: Callable[[Path], tuple[Backend, ModelInfo]]
    rewrite: Callable[[Path, ModelInfo], None]


FORMATS = {
    ".ckpt": Format(checkpoint.open_checkpoint, checkpoint.rewrite),
    ".onnx": Format(onnx_file.open_onnx, onnx_file.rewrite),
}


def format_of(path: Path) -> Format:
    """The format of a model file; a file with another suffix is read as a checkpoint."""
    return FORMATS.get(path.suffix.lower(), FORMATS[".ckpt"])
