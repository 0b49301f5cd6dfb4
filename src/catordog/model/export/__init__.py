"""The table of export formats, by suffix. To add one, add a row and a module."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

from catordog.errors import CatordogError
from catordog.model.classifier import Classifier

Precision = Literal["float32", "float16", "int8"]

Content = bytes | dict[str, bytes]
"""Of a file; or of the files of a folder, by their paths in it."""


@dataclass(frozen=True, slots=True)
class Format:
    """An export format.

    Attributes:
        module: has a function `export(classifier, settings) -> Content`. Imported on use, as each
            needs packages of its own, and one may be of a higher room.
        from_onnx: it is made from an ONNX file, which a checkpoint becomes first.
        marker: a file of every folder in this format; empty: the format is one file.
        precisions: that it can have.
    """

    module: str
    from_onnx: bool = False
    marker: str = ""
    precisions: tuple[Precision, ...] = ("float32", "float16", "int8")


EXPORTS = {
    ".onnx": Format("catordog.model.export.onnx"),
    ".html": Format("catordog.web.one_file", from_onnx=True),
    ".mlpackage": Format(
        "catordog.model.export.coreml", marker="Manifest.json", precisions=("float32", "float16")
    ),
    ".tflite": Format("catordog.model.export.tflite", from_onnx=True, precisions=("float32",)),
}


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


def format_of(path: Path, precision: Precision = "float32") -> Format:
    """The export format that a file's suffix names.

    Args:
        path: the file.
        precision: that it is to have.

    Raises:
        CatordogError: it names none, or one without this precision.
    """
    if path.suffix not in EXPORTS:
        *others, last = EXPORTS
        raise CatordogError(f"--out {path}: give a file that ends in {', '.join(others)} or {last}")
    found = EXPORTS[path.suffix]
    if precision not in found.precisions:
        option = {"float16": "--half", "int8": "--int8"}[precision]
        raise CatordogError(f"{option} is not possible for {path.suffix}")
    return found


def export(classifier: Classifier, path: Path, settings: Settings | None = None) -> Content:
    """The content of an exported file or folder.

    Args:
        classifier: of a `.ckpt`; for a format `from_onnx`, of an ONNX file.
        path: the file to write; its suffix names the format.
        settings: None: the defaults.

    Raises:
        CatordogError: the suffix is unknown, a package is missing, or the network can't be
            exported.
    """
    settings = settings or Settings()
    module = import_module(format_of(path, settings.precision).module)
    content: Content = module.export(classifier, settings)
    return content
