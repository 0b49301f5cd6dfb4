"""The table of export formats, by suffix. To add one, add a row and a module."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any, Literal

from catordog.errors import CatordogError
from catordog.model.classifier import Classifier

Precision = Literal["float32", "float16", "int8"]

EXPORTS = {".onnx": "catordog.model.export.onnx"}
"""Modules with a function `export(classifier, precision, photos) -> bytes`, which takes the
arguments of `export` below. Imported on use, as each needs packages of its own."""


def check_suffix(path: Path) -> None:
    """Check that a file's suffix names an export format.

    Raises:
        CatordogError: it does not.
    """
    if path.suffix not in EXPORTS:
        raise CatordogError(f"--out {path}: give a file that ends in {' or '.join(EXPORTS)}")


def export(
    classifier: Classifier, path: Path, precision: Precision = "float32", photos: Any = None
) -> bytes:
    """The content of an exported file.

    Args:
        classifier: of a `.ckpt`.
        path: the file to write; its suffix names the format.
        precision: of the weights, and for `int8` also of the arithmetic.
        photos: preprocessed photos `uint8 [N, S, S, 3]` that set the ranges of `int8` numbers.

    Raises:
        CatordogError: the suffix is unknown, a package is missing, or the network can't be
            exported.
    """
    check_suffix(path)
    content: bytes = import_module(EXPORTS[path.suffix]).export(classifier, precision, photos)
    return content
