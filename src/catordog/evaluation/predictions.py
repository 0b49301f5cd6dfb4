"""What a model predicts for labelled photos: logits, confidences, and which of them are right."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from catordog.confidence.softmax import softmax

Floats = npt.NDArray[np.float64]
Labels = npt.NDArray[np.integer[Any]]


@dataclass(frozen=True, eq=False)
class Predictions:
    """A model's outputs on N photos whose labels are known.

    Confidences are computed once, on first use; metrics, figures and pages share them.

    Attributes:
        classes: C names, in the order of the logits.
        labels: `int [N]`, indices into `classes`.
        logits: raw, `[N, C]`.
        temperature: divides the logits in softmax.
    """

    classes: tuple[str, ...]
    labels: Labels
    logits: npt.NDArray[np.floating[Any]]
    temperature: float = 1.0

    @cached_property
    def confidences(self) -> Floats:
        """Softmax of the logits, `[N, C]`, each in 0…1."""
        return softmax(self.logits, self.temperature)

    @cached_property
    def predicted(self) -> npt.NDArray[np.int64]:
        """The class with the highest logit, `[N]`.

        By the logits and not by the confidences, which may tie at 1.
        """
        result: npt.NDArray[np.int64] = self.logits.argmax(axis=1)
        return result

    @cached_property
    def confidence(self) -> Floats:
        """The confidence in the predicted class, `[N]`, each in 1/C…1."""
        result: Floats = self.confidences.max(axis=1)
        return result

    @cached_property
    def correct(self) -> npt.NDArray[np.bool_]:
        """Whether the predicted class is the label, `[N]`."""
        result: npt.NDArray[np.bool_] = self.predicted == self.labels
        return result

    @cached_property
    def one_hot(self) -> Floats:
        """1 for the label and 0 for the other classes, `[N, C]`."""
        result: Floats = np.eye(len(self.classes))[self.labels]
        return result

    @cached_property
    def losses(self) -> Floats:
        """The negative log-likelihood of each label, in nats, `[N]`.

        From the logits: a confidence of 1e-400 is 0 in float64, and its logarithm is not finite.
        """
        from scipy.special import log_softmax

        scaled = np.asarray(self.logits, dtype=np.float64) / self.temperature
        result: Floats = -log_softmax(scaled, axis=1)[np.arange(len(self.labels)), self.labels]
        return result

    @cached_property
    def ranking(self) -> npt.NDArray[np.int64]:
        """Indices of the photos, the most confident prediction first, `[N]`.

        By the margin of the logits, which still differs where confidences tie at 1.
        """
        ordered = np.sort(self.logits, axis=1)
        return np.argsort(-(ordered[:, -1] - ordered[:, -2]), kind="stable")

    @cached_property
    def mistakes(self) -> list[int]:
        """Indices of the photos with a wrong prediction, the most confident first."""
        wrong: list[int] = self.ranking[~self.correct[self.ranking]].tolist()
        return wrong

    @cached_property
    def uncalibrated(self) -> Predictions:
        """The same at a temperature of 1."""
        if self.temperature == 1:
            return self
        return Predictions(self.classes, self.labels, self.logits)
