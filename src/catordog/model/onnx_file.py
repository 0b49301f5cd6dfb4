"""Read and rewrite `.onnx` model files: written by `catordog export` and `catordog teach`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from catordog.errors import CatordogError
from catordog.files import write_bytes
from catordog.model.checkpoint import check_file
from catordog.model.info import ModelInfo
from catordog.model.onnx_graph import metadata_of, with_metadata

if TYPE_CHECKING:
    from catordog.model.backends.deferred import DeferredBackend
    from catordog.model.backends.onnx import OnnxBackend

MAX_ONNX_BYTES = 2 * 2**30

KEY = "catordog"
"""Of the metadata: the model's description, as JSON."""


def to_json(model: ModelInfo) -> str:
    """A description as the metadata of an ONNX file."""
    return json.dumps(model.to_dict(), ensure_ascii=False, allow_nan=False)


def open_onnx(path: Path) -> tuple[OnnxBackend, ModelInfo]:
    """Read an ONNX file: a backend that runs its network, and its description.

    The file is data: it can't refer to other files, and no code in it is executed.

    Raises:
        CatordogError: the file is missing, damaged, or not written by `catordog export`.
    """
    check_file(path, MAX_ONNX_BYTES, "one that 'catordog export' has written")
    from catordog.model.backends.onnx import OnnxBackend

    try:
        backend = OnnxBackend(path.read_bytes())  # from bytes, a session opens no other file
    except CatordogError as error:
        raise CatordogError(f"model {path}: {error}") from None
    model = description(backend.metadata, path)
    size = model.preprocess.size
    varying = [size if isinstance(length, str) else length for length in backend.input_shape]
    fits = varying[1:] == [3, size, size]
    fits = fits and backend.shapes["logits"][1:] == [len(model.classes)]
    if model.ood is not None and model.backbone is None:
        for name, shape in zip(model.ood.needs, model.ood.shapes, strict=True):
            fits = fits and shape in (None, backend.shapes.get(name, [0, 0, 0])[1:])
    fits = fits and backend.shapes.get("regions", [len(model.classes)])[-1:] == [len(model.classes)]
    if not fits:
        raise CatordogError(f"model {path}: its network is not the one that it describes")
    return backend, model


def description(metadata: Mapping[str, str], path: Path) -> ModelInfo:
    """The description of a model in the metadata of its ONNX file.

    Args:
        metadata: of the file, text by key.
        path: of the file, for the error message.

    Raises:
        CatordogError: it has none, or an unusable one.
    """
    try:
        if KEY not in metadata:
            raise CatordogError(
                "not written by 'catordog export' (it has no class names and no preprocessing)"
            )
        return ModelInfo.from_dict(json.loads(metadata[KEY]))
    except (CatordogError, ValueError, RecursionError) as error:
        raise CatordogError(f"model {path}: {error}") from None


def open_bundled(path: Path) -> tuple[DeferredBackend, ModelInfo]:
    """Read a file of the package: its network starts on its first use.

    Raises:
        CatordogError: the file is missing or damaged.
    """
    from catordog.model.backends.deferred import DeferredBackend

    try:
        backend = DeferredBackend(path.read_bytes())
        return backend, ModelInfo.from_dict(json.loads(backend.metadata[KEY]))
    except (OSError, KeyError, ValueError) as error:
        raise CatordogError(f"model {path}: damaged ({error!r}): install catordog again") from None


def rewrite(path: Path, model: ModelInfo) -> None:
    """Replace the description in an ONNX file. Its network stays as it is.

    Args:
        path: the file; it is replaced atomically.
        model: the new description.

    Raises:
        CatordogError: the file can't be read or written; then it is unchanged.
    """
    open_onnx(path)  # refuses what is not a model of ours
    data = path.read_bytes()
    write_bytes(path, with_metadata(data, {**metadata_of(data), KEY: to_json(model)}))
