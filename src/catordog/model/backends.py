"""What runs a network: torch, or ONNX Runtime, which starts in a tenth of the time."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from catordog.errors import CatordogError
from catordog.model.checkpoint import check_file

if TYPE_CHECKING:
    from torch import nn

Floats = npt.NDArray[np.float32]


class Backend(Protocol):
    """A network that only needs to be called; several threads may do so at once."""

    @property
    def has_features(self) -> bool:
        """Whether `features` works."""

    def logits(self, inputs: Floats) -> Floats:
        """Raw logits `[N, C]` of normalised photos `[N, 3, S, S]`."""

    def features(self, inputs: Floats) -> tuple[Floats, Floats]:
        """Raw logits `[N, C]`, and what the last layer makes them from, `[N, D]`.

        Raises:
            CatordogError: the network doesn't tell.
        """


class TorchBackend:
    """A network of torch, on the CPU.

    Args:
        network: from photos to raw logits.
        size: S, of its photos.
        tta_flip: make logits and features the mean of those of a photo and of its mirror image.
    """

    def __init__(self, network: nn.Module, size: int, *, tta_flip: bool = False) -> None:
        import torch

        # Colours beside each other: up to three times as fast on a CPU, and the same numbers.
        self.network = network.eval().to(memory_format=torch.channels_last)
        self._size = size
        self._tta_flip = tta_flip
        self._last: nn.Module | None = None
        self._alone = threading.Lock()  # a hook would hear of other threads' photos, too

    @property
    def last(self) -> nn.Module:
        """The last layer, or the network itself if that layer is in no module of its own."""
        from catordog.model.contract import last_layer

        if self._last is None:
            self._last = last_layer(self.network, self._size)
        return self._last

    @property
    def has_features(self) -> bool:
        """Whether the last layer is in a module of its own."""
        return self.last is not self.network

    def logits(self, inputs: Floats) -> Floats:
        """Raw logits `[N, C]` of normalised photos `[N, 3, S, S]`."""
        import torch

        with torch.inference_mode():
            photos = torch.from_numpy(inputs)
            found = self.network(photos)
            if self._tta_flip:
                found = (found + self.network(photos.flip(3))) / 2
            result: Floats = found.float().numpy()
        return result

    def features(self, inputs: Floats) -> tuple[Floats, Floats]:
        """Raw logits `[N, C]`, and what the last layer makes them from, `[N, D]`.

        Raises:
            CatordogError: the last layer is in no module of its own.
        """
        if not self.has_features:
            raise CatordogError("this network's last layer is in no module of its own")
        seen: list[Floats] = []
        with self._alone:
            hook = self.last.register_forward_pre_hook(
                lambda _, given: seen.append(given[0].float().flatten(1).numpy())
            )
            try:
                logits = self.logits(inputs)
            finally:
                hook.remove()
        # The last layer is linear: the mean of both features makes the mean of both logits.
        mean: Floats = np.mean(seen, axis=0, dtype=np.float32)
        return logits, mean


class OnnxBackend:
    """A network in an ONNX file that `catordog export` has written.

    Args:
        session: of ONNX Runtime; its first output is logits, its second, if any, features.

    Attributes:
        shapes: of the input and of the outputs, as the file has them; what varies is a name.
    """

    def __init__(self, session: Any) -> None:
        self._session = session
        self._input = session.get_inputs()[0].name
        self._outputs = [output.name for output in session.get_outputs()]
        self.shapes = [session.get_inputs()[0].shape, *(x.shape for x in session.get_outputs())]

    @property
    def has_features(self) -> bool:
        """Whether the file has features beside the logits."""
        return len(self._outputs) > 1

    def logits(self, inputs: Floats) -> Floats:
        """Raw logits `[N, C]` of normalised photos `[N, 3, S, S]`."""
        (found,) = self._session.run(self._outputs[:1], {self._input: inputs})
        result: Floats = found
        return result

    def features(self, inputs: Floats) -> tuple[Floats, Floats]:
        """Raw logits `[N, C]`, and what the last layer makes them from, `[N, D]`.

        Raises:
            CatordogError: the file has no features.
        """
        if not self.has_features:
            raise CatordogError("this ONNX file has no features beside its logits")
        logits, features = self._session.run(self._outputs[:2], {self._input: inputs})
        return logits, features


def quiet_onnxruntime() -> Any:
    """The package `onnxruntime`, told to report to nobody: from 1.29 on it would, also on Linux."""
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # it is read once, at the import
    import onnxruntime

    onnxruntime.disable_telemetry_events()
    return onnxruntime


MAX_ONNX_BYTES = 2 * 2**30


def open_onnx(path: Path) -> tuple[OnnxBackend, dict[str, str]]:
    """Read an ONNX file as data: it can't name other files, and no code of its own runs.

    Returns:
        the network, and what the file says of itself, by key.

    Raises:
        CatordogError: it is missing, damaged, or not one of ours.
    """
    check_file(path, MAX_ONNX_BYTES, "one that 'catordog export' has written")
    onnxruntime = quiet_onnxruntime()
    data = path.read_bytes()  # from bytes, a session reads no other file that they may name

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = int(os.environ.get("CATORDOG_THREADS", "0"))  # 0: all cores
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its errors have no common class
        reason = " ".join(str(error).split())[:200]
        raise CatordogError(f"model {path}: not a whole ONNX file ({reason})") from None
    outputs = [output.name for output in session.get_outputs()]
    if len(session.get_inputs()) != 1 or outputs[:1] != ["logits"]:
        raise CatordogError(f"model {path}: not written by 'catordog export' (no output 'logits')")
    return OnnxBackend(session), dict(session.get_modelmeta().custom_metadata_map)
