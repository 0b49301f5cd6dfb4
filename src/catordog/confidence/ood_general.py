"""Out-of-distribution detection beside a general backbone, from few photos.

A general backbone is a network that was trained on many kinds of things. It has features, and the
raw logits of its own classes, here called concepts. A photo belongs to a set of photos if

- its neighbours in the set are near, by features and concepts (Sun et al. 2022), and
- it shows concepts that photos of the set show: `log Σₖ wₖ pₖ(x)`, with p the softmax of its
  concepts, and wₖ the square root of how much the set's photos show concept k. Where it is known
  how much everyday photos show it, a concept that they show, too, counts less.

Each part is scaled by its spread over the set's photos, each measured without itself. The sum of
both is better than either: docs/teaching.md has the measurements.

Where all classes belong to the group of things that the backbone knows best, see `specialty`, a
photo has to belong to it, too.
"""

from __future__ import annotations

import base64
import math
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from catordog.confidence.softmax import softmax
from catordog.confidence.specialty import Specialty
from catordog.errors import CatordogError

Floats = npt.NDArray[np.floating[Any]]

MOST_NEIGHBOURS = 300
"""Neighbours in a model file."""

GRID = 65
"""Quantiles of distances in a model file."""

LEAST_PHOTOS = 3
"""Photos that a detector needs."""

_LEAST_WEIGHT = 1e-3
"""The weight of a concept that no photo of the set shows; the largest is 1."""

_BACKGROUND_WEIGHT = 3.0
"""A concept that the set shows three times as much as everyday photos do counts half. Measured on
seven tasks: 1 to 10 differ little."""

_NEIGHBOUR_WEIGHT = 0.6
"""Of the neighbour part, relative to the concept part. Measured on four tasks: 0.3 to 1 differ
little."""

_NEIGHBOURS_AT_HAND, _NEAREST = 1_000, 5
"""For photos of the set itself, which `own_distances` compares."""

_TAIL, _TAIL_PHOTOS = 0.35, 20
"""From 57 photos or fewer, the tail of the distances is taken to fall 1.35 times as fast as
measured; from n photos, 1 + 20 / n times. From few photos it is uncertain, and a longer tail would
accept nearly everything. So the default true-accept rate of 99 % is about 98 % on new photos."""

_LENIENCE = 2.0
"""Where the backbone's specialty rejects most of what is no class, the tail may be this much
longer: half as many photos of the classes are taken for none."""


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """How one kind of similarity is distributed over the set's own photos.

    Attributes:
        middle: its median.
        spread: its standard deviation, above 0.
    """

    middle: float
    spread: float

    @classmethod
    def of(cls, similarities: Floats) -> Self:
        """The distribution of similarities `[N]`."""
        return cls(float(np.median(similarities)), float(similarities.std()) or 1.0)

    def distance(self, similarities: Floats) -> npt.NDArray[np.float64]:
        """How much less similar than usual, in spreads, `[N]`."""
        return (self.middle - np.asarray(similarities, np.float64)) / self.spread


