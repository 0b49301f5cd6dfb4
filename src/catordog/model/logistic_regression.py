"""Multinomial logistic regression with an L2 penalty, for few rows of many features.

The best weights are a combination of the rows (representer theorem), so the problem is solved in
the space that the rows span: N photos of 2,280 features need N numbers for each class. Several fits
on parts of the rows, as for cross-validation, run together. scikit-learn solves the same problem,
but importing it takes longer than solving; a test compares both.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating[Any]]
Labels = npt.NDArray[np.integer[Any]]

_LARGE = 2e7
"""From so many products per step on, 32 bits: they take half the time."""

_STEPS = 500
_MEMORY = 8
_LEAST_GRADIENT = {np.dtype(np.float64): 1e-9, np.dtype(np.float32): 1e-5}
_LEAST_GAIN = {np.dtype(np.float64): 1e-14, np.dtype(np.float32): 1e-7}
"""Where the minimum is near enough. Photos that are told apart easily have little curvature."""


@dataclass(frozen=True, slots=True)
class Span:
    """Rows in the space that they span: `row = mean + coordinates · basisᵀ`.

    Attributes:
        mean: of the rows, `[D]`.
        coordinates: `[N, R]`, R ≤ min(N, D); orthogonal columns.
        basis: orthonormal columns, `[D, R]`.
    """

    mean: Floats
    coordinates: Floats
    basis: Floats

    @classmethod
    def of(cls, rows: Floats) -> Span:
        """The span of rows `[N, D]`."""
        mean = rows.mean(axis=0, dtype=np.float64)
        centred = rows - mean
        wide = len(rows) < rows.shape[1]
        gram = centred @ centred.T if wide else centred.T @ centred
        values, vectors = np.linalg.eigh(gram)
        kept = values > max(values[-1] * 1e-9, 1e-12)
        if not kept.any():  # all rows are the same
            kept[-1] = True
        values, vectors = np.maximum(values[kept], 1e-12), vectors[:, kept]
        if wide:
            lengths = np.sqrt(values)
            return cls(mean, vectors * lengths, centred.T @ (vectors / lengths))
        return cls(mean, centred @ vectors, vectors)


@dataclass(frozen=True, slots=True)
class Fits:
    """Weights of several fits, for coordinates.

    Attributes:
        weights: `[K, R, C]`.
        biases: `[K, C]`.
    """

    weights: Floats
    biases: Floats

    def logits(self, coordinates: Floats) -> npt.NDArray[np.float64]:
        """Logits of each fit for coordinates `[N, R]`: `[K, N, C]`."""
        result: npt.NDArray[np.float64] = (
            np.matmul(coordinates[None], self.weights) + self.biases[:, None]
        )
        return result


def fit(
    coordinates: Floats,
    labels: Labels,
    classes: int,
    strength: float,
    used: npt.NDArray[np.bool_] | None = None,
) -> Fits:
    """Minimise `Σₙ cross-entropy(xₙ · W + b, yₙ) + strength/2 · ‖W‖²` over W and b.

    The biases have no penalty; their sum is 0. L-BFGS (Liu and Nocedal 1989), preconditioned by the
    diagonal of an upper bound of the curvature (Böhning 1992), which fits well as the columns of
    the coordinates are orthogonal.

    Args:
        coordinates: `[N, R]`; of a `Span`, for speed.
        labels: `[N]`, each in 0…C−1.
        classes: C.
        strength: of the penalty, above 0.
        used: which rows each of K fits uses, `[K, N]`; None: one fit that uses all.
    """
    n, r = coordinates.shape
    rows = np.ones((1, n), bool) if used is None else used
    kind = np.float32 if n * r * classes * len(rows) > _LARGE else np.float64
    x: Floats = np.ascontiguousarray(coordinates, kind)
    targets: Floats = np.asarray(np.eye(classes)[labels], x.dtype)
    weights: Floats = np.asarray(rows, x.dtype)
    problem = _Problem(x, targets, weights, strength)
    return problem.unpack(_minimise(problem))


class _Problem:
    """The function to minimise, of all parameters in one vector."""

    def __init__(self, x: Floats, targets: Floats, used: Floats, strength: float) -> None:
        self.x, self.targets, self.used, self.strength = x, targets, used, strength
        bound = 0.25 * (x.astype(np.float64) ** 2).sum(axis=0) + strength
        scale = np.append(1 / np.sqrt(bound), 1 / np.sqrt(0.25 * len(x)))
        self.scale = scale.astype(x.dtype)[None, :, None]
        self.shape = (len(used), x.shape[1] + 1, targets.shape[1])

    def unpack(self, vector: Floats) -> Fits:
        parameters = vector.reshape(self.shape) * self.scale
        biases = parameters[:, -1]
        return Fits(parameters[:, :-1], biases - biases.mean(axis=1, keepdims=True))

    def __call__(self, vector: Floats) -> tuple[float, Floats]:
        """The value and its gradient."""
        parameters = vector.reshape(self.shape) * self.scale
        weights = parameters[:, :-1]
        logits = np.matmul(self.x[None], weights) + parameters[:, -1:]
        highest = logits.max(axis=2, keepdims=True)
        powers = np.exp(logits - highest)
        sums = powers.sum(axis=2, keepdims=True)
        losses = (highest + np.log(sums))[..., 0] - (logits * self.targets).sum(axis=2)
        value = (self.used * losses).sum(dtype=np.float64)
        value += self.strength / 2 * (weights.astype(np.float64) ** 2).sum()
        slopes = self.used[..., None] * (powers / sums - self.targets)
        gradient = np.empty(self.shape, self.x.dtype)
        gradient[:, :-1] = np.matmul(self.x.T[None], slopes) + self.strength * weights
        gradient[:, -1] = slopes.sum(axis=1)
        return float(value), (gradient * self.scale).ravel()


def _minimise(problem: _Problem) -> Floats:
    """L-BFGS from 0. The function is convex, so where it ends is the minimum."""
    point: Floats = np.zeros(int(np.prod(problem.shape)), problem.x.dtype)
    value, gradient = problem(point)
    least_gradient, least_gain = _LEAST_GRADIENT[point.dtype], _LEAST_GAIN[point.dtype]
    steps: list[tuple[Floats, Floats, float]] = []
    for _ in range(_STEPS):
        if np.abs(gradient).max() < least_gradient:
            break
        direction = -_inverse_times(steps, gradient)
        slope = float(direction @ gradient)
        length = 1.0
        while True:
            new = point + direction * problem.x.dtype.type(length)
            new_value, new_gradient = problem(new)
            if new_value <= value + 1e-4 * length * slope or length < 1e-6:
                break
            length /= 2
        moved, changed = new - point, new_gradient - gradient
        gained = value - new_value
        if gained <= 0:  # as far as the precision goes
            break
        if (curvature := float(moved @ changed)) > 0:
            steps = [*steps[1 - _MEMORY :], (moved, changed, curvature)]
        point, value, gradient = new, new_value, new_gradient
        if gained < least_gain * max(1.0, abs(value)):
            break
    return point


def _inverse_times(steps: list[tuple[Floats, Floats, float]], gradient: Floats) -> Floats:
    """The approximate inverse of the curvature times a gradient: the two loops of L-BFGS."""
    result = gradient.copy()
    factors = []
    for moved, changed, curvature in reversed(steps):
        factor = (moved @ result) / curvature
        result -= factor * changed
        factors.append(factor)
    if steps:
        _, changed, curvature = steps[-1]
        result *= curvature / (changed @ changed)
    for (moved, changed, curvature), factor in zip(steps, reversed(factors), strict=True):
        result += moved * (factor - (changed @ result) / curvature)
    return result
