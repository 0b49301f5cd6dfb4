"""The kinds of ood detectors that a model file can hold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, Self

import numpy as np
import numpy.typing as npt

from catordog.confidence.ood import GRID, LEVELS, OodDetector, check_enough
from catordog.confidence.ood_general import GeneralOodDetector

Floats = npt.NDArray[np.floating[Any]]


class Detector(Protocol):
    """Scores how unlike the calibration photos a photo is, from outputs of the network.

    Attributes:
        needs: the names of the outputs that `scores` takes, in order.
    """

    needs: ClassVar[tuple[str, ...]]

    @property
    def shapes(self) -> Sequence[list[int] | None]:
        """Of the needed outputs for one photo; None: any."""

    def scores(self, *outputs: Floats) -> npt.NDArray[np.float64]:
        """The ood score of each photo: the fraction of calibration photos below it, `[N]`, 0…1.

        Args:
            outputs: of the network, `[N, …]` each.
        """

    def to_dict(self) -> dict[str, Any]:
        """Plain data for a model file."""


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


_KINDS: dict[str, type[OodDetector | OutputDetector | GeneralOodDetector]] = {
    GeneralOodDetector.kind: GeneralOodDetector,
    OodDetector.kind: OodDetector,
    OutputDetector.kind: OutputDetector,
}


def detector_from_dict(values: Any) -> Detector:
    """Read what a detector's `to_dict` wrote; files without a `kind` hold an `OodDetector`.

    Raises:
        ValueError: the kind is unknown, or a value is wrong.
        KeyError: a value is missing.
    """
    kind = values.get("kind", OodDetector.kind)
    if kind not in _KINDS:
        raise ValueError(f"ood.kind {kind!r} is not one of {', '.join(_KINDS)}")
    return _KINDS[kind].from_dict(values)