@dataclass(frozen=True, slots=True, eq=False)
class GeneralOodDetector:
    """Scores photos by their neighbours in a set of photos, and by the concepts that it shows.

    Attributes:
        weights: wₖ of each concept, 0…1, `float32 [K]`.
        concepts: distribution of the concept part.
        bank: the neighbours: normalised features and concepts, in 255 steps, `float32 [M, D + K]`;
            M is 0 for a detector without the neighbour part.
        neighbours: distribution of the neighbour part.
        body: quantiles of the distance of the set's photos, from 0 to `tail_from`, ascending,
            `float32 [GRID]`.
        tail_from: the fraction of distances that are no tail, 0…1.
        tail: the scale of the exponential tail that the other distances are taken for, above 0.
        specialty: of the backbone, if all classes belong to it.
    """

    weights: Floats
    concepts: Part
    bank: Floats
    neighbours: Part
    body: Floats
    tail_from: float
    tail: float
    specialty: Specialty | None = None
    needs: ClassVar[tuple[str, ...]] = ("features", "concepts")
    kind: ClassVar[str] = "general"

    @property
    def shapes(self) -> list[list[int] | None]:
        """Of the needed outputs for one photo; None: any."""
        return [[self.width] if self.width else None, [len(self.weights)]]

    @property
    def width(self) -> int:
        """The number of features that it takes, D; 0 if it takes any."""
        if self.specialty is not None:
            return self.specialty.width
        return self.bank.shape[1] - len(self.weights) if len(self.bank) else 0

    def scores(self, *outputs: Floats) -> npt.NDArray[np.float64]:
        """The ood score: about the fraction of the set's photos that are nearer, `[N]`, 0…1.

        Args:
            outputs: features of the general backbone, `[N, D]`, and raw concepts, `[N, K]`.

        Raises:
            CatordogError: a shape is not that of the photos that it was fitted on.
        """
        features, concepts = outputs
        if concepts.shape[1] != len(self.weights) or self.width not in {0, features.shape[1]}:
            raise CatordogError(
                f"the model file is damaged: its ood detector takes {self.width} features and "
                f"{len(self.weights)} concepts"
            )
        evidence = _log_evidence(softmax(concepts), self.weights)
        distance = self.concepts.distance(evidence)
        if len(self.bank):
            nearest = (_joined(features, concepts) @ self.bank.T).max(axis=1)
            distance = distance + _NEIGHBOUR_WEIGHT * self.neighbours.distance(nearest)
        ranks = self._rank(distance)
        if self.specialty is None:
            return ranks
        lenient = np.maximum(1 - _LENIENCE * (1 - ranks), 0)
        return np.maximum(lenient, self.specialty.scores(features))

    def _rank(self, distance: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """The fraction of the set's photos with a smaller distance, `[N]`, 0…1."""
        excess = (distance - self.body[-1]) / self.tail
        beyond = 1 - (1 - self.tail_from) * np.exp(-np.maximum(excess, 0))
        within = np.interp(distance, self.body, np.linspace(0, self.tail_from, GRID))
        return np.where(excess > 0, beyond, within)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, GeneralOodDetector) and self.to_dict() == other.to_dict()

    def __hash__(self) -> int:
        return hash(self.body.tobytes())

    def to_dict(self) -> dict[str, Any]:
        """Plain data for a model file, with one byte for each number of the bank."""
        step = _step(self.bank)
        beside = {} if self.specialty is None else {"specialty": self.specialty.to_dict()}
        return {
            "kind": "general",
            "weights": _packed(np.rint(self.weights * 65535).astype("<u2")),
            "concepts": [self.concepts.middle, self.concepts.spread],
            "bank": _packed(np.rint(self.bank / step).astype(np.int8)),
            "photos": len(self.bank),
            "step": step,
            "neighbours": [self.neighbours.middle, self.neighbours.spread],
            "body": self.body.tolist(),
            "tail_from": self.tail_from,
            "tail": self.tail,
            **beside,
        }

    @classmethod
    def from_dict(cls, values: Any) -> Self:
        """Read what `to_dict` wrote. Every shape is checked, as model files are untrusted.

        Raises:
            ValueError: a shape or a number is wrong.
        """
        weights = _unpacked(values["weights"], "<u2").astype(np.float32) / 65535
        steps = _unpacked(values["bank"], "i1")
        photos, step = int(values["photos"]), float(values["step"])
        body = np.asarray(values["body"], dtype=np.float32)
        if photos < 0 or bool(photos) != bool(steps.size) or (photos and steps.size % photos):
            raise ValueError("ood.bank is not rows of features")
        bank = np.zeros((0, len(weights)), np.float32)
        if photos:
            bank = steps.reshape(photos, -1) * np.float32(step)
        narrow = photos and bank.shape[1] <= len(weights)
        if body.shape != (GRID,) or not weights.size or narrow:
            raise ValueError("ood has a wrong shape")
        numbers = [float(x) for x in (*values["concepts"], *values["neighbours"])]
        tail_from, tail = float(values["tail_from"]), float(values["tail"])
        finite = np.isfinite([*numbers, tail_from, tail, step]).all() and np.isfinite(body).all()
        if len(numbers) != 4 or not finite or min(tail, numbers[1], numbers[3]) <= 0:
            raise ValueError("ood has numbers that are out of their range")
        if not 0 <= tail_from < 1:
            raise ValueError("ood.tail_from is not a fraction")
        concepts, neighbours = Part(*numbers[:2]), Part(*numbers[2:])
        specialty = Specialty.from_dict(values["specialty"]) if "specialty" in values else None
        if photos and specialty and specialty.width != bank.shape[1] - len(weights):
            raise ValueError("ood.specialty takes features of another backbone")
        return cls(weights, concepts, bank, neighbours, body, tail_from, tail, specialty)


