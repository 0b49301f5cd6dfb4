"""Export a model as a Core ML package, for apps on Apple devices, with preprocessing inside."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from catordog.errors import CatordogError, missing_package
from catordog.model.backends.onnx import OnnxBackend
from catordog.model.backends.torch import TorchBackend
from catordog.model.classifier import Classifier
from catordog.model.export import Settings
from catordog.model.export.check import check_logits
from catordog.model.export.network import (
    cause_of,
    description,
    exported_network,
    flips_in_graph,
    silence,
)
from catordog.model.onnx_file import KEY
from catordog.model.taught_layer import NETWORK

_LEFT_OUT = "executorch_debug_handle_mapping.json"
"""Written by coremltools for a debugger of another program."""


def export(classifier: Classifier, settings: Settings) -> dict[str, bytes]:
    """The classifier as a Core ML package: the contents of its files, by their paths.

    Its input `photo` is an image of S × S pixels; its program normalises it. Its outputs are raw
    `logits` `[1, C]`, and `features` `[1, D]` where the network exposes them. The model's
    description is JSON in the user-defined metadata, under the key `catordog`; `classes`,
    `temperature` and `threshold` are there too.

    Args:
        classifier: of a `.ckpt`, or of a taught model.
        settings: `float16` also computes in 16 bits.

    Raises:
        CatordogError: the package `coremltools` is missing, or the network can't be exported.
    """
    backend = _torch_backend(classifier)
    try:
        with silence():
            import coremltools
    except ImportError as error:
        raise missing_package(error, "coreml") from None
    import torch

    size = classifier.model.preprocess.size
    network = _with_preprocessing(classifier, backend)
    names = ["logits", "features"] if backend.has_features else ["logits"]
    colours = coremltools.colorlayout.RGB
    half = settings.precision == "float16"
    try:
        with silence(), torch.no_grad():
            program = torch.export.export(network, (torch.zeros(1, 3, size, size),))
            package = coremltools.convert(
                program.run_decompositions({}),
                inputs=[coremltools.ImageType("photo", (1, 3, size, size), color_layout=colours)],
                outputs=[coremltools.TensorType(name) for name in names],
                convert_to="mlprogram",
                compute_precision=getattr(coremltools.precision, "FLOAT16" if half else "FLOAT32"),
                minimum_deployment_target=coremltools.target.iOS16,
                skip_model_load=True,
            )
            _describe(package, classifier)
            return _files_of(package)
    except Exception as error:  # a network of any origin can fail in any way
        raise CatordogError(
            f"this network can't be exported to Core ML: {cause_of(error)}"
        ) from None


def _torch_backend(classifier: Classifier) -> TorchBackend:
    """The network in torch, which coremltools converts.

    Raises:
        CatordogError: there is none.
    """
    backend, model = classifier.backend, classifier.model
    if isinstance(backend, TorchBackend):
        return backend
    if classifier.first_stage is not None:
        raise CatordogError(
            "the included model is no single network, but two with rules between them, which a "
            "Core ML program can't express: export a model of 'catordog teach' or 'catordog train'"
        )
    if model.network != NETWORK or not isinstance(backend, OnnxBackend):
        raise CatordogError(
            "coremltools reads no ONNX files: export the .ckpt that this one was made from"
        )
    from catordog.model.lite import taught_network

    size = model.preprocess.size
    converted = TorchBackend(taught_network(backend.data, len(model.classes)), size)
    photos = np.random.default_rng(0).integers(0, 256, (2, size, size, 3), dtype=np.uint8)
    inputs = model.preprocess.normalise(photos)
    check_logits(backend.logits(inputs), converted.logits(inputs), exact=True)
    return converted


def _with_preprocessing(classifier: Classifier, backend: TorchBackend) -> Any:
    """The network for pixels 0…255: an image input has one scale, and not one for each channel."""
    import torch
    from torch import Tensor, nn

    model = classifier.model
    preprocess = model.preprocess

    class Preprocessed(nn.Module):
        """Normalise pixels, and run the network."""

        mean: Tensor
        std: Tensor

        def __init__(self) -> None:
            super().__init__()
            self.network = exported_network(backend, tta_flip=flips_in_graph(model))
            self.register_buffer("mean", torch.tensor(preprocess.mean)[:, None, None])
            self.register_buffer("std", torch.tensor(preprocess.std)[:, None, None])

        def forward(self, photo: Tensor) -> Any:
            return self.network((photo / 255 - self.mean) / self.std)

    return Preprocessed().eval()


def _describe(package: Any, classifier: Classifier) -> None:
    """Add the model's description to a package."""
    model = classifier.model
    preprocess = model.preprocess
    size = f"{preprocess.size} × {preprocess.size}"
    rule = {
        "squash": "scaled to the square without its aspect ratio",
        "crop": "scaled by its shorter side, and cut at the centre",
        "pad": f"scaled by its longer side, and padded with the colour {preprocess.padding}",
    }[preprocess.resize]
    package.short_description = f"{', '.join(model.classes)}: raw logits of a photo"
    package.input_description["photo"] = f"{size} pixels, {rule}"
    for name in package.output_description:
        package.output_description[name] = (
            "raw logits, in the order of the classes: softmax(logits / temperature) is confidence"
            if name == "logits"
            else "features before the last layer"
        )
    package.user_defined_metadata.update(
        {
            KEY: description(classifier),
            "classes": json.dumps(model.classes, ensure_ascii=False),
            "temperature": repr(model.temperature),
            "threshold": repr(model.threshold),
        }
    )


def _files_of(package: Any) -> dict[str, bytes]:
    """The contents of a package's files, by their paths."""
    with tempfile.TemporaryDirectory() as made:
        root = Path(made) / "made.mlpackage"
        package.save(str(root))
        return {
            path.relative_to(root).as_posix(): path.read_bytes()
            for path in sorted(root.rglob("*"))
            if path.is_file() and path.name != _LEFT_OUT
        }
