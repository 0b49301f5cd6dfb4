"""Whether a freer calibration than one temperature would do better."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from catordog.confidence.softmax import softmax
from catordog.confidence.temperature import Labels, Logits, fit_temperature, log_loss

FOLDS = 5


@dataclass(frozen=True, slots=True)
class Alternative:
    """Another calibration, held against a temperature on photos that neither has seen.

    Attributes:
        name: `vector scaling` or `isotonic regression`.
        gain: by how much its loss is lower, in nats to a photo, mean over all photos.
        gain_ci95: 95 % interval of the gain, over the photos.
    """

    name: str
    gain: float
    gain_ci95: tuple[float, float]

    @property
    def better(self) -> bool:
        """Whether a temperature alone is not enough, beyond chance and beyond a hair."""
        return self.gain_ci95[0] > 0 and self.gain > 0.001


def alternatives(logits: Logits, labels: Labels, seed: int = 0) -> list[Alternative]:
    """Is a temperature enough? Compare it with freer calibrations by cross-validation.

    Vector scaling gives each class a factor and an offset (Guo et al. 2017); isotonic regression
    takes any rising curve of the confidence (Zadrozny and Elkan 2002). Each is fitted on four
    fifths of the photos and judged on the last, in turn.

    Args:
        logits: raw, `[N, C]`.
        labels: `[N]`.
        seed: of the folds.
    """
    raw = np.asarray(logits, dtype=np.float64)
    if len(raw) < 20 * FOLDS or len(np.unique(labels)) < 2:
        return []
    fold = np.random.default_rng(seed).permutation(len(raw)) % FOLDS
    losses = {name: np.empty(len(raw)) for name in ("temperature", *_FITS)}
    for number in range(FOLDS):
        fit, judge = fold != number, fold == number
        scaled = softmax(raw[judge], fit_temperature(raw[fit], labels[fit]))
        losses["temperature"][judge] = log_loss(scaled, labels[judge])
        for name, method in _FITS.items():
            confidences = method(raw[fit], labels[fit], raw[judge])
            losses[name][judge] = log_loss(confidences, labels[judge])
    found = []
    for name in _FITS:
        gains = losses["temperature"] - losses[name]
        mean, spread = float(gains.mean()), 1.96 * float(gains.std()) / len(gains) ** 0.5
        found.append(Alternative(name, mean, (mean - spread, mean + spread)))
    return found


def _vector(raw: Logits, labels: Labels, new: Logits) -> npt.NDArray[np.float64]:
    from scipy.optimize import minimize

    count = raw.shape[1]
    one_hot = np.eye(count)[labels]

    def loss(parameters: npt.NDArray[np.float64]) -> tuple[float, npt.NDArray[np.float64]]:
        factor, offset = parameters[:count], parameters[count:]
        scaled = raw * factor + offset
        confidences = softmax(scaled)
        wrong = confidences - one_hot
        slope = np.concatenate([(wrong * raw).mean(axis=0), wrong.mean(axis=0)])
        return float(log_loss(confidences, labels).mean()), slope

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
    # A step at 0 or 1 would make one surprise infinitely bad: leave a photo's worth of doubt.
    doubt = 1 / (len(raw) + 2)
    found = np.clip(np.stack(columns, axis=1), doubt, 1 - doubt)
    result: npt.NDArray[np.float64] = found / found.sum(axis=1, keepdims=True)
    return result


def _margin(raw: Logits, label: int) -> npt.NDArray[np.float64]:
    from scipy.special import logsumexp

    others = np.delete(raw, label, axis=1)
    result: npt.NDArray[np.float64] = raw[:, label] - logsumexp(others, axis=1)
    return result


_FITS = {"vector scaling": _vector, "isotonic regression": _isotonic}
