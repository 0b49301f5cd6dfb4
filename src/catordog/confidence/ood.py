"""Is it any of the classes at all? Softmax can't say: it shares out 100 % among those it knows.

The features before the last layer can: a photo of no class lies far from every validation photo
(Sun et al. 2022). How far is told as the share of validation photos that lie nearer to theirs.

Mahalanobis distances, also relative ones, energy, the largest logit and ViM did no better. The
margin of the logits added a little, but it would call what is between two classes `neither`, and
that is `not sure`.
"""

from __future__ import annotations

import base64
import math
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from catordog.errors import CatordogError

Floats = npt.NDArray[np.floating[Any]]

ACCEPT = 0.95
"""The share of validation photos that is not called `neither`."""

MOST_PHOTOS = 1000
"""So many are kept as neighbours."""
GRID = 513
"""Quantiles that stand for all validation photos."""

LEAST_PHOTOS = 50


@dataclass(frozen=True, slots=True, eq=False)
class OodDetector:
    """What a model file knows of its validation photos, to tell others by.

    Attributes:
        bank: their features, levelled and of unit length, in 255 steps, `float32 [M, D]`.
        distances: quantiles of the distance, 1 − cosine, of validation photos from their nearest
            neighbours, rising, `float32 [GRID]`.
    """

    bank: Floats
    distances: Floats

    def scores(self, features: Floats) -> npt.NDArray[np.float64]:
        """The share of validation photos that look less strange, `[N]`, each in 0…1.

        Args:
            features: what the last layer makes logits from, `[N, D]`.

        Raises:
            CatordogError: the features are not those that it was fitted on.
        """
        if features.shape[1] != self.bank.shape[1]:
            raise CatordogError(
                f"the model file is damaged: it knows {self.bank.shape[1]} features, and its "
                f"network has {features.shape[1]}"
            )
        near = (_levelled(features).astype(np.float32) @ self.bank.T).max(axis=1)
        places = np.searchsorted(self.distances, 1 - near, side="right")
        result: npt.NDArray[np.float64] = places / len(self.distances)
        return result

    def __eq__(self, other: object) -> bool:
        return isinstance(other, OodDetector) and all(
            np.array_equal(getattr(self, name), getattr(other, name)) for name in self.__slots__
        )

    def __hash__(self) -> int:
        return hash(self.distances.tobytes())

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for a model file: a byte for each number of the bank."""
        steps = np.rint(self.bank / self._step).astype(np.int8)
        return {
            "bank": base64.b64encode(steps.tobytes()).decode(),
            "photos": len(self.bank),
            "step": self._step,
            "distances": self.distances.tolist(),
        }

    @property
    def _step(self) -> float:
        return float(np.abs(self.bank).max()) / 127 or 1.0

    @classmethod
    def from_dict(cls, values: Any) -> Self:
        """Read back what `to_dict` wrote; every shape is checked, since files come from anywhere.

        Raises:
            ValueError: it doesn't fit.
        """
        steps = np.frombuffer(base64.b64decode(values["bank"], validate=True), dtype=np.int8)
        photos, step = int(values["photos"]), float(values["step"])
        distances = np.asarray(values["distances"], dtype=np.float32)
        if photos < 1 or not steps.size or steps.size % photos:
            raise ValueError("novelty.bank is not rows of features")
        if distances.shape != (GRID,):
            raise ValueError(f"novelty.distances is not {GRID} numbers")
        if not (np.isfinite(distances).all() and math.isfinite(step)):
            raise ValueError("novelty has numbers that are not finite")
        return cls(steps.reshape(photos, -1) * np.float32(step), distances)


def fit_ood(features: Floats, seed: int = 0) -> OodDetector:
    """Learn what photos of the classes look like, from photos that took no part in training.

    How strange each of them is, is measured without itself among the neighbours.

    Args:
        features: `[N, D]`.
        seed: of the choice of neighbours, where there are more than `MOST_PHOTOS`.

    Raises:
        CatordogError: there are too few photos.
    """
    n = len(features)
    if n < LEAST_PHOTOS:
        raise CatordogError(f"{n} validation photos are too few to learn 'neither' from")
    levelled = _levelled(features)
    chosen = np.sort(np.random.default_rng(seed).permutation(n)[:MOST_PHOTOS])
    step = np.abs(levelled[chosen]).max() / 127 or 1.0
    bank = np.rint(levelled[chosen] / step) * step  # as a model file keeps them, in a byte each
    near = np.empty(n)
    for start in range(0, n, 1000):
        likeness = levelled[start : start + 1000] @ bank.T
        itself = chosen[None, :] == np.arange(start, start + len(likeness))[:, None]
        near[start : start + 1000] = np.where(itself, -np.inf, likeness).max(axis=1)
    distances = np.quantile(1 - near, np.linspace(0, 1, GRID))
    return OodDetector(bank.astype(np.float32), distances.astype(np.float32))


def _levelled(features: Floats) -> npt.NDArray[np.float64]:
    """Square roots, as sums of rectified values have long tails; then unit length."""
    wide = np.asarray(features, dtype=np.float64)
    rows = np.sign(wide) * np.sqrt(np.abs(wide))
    result: npt.NDArray[np.float64] = rows / (np.linalg.norm(rows, axis=1, keepdims=True) + 1e-12)
    return result