def fit_general_ood(
    features: Floats,
    concepts: Floats,
    groups: npt.NDArray[np.integer[Any]] | None = None,
    *,
    labels: npt.NDArray[np.integer[Any]] | None = None,
    background: Floats | None = None,
    specialty: Specialty | None = None,
    bank: bool = True,
    seed: int = 0,
) -> GeneralOodDetector | None:
    """Fit a detector on photos of the classes.

    The distance of each of them is measured without itself and its copies, so photos that a network
    has learnt from will do, as long as the backbone has not.

    Args:
        features: of the general backbone, `[N, D]`.
        concepts: raw, `[N, K]`.
        groups: `[N]`; copies share a number. None: no copies.
        labels: classes of the photos, `[N]`; None: one class.
        background: the mean confidence in each concept on everyday photos, `[K]`; None: not known.
        specialty: of the backbone; it counts if all classes belong to it. None: it has none.
        bank: keep neighbours in the detector.
        seed: chooses them, where there are more than `MOST_NEIGHBOURS`.

    Returns:
        None if there are fewer than `LEAST_PHOTOS` different photos.
    """
    group = np.arange(len(features)) if groups is None else groups
    if len(set(group.tolist())) < LEAST_PHOTOS:
        return None
    classes = np.zeros(len(features), np.int64) if labels is None else labels
    shown = softmax(concepts)
    weights = _concept_weights(shown.sum(axis=0), background)
    weights = np.rint(weights * 65535) / 65535  # as in a model file
    evidence = _own_evidence(shown, group, background)
    part = Part.of(evidence)
    neighbours, nearest = _own_neighbours(features, concepts, group, seed, MOST_NEIGHBOURS)
    detector = GeneralOodDetector(
        weights=weights.astype(np.float32),
        concepts=part,
        bank=neighbours if bank else np.zeros((0, len(weights)), np.float32),
        neighbours=Part.of(nearest),
        body=np.zeros(GRID, np.float32),
        tail_from=0.0,
        tail=1.0,
        specialty=specialty if specialty and specialty.covers(features, classes) else None,
    )
    distance = part.distance(evidence)
    if bank:
        distance = distance + _NEIGHBOUR_WEIGHT * detector.neighbours.distance(nearest)
    return _with_distances(detector, distance)


def own_distances(
    features: Floats, concepts: Floats, groups: npt.NDArray[np.integer[Any]], seed: int = 0
) -> npt.NDArray[np.float64]:
    """How unlike the others each photo of a set is, `[N]`: the sum of both parts, in spreads.

    Since no model file has to hold them, neighbours are more than in a detector, and the nearest
    five count: a photo that shows no class may have one like it in the set.

    Args:
        features: of the general backbone, `[N, D]`.
        concepts: raw, `[N, K]`.
        groups: `[N]`, at least two; copies share a number.
        seed: chooses the neighbours, where there are more than 1,000.
    """
    evidence = _own_evidence(softmax(concepts), groups)
    _, nearest = _own_neighbours(features, concepts, groups, seed, _NEIGHBOURS_AT_HAND, _NEAREST)
    return Part.of(evidence).distance(evidence) + _NEIGHBOUR_WEIGHT * Part.of(nearest).distance(
        nearest
    )


