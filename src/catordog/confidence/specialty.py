"""What a general backbone knows best: one group of things, told from everything else.

A small network on the backbone's features has learnt this from far more photos than a small set has
(Hendrycks et al. 2019). If every class of a set belongs to the group, a photo that does not belong
to it shows none of the classes, either.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from catordog.confidence.ood_output import OutputDetector

Floats = npt.NDArray[np.floating[Any]]

MOST_UNITS, MOST_LETTERS = 1024, 60
"""Of the hidden layer and of the name in a file."""

_LEVEL = 0.99
"""Photos of the group with a higher score count as none."""

_STRANGERS, _PHOTOS = 0.1, 5
"""Fraction of a class that may be none of the group, at least 1 of 5 photos or more."""


@dataclass(frozen=True, slots=True, eq=False)
class Specialty:
    """A network with one hidden layer, whose raw score is high for photos of none of the group.

    `score = relu(features · weight + bias) · output`

    Attributes:
        name: of the group, such as "cats and dogs".
        weight: `float32 [D, H]`.
        bias: `float32 [H]`.
        output: `float32 [H]`.
        ranks: of the raw scores of the group's photos.
    """

    name: str
    weight: Floats
    bias: Floats
    output: Floats
    ranks: OutputDetector

    @property
    def width(self) -> int:
        """The number of features that it takes, D."""
        return int(self.weight.shape[0])

    def scores(self, features: Floats) -> npt.NDArray[np.float64]:
        """The fraction of the group's photos with a lower raw score, `[N]`, 0…1.

        Args:
            features: of the general backbone, `[N, D]`.
        """
        return self.ranks.scores(self.raw(features))

    def raw(self, features: Floats) -> Floats:
        """Raw scores without bounds, `[N]`: the higher, the less a photo belongs to the group."""
        hidden = np.maximum(features @ self.weight + self.bias, 0)
        result: Floats = (hidden @ self.output).astype(np.float32)
        return result

    def covers(self, features: Floats, labels: npt.NDArray[np.integer[Any]]) -> bool:
        """Whether each class of a set belongs to the group.

        Args:
            features: of the set's photos, `[N, D]`.
            labels: their classes, `[N]`.
        """
        strange = self.scores(features) > _LEVEL
        for label in np.unique(labels):
            own = strange[labels == label]
            least = 1 if len(own) >= _PHOTOS else 0
            if own.sum() > max(least, _STRANGERS * len(own)):
                return False
        return True

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Specialty) and self.to_dict() == other.to_dict()

    def __hash__(self) -> int:
        return hash(self.output.tobytes())

    def to_dict(self) -> dict[str, Any]:
        """Plain data for a model file, with one byte for each weight of the hidden layer."""
        steps = np.abs(self.weight).max(axis=0) / 127
        steps = np.where(steps == 0, 1, steps).astype(np.float32)
        return {
            "name": self.name,
            "weight": base64.b64encode(
                np.rint(self.weight / steps).astype("i1").tobytes()
            ).decode(),
            "steps": steps.tolist(),
            "bias": self.bias.tolist(),
            "output": self.output.tolist(),
            "quantiles": self.ranks.quantiles.tolist(),
        }

    @classmethod
    def from_dict(cls, values: Any) -> Self:
        """Read what `to_dict` wrote. Every shape is checked, as model files are untrusted.

        Raises:
            ValueError: a shape or a number is wrong.
            KeyError: a value is missing.
        """
        steps, bias, output = (
            np.asarray(values[name], np.float32) for name in ("steps", "bias", "output")
        )
        weight = np.frombuffer(base64.b64decode(values["weight"], validate=True), "i1")
        units = steps.size
        if not 0 < units <= MOST_UNITS or not weight.size or weight.size % units:
            raise ValueError("the specialty's weights are not rows of units")
        if not steps.shape == bias.shape == output.shape == (units,):
            raise ValueError("the specialty has a wrong shape")
        if not np.isfinite([steps, bias, output]).all():
            raise ValueError("the specialty has numbers that are not finite")
        name = values["name"]
        if not isinstance(name, str) or not name.isprintable() or len(name) > MOST_LETTERS:
            raise ValueError("the specialty's name is no short text")
        ranks = OutputDetector.from_dict(values)
        return cls(name, weight.reshape(-1, units) * steps, bias, output, ranks)
