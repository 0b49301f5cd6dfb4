"""Export a model as one TFLite file for LiteRT, with its description inside, for phones."""

from __future__ import annotations

import io
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from catordog.errors import CatordogError, missing_package
from catordog.model.backends.onnx import OnnxBackend
from catordog.model.classifier import Classifier
from catordog.model.export import Settings
from catordog.model.export.check import TOLERANCE
from catordog.model.export.network import cause_of, silence
from catordog.model.onnx_file import to_json
from catordog.model.onnx_graph import with_metadata
from catordog.photos.synthetic import draw

DESCRIPTION, LABELS = "catordog.json", "labels.txt"
"""Files in the zip archive at the end of a TFLite file, where LiteRT's own tools put theirs."""

CHECKED = 8
"""Synthetic pictures, for which all outputs are compared."""


def export(classifier: Classifier, settings: Settings) -> bytes:  # noqa: ARG001 - as all formats
    """The classifier as a TFLite file.

    Its input `photos` is `float32 [1, S, S, 3]`, normalised; the size of the batch can be changed.
    Its outputs are those of the ONNX file, by their names. The file is a zip archive, too, with the
    model's description as `catordog.json`, and the class names in `labels.txt`.

    Args:
        classifier: of an ONNX file; of a cascade, the large network is taken.
        settings: not used.

    Raises:
        CatordogError: a package is missing, the network can't be converted, or the file gives other
            outputs.
    """
    try:
        with silence():
            import onnx2tf
            from ai_edge_litert import interpreter as litert
    except ImportError as error:
        if not (3, 12) <= sys.version_info < (3, 14):
            version = f"{sys.version_info.major}.{sys.version_info.minor}"
            raise CatordogError(
                f"the converter for .tflite needs Python 3.12 or 3.13, and this is {version}: "
                "run 'catordog export' in such an environment"
            ) from None
        raise missing_package(error, "tflite") from None
    backend = classifier.backend
    if not isinstance(backend, OnnxBackend):
        raise CatordogError("only an ONNX file can become a TFLite file")
    with tempfile.TemporaryDirectory() as made:
        source = Path(made) / "model.onnx"
        source.write_bytes(with_metadata(backend.data, {}))
        try:
            with silence():
                onnx2tf.convert(str(source), output_folder_path=made, non_verbose=True)
            content = (Path(made) / "model_float32.tflite").read_bytes()
        except (Exception, SystemExit) as error:  # it also ends the process
            reason = cause_of(error)
            raise CatordogError(f"this network can't become a TFLite file: {reason}") from None
    _check(content, classifier, litert)
    return _with_files(
        content,
        {DESCRIPTION: to_json(classifier.model), LABELS: "\n".join(classifier.classes) + "\n"},
    )


def _check(content: bytes, classifier: Classifier, litert: Any) -> None:
    """Check that a TFLite file gives the outputs of the original.

    Raises:
        CatordogError: it does not.
    """
    preprocess, backend = classifier.model.preprocess, classifier.backend
    pixels = [np.asarray(draw(i, 0, size=preprocess.size).image) for i in range(CHECKED)]
    inputs = preprocess.normalise(np.stack(pixels))
    # Without a delegate, which writes a line to stderr.
    resolver = litert.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    run = litert.Interpreter(
        model_content=content, experimental_op_resolver_type=resolver
    ).get_signature_runner()
    rows: list[dict[str, npt.NDArray[np.float32]]] = [
        run(photos=photo.transpose(1, 2, 0)[None]) for photo in inputs
    ]
    for name, expected in zip(backend.outputs, backend.run(inputs, backend.outputs), strict=True):
        found = np.concatenate([row[name] for row in rows])
        allowed = TOLERANCE * max(1.0, float(np.abs(expected).max()))
        if found.shape != expected.shape or not np.abs(found - expected).max() <= allowed:
            raise CatordogError(
                f"this network can't become a TFLite file: the converter onnx2tf changes {name!r}"
            )


def _with_files(content: bytes, files: dict[str, str]) -> bytes:
    """A TFLite file with these text files at its end, as a zip archive."""
    packed = io.BytesIO(content)
    with zipfile.ZipFile(packed, "a") as archive:
        for name, text in files.items():
            archive.writestr(zipfile.ZipInfo(name), text)  # with a fixed date
    return packed.getvalue()