def _own_evidence(
    shown: Floats, group: npt.NDArray[np.integer[Any]], background: Floats | None = None
) -> npt.NDArray[np.float64]:
    """The concept part of each photo, `[N]`, without itself and its copies."""
    n = len(shown)
    total = shown.sum(axis=0)
    sums: dict[int, Any] = {}
    if len(set(group.tolist())) < n:
        for number, row in zip(group.tolist(), shown, strict=True):
            sums[number] = sums.get(number, 0) + row
    evidence = np.empty(n)
    for index, row in enumerate(shown):
        others = total - sums.get(int(group[index]), row)
        evidence[index] = _log_evidence(row[None], _concept_weights(others, background))[0]
    return evidence


def _own_neighbours(
    features: Floats,
    concepts: Floats,
    group: npt.NDArray[np.integer[Any]],
    seed: int,
    most: int,
    nearest: int = 1,
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float64]]:
    """The neighbours as in a model file, `[M, D + K]`, and how near each photo is to them, `[N]`.

    That is its mean similarity to the nearest ones that are no copies of it.
    """
    n = len(features)
    rows = _joined(features, concepts)
    chosen = np.sort(np.random.default_rng(seed).permutation(n)[:most])
    step = _step(rows[chosen])
    neighbours = (np.rint(rows[chosen] / step) * step).astype(np.float32)
    nearness = np.empty(n)
    nearest = min(nearest, len(chosen))
    for start in range(0, n, 1000):
        similar = rows[start : start + 1000] @ neighbours.T
        own = group[None, chosen] == group[start : start + 1000, None]
        others = np.where(own, -1, similar)
        nearness[start : start + 1000] = np.partition(others, -nearest, axis=1)[:, -nearest:].mean(
            axis=1
        )
    return neighbours, nearness


def _with_distances(
    detector: GeneralOodDetector, distance: npt.NDArray[np.float64]
) -> GeneralOodDetector:
    n = len(distance)
    tail_from = 0.8 if n >= 60 else 0.6 if n >= 20 else 0.5
    start = float(np.quantile(distance, tail_from))
    beyond = distance[distance > start] - start
    body = np.quantile(distance, np.linspace(0, tail_from, GRID)).astype(np.float32)
    faster = 1 + min(_TAIL, _TAIL_PHOTOS / n)
    tail = max(float(beyond.mean()) / faster, 1e-6) if len(beyond) else 1e-6
    return replace(detector, body=body, tail_from=tail_from, tail=tail)


def _concept_weights(shown: Floats, background: Floats | None) -> npt.NDArray[np.float64]:
    """wₖ from the summed confidences of concepts `[K]`, and their means on everyday photos."""
    weights = np.sqrt(np.asarray(shown, np.float64))
    if background is not None:
        share = shown / shown.sum()
        weights *= share / (share + _BACKGROUND_WEIGHT * background + 1e-12)
    result: npt.NDArray[np.float64] = weights / weights.max()
    return result


def _log_evidence(shown: Floats, weights: Floats) -> npt.NDArray[np.float64]:
    result: npt.NDArray[np.float64] = np.log(shown @ np.maximum(weights, _LEAST_WEIGHT))
    return result


def _joined(features: Floats, concepts: Floats) -> npt.NDArray[np.float32]:
    """Features and concepts of photos as rows of unit length, `[N, D + K]`."""
    wide = np.asarray(features, dtype=np.float32)
    roots = np.sign(wide) * np.sqrt(np.abs(wide))  # shortens long tails
    centred = concepts - concepts.mean(axis=1, keepdims=True)
    rows = np.concatenate([_unit(roots), _unit(centred)], axis=1)
    return np.asarray(rows / np.sqrt(2), np.float32)


def _unit(rows: Floats) -> Floats:
    result: Floats = rows / (np.linalg.norm(rows, axis=1, keepdims=True) + 1e-12)
    return result


def _step(bank: Floats) -> float:
    """The step of a byte: a power of 2, so that reading and writing again changes nothing."""
    highest = float(np.abs(bank).max()) if bank.size else 0.0
    return 2.0 ** math.ceil(math.log2(highest / 127)) if highest > 0 else 1.0


def _packed(values: npt.NDArray[Any]) -> str:
    return base64.b64encode(values.tobytes()).decode()


def _unpacked(text: str, kind: str) -> npt.NDArray[Any]:
    return np.frombuffer(base64.b64decode(text, validate=True), dtype=kind)
