"""Learn a linear layer on a general backbone from few photos, with honest confidence.

What the layer is worth is measured by cross-validation: each photo's logits come from a layer that
has not seen it or its copies. Strength of the penalty, temperature, conformal scores and accuracy
follow from these logits, so no photo has to be held back.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from catordog.confidence.conformal import nonconformity
from catordog.confidence.softmax import softmax
from catordog.confidence.temperature import fit_temperature, log_loss
from catordog.confidence.wilson import wilson
from catordog.model.logistic_regression import Floats, Labels, Span, fit

STRENGTHS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3)
"""Of the penalty, tried by cross-validation."""

DEFAULT_STRENGTH = 0.003
"""Of the penalty where there are too few photos to choose it."""

ALONE_STRENGTH = 3.0
"""Of the penalty where no photo can be left out, as with one photo of each class. A strong penalty
makes the layer much like the photos, which are all that is known."""

CONCEPTS = 0.5
"""Mean length of the concepts beside that of the features. With 1, most sets lose 0.1 to 1 points;
with 0, animals lose up to 1.3."""

PRIOR_PHOTOS = 40
"""How many photos the mean over all columns counts for, in the variance of each column."""

MOST_FOLDS = 10

_MANY, _VERY_MANY = 10_000, 100_000
"""Weights to learn (dimensions × classes), above which fewer folds and strengths are tried. So
learning takes less time than computing the features does."""

_AT_ONCE = 2e8
"""Products per step (photos × dimensions × classes × folds), above which folds run one by one."""

_DRAWS = 4
"""Random subsets of each size for the learning curve."""

_LEAST_FOR_CURVE = 4
"""Photos of the smallest class that a learning curve needs."""


@dataclass(frozen=True, slots=True)
class LinearHead:
    """A linear layer on features and concepts: `logits = [features, concepts] · weight + bias`.

    Attributes:
        weight: `[D + K, C]`.
        bias: `[C]`.
    """

    weight: Floats
    bias: Floats

    def logits(self, features: Floats, concepts: Floats) -> npt.NDArray[np.float64]:
        """Raw logits `[N, C]`."""
        wide = np.concatenate([features, concepts], axis=1).astype(np.float64)
        result: npt.NDArray[np.float64] = wide @ self.weight + self.bias
        return result


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """How accurate a layer is that was learnt from fewer photos.

    Attributes:
        photos: of each class, on average.
        accuracy: on the other photos, 0…1.
    """

    photos: float
    accuracy: float


@dataclass(frozen=True, slots=True)
class Learned:
    """A linear layer, and what cross-validation says of it.

    Attributes:
        head: the layer.
        strength: of its penalty.
        temperature: of `softmax`.
        tested: indices of the photos that cross-validation could leave out, `[M]`. A class whose
            photos are all copies of one another has none.
        logits: of these, each from a layer that has not seen it or its copies, `[M, C]`.
        nonconformity: of these photos' right answers, ascending, each in 0…1.
        accuracy: of these photos, 0…1; None if there are none.
        interval: 95 % interval of the accuracy on new photos, 0…1.
        nll: mean negative log-likelihood of these photos, in nats; None if there are none.
        curve: accuracy by number of photos, ascending; empty if there are too few.
    """

    head: LinearHead
    strength: float
    temperature: float
    tested: npt.NDArray[np.intp]
    logits: npt.NDArray[np.float64]
    nonconformity: npt.NDArray[np.float64]
    accuracy: float | None
    interval: tuple[float, float]
    nll: float | None
    curve: tuple[CurvePoint, ...]

    def expected_with(self, factor: float) -> float | None:
        """The accuracy to expect from `factor` times as many photos, 0…1; None if unknown.

        The error rate is extrapolated as a power of the number of photos. Where it is measured on
        few photos, the power is near −½.
        """
        if self.accuracy is None or not self.curve:
            return None
        n = len(self.tested)
        least = 0.5 / n  # an error rate of 0 is none that is known
        own = CurvePoint(n / self.logits.shape[1], self.accuracy)
        points = [(p.photos, max(1 - p.accuracy, least)) for p in (*self.curve, own)]
        x, y = np.log(np.array(points)).T
        x, y, prior = x - x.mean(), y - y.mean(), 20 / n
        power = float(np.clip((x @ y - 0.5 * prior) / (x @ x + prior), -1.0, 0.0))
        error_rate: float = max(1 - self.accuracy, least) * factor**power
        return 1 - error_rate


def learn(
    features: Floats,
    concepts: Floats,
    labels: Labels,
    classes: int,
    groups: npt.NDArray[np.integer[Any]] | None = None,
    *,
    seed: int = 0,
) -> Learned:
    """Learn a linear layer by multinomial logistic regression with an L2 penalty.

    Each column of features and centred concepts is divided by its standard deviation within the
    classes, as in a diagonal discriminant analysis. Then features have a mean length of 1, and
    concepts of `CONCEPTS`: they say what is near to what, which helps where there are few photos.

    Args:
        features: of the general backbone, `[N, D]`.
        concepts: raw, `[N, K]`.
        labels: `[N]`, each in 0…C−1, each class at least once.
        classes: C, 2 or more.
        groups: `[N]`; copies share a number, and a fold. None: no copies.
        seed: of the folds and of the subsets for the learning curve.
    """
    inputs, scales = _inputs(features, concepts, labels)
    span = Span.of(inputs)
    group = np.arange(len(labels)) if groups is None else np.asarray(groups)
    generator = np.random.default_rng(seed)
    size = span.coordinates.shape[1] * classes
    folds = deal_folds(labels, group, MOST_FOLDS if size <= _MANY else 3, generator)
    tested = np.flatnonzero(folds >= 0)
    strengths: Sequence[float] = STRENGTHS if size <= 3 * _MANY else STRENGTHS[1:4:2]
    strengths = strengths if size <= _VERY_MANY else (DEFAULT_STRENGTH,)
    strength, logits = _cross_validate(span.coordinates, labels, classes, folds, strengths)
    right = labels[tested]
    temperature = fit_temperature(logits, right) if len(tested) else 1.0
    confidences = softmax(logits, temperature) if len(tested) else np.zeros((0, classes))
    correct = int((logits.argmax(axis=1) == right).sum())
    fits = fit(span.coordinates, labels, classes, strength)
    weight = span.basis @ fits.weights[0]
    bias = fits.biases[0] - span.mean @ weight
    if not len(tested):  # no temperature can be fitted; measured on animals, objects and groceries
        scale = 0.017 * (1 + 2 / classes)
        weight, bias = weight / scale, bias / scale
    return Learned(
        head=_unscaled(weight, bias, scales),
        strength=strength,
        temperature=temperature,
        tested=tested,
        logits=logits,
        nonconformity=np.sort(nonconformity(confidences, right)),
        accuracy=correct / len(tested) if len(tested) else None,
        interval=_interval(correct, len(tested), folds),
        nll=float(log_loss(confidences, right).mean()) if len(tested) else None,
        curve=_curve(span.coordinates, labels, classes, group, strength, generator)
        if size <= 3 * _MANY
        else (),
    )


def _interval(correct: int, n: int, folds: npt.NDArray[np.int64]) -> tuple[float, float]:
    """Wilson's interval, whose upper end allows for what the left-out photos would have taught.

    With F folds, each layer has learnt from a fraction 1 − 1/F of the photos. With few photos the
    error rate falls about as their number rises.
    """
    if not n:
        return 0.0, 1.0
    better = correct + round((n - correct) / len(np.unique(folds[folds >= 0])))
    return wilson(correct, n)[0], wilson(better, n)[1]


def typical_direction(features: Floats, concepts: Floats) -> LinearHead:
    """A layer for a single class: its logit says how far a photo points where those of it point.

    A typical photo has a logit of about 1, and an empty one of 0.

    Args:
        features: of the general backbone, `[N, D]`.
        concepts: raw, `[N, K]`.
    """
    inputs, scales = _inputs(features, concepts)
    mean = inputs.mean(axis=0, dtype=np.float64)
    weight = (mean / max(float(mean @ mean), 1e-12))[:, None]
    return _unscaled(weight, np.zeros(1), scales)


def _inputs(
    features: Floats, concepts: Floats, labels: Labels | None = None
) -> tuple[Floats, tuple[Floats, Floats]]:
    """The columns that the layer is learnt on, `[N, D + K]`, and their scales, `[D]` and `[K]`."""
    centred = concepts - concepts.mean(axis=1, keepdims=True)
    parts, scales = [], []
    for columns, share in ((features, 1.0), (centred, CONCEPTS)):
        part = np.asarray(columns, np.float64)
        spread = np.ones(part.shape[1]) if labels is None else _spread(part, labels)
        length = float(np.sqrt(((part / spread) ** 2).sum(axis=1).mean())) or 1.0
        scales.append(spread * length / share)
        parts.append(part / scales[-1])
    return np.concatenate(parts, axis=1), (scales[0], scales[1])


def _spread(columns: Floats, labels: Labels) -> Floats:
    """The standard deviation of each column within the classes, `[D]`, from few rows `[N, D]`.

    Its variance is drawn to the mean over all columns, as if `PRIOR_PHOTOS` more rows had that.
    """
    squares = np.zeros(columns.shape[1])
    own = np.unique(labels)
    for label in own.tolist():
        rows = columns[labels == label]
        squares += ((rows - rows.mean(axis=0)) ** 2).sum(axis=0)
    free = len(labels) - len(own)
    if free < 1 or not squares.any():
        return np.ones(columns.shape[1])
    mean = squares.mean() / free
    result: Floats = np.sqrt((squares + PRIOR_PHOTOS * mean) / (free + PRIOR_PHOTOS))
    return result


def _unscaled(weight: Floats, bias: Floats, scales: tuple[Floats, Floats]) -> LinearHead:
    """The layer for features and raw concepts. Centring the concepts is linear, too."""
    unscaled = weight / np.concatenate(scales)[:, None]
    on_features, on_concepts = unscaled[: len(scales[0])], unscaled[len(scales[0]) :]
    on_concepts = on_concepts - on_concepts.mean(axis=0)
    return LinearHead(np.concatenate([on_features, on_concepts]), bias)


def deal_folds(
    labels: Labels,
    groups: npt.NDArray[np.integer[Any]],
    most: int,
    generator: np.random.Generator,
) -> npt.NDArray[np.int64]:
    """The fold of each photo, at most `most` of them, `[N]`; −1: always stays in training.

    Groups are dealt to the folds, class by class. A class of one group is never left out: a layer
    that has not seen it can't be asked about it.
    """
    own = {
        label: generator.permutation(np.unique(groups[labels == label]))
        for label in np.unique(labels).tolist()
    }
    count = min(most, max((len(x) for x in own.values()), default=0))
    fold_of: dict[int, int] = {}
    if count > 1:
        for numbers in own.values():
            start = int(generator.integers(count))
            for index, number in enumerate(numbers.tolist() if len(numbers) > 1 else ()):
                fold_of.setdefault(number, (start + index) % count)
    for label, numbers in own.items():  # all of a class in one fold: left out, it would be unknown
        folds = {fold_of.get(number, -1) for number in numbers.tolist()}
        if len(folds) == 1:
            fold_of.update(dict.fromkeys(np.unique(groups[labels == label]).tolist(), -1))
    return np.array([fold_of.get(number, -1) for number in groups.tolist()], np.int64)


def _cross_validate(
    coordinates: Floats,
    labels: Labels,
    classes: int,
    folds: npt.NDArray[np.int64],
    strengths: Sequence[float],
) -> tuple[float, npt.NDArray[np.float64]]:
    """The strength with the lowest loss, and the logits of the photos that were left out.

    The loss is that at the best temperature, which is fitted later, too. A strength must be better
    by a standard error to be preferred to the default one.
    """
    tested = np.flatnonzero(folds >= 0)
    numbers = np.unique(folds[tested])
    if not len(numbers):
        return ALONE_STRENGTH, np.zeros((0, classes))
    used = folds[None] != numbers[:, None]
    rows = np.searchsorted(numbers, folds[tested])
    found: dict[float, tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]] = {}
    for strength in strengths:
        logits = np.empty((len(tested), classes))
        each = len(numbers) if coordinates.size * classes * len(numbers) < _AT_ONCE else 1
        for start in range(0, len(numbers), each):  # together where memory allows
            fits = fit(coordinates, labels, classes, strength, used[start : start + each])
            for index in range(start, min(start + each, len(numbers))):
                own = rows == index
                outside = coordinates[tested[own]]
                logits[own] = outside @ fits.weights[index - start] + fits.biases[index - start]
        temperature = fit_temperature(logits, labels[tested])
        found[strength] = logits, log_loss(softmax(logits, temperature), labels[tested])
    default = found.get(DEFAULT_STRENGTH, found[strengths[0]])[1]
    best = min(found, key=lambda strength: float(found[strength][1].mean()))
    gain = default - found[best][1]
    if len(gain) < 2 or gain.mean() <= gain.std() / np.sqrt(len(gain)):
        best = DEFAULT_STRENGTH if DEFAULT_STRENGTH in found else best
    return best, found[best][0]


def _curve(
    coordinates: Floats,
    labels: Labels,
    classes: int,
    groups: npt.NDArray[np.integer[Any]],
    strength: float,
    generator: np.random.Generator,
) -> tuple[CurvePoint, ...]:
    """Accuracy on the other photos, of layers that learn from a quarter and half of them."""
    own = [np.unique(groups[labels == label]) for label in range(classes)]
    least = min(len(numbers) for numbers in own)
    if least < _LEAST_FOR_CURVE:
        return ()
    points = []
    for fraction in (0.25, 0.5):
        used = np.zeros((_DRAWS, len(labels)), bool)
        for draw in range(_DRAWS):
            taken = [
                generator.permutation(numbers)[: max(1, round(fraction * len(numbers)))]
                for numbers in own
            ]
            used[draw] = np.isin(groups, np.concatenate(taken))
        logits = fit(coordinates, labels, classes, strength, used).logits(coordinates)
        right = logits.argmax(axis=2) == labels[None]
        if used.all():
            continue
        photos = float(used.sum() / _DRAWS / classes)
        points.append(CurvePoint(photos, float(right[~used].mean())))
    return tuple(points)
