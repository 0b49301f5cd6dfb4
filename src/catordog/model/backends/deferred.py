"""An ONNX backend that starts on its first use, since a first stage may answer for every photo."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from catordog.model.backends import Floats, watch_forks
from catordog.model.backends.onnx import OnnxBackend
from catordog.model.onnx_graph import metadata_of, output_names


class DeferredBackend:
    """A network in an ONNX file that is known to be sound, such as the one of the package.

    Args:
        data: the file's bytes, as `OnnxBackend` takes them.

    Attributes:
        metadata: the file's metadata, text by key.

    Raises:
        ValueError: the bytes are not an ONNX model.
    """

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._names = tuple(output_names(data))
        self.metadata = metadata_of(data)
        self._backend: OnnxBackend | None = None
        self._lock = threading.Lock()
        watch_forks(self)

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the outputs."""
        return self._names

    @property
    def has_features(self) -> bool:
        """Whether the file has features beside the logits."""
        return "features" in self._names

    @property
    def has_started(self) -> bool:
        """Whether the network has been used."""
        return self._backend is not None

    def run(self, inputs: Floats, names: Sequence[str]) -> tuple[Floats, ...]:
        """The named outputs for normalised photos `[N, 3, S, S]`.

        Raises:
            CatordogError: the file has no such output.
        """
        return self._started().run(inputs, names)

    def logits(self, inputs: Floats) -> Floats:
        """Raw logits `[N, C]` of normalised photos `[N, 3, S, S]`."""
        return self._started().logits(inputs)

    def features(self, inputs: Floats) -> tuple[Floats, Floats]:
        """Raw logits `[N, C]`, and the features `[N, D]`.

        Raises:
            CatordogError: the file has no features.
        """
        return self._started().features(inputs)

    def _started(self) -> OnnxBackend:
        with self._lock:
            if self._backend is None:
                self._backend = OnnxBackend(self._data)
            return self._backend

    def after_fork(self) -> None:
        """Make the backend usable in a forked process; another thread may have held the lock."""
        self._lock = threading.Lock()

    def __getstate__(self) -> bytes:
        return self._data

    def __setstate__(self, data: bytes) -> None:
        self.__init__(data)  # type: ignore[misc]
