"""Active learning: propose which unlabelled photos to label next, and say when to stop.

A dozen photos are proposed at a time. The first are typical ones, of different kinds (Hacohen et
al. 2022, TypiClust). After that they are photos that the classifier is unsure about and that differ
from one another (Ash et al. 2020, BADGE). Labels stop paying when they change no predictions any
more (Bloodgood and Vijay-Shanker 2009, *Stabilizing Predictions*). That needs no labelled test
photos, and the proposed photos would be no honest sample for one: they are the hard ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from catordog.confidence.softmax import softmax
from catordog.model.linear_head import learn

Floats = npt.NDArray[np.floating[Any]]

DOZEN = 12
"""Photos to label at a time."""

STABLE = 0.005
"""Labels have stopped paying when a dozen of them changes at most this fraction of predictions…"""

STABLE_ROUNDS = 3
"""…so many times in a row."""

_CLUSTER_PHOTOS = 3_000
"""Photos among which the first ones are chosen: the steps of k-means see them all."""

_STEPS = 10
"""Of k-means."""

_AT_ONCE = 4096
"""Photos whose logits are computed together."""

_NEIGHBOURS = 20
"""A typical photo is near to so many others."""


@dataclass(frozen=True, slots=True)
class Round:
    """What one round of labelling has taught.

    Attributes:
        labels: how many photos have a label now.
        accuracy: by cross-validation on these, 0…1; None if there are too few. The proposed photos
            are the hard ones, so it is lower than on all photos.
        interval: its 95 % interval.
        expected: the mean confidence in the predicted classes over all photos, 0…1.
        changed: the fraction of all photos whose predicted class has changed since the last round;
            None in the first.
    """

    labels: int
    accuracy: float | None
    interval: tuple[float, float]
    expected: float
    changed: float | None


def pays(rounds: Sequence[Round]) -> bool:
    """Whether more labels are likely to change predictions.

    Args:
        rounds: all so far, the last one last.

    >>> small = [Round(12 * n, None, (0, 1), 0.9, 0.001) for n in range(1, 5)]
    >>> pays(small[:2]), pays(small)
    (True, False)
    """
    last = [round.changed for round in rounds[-STABLE_ROUNDS:]]
    return len(last) < STABLE_ROUNDS or any(each is None or each > STABLE for each in last)


def learn_round(
    features: Floats,
    concepts: Floats,
    labelled: Sequence[int],
    labels: Sequence[int],
    classes: int,
    before: npt.NDArray[np.intp] | None = None,
    *,
    groups: npt.NDArray[np.integer[Any]] | None = None,
) -> tuple[Round, npt.NDArray[np.float64]]:
    """Learn from the labels so far, and predict all photos.

    Args:
        features: of the general backbone, for all N photos, `[N, D]`.
        concepts: raw, `[N, K]`.
        labelled: indices of the photos with a label; at least one of each class.
        labels: of these, each in 0…C−1.
        classes: C, at least 2.
        before: the predicted class of each photo in the last round, `[N]`; None in the first, and
            after a new class.
        groups: `[N]`; copies share a number. None: no copies.

    Returns:
        what the round has taught, and calibrated logits of all photos, `[N, C]`, for `propose` and
        as the next `before` (by `argmax`).
    """
    rows = np.asarray(labelled, np.intp)
    learned = learn(
        features[rows],
        concepts[rows],
        np.asarray(labels, np.int64),
        classes,
        None if groups is None else groups[rows],
    )
    logits = np.empty((len(features), classes))
    for start in range(0, len(features), _AT_ONCE):
        part = slice(start, start + _AT_ONCE)
        logits[part] = learned.head.logits(features[part], concepts[part]) / learned.temperature
    predicted = logits.argmax(axis=1)
    return (
        Round(
            labels=len(rows),
            accuracy=learned.accuracy,
            interval=learned.interval,
            expected=float(softmax(logits).max(axis=1).mean()),
            changed=None if before is None else float((predicted != before).mean()),
        ),
        logits,
    )


def propose(
    rows: Floats,
    labelled: Sequence[int],
    logits: Floats | None = None,
    *,
    count: int = DOZEN,
    seed: int = 0,
) -> list[int]:
    """The photos to label next.

    Args:
        rows: features of all photos, `[N, D]`; see `backbone.rows_of`.
        labelled: indices of the photos that have a label, or that the user has skipped.
        logits: raw, of all photos, `[N, C]`, scaled so that a temperature of 1 calibrates them;
            None before there are two classes to tell apart.
        count: how many photos; fewer if no more are left.
        seed: of the random choices.

    Returns:
        indices of photos without a label, in the order of the choice.
    """
    generator = np.random.default_rng(seed)
    known = set(labelled)
    open_ = np.array([index for index in range(len(rows)) if index not in known], np.intp)
    chosen: list[int] = open_.tolist()
    if len(chosen) > count and logits is None:
        chosen = _typical(rows, open_, labelled, count, generator)
    elif len(chosen) > count and logits is not None:
        found = _unsure_and_different(rows[open_], softmax(logits[open_]), count, generator)
        chosen = open_[found].tolist()
    return chosen


def _unsure_and_different(
    rows: Floats, confidences: Floats, count: int, generator: np.random.Generator
) -> list[int]:
    """k-means++ on the gradients that the photos would cause, if their prediction were right.

    The gradient of a linear layer's loss is `(p − e) ⊗ x`, where p are the confidences, e is 1 for
    the predicted class, and x the features. Its length grows with the doubt. Inner products of
    gradients are products of those of both parts, so the gradients themselves are never formed.
    """
    errors = np.asarray(confidences, np.float64).copy()
    errors[np.arange(len(errors)), errors.argmax(axis=1)] -= 1
    squares = (errors**2).sum(axis=1) * (rows.astype(np.float64) ** 2).sum(axis=1)
    chosen = [int(squares.argmax())]
    nearest = np.full(len(rows), np.inf)
    while len(chosen) < count:
        last = chosen[-1]
        product = (errors @ errors[last]) * (rows @ rows[last])
        nearest = np.minimum(nearest, np.maximum(squares + squares[last] - 2 * product, 0))
        nearest[chosen] = 0
        total = nearest.sum()
        if total <= 0:  # all that is left is sure, or a copy of what was chosen
            rest = np.setdiff1d(np.arange(len(rows)), chosen)
            chosen.append(int(generator.choice(rest)))
        else:
            chosen.append(int(generator.choice(len(rows), p=nearest / total)))
    return chosen


def _typical(
    rows: Floats,
    open_: npt.NDArray[np.intp],
    labelled: Sequence[int],
    count: int,
    generator: np.random.Generator,
) -> list[int]:
    """Typical photos of different kinds: from each of the largest clusters without a label one."""
    few = generator.permutation(open_)[: _CLUSTER_PHOTOS - min(len(labelled), _CLUSTER_PHOTOS // 2)]
    points = np.concatenate([rows[few], rows[list(labelled)]]).astype(np.float32)
    points /= np.linalg.norm(points, axis=1, keepdims=True) + 1e-12
    kinds = _k_means(points, min(count + len(labelled), len(points)), generator)
    seen = set(kinds[len(few) :].tolist())
    sizes = np.bincount(kinds[: len(few)], minlength=kinds.max() + 1)
    chosen: list[int] = []
    for kind in np.argsort(-sizes, kind="stable").tolist():
        members = np.flatnonzero(kinds[: len(few)] == kind)
        if kind in seen or not len(members):
            continue
        similar = np.sort(points[members] @ points[members].T, axis=1)[:, -_NEIGHBOURS - 1 : -1]
        best = int(similar.mean(axis=1).argmax()) if len(members) > 1 else 0
        chosen.append(int(few[members[best]]))
        if len(chosen) == count:
            return chosen
    rest: list[int] = generator.permutation(np.setdiff1d(few, chosen)).tolist()
    return chosen + rest[: count - len(chosen)]


def _k_means(points: Floats, k: int, generator: np.random.Generator) -> npt.NDArray[np.intp]:
    """The cluster of each of N points of unit length, `[N]`."""
    centres = points[generator.choice(len(points), k, replace=False)]
    kinds = np.zeros(len(points), np.intp)
    for _ in range(_STEPS):
        kinds = (points @ centres.T).argmax(axis=1)
        sums = np.zeros_like(centres)
        np.add.at(sums, kinds, points)
        lengths = np.linalg.norm(sums, axis=1, keepdims=True)
        centres = np.where(lengths > 0, sums / np.maximum(lengths, 1e-12), centres)
    return kinds
