"""The general backbone: features and concepts of photos, from a network trained on many things.

It is an ONNX file with the outputs `features` `[N, D]` and `concepts` `[N, K]`, the raw logits of
the classes that it was trained on. The bundled model is one, and so is every taught model.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path

import numpy as np
import numpy.typing as npt

from catordog.errors import CatordogError
from catordog.model.backends import BATCH
from catordog.model.backends.onnx import Graph
from catordog.model.bundled import BUNDLED
from catordog.model.knowledge import Knowledge
from catordog.model.linear_head import LinearHead
from catordog.model.onnx_graph import LinearLayer, cut, with_input_size
from catordog.photos.preprocess import Preprocess

MEAN, STD = (127 / 255,) * 3, (128 / 255,) * 3
"""Mean and standard deviation of pixels in 0…1 that the backbone expects."""

FEATURES, CONCEPTS = "features", "concepts"
"""Outputs of a backbone."""


@dataclass(slots=True)
class Backbone:
    """A general backbone. Make one with `Backbone.read`.

    Attributes:
        trunk: an ONNX model with the outputs features and concepts alone.
        preprocess: how a photo becomes its input.
        width: D, the number of features.
        concept_count: K, the number of concepts.
        knowledge: what the file says about photos in general.
    """

    trunk: bytes = field(repr=False)
    preprocess: Preprocess
    width: int
    concept_count: int
    knowledge: Knowledge
    _graph: Graph = field(repr=False)
    _concepts: Graph | None = field(default=None, repr=False)

    @classmethod
    def read(cls, path: str | PathLike[str] | None = None, size: int | None = None) -> Backbone:
        """Read a backbone.

        Args:
            path: an ONNX file; None: the bundled one.
            size: of its input, in pixels, for a network that takes any; a smaller one is faster.
                None: as in the file.

        Raises:
            CatordogError: there is no such file, or it has no general features.
        """
        file = BUNDLED if path is None else Path(path)
        try:
            data = file.read_bytes()
            graph = Graph(data)
            shapes = graph.shapes
            if not {FEATURES, CONCEPTS} <= set(shapes):
                raise CatordogError("it has no outputs 'features' and 'concepts'")
            width, count = (int(shapes[name][1]) for name in (FEATURES, CONCEPTS))
            knowledge = Knowledge.of(graph.metadata, width, count)
            trunk = cut(data, {FEATURES: width, CONCEPTS: count})
            if size is not None:
                trunk = with_input_size(trunk, size)
                graph = Graph(trunk)
            side = int(graph.input_shape[2])
        except OSError as error:
            raise CatordogError(f"{file} can't be read: {error.strerror or error}") from None
        except (CatordogError, ValueError, TypeError, IndexError) as error:
            raise CatordogError(f"{file} is no general backbone: {error}") from None
        preprocess = Preprocess(side, "squash", MEAN, STD)
        return cls(trunk, preprocess, width, count, knowledge, graph)

    @classmethod
    def known_as(cls, digest: str) -> Backbone:
        """The bundled backbone, for a model whose ood detector was fitted on it.

        Args:
            digest: of the backbone that the detector was fitted on.

        Raises:
            CatordogError: the bundled backbone is another.
        """
        backbone = cls.read()
        if backbone.digest != digest:
            raise CatordogError(
                "the model's ood detector was fitted on the general backbone of another version of "
                "catordog: fit it again with 'catordog calibrate MODEL --data D --general'"
            )
        return backbone

    @property
    def digest(self) -> str:
        """A name for the network: the same for the same network, in whatever file."""
        return hashlib.blake2b(self.trunk, digest_size=8).hexdigest()

    def features(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Features `[N, D]` of preprocessed photos, `uint8 [N, S, S, 3]`."""
        parts = [np.empty((0, self.width), np.float32)]
        for start in range(0, len(pixels), BATCH):
            inputs = self.preprocess.normalise(pixels[start : start + BATCH])
            parts += self._graph.run(inputs, [FEATURES])
        return np.concatenate(parts)

    def concepts(self, features: npt.NDArray[np.floating]) -> npt.NDArray[np.float32]:
        """Raw concepts `[N, K]` of features `[N, D]`."""
        if self._concepts is None:
            self._concepts = Graph(
                cut(self.trunk, {CONCEPTS: self.concept_count}, inputs={FEATURES: self.width})
            )
        (result,) = self._concepts.run(features.astype(np.float32), [CONCEPTS])
        return result

    def with_head(self, head: LinearHead) -> bytes:
        """An ONNX model: this backbone with a linear layer, whose output is raw `logits`."""
        layer = LinearLayer((FEATURES, CONCEPTS), "logits", head.weight, head.bias)
        outputs = {"logits": len(head.bias), FEATURES: self.width, CONCEPTS: self.concept_count}
        return cut(self.trunk, outputs, append=layer)


def rows_of(
    features: npt.NDArray[np.float32], concepts: npt.NDArray[np.float32]
) -> npt.NDArray[np.float32]:
    """Features and centred concepts, scaled to the same mean length, `[N, D + K]`."""
    centred = concepts - concepts.mean(axis=1, keepdims=True)
    parts = (part / (np.sqrt((part**2).sum(axis=1).mean()) or 1) for part in (features, centred))
    return np.concatenate([*parts], axis=1, dtype=np.float32)


def compact_rows(
    backbone: Backbone, features: npt.NDArray[np.float32], concepts: npt.NDArray[np.float32]
) -> npt.NDArray[np.float32]:
    """As `rows_of`, but `[N, D]`: rows with the same inner products once they are centred.

    Concepts are an affine function of features, so rows of both lie in a space of D dimensions.
    """
    width = features.shape[1]
    outputs = backbone.concepts(np.concatenate([np.zeros((1, width)), np.eye(width)]))
    weights = np.asarray(outputs[1:] - outputs[0], np.float64)
    weights -= weights.mean(axis=1, keepdims=True)
    centred = concepts - concepts.mean(axis=1, keepdims=True)
    squares = [float((part**2).sum(axis=1).mean()) or 1.0 for part in (features, centred)]
    products = np.eye(width) / squares[0] + weights @ weights.T / squares[1]
    return features @ np.linalg.cholesky(products).astype(np.float32)
