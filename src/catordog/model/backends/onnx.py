"""Run a network with ONNX Runtime, which starts ten times as fast as torch."""

from __future__ import annotations

import ctypes
import os
from typing import Any

from catordog.errors import CatordogError
from catordog.model.backends import Floats, watch_forks


class OnnxBackend:
    """A network in an ONNX file that `catordog export` has written.

    Args:
        data: the file's bytes. The first output is `logits`; the second, if any, is `features`.

    Attributes:
        shapes: of the input and of each output; a dimension that varies is a name.
        metadata: the file's metadata, text by key.

    Raises:
        CatordogError: the bytes are not such a file.
    """

    def __init__(self, data: bytes) -> None:
        self._data = data
        session = _session(data)
        self._session: Any = session
        inputs, outputs = session.get_inputs(), session.get_outputs()
        self._outputs = [output.name for output in outputs]
        if len(inputs) != 1 or self._outputs[:1] != ["logits"]:
            raise CatordogError("not written by 'catordog export' (no output 'logits')")
        self._input = inputs[0].name
        self.shapes = [inputs[0].shape, *(output.shape for output in outputs)]
        self.metadata = dict(session.get_modelmeta().custom_metadata_map)
        watch_forks(self)

    @property
    def has_features(self) -> bool:
        """Whether the file has features beside the logits."""
        return len(self._outputs) > 1

    def logits(self, inputs: Floats) -> Floats:
        """Raw logits `[N, C]` of normalised photos `[N, 3, S, S]`."""
        (logits,) = self._run(self._outputs[:1], inputs)
        result: Floats = logits
        return result

    def features(self, inputs: Floats) -> tuple[Floats, Floats]:
        """Raw logits `[N, C]`, and the features `[N, D]` that the last layer computes them from.

        Raises:
            CatordogError: the file has no features.
        """
        if not self.has_features:
            raise CatordogError("this ONNX file has no features beside its logits")
        logits, features = self._run(self._outputs[:2], inputs)
        return logits, features

    def _run(self, outputs: list[str], inputs: Floats) -> Any:
        if self._session is None:
            self._session = _session(self._data)
        return self._session.run(outputs, {self._input: inputs})

    def after_fork(self) -> None:
        """Make the network usable in a forked process, with a new session on its first use."""
        # The old session is never destroyed: that would wait for its threads, which do not exist.
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._session))
        self._session = None

    def __getstate__(self) -> bytes:
        return self._data

    def __setstate__(self, data: bytes) -> None:
        self.__init__(data)  # type: ignore[misc]


def quiet_onnxruntime() -> Any:
    """The package `onnxruntime` with its telemetry off; since 1.29 it reports on Linux, too."""
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # read once, at the import
    import onnxruntime

    onnxruntime.disable_telemetry_events()
    return onnxruntime


def _session(data: bytes) -> Any:
    onnxruntime = quiet_onnxruntime()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = int(os.environ.get("CATORDOG_THREADS", "0"))  # 0: all cores
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its errors have no common class
        reason = " ".join(str(error).split())[:200]
        raise CatordogError(f"not a complete ONNX file ({reason})") from None
