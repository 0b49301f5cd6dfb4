"""`catordog export`: a model as one ONNX file, with all that it knows inside, for any program."""

from __future__ import annotations

import json
import logging
import tempfile
import warnings
from contextlib import redirect_stdout
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from catordog.errors import CatordogError, missing_package
from catordog.model.backends import TorchBackend, quiet_onnxruntime
from catordog.model.classifier import Classifier

SMALLEST_HALVED = 256
"""Tensors of fewer numbers stay whole: halving them saves nothing, and biases are worth theirs."""

Pixels = npt.NDArray[np.uint8]


def to_onnx(classifier: Classifier, *, half: bool = False) -> bytes:
    """The classifier as an ONNX file.

    Its input `photos` is `float32 [N, 3, S, S]`, normalised; its outputs are raw `logits`
    `[N, C]`, and `features` `[N, D]` where the network tells them. What the model knows of itself
    is JSON, in the metadata's key `catordog`.

    Args:
        classifier: of a `.ckpt`.
        half: keep weights in 16 bits; they are widened when the file is loaded.

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
    network = _whole(backend, tta_flip=model.tta_flip)
    example = torch.zeros(2, 3, model.preprocess.size, model.preprocess.size)
    names = ["logits", "features"] if backend.has_features else ["logits"]
    try:
        with _silence():
            program = torch.onnx.export(
                network,
                (example,),
                input_names=["photos"],
                output_names=names,
                dynamic_shapes=({0: torch.export.Dim("n")},),
                dynamo=True,
                verbose=False,
            )
    except Exception as error:  # whatever a network of somebody else's trips over
        reason = " ".join(str(error).split())[:200]
        raise CatordogError(f"this network can't be exported to ONNX: {reason}") from None
    assert program is not None  # it is where the result goes to no file
    proto = program.model_proto
    del proto.metadata_props[:]
    for node in proto.graph.node:  # where in whose source a node comes from is nobody's business
        del node.metadata_props[:]
        node.doc_string = ""
    proto.producer_name, proto.producer_version = "catordog", ""
    onnx.helper.set_model_props(proto, {"catordog": _description(classifier)})
    if half:
        _halve(proto)
    packed: bytes = proto.SerializeToString()
    return packed


def _description(classifier: Classifier) -> str:
    """What the model knows of itself; the mirror image is part of the file's network already."""
    model = replace(classifier.model, tta_flip=False)
    return json.dumps(model.to_dict(), ensure_ascii=False, allow_nan=False)


def _whole(backend: TorchBackend, *, tta_flip: bool) -> Any:
    """The network, as what is exported."""
    import torch
    from torch import Tensor, nn

    class Whole(nn.Module):
        """The network, with its mirror image and with its features."""

        def __init__(self) -> None:
            super().__init__()
            self.network = backend.network
            self.last = backend.last if backend.has_features else None

        def forward(self, photos: Tensor) -> tuple[Tensor, ...]:
            inputs = torch.cat([photos, photos.flip(3)]) if tta_flip else photos
            seen: list[Tensor] = []
            if self.last is None:
                return (self._mean(self.network(inputs)),)
            hook = self.last.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
            try:
                logits = self.network(inputs)
            finally:
                hook.remove()
            return self._mean(logits), self._mean(seen[0].flatten(1))

        def _mean(self, rows: Tensor) -> Tensor:
            return rows.view(2, -1, rows.shape[1]).mean(0) if tta_flip else rows

    return Whole().eval()


def _halve(proto: Any) -> None:
    """Keep large tensors in 16 bits, each with a node that widens it when the file is loaded."""
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
    """The file in 8 bits; ranges come from photos, and the last layer stays as it is."""
    quiet_onnxruntime()
    try:
        import onnx
        from onnxruntime import quantization
        from onnxruntime.quantization.shape_inference import quant_pre_process
    except ImportError as error:
        raise missing_package(error, "export") from None

    preprocess = classifier.model.preprocess

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc]
        """Photos one by one."""

        def __init__(self) -> None:
            self.left = iter(photos)

        def get_next(self) -> dict[str, Any] | None:
            pixels = next(self.left, None)
            return None if pixels is None else {"photos": preprocess.normalise(pixels[None])}

    with tempfile.TemporaryDirectory() as made, _silence():
        whole, ready, small = (str(Path(made) / f"{name}.onnx") for name in ("a", "b", "c"))
        Path(whole).write_bytes(proto)
        quant_pre_process(whole, ready, skip_symbolic_shape=True)
        graph = onnx.load(ready).graph
        last = [node.name for node in graph.node if node.op_type in {"Gemm", "MatMul"}][-1:]
        quantization.quantize_static(
            ready,
            small,
            Reader(),
            quant_format=quantization.QuantFormat.QDQ,
            per_channel=True,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            nodes_to_exclude=last,
        )
        model = onnx.load(small)
        onnx.helper.set_model_props(model, {"catordog": _description(classifier)})
        packed: bytes = model.SerializeToString()
    return packed


def _silence() -> Any:
    """Exporters narrate."""
    warnings.filterwarnings("ignore")
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    logging.getLogger("onnxscript").setLevel(logging.ERROR)
    logging.getLogger().setLevel(logging.ERROR)
    return redirect_stdout(StringIO())
