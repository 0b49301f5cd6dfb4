"""Run a network with ONNX Runtime, which starts ten times as fast as torch."""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Sequence
from typing import Any

from catordog.errors import CatordogError
from catordog.model.backends import Floats, watch_forks
from catordog.photos.parallel import is_one_of_many


class Graph:
    """Any network in an ONNX file with one input.

    Args:
        data: the file's bytes.

    Attributes:
        input_shape: of the input; a dimension that varies is a name.
        shapes: likewise of each output, by its name.
        metadata: the file's metadata, text by key.

    Raises:
        CatordogError: the bytes are not such a file.
    """

    def __init__(self, data: bytes) -> None:
        self._data = data
        session = _session(data)
        self._start({False: session})
        inputs = session.get_inputs()
        if len(inputs) != 1:
            raise CatordogError(f"it has {len(inputs)} inputs, and not one")
        self._input = inputs[0].name
        self.input_shape: list[Any] = inputs[0].shape
        self.shapes: dict[str, list[Any]] = {x.name: x.shape for x in session.get_outputs()}
        self.metadata: dict[str, str] = dict(session.get_modelmeta().custom_metadata_map)
        watch_forks(self)

    @property
    def data(self) -> bytes:
        """The file's bytes."""
        return self._data

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the outputs."""
        return tuple(self.shapes)

    def run(self, inputs: Floats, names: Sequence[str]) -> tuple[Floats, ...]:
        """The named outputs for inputs of the network's shape.

        Raises:
            CatordogError: the file has no such output.
        """
        for name in names:
            if name not in self.shapes:
                raise CatordogError(f"this ONNX file has no output {name!r}")
        return tuple(self._chosen_session().run(list(names), {self._input: inputs}))

    def _chosen_session(self) -> Any:
        """The session of one thread where others of these work beside it, or that of all cores."""
        alone = is_one_of_many()
        with self._starting:
            if alone not in self._sessions:
                self._sessions[alone] = _session(self._data, threads=int(alone))
            return self._sessions[alone]

    def _start(self, sessions: dict[bool, Any]) -> None:
        """Begin with these sessions: True: of one thread, False: of all cores."""
        self._sessions = sessions
        self._starting = threading.Lock()

    def after_fork(self) -> None:
        """Make the network usable in a forked process, with a new session on its first use."""
        # The old session is never destroyed: that would wait for its threads, which do not exist.
        for session in self._sessions.values():
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(session))
        self._start({})  # with a new lock: another thread may have held the old one

    def __getstate__(self) -> bytes:
        return self._data

    def __setstate__(self, data: bytes) -> None:
        self.__init__(data)  # type: ignore[misc]


class OnnxBackend(Graph):
    """A network in an ONNX file that `catordog export` or `teach` has written.

    Args:
        data: the file's bytes. The first output is `logits`; others go by their names.

    Raises:
        CatordogError: the bytes are not such a file.
    """

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        if self.outputs[:1] != ("logits",):
            raise CatordogError("not written by 'catordog export' (no output 'logits')")

    @property
    def has_features(self) -> bool:
        """Whether the file has features beside the logits."""
        return "features" in self.shapes

    def logits(self, inputs: Floats) -> Floats:
        """Raw logits `[N, C]` of normalised photos `[N, 3, S, S]`."""
        (logits,) = self.run(inputs, ["logits"])
        return logits

    def features(self, inputs: Floats) -> tuple[Floats, Floats]:
        """Raw logits `[N, C]`, and the features `[N, D]` that the last layer computes them from.

        Raises:
            CatordogError: the file has no features.
        """
        logits, features = self.run(inputs, ["logits", "features"])
        return logits, features


def quiet_onnxruntime() -> Any:
    """The package `onnxruntime` with its telemetry off; since 1.29 it reports on Linux, too."""
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # read once, at the import
    import onnxruntime

    onnxruntime.disable_telemetry_events()
    return onnxruntime


def _session(data: bytes, threads: int = 0) -> Any:
    onnxruntime = quiet_onnxruntime()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = threads or int(os.environ.get("CATORDOG_THREADS", "0"))  # 0: all
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # Weights in other files, which a model file may name, would be found only in this "folder".
    options.add_session_config_entry(
        "session.model_external_initializers_file_folder_path", f"{os.devnull}/none"
    )
    try:
        return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its errors have no common class
        reason = " ".join(str(error).split())[:200]
        raise CatordogError(f"not a complete ONNX file ({reason})") from None
