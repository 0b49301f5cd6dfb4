"""The first stage of a cascade: a small network that answers for the photos it is sure about.

Most photos are easy. A network of a few percent of the large one's cost answers for them, and only
the others go to the large one (Viola and Jones 2001). Each photo is decided by itself, whatever
batch it is in.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self

import numpy as np
import numpy.typing as npt

from catordog.confidence.softmax import softmax
from catordog.errors import CatordogError, PhotoError
from catordog.model.info import ModelInfo
from catordog.model.onnx_file import open_onnx
from catordog.photos.parallel import in_parallel
from catordog.photos.preprocess import Preprocess

if TYPE_CHECKING:
    from PIL import Image

    from catordog.model.backends.onnx import OnnxBackend

Pixels = npt.NDArray[np.uint8]

KEY = "catordog.first_stage"
"""Of the metadata: when the network answers, as JSON."""


@dataclass(frozen=True, slots=True)
class Output:
    """A network's output for one photo.

    Attributes:
        logits: raw, `float32 [C]`.
        ood_score: see `Detector.scores`, 0…1; None where the model has no ood detector.
        regions: regional evidence of each class, `float32 [C]`, above 0 where the photo shows it;
            None where the model has none.
    """

    logits: npt.NDArray[np.float32]
    ood_score: float | None = None
    regions: npt.NDArray[np.float32] | None = None


@dataclass(frozen=True, slots=True)
class Prepared:
    """A photo as input.

    Attributes:
        pixels: of the network that sees it first, `uint8 [S, S, 3]`.
        general: input of the general backbone, where the model has one beside its network.
        large: makes the input of the large network, where a first stage sees it first.
    """

    pixels: Pixels
    general: Pixels | None = None
    large: Callable[[], Pixels] | None = None


@dataclass(frozen=True, slots=True)
class Bounds:
    """When the first stage answers.

    Attributes:
        confidence: the least confidence of its answers, 0…1.
        ood_score: their highest ood score, 0…1.
    """

    confidence: float
    ood_score: float

    def allow(
        self, logits: npt.NDArray[np.float32], temperature: float, ood_score: float | None
    ) -> bool:
        """Whether the first stage answers for a photo with these raw logits `[C]`."""
        if (math.inf if ood_score is None else ood_score) > self.ood_score:
            return False
        return bool(softmax(logits, temperature).max() >= self.confidence)

    def to_json(self) -> str:
        """As metadata of an ONNX file."""
        return json.dumps({"confidence": self.confidence, "ood_score": self.ood_score})

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read what `to_json` wrote.

        Raises:
            ValueError: a value is missing or out of its range.
        """
        values: Any = json.loads(text)
        bounds = cls(float(values["confidence"]), float(values["ood_score"]))
        if not all(0 <= value <= 1 for value in (bounds.confidence, bounds.ood_score)):
            raise ValueError(f"{text} is not within 0…1")
        return bounds


class Small(Protocol):
    """The small classifier."""

    model: ModelInfo

    def outputs(self, pixels: Sequence[Pixels]) -> list[Output]:
        """Its outputs for preprocessed photos, `uint8 [S, S, 3]` each."""


class FirstStage:
    """A small classifier that answers for the photos it is sure about.

    Args:
        small: with the classes of the large one, and logits that are calibrated by the same
            temperature.
        bounds: when it answers.
    """

    def __init__(self, small: Small, bounds: Bounds) -> None:
        self.small = small
        self.bounds = bounds

    def prepare(self, image: Callable[[int], Image.Image], large: Preprocess) -> Prepared:
        """Make the input of the small network, and what makes that of the large one.

        Args:
            image: decodes the photo near a size in pixels.
            large: preprocessing of the large network.

        Raises:
            PhotoError: the photo can't be read.
        """
        decoded = image(self.small.model.preprocess.size)
        pixels = self.small.model.preprocess.pixels(decoded)
        if min(decoded.size) >= large.size:
            return Prepared(pixels, large=lambda: large.pixels(decoded))
        return Prepared(pixels, large=lambda: large.pixels(image(large.size)))

    def outputs_of(
        self, prepared: Sequence[Prepared], large: Callable[[Sequence[Pixels]], list[Output]]
    ) -> list[Output | PhotoError]:
        """Outputs for what `prepare` made: the small network's, or the large one's.

        Args:
            prepared: the photos.
            large: runs the large network.

        Returns:
            An output for each photo, or the error for one that can't be decoded again.
        """
        small = self.small.outputs([photo.pixels for photo in prepared])
        results: list[Output | PhotoError] = [*small]
        unsure = [row for row, output in enumerate(small) if not self.is_sure(output)]
        read: dict[int, Pixels] = {}
        decoded = in_parallel(_large, [prepared[row] for row in unsure])
        for row, pixels in zip(unsure, decoded, strict=True):
            if isinstance(pixels, PhotoError):
                results[row] = pixels
            else:
                read[row] = pixels
        for row, output in zip(read, large(list(read.values())), strict=True):
            results[row] = output
        return results

    def is_sure(self, output: Output) -> bool:
        """Whether the small network answers for the photo that it has this output for."""
        temperature = self.small.model.temperature
        return self.bounds.allow(output.logits, temperature, output.ood_score)


def _large(photo: Prepared) -> Pixels | PhotoError:
    assert photo.large is not None
    try:
        return photo.large()
    except PhotoError as error:
        return error


def open_first_stage(path: Path) -> tuple[OnnxBackend, ModelInfo, Bounds]:
    """Read the file of a first stage: an ordinary model file that also says when it answers.

    Its logits are scaled so that the temperature of the large network calibrates them, too.

    Raises:
        CatordogError: it is missing, damaged, or no first stage.
    """
    backend, model = open_onnx(path)
    try:
        bounds = Bounds.from_json(backend.metadata[KEY])
    except (KeyError, ValueError, TypeError) as error:
        raise CatordogError(f"model {path}: not a first stage ({error!r})") from None
    return backend, model, bounds
