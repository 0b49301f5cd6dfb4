"""Find the photos that look most alike, by the features of a network."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from catordog.evaluation.judging import SIZE
from catordog.model.backbone import Backbone
from catordog.model.feature_cache import MOST_CACHED, features_of
from catordog.photos.decode import DecodeRules
from catordog.photos.findings import Findings

_AT_ONCE = 4096
"""Photos whose features are widened to 32 bits at a time."""


class Neighbours:
    """The nearest photos by cosine similarity.

    Args:
        indices: of N photos.
        features: of these, `[N, D]`; kept in 16 bits.
    """

    def __init__(self, indices: Sequence[int], features: npt.NDArray[np.floating]) -> None:
        self._indices = np.asarray(indices)
        self._row_of = {index: row for row, index in enumerate(indices)}
        wide = features.astype(np.float32)
        lengths = np.maximum(np.linalg.norm(wide, axis=1, keepdims=True), 1e-12)
        self._unit = (wide / lengths).astype(np.float16)

    def of(self, index: int, count: int) -> list[tuple[int, float]]:
        """The nearest photos of a photo, the nearest first: index and similarity, at most 1.

        Args:
            index: of the photo; one that is not known has no neighbours.
            count: how many.

        >>> Neighbours([4, 7, 9], np.eye(3)[[0, 0, 1]]).of(4, 1)
        [(7, 1.0)]
        """
        row = self._row_of.get(index)
        if row is None:
            return []
        own = self._unit[row].astype(np.float32)
        similar = np.concatenate(
            [
                self._unit[start : start + _AT_ONCE].astype(np.float32) @ own
                for start in range(0, len(self._unit), _AT_ONCE)
            ]
        )
        similar[row] = -np.inf
        count = min(count, len(similar) - 1)
        if count < 1:
            return []
        best = np.argpartition(-similar, count - 1)[:count]
        ranked = best[np.argsort(-similar[best], kind="stable")]
        return [(int(self._indices[i]), float(similar[i])) for i in ranked]


def neighbours_by_backbone(findings: Findings, rules: DecodeRules) -> Neighbours:
    """Neighbours by the general backbone, from the features that judging the labels has cached.

    Args:
        findings: of the photos; if they are more than the cache holds, none has neighbours.
        rules: that the photos are decoded by.
    """
    readable = [index for index, facts in enumerate(findings.facts) if facts]
    if not 1 < len(readable) <= MOST_CACHED:
        return Neighbours([], np.zeros((0, 1), np.float32))
    photos = [findings.photos[index] for index in readable]
    records, found, _ = features_of(photos, Backbone.read(size=SIZE), rules)
    return Neighbours([readable[row] for row in found], records["features"])
