"""Test whether a more flexible calibration than one temperature would do better."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from catordog.confidence.softmax import softmax
from catordog.confidence.temperature import Labels, Logits, fit_temperature, log_loss

FOLDS = 5
PHOTOS_PER_FOLD = 20
"""With fewer, the comparison would say more about chance than about the calibrations."""


@dataclass(frozen=True, slots=True)
class Alternative:
    """Another calibration, compared with a temperature on photos that neither was fitted on.

    Attributes:
        name: `vector scaling` or `isotonic regression`.
        gain: by how much its loss is lower, in nats per photo, mean over all photos.
        gain_ci95: 95 % interval of the gain, over the photos.
    """

    name: str
    gain: float
    gain_ci95: tuple[float, float]

    @property
    def better(self) -> bool:
        """Whether it beats a temperature significantly, and by an amount that matters."""
        return self.gain_ci95[0] > 0 and self.gain > 0.001


def alternatives(logits: Logits, labels: Labels, seed: int = 0) -> list[Alternative]:
    """Compare a temperature with more flexible calibrations by cross-validation.

    Vector scaling fits a factor and an offset for each class (Guo et al. 2017); isotonic regression
    fits any monotonic curve (Zadrozny and Elkan 2002). Each is fitted on four fifths of the photos
    and measured on the last fifth, in turn.

    Args:
        logits: raw, `[N, C]`.
        labels: `[N]`.
        seed: of the folds.

    Returns:
        one for each calibration; none if there are fewer than 100 photos or only one class.
    """
    raw = np.asarray(logits, dtype=np.float64)
    if len(raw) < PHOTOS_PER_FOLD * FOLDS or len(np.unique(labels)) < 2:
        return []
    fold = np.random.default_rng(seed).permutation(len(raw)) % FOLDS
    losses = {name: np.empty(len(raw)) for name in ("temperature", *_CALIBRATIONS)}
    for number in range(FOLDS):
        fit, test = fold != number, fold == number
        scaled = softmax(raw[test], fit_temperature(raw[fit], labels[fit]))
        losses["temperature"][test] = log_loss(scaled, labels[test])
        for name, method in _CALIBRATIONS.items():
            confidences = method(raw[fit], labels[fit], raw[test])
            losses[name][test] = log_loss(confidences, labels[test])
    found = []
    for name in _CALIBRATIONS:
        gains = losses["temperature"] - losses[name]
        mean, half = float(gains.mean()), 1.96 * float(gains.std()) / len(gains) ** 0.5
        found.append(Alternative(name, mean, (mean - half, mean + half)))
    return found


def _vector(raw: Logits, labels: Labels, new: Logits) -> npt.NDArray[np.float64]:
    from scipy.optimize import minimize

    count = raw.shape[1]
    one_hot = np.eye(count)[labels]

    def loss(parameters: npt.NDArray[np.float64]) -> tuple[float, npt.NDArray[np.float64]]:
        factor, offset = parameters[:count], parameters[count:]
        scaled = raw * factor + offset
        confidences = softmax(scaled)
        error = confidences - one_hot
        gradient = np.concatenate([(error * raw).mean(axis=0), error.mean(axis=0)])
        return float(log_loss(confidences, labels).mean()), gradient

    start = np.concatenate([np.ones(count) / fit_temperature(raw, labels), np.zeros(count)])
    best = minimize(loss, start, jac=True, method="L-BFGS-B").x
    return softmax(new * best[:count] + best[count:])


def _isotonic(raw: Logits, labels: Labels, new: Logits) -> npt.NDArray[np.float64]:
    from sklearn.isotonic import IsotonicRegression

    columns = []
    for label in range(raw.shape[1]):
        # The margin of a class over all others is its log-odds under softmax.
        curve = IsotonicRegression(y_min=0.0, y_max=1.0, out_of_bounds="clip")
        curve.fit(_margin(raw, label), labels == label)
        columns.append(curve.predict(_margin(new, label)))
    # A confidence of exactly 0 would make one surprise infinitely bad: this is Laplace's floor.
    floor = 1 / (len(raw) + 2)
    found = np.clip(np.stack(columns, axis=1), floor, 1 - floor)
    result: npt.NDArray[np.float64] = found / found.sum(axis=1, keepdims=True)
    return result


def _margin(raw: Logits, label: int) -> npt.NDArray[np.float64]:
    from scipy.special import logsumexp

    others = np.delete(raw, label, axis=1)
    result: npt.NDArray[np.float64] = raw[:, label] - logsumexp(others, axis=1)
    return result


_CALIBRATIONS: dict[str, Callable[[Logits, Labels, Logits], npt.NDArray[np.float64]]] = {
    "vector scaling": _vector,
    "isotonic regression": _isotonic,
}
