"""Run a network with ONNX Runtime, which starts ten times as fast as torch."""

from __future__ import annotations

import os
from typing import Any

from catordog.errors import CatordogError
from catordog.model.backends import Floats


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
        self._session = _session(data)
        self._process = os.getpid()
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        self._outputs = [output.name for output in outputs]
        if len(inputs) != 1 or self._outputs[:1] != ["logits"]:
            raise CatordogError("not written by 'catordog export' (no output 'logits')")
        self._input = inputs[0].name
        self.shapes = [inputs[0].shape, *(output.shape for output in outputs)]
        self.metadata = dict(self._session.get_modelmeta().custom_metadata_map)

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
        if self._process != os.getpid():
            self._renew()
        return self._session.run(outputs, {self._input: inputs})

    def _renew(self) -> None:
        """Open a new session: the old one's threads do not survive a fork."""
        _ABANDONED.append(self._session)
        self._session, self._process = _session(self._data), os.getpid()

    def __getstate__(self) -> bytes:
        return self._data

    def __setstate__(self, data: bytes) -> None:
        self.__init__(data)  # type: ignore[misc]


_ABANDONED: list[Any] = []
"""Sessions of a parent process. To close one would mean to wait for threads that do not exist."""


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
