"""An ONNX backend that starts on its first use, since a first stage may answer for every photo."""

from __future__ import annotations

from catordog.model.backends import watch_forks
from catordog.model.backends.onnx import OnnxBackend
from catordog.model.onnx_graph import metadata_of, output_names


class DeferredBackend(OnnxBackend):
    """A network in an ONNX file that is known to be sound, such as the one of the package.

    It starts as a network does after a fork: with a new session on its first use. Shapes are not
    known.

    Args:
        data: the file's bytes, as `OnnxBackend` takes them. The input is `photos`.

    Raises:
        ValueError: the bytes are not an ONNX model.
    """

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._start({})
        self._input = "photos"
        self.input_shape = []
        self.shapes = {name: [] for name in output_names(data)}
        self.metadata = metadata_of(data)
        watch_forks(self)

    @property
    def has_started(self) -> bool:
        """Whether the network has been used."""
        return bool(self._sessions)
