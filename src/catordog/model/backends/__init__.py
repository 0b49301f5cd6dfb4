"""The interface to whatever runs a network: torch or ONNX Runtime."""

from __future__ import annotations

import os
import weakref
from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]

BATCH = 16
"""Photos per batch: few enough for the activations to fit into the CPU's caches."""


class Backend(Protocol):
    """Runs a network. It can be called from several threads, pickled, and used after a fork.

    Attributes:
        outputs: names of what `run` gives: `logits` `[N, C]`; `features` `[N, D]`, where the
            network exposes them; and further outputs of an ONNX file.
    """

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of what `run` gives."""

    def run(self, inputs: Floats, names: Sequence[str]) -> tuple[Floats, ...]:
        """The named outputs for normalised photos `[N, 3, S, S]`.

        Raises:
            CatordogError: the network has no such output.
        """

    @property
    def has_features(self) -> bool:
        """Whether `features` works."""

    def logits(self, inputs: Floats) -> Floats:
        """Raw logits `[N, C]` of normalised photos `[N, 3, S, S]`."""

    def features(self, inputs: Floats) -> tuple[Floats, Floats]:
        """Raw logits `[N, C]`, and the features `[N, D]` that the last layer computes them from.

        Raises:
            CatordogError: the network does not expose its features.
        """


class _Forkable(Protocol):
    def after_fork(self) -> None:
        """Make the backend usable in a forked process: threads do not survive a fork."""


_forkables: weakref.WeakSet[_Forkable] = weakref.WeakSet()
_registered = False


def watch_forks(backend: _Forkable) -> None:
    """Call `backend.after_fork()` in every process that this one forks, while it is alive.

    The handler is registered with the first backend and not at import, so that it costs nothing in
    processes that run no network.
    """
    global _registered  # noqa: PLW0603 - Python can't remove such a handler, so one per process
    _forkables.add(backend)
    if not _registered and hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_after_fork)
        _registered = True


def _after_fork() -> None:
    for backend in list(_forkables):
        backend.after_fork()
