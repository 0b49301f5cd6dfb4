"""Out-of-distribution detection: find photos that show none of the classes.

Softmax can't find them: it divides 100 % among the classes that the network knows. The features
before the last layer can: a photo of no class is far from the features of every validation photo
(deep nearest neighbours, Sun et al. 2022). The ood score is the fraction of validation photos that
are nearer to their neighbours.

Mahalanobis distance, its relative form, energy, the largest logit and ViM did no better. Adding the
margin of the logits helped a little, but also flags photos between two classes, which are
`not sure` and not `neither`.
"""

from __future__ import annotations

import base64
import math
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from catordog.errors import CatordogError

Floats = npt.NDArray[np.floating[Any]]

ACCEPT = 0.99
"""Default true-accept rate: the fraction of validation photos that is not called `neither`."""

MOST_PHOTOS = 1000
"""Neighbours in a model file."""

_EVEN, GRID = 513, 1025
"""How many quantiles of the distances of validation photos a model file has: of old, and now."""

LEVELS = {
    _EVEN: np.arange(1, _EVEN + 1) / _EVEN,
    GRID: 1 - np.linspace(1, 0, GRID) ** 3,  # dense near 1, where true-accept rates are chosen
}
"""The ood score from each quantile on, ascending to 1, by the number of quantiles."""

LEAST_PHOTOS = 50
"""Validation photos that a detector needs."""


@dataclass(frozen=True, slots=True, eq=False)
class OodDetector:
    """Scores photos by their distance from the features of validation photos.

    Attributes:
        bank: normalised features of the neighbours, in 255 steps, `float32 [M, D]`.
        distances: quantiles of the distance, 1 − cosine, of validation photos from their nearest
            neighbours, ascending, `float32 [GRID]`: those at `1 − t³` for GRID values of t, evenly
            spaced from 1 to 0; or 513 evenly spaced ones, from an older file.
    """

    bank: Floats
    distances: Floats
    needs: ClassVar[tuple[str, ...]] = ("features",)
    kind: ClassVar[str] = "neighbours"

    @property
    def shapes(self) -> list[list[int]]:
        """Of the needed outputs for one photo."""
        return [[self.bank.shape[1]]]

    def scores(self, *outputs: Floats) -> npt.NDArray[np.float64]:
        """The ood score: the fraction of validation photos with a smaller distance, `[N]`, 0…1.

        Args:
            outputs: the features before the last layer, `[N, D]`.

        Raises:
            CatordogError: D is not that of the features that it was fitted on.
        """
        (features,) = outputs
        if features.shape[1] != self.bank.shape[1]:
            raise CatordogError(
                f"the model file is damaged: its ood detector takes {self.bank.shape[1]} features, "
                f"and its network has {features.shape[1]}"
            )
        cosine = (_normalised(features).astype(np.float32) @ self.bank.T).max(axis=1)
        ranks = np.searchsorted(self.distances, 1 - cosine, side="right")
        result: npt.NDArray[np.float64] = np.append(0.0, LEVELS[len(self.distances)])[ranks]
        return result

    def __eq__(self, other: object) -> bool:
        return isinstance(other, OodDetector) and all(
            np.array_equal(getattr(self, name), getattr(other, name))
            for name in ("bank", "distances")
        )

    def __hash__(self) -> int:
        return hash(self.distances.tobytes())

    def to_dict(self) -> dict[str, Any]:
        """Plain data for a model file, with one byte for each number of the bank."""
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
        """Read what `to_dict` wrote. Every shape is checked, as model files are untrusted.

        Raises:
            ValueError: a shape or a number is wrong.
        """
        steps = np.frombuffer(base64.b64decode(values["bank"], validate=True), dtype=np.int8)
        photos, step = int(values["photos"]), float(values["step"])
        distances = np.asarray(values["distances"], dtype=np.float32)
        if photos < 1 or not steps.size or steps.size % photos:
            raise ValueError("ood.bank is not rows of features")
        if distances.ndim != 1 or len(distances) not in LEVELS:
            raise ValueError(f"ood.distances is not {GRID} or {_EVEN} numbers")
        if not (np.isfinite(distances).all() and math.isfinite(step)):
            raise ValueError("ood has numbers that are not finite")
        return cls(steps.reshape(photos, -1) * np.float32(step), distances)


def check_enough(n: int) -> None:
    """Check that n validation photos suffice to fit a detector.

    Raises:
        CatordogError: there are fewer than `LEAST_PHOTOS`.
    """
    if n < LEAST_PHOTOS:
        raise CatordogError(
            f"{n} validation photos are too few to fit ood detection: {LEAST_PHOTOS} are needed"
        )


def fit_ood(
    features: Floats, seed: int = 0, groups: npt.NDArray[np.integer[Any]] | None = None
) -> OodDetector:
    """Fit a detector on photos of the classes that took no part in training.

    The distance of each of them is measured to the other photos, not to itself and its copies.

    Args:
        features: of the layer before the logits, `[N, D]`.
        seed: chooses the neighbours, where there are more than `MOST_PHOTOS`.
        groups: `[N]`; copies share a number. None: no copies.

    Raises:
        CatordogError: there are fewer than `LEAST_PHOTOS` different photos.
    """
    n = len(features)
    group = np.arange(n) if groups is None else groups
    check_enough(len(set(group.tolist())))
    rows = _normalised(features)
    chosen = np.sort(np.random.default_rng(seed).permutation(n)[:MOST_PHOTOS])
    step = np.abs(rows[chosen]).max() / 127 or 1.0
    bank = np.rint(rows[chosen] / step) * step  # rounded to a byte each, as in a model file
    cosine = np.empty(n)
    for start in range(0, n, 1000):
        cosines = rows[start : start + 1000] @ bank.T
        copies = group[chosen][None, :] == group[start : start + len(cosines), None]
        cosine[start : start + 1000] = np.where(copies, -np.inf, cosines).max(axis=1)
    # Where there are more than `MOST_PHOTOS`, only copies of a photo may have been chosen.
    distances = np.quantile(1 - cosine[np.isfinite(cosine)], LEVELS[GRID])
    return OodDetector(bank.astype(np.float32), distances.astype(np.float32))


def _normalised(features: Floats) -> npt.NDArray[np.float64]:
    """Signed square roots, which shorten the long tails of rectified features, to unit length."""
    wide = np.asarray(features, dtype=np.float64)
    rows = np.sign(wide) * np.sqrt(np.abs(wide))
    result: npt.NDArray[np.float64] = rows / (np.linalg.norm(rows, axis=1, keepdims=True) + 1e-12)
    return result
