"""What the file of a general backbone says about photos in general, for ood detection from few."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from catordog.confidence.ood_general import GeneralOodDetector, fit_general_ood
from catordog.confidence.specialty import Specialty

BACKGROUND_KEY, SPECIALTY_KEY = "catordog.background", "catordog.specialty"
"""Of the metadata of an ONNX file."""


@dataclass(frozen=True, slots=True)
class Knowledge:
    """What a backbone knows beside its features and concepts.

    Attributes:
        background: the mean confidence in each of the K concepts on everyday photos,
            `float32 [K]`, 0…1; None where the file does not say.
        specialty: the group of things that it knows best; None where it has none.
    """

    background: npt.NDArray[np.float32] | None = None
    specialty: Specialty | None = None

    @classmethod
    def of(cls, metadata: Mapping[str, str], width: int, concept_count: int) -> Self:
        """Read what `to_metadata` wrote.

        Args:
            metadata: of an ONNX file.
            width: D, the number of the backbone's features.
            concept_count: K.

        Raises:
            ValueError: a value is damaged, or that of another backbone.
        """
        background = specialty = None
        if (text := metadata.get(BACKGROUND_KEY)) is not None:
            background = np.frombuffer(base64.b64decode(text, validate=True), "<f2").astype("f4")
            fractions = ((background >= 0) & (background <= 1)).all()
            if len(background) != concept_count or not fractions:
                raise ValueError(f"{BACKGROUND_KEY} is not one confidence for each concept")
        if (text := metadata.get(SPECIALTY_KEY)) is not None:
            try:
                with np.errstate(over="raise"):  # numbers that are finite, but not as float32
                    specialty = Specialty.from_dict(json.loads(text))
            except (ArithmeticError, KeyError, RecursionError, TypeError, ValueError) as error:
                raise ValueError(f"{SPECIALTY_KEY} is damaged: {error}") from None
            if specialty.width != width:
                raise ValueError(f"{SPECIALTY_KEY} takes {specialty.width} features, not {width}")
        return cls(background, specialty)

    def to_metadata(self) -> dict[str, str]:
        """As metadata of an ONNX file."""
        metadata = {}
        if self.background is not None:
            text = base64.b64encode(self.background.astype("<f2").tobytes()).decode()
            metadata[BACKGROUND_KEY] = text
        if self.specialty is not None:
            metadata[SPECIALTY_KEY] = json.dumps(self.specialty.to_dict(), allow_nan=False)
        return metadata

    def fit_ood(
        self,
        features: npt.NDArray[np.float32],
        concepts: npt.NDArray[np.float32],
        groups: npt.NDArray[np.integer[Any]] | None = None,
        labels: npt.NDArray[np.integer[Any]] | None = None,
        *,
        bank: bool = True,
    ) -> GeneralOodDetector | None:
        """Fit a detector on photos of the classes; see `fit_general_ood`."""
        return fit_general_ood(
            features,
            concepts,
            groups,
            labels=labels,
            background=self.background,
            specialty=self.specialty,
            bank=bank,
        )
