"""Find labels that are probably wrong, and photos that show none of the classes.

A network that was trained on a wrong label has memorised it and can't find it. So a linear
classifier on the network's features predicts each photo without having been fitted on it
(cross-validation; copies stay in one fold), and confident learning (Northcutt et al. 2021) finds
the labels that disagree. Both need numpy only, as an installation without `train` has no more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from catordog.confidence.softmax import softmax
from catordog.confidence.temperature import fit_temperature
from catordog.model.linear_head import deal_folds
from catordog.model.logistic_regression import Span

Floats = npt.NDArray[np.floating[Any]]

NEIGHBOURS = 10
MOST_NEIGHBOURS = 20_000

_FOLDS, _FEW = 5, 5_000
"""Folds; with fewer photos than `_FEW` twice as many, as each photo teaches more."""

_PENALTY = 0.5
"""Of the weights, with respect to the mean square of a direction of the rows. On 20,000 cats and
dogs, 0.05 to 2 differ little."""

_SHARPNESS = 5.0
"""Of scores that are near 1 for the right class and near 0 for others: with it, their temperature
is about 1, where the prior of `fit_temperature` expects it."""


@dataclass(frozen=True, slots=True)
class Suspect:
    """A photo whose label is probably wrong.

    Attributes:
        index: of the photo.
        suggested: index of the class that it seems to show.
        score: the confidence in that class minus the confidence in the label, 0…1.
    """

    index: int
    suggested: int
    score: float


def cross_validated(
    rows: Floats, labels: npt.NDArray[np.int64], groups: Sequence[int], seed: int = 0
) -> npt.NDArray[np.float64]:
    """Confidences `[N, C]` of a linear classifier that was not fitted on the photo it predicts.

    It is fitted by least squares to 1 for the right class and 0 for the others, with a penalty
    (ridge regression). That has a closed form, whose largest part the folds share: 20,000 photos
    take seconds. It orders labels by doubt as well as logistic regression does, and a wrong label
    pulls it less.

    Args:
        rows: features `[N, D]`, of similar scales.
        labels: `[N]`, each of the C classes in at least two groups.
        groups: for each photo the number of its group of copies.
        seed: of the folds.
    """
    generator = np.random.default_rng(seed)
    most = _FOLDS if len(labels) >= _FEW else 2 * _FOLDS
    fold = deal_folds(labels, np.asarray(groups, np.int64), most, generator)
    if len(rows) < rows.shape[1]:
        x = np.asarray(Span.of(rows).coordinates, np.float32)
    else:
        x = np.asarray(rows - rows.mean(axis=0), np.float32)
    width = x.shape[1]
    x = np.concatenate([x, np.ones((len(x), 1), np.float32)], axis=1)
    counts = np.bincount(labels)
    targets = np.eye(len(counts), dtype=np.float32)[labels]
    # Equal weights of classes, as least squares would give up a rare one; its rarity counts below.
    weights = (len(labels) / (len(counts) * counts))[labels].astype(np.float32)[:, None]
    parts = {}
    for number in np.unique(fold).tolist():
        own = fold == number
        weighted = (x[own] * weights[own]).T
        parts[number] = weighted @ x[own], weighted @ targets[own]
    square = np.zeros((width + 1, width + 1))
    product = np.zeros((width + 1, len(counts)))
    for own_square, own_product in parts.values():
        square += own_square
        product += own_product
    penalty = np.full(width + 1, _PENALTY * np.trace(square[:width, :width]) / width)
    penalty[width] = 0
    scores = np.zeros((len(labels), len(counts)))
    for number, (own_square, own_product) in parts.items():
        if number < 0:  # always learnt from
            continue
        fitted = np.linalg.solve(square - own_square + np.diag(penalty), product - own_product)
        scores[fold == number] = x[fold == number] @ fitted
    scores *= _SHARPNESS
    tested = fold >= 0
    result = np.full(scores.shape, 1 / len(counts))
    if tested.any():
        temperature = fit_temperature(scores[tested], labels[tested])
        prior = np.log(counts / len(labels))
        result[tested] = softmax(scores[tested] / temperature + prior)
    return result


def suspect_labels(
    confidences: npt.NDArray[np.float64], labels: npt.NDArray[np.int64]
) -> tuple[list[Suspect], int]:
    """Photos whose label is not the class that a model predicts.

    Args:
        confidences: `[N, C]`, of a model that was not fitted on the photo it predicts.
        labels: `[N]`.

    Returns:
        these photos, the highest score first, and an estimate of how many labels are wrong, by
        confident learning: that many of the first are probably wrong; the rest are worth a look.
    """
    own = confidences[np.arange(len(labels)), labels]
    suggested = confidences.argmax(axis=1)
    scores = confidences.max(axis=1) - own
    found = [
        Suspect(index, int(suggested[index]), float(scores[index]))
        for index in np.argsort(-scores, kind="stable").tolist()
        if suggested[index] != labels[index] and scores[index] > 0
    ]
    return found, _wrong(confidences, labels)


def _wrong(confidences: npt.NDArray[np.float64], labels: npt.NDArray[np.int64]) -> int:
    """An estimate of how many labels are wrong (the off-diagonal of the confident joint).

    A photo counts as one of another class if the confidence in that class is at least as high as it
    is on average for the photos with that label.
    """
    classes = range(confidences.shape[1])
    usual = np.array([confidences[labels == label, label].mean() for label in classes])
    likely = np.where(confidences >= usual, confidences, -1)
    best = likely.argmax(axis=1)
    counted = (likely.max(axis=1) >= 0) & (best != labels)
    return int((counted & (confidences.argmax(axis=1) != labels)).sum())


def ood_scores(features: npt.NDArray[np.float32], seed: int = 0) -> npt.NDArray[np.float64]:
    """The mean cosine distance of each photo from its ten nearest neighbours, `[N]`, 0…2.

    Args:
        features: `[N, D]`. With more than 20,000 photos, neighbours are taken from a random sample.
        seed: of the sample.
    """
    from sklearn.neighbors import NearestNeighbors
    from sklearn.preprocessing import normalize

    unit = normalize(signed_sqrt(features))
    sampled = np.arange(len(unit))
    if len(unit) > MOST_NEIGHBOURS:
        sampled = np.random.default_rng(seed).choice(len(unit), MOST_NEIGHBOURS, replace=False)
    nearest = NearestNeighbors(n_neighbors=min(NEIGHBOURS + 1, len(sampled))).fit(unit[sampled])
    distance, _ = nearest.kneighbors(unit)
    others = distance[:, :-1]
    others[sampled] = distance[sampled, 1:]  # the nearest of them is the photo itself
    # For unit vectors the cosine distance is half the squared Euclidean distance.
    return np.asarray((others**2 / 2).mean(axis=1), dtype=np.float64)


def signed_sqrt(features: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Signed square roots, so that a few large features don't dominate (Perronnin et al. 2010)."""
    return np.sign(features) * np.sqrt(np.abs(features))
