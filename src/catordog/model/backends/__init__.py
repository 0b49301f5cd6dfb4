"""The interface to whatever runs a network: torch or ONNX Runtime."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]


class Backend(Protocol):
    """Runs a network. It can be called from several threads, pickled, and used after a fork."""

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
