"""Features of the photos that a model was taught with, in its file, so that it can learn more.

They take a byte for each feature, and are text under a key of their own in the metadata of the
ONNX file. Other commands ignore them.
"""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from catordog.model.feature_cache import record_type
from catordog.photos.near_copies import HASH_BYTES
from catordog.photos.records import Records

EXAMPLES_KEY = "catordog-examples"
"""Of the metadata."""

MOST_KEPT = 500
"""Photos of each class whose features are kept."""


@dataclass(frozen=True, slots=True, eq=False)
class Examples:
    """What a model has learnt from.

    Attributes:
        records: content keys, perceptual hashes and features of N photos.
        labels: their indices into the model's classes, `[N]`.
    """

    records: Records
    labels: npt.NDArray[np.int64]

    def limited(self, seed: int = 0) -> Self:
        """At most `MOST_KEPT` photos of each class, chosen at random."""
        order = np.random.default_rng(seed).permutation(len(self.labels))
        kept = [order[self.labels[order] == x][:MOST_KEPT] for x in np.unique(self.labels)]
        rows = np.sort(np.concatenate(kept))
        return type(self)(self.records[rows], self.labels[rows])

    def to_text(self) -> str:
        """As text for a model file, with one byte for each feature.

        The steps are those of the square root, as most features are near 0.
        """
        features = self.records["features"].astype(np.float32)
        highest = float(np.abs(features).max()) or 1.0
        roots = np.sign(features) * np.sqrt(np.abs(features) / highest)
        return json.dumps(
            {
                "format": 1,
                "highest": highest,
                "labels": self.labels.tolist(),
                "keys": _packed(self.records["key"]),
                "hashes": _packed(self.records["hash"]),
                "mirrored": _packed(self.records["mirrored"]),
                "features": _packed(np.rint(roots * 127).astype(np.int8)),
            }
        )

    @classmethod
    def from_text(cls, text: str, width: int, classes: int) -> Self:
        """Read what `to_text` wrote. Every shape is checked, as model files are untrusted.

        Args:
            text: of a model file.
            width: the number of features of its backbone.
            classes: the number of its classes.

        Raises:
            ValueError: the text is damaged.
        """
        try:
            values = json.loads(text)
            known = values["format"] == 1
            labels = np.array(values["labels"], np.int64)
            n = len(labels)
            highest = float(values["highest"])
            records: Records = np.zeros(n, record_type(width))
            records["key"] = _unpacked(values["keys"], "<u8")
            records["hash"] = _unpacked(values["hashes"], "u1").reshape(n, HASH_BYTES)
            records["mirrored"] = _unpacked(values["mirrored"], "u1").reshape(n, HASH_BYTES)
            steps = _unpacked(values["features"], "i1").reshape(n, width).astype(np.float32) / 127
        except (KeyError, OverflowError, RecursionError, TypeError, ValueError) as error:
            raise ValueError(f"the features of its photos are damaged: {error}") from None
        if not known or not 0 < highest < 6e4 or labels.ndim != 1:
            raise ValueError("the features of its photos are of a format that is unknown")
        if not n or set(labels.tolist()) != set(range(classes)):
            raise ValueError("the features of its photos are not those of its classes")
        records["features"] = np.sign(steps) * steps**2 * highest
        return cls(records, labels)


def _packed(values: npt.NDArray[Any]) -> str:
    return base64.b64encode(np.ascontiguousarray(values).tobytes()).decode()


def _unpacked(text: str, kind: str) -> npt.NDArray[Any]:
    return np.frombuffer(base64.b64decode(text, validate=True), dtype=kind)
