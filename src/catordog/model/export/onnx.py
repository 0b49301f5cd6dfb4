"""Export a model as one ONNX file, with its description in the metadata, for any program."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from catordog.errors import CatordogError, missing_package
from catordog.model.backends.onnx import quiet_onnxruntime
from catordog.model.backends.torch import TorchBackend
from catordog.model.classifier import Classifier
from catordog.model.export import Settings
from catordog.model.export.network import (
    cause_of,
    description,
    exported_network,
    flips_in_graph,
    silence,
)
from catordog.model.onnx_file import KEY

SMALLEST_HALVED = 256
"""Smaller tensors stay in 32 bits: to halve them saves nothing, and biases need the precision."""

Pixels = npt.NDArray[np.uint8]


def export(classifier: Classifier, settings: Settings) -> bytes:
    """The classifier as an ONNX file; see `catordog.model.export.export`."""
    content = to_onnx(classifier, half=settings.precision == "float16")
    if settings.precision == "int8":
        content = quantise(content, classifier, settings.photos)
    return content


def to_onnx(classifier: Classifier, *, half: bool = False) -> bytes:
    """The classifier as an ONNX file.

    Its input `photos` is `float32 [N, 3, S, S]`, normalised. Its outputs are raw `logits` `[N, C]`,
    and `features` `[N, D]` where the network exposes them. The model's description is JSON under
    the metadata key `catordog`.

    Args:
        classifier: of a `.ckpt`.
        half: store weights in 16 bits; they are widened when the file is loaded.

    Raises:
        CatordogError: a package is missing, or the network can't be exported.
    """
    try:
        import onnx
        import onnxscript  # noqa: F401 - torch needs it
    except ImportError as error:
        raise missing_package(error, "export") from None
    import torch

    backend = classifier.backend
    if not isinstance(backend, TorchBackend):
        raise CatordogError("only a .ckpt can be exported")
    model = classifier.model
    network = exported_network(backend, tta_flip=flips_in_graph(model))
    example = torch.zeros(2, 3, model.preprocess.size, model.preprocess.size)
    names = ["logits", "features"] if backend.has_features else ["logits"]
    try:
        with silence():
            program = torch.onnx.export(
                network,
                (example,),
                input_names=["photos"],
                output_names=names,
                dynamic_shapes=({0: torch.export.Dim("n")},),
                dynamo=True,
                verbose=False,
            )
    except Exception as error:  # a network of any origin can fail in any way
        raise CatordogError(f"this network can't be exported to ONNX: {cause_of(error)}") from None
    assert program is not None  # only None when torch writes the file itself
    proto = program.model_proto
    del proto.metadata_props[:]
    for node in proto.graph.node:  # torch adds paths of source files
        del node.metadata_props[:]
        node.doc_string = ""
    proto.producer_name, proto.producer_version = "catordog", ""
    onnx.helper.set_model_props(proto, {KEY: description(classifier)})
    if half:
        halve(proto)
    packed: bytes = proto.SerializeToString()
    return packed


def halve(proto: Any) -> None:
    """Store large tensors in 16 bits, each with a node that widens it when the file is loaded."""
    from onnx import TensorProto, helper, numpy_helper

    graph = proto.graph
    casts = []
    for tensor in graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.dtype != np.float32 or values.size < SMALLEST_HALVED:
            continue
        name = tensor.name
        tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float16), f"{name}.half"))
        casts.append(helper.make_node("Cast", [f"{name}.half"], [name], to=TensorProto.FLOAT))
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)


def quantise(proto: bytes, classifier: Classifier, photos: Pixels) -> bytes:
    """Quantise an ONNX file of `to_onnx` to 8 bits. The first and the last layer stay in 32 bits.

    So do those of each network in an ensemble, and the mean of their logits. A computed first
    layer, as `whiten` makes it, amplifies what 8 bits round off.

    Args:
        proto: the file.
        classifier: the original.
        photos: preprocessed photos `uint8 [N, S, S, 3]` that set the ranges.

    Raises:
        CatordogError: a package is missing.
    """
    quiet_onnxruntime()
    try:
        import onnx

        from catordog.model.export import eight_bits
    except ImportError as error:
        raise missing_package(error, "export") from None

    def ends(nodes: Sequence[Any]) -> list[Any]:
        last = eight_bits.last_linear(nodes)
        return [*eight_bits.first_convolutions(nodes), *last, *eight_bits.following(nodes, last)]

    preprocess = classifier.model.preprocess
    batches = (preprocess.normalise(pixels[None]) for pixels in photos)
    with silence():
        model = eight_bits.quantise(proto, batches, ends)
    onnx.helper.set_model_props(model, {KEY: description(classifier)})
    packed: bytes = model.SerializeToString()
    return packed
