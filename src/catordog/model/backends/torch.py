"""Run a network with torch, on the CPU."""

from __future__ import annotations

import pickle  # nosec B403 - only inside the caller's own pickle
import threading
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from catordog.errors import CatordogError
from catordog.model.backends import Floats, watch_forks
from catordog.model.contract import last_layer


class TorchBackend:
    """A torch network on the CPU.

    Args:
        network: maps photos to raw logits.
        size: S, the input size in pixels.
    """

    def __init__(self, network: nn.Module, size: int) -> None:
        # On a CPU, channels-last is up to three times as fast, with the same numbers.
        self.network = network.eval().to(memory_format=torch.channels_last)
        self._size = size
        self._last: nn.Module | None = None
        # Hooks also see the photos of other threads. So one thread runs the network at a time, on
        # all cores.
        self._lock = threading.RLock()
        watch_forks(self)

    @property
    def last(self) -> nn.Module:
        """The last layer, or the network itself if that layer is not a module."""
        with self._lock:
            if self._last is None:
                self._last = last_layer(self.network, self._size)
            return self._last

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of what `run` gives."""
        return ("logits", "features") if self.has_features else ("logits",)

    @property
    def has_features(self) -> bool:
        """Whether the last layer is a module of its own."""
        return self.last is not self.network

    def logits(self, inputs: Floats) -> Floats:
        """Raw logits `[N, C]` of normalised photos `[N, 3, S, S]`."""
        with self._lock, torch.inference_mode():
            result: Floats = self.network(torch.from_numpy(inputs)).float().numpy()
        return result

    def features(self, inputs: Floats) -> tuple[Floats, Floats]:
        """Raw logits `[N, C]`, and the features `[N, D]` that the last layer computes them from.

        Raises:
            CatordogError: the last layer is not a module of its own.
        """
        if not self.has_features:
            raise CatordogError("this network's last layer is not a module of its own")
        seen: list[Floats] = []
        with self._lock:
            hook = self.last.register_forward_pre_hook(
                lambda _, given: seen.append(given[0].float().flatten(1).numpy())
            )
            try:
                logits = self.logits(inputs)
            finally:
                hook.remove()
        return logits, seen[0]

    def run(self, inputs: Floats, names: Sequence[str]) -> tuple[Floats, ...]:
        """The named outputs for normalised photos `[N, 3, S, S]`.

        Raises:
            CatordogError: the network has no such output.
        """
        for name in names:
            if name not in {"logits", "features"}:
                raise CatordogError(f"this network has no output {name!r}")
        if "features" not in names:
            return tuple(self.logits(inputs) for _ in names)
        found = dict(zip(("logits", "features"), self.features(inputs), strict=True))
        return tuple(found[name] for name in names)

    def after_fork(self) -> None:
        """Make the network usable in a forked process."""
        # OpenMP's worker threads do not survive a fork, and the child would wait for them for ever.
        torch.set_num_threads(1)
        self._lock = threading.RLock()  # another thread may have held it

    def __getstate__(self) -> dict[str, Any]:
        # As bytes: multiprocessing would move tensors into shared memory of the sending process.
        packed = pickle.dumps(self.network)
        return {"network": packed, "size": self._size}

    def __setstate__(self, state: dict[str, Any]) -> None:
        network = pickle.loads(state["network"])  # nosec B301 - the caller is unpickling already
        self.__init__(network, state["size"])  # type: ignore[misc]
