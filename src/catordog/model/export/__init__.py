"""The table of export formats, by suffix. To add one, add a row and a module."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

from catordog.errors import CatordogError
from catordog.model.classifier import Classifier

Precision = Literal["float32", "float16", "int8"]

EXPORTS = {".onnx": "catordog.model.export.onnx", ".html": "catordog.web.one_file"}
"""Modules with a function `export(classifier, settings) -> bytes`. Imported on use, as each needs
packages of its own, and one may be of a higher room."""


@dataclass(frozen=True, slots=True)
class Settings:
    """How to export a classifier.

    Attributes:
        precision: of the weights, and for `int8` also of the arithmetic.
        photos: preprocessed photos `uint8 [N, S, S, 3]` that set the ranges of `int8` numbers.
        runtime: ONNX Runtime Web for a page, as a folder or an archive; None: see
            `catordog.web.runtime`.
    """

    precision: Precision = "float32"
    photos: Any = None
    runtime: Path | None = None


def check_suffix(path: Path) -> None:
    """Check that a file's suffix names an export format.

    Raises:
        CatordogError: it does not.
    """
    if path.suffix not in EXPORTS:
        raise CatordogError(f"--out {path}: give a file that ends in {' or '.join(EXPORTS)}")


def export(classifier: Classifier, path: Path, settings: Settings | None = None) -> bytes:
    """The content of an exported file.

    Args:
        classifier: of a `.ckpt`; for a page, of an ONNX file.
        path: the file to write; its suffix names the format.
        settings: None: the defaults.

    Raises:
        CatordogError: the suffix is unknown, a package is missing, or the network can't be
            exported.
    """
    check_suffix(path)
    module = import_module(EXPORTS[path.suffix])
    content: bytes = module.export(classifier, settings or Settings())
    return content
