"""The kinds of ood detectors that a model file can hold."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Protocol

import numpy as np
import numpy.typing as npt

from catordog.confidence.ood import OodDetector
from catordog.confidence.ood_general import GeneralOodDetector
from catordog.confidence.ood_output import OutputDetector

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
