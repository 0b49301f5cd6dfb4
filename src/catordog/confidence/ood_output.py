"""Out-of-distribution detection by an output that a network has learnt for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from catordog.confidence.ood import GRID, LEVELS, check_enough

Floats = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True, slots=True, eq=False)
class OutputDetector:
    """For a network that has learnt to tell its classes from everything else (outlier exposure).

    Its output `ood` is a raw score without bounds: the higher, the less a photo looks like one of
    the classes (Hendrycks et al. 2019). Only its rank among calibration photos counts.

    Attributes:
        quantiles: of the raw scores of calibration photos, ascending, `float32 [GRID]`, dense
            near the top.
    """

    quantiles: Floats
    needs: ClassVar[tuple[str, ...]] = ("ood",)
    kind: ClassVar[str] = "output"

    @property
    def shapes(self) -> list[list[int]]:
        """Of the needed outputs for one photo."""
        return [[]]

    def scores(self, *outputs: Floats) -> npt.NDArray[np.float64]:
        """The ood score: the fraction of calibration photos with a lower raw score, `[N]`, 0…1.

        Args:
            outputs: the network's output `ood`, `[N]`.
        """
        (raw,) = outputs
        ranks = np.searchsorted(self.quantiles, raw, side="right")
        result: npt.NDArray[np.float64] = np.append(0.0, LEVELS[GRID])[ranks]
        return result

    def __eq__(self, other: object) -> bool:
        return isinstance(other, OutputDetector) and np.array_equal(self.quantiles, other.quantiles)

    def __hash__(self) -> int:
        return hash(self.quantiles.tobytes())

    def to_dict(self) -> dict[str, Any]:
        """Plain data for a model file."""
        return {"kind": self.kind, "quantiles": self.quantiles.tolist()}

    @classmethod
    def from_dict(cls, values: Any) -> Self:
        """Read what `to_dict` wrote. Every number is checked, as model files are untrusted.

        Raises:
            ValueError: a shape or a number is wrong.
        """
        quantiles = np.asarray(values["quantiles"], dtype=np.float32)
        if quantiles.shape != (GRID,) or not np.isfinite(quantiles).all():
            raise ValueError(f"ood.quantiles is not {GRID} numbers")
        if (np.diff(quantiles) < 0).any():
            raise ValueError("ood.quantiles is not ascending")
        return cls(quantiles)


def fit_output(scores: Floats, weights: Floats | None = None) -> OutputDetector:
    """Fit a detector on the raw scores of photos of the classes.

    Args:
        scores: the network's output `ood` for photos that it was not trained on, `[N]`, N ≥ 1.
        weights: of the photos, `[N]`, such as to give each source of photos the same weight;
            None: all alike.

    Raises:
        CatordogError: there are fewer than `LEAST_PHOTOS` photos.
    """
    check_enough(len(scores))
    order = np.argsort(scores)
    mass = np.ones(len(scores)) if weights is None else np.asarray(weights, np.float64)[order]
    levels = (np.cumsum(mass) - mass / 2) / mass.sum()
    quantiles = np.interp(LEVELS[GRID], levels, np.asarray(scores, np.float64)[order])
    return OutputDetector(quantiles.astype(np.float32))
