"""Read and rewrite `.onnx` model files: written by `catordog export`, read by the `Classifier`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from catordog.errors import CatordogError, missing_package
from catordog.files import write_bytes
from catordog.model.checkpoint import check_file
from catordog.model.info import ModelInfo

if TYPE_CHECKING:
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
        if KEY not in backend.metadata:
            raise CatordogError(
                "not written by 'catordog export' (it has no class names and no preprocessing)"
            )
        model = ModelInfo.from_dict(json.loads(backend.metadata[KEY]))
    except (CatordogError, ValueError, RecursionError) as error:
        raise CatordogError(f"model {path}: {error}") from None
    size, inputs, logits = model.preprocess.size, *backend.shapes[:2]
    fits = inputs[1:] == [3, size, size] and logits[1:] == [len(model.classes)]
    if model.ood is not None:
        fits = fits and backend.shapes[2:3] == [[inputs[0], model.ood.bank.shape[1]]]
    if not fits:
        raise CatordogError(f"model {path}: its network is not the one that it describes")
    return backend, model


def rewrite(path: Path, model: ModelInfo) -> None:
    """Replace the description in an ONNX file. Its network stays as it is.

    Args:
        path: the file; it is replaced atomically.
        model: the new description.

    Raises:
        CatordogError: the package `onnx` is missing, or the file can't be read or written; then it
            is unchanged.
    """
    try:
        import onnx
    except ImportError as error:
        raise missing_package(error, "export") from None
    open_onnx(path)  # refuses what is not a model of ours
    proto = onnx.load_from_string(path.read_bytes())
    known = {prop.key: prop.value for prop in proto.metadata_props}
    onnx.helper.set_model_props(proto, {**known, KEY: to_json(model)})
    write_bytes(path, proto.SerializeToString())
