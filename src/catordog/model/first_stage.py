"""The first stage of a cascade: a small network that answers for the photos it is sure about.

Most photos are easy. A network of a few percent of the large one's cost answers for them, from few
pixels (Viola and Jones 2001). It looks at the others again in more pixels (Yang et al. 2020), and
only those that it is still unsure about go to the large one. Each photo is decided by itself,
whatever batch it is in.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

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
"""Of the metadata: when the network answers, as a JSON list of `Bounds`."""


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
        again: makes other input from it, where a first stage may not be sure.
    """

    pixels: Pixels
    general: Pixels | None = None
    again: Callable[[Preprocess], Pixels] | None = None


@dataclass(frozen=True, slots=True)
class Bounds:
    """When the first stage answers at one resolution.

    Attributes:
        size: of its input, in pixels.
        confidence: the least confidence of its answers, 0…1.
        ood_score: their highest ood score, 0…1.
        neither: also answer for photos less like the classes than any calibration photo, which are
            `neither`.
        scale: what its logits are multiplied by, so that one temperature calibrates those of every
            resolution.
    """

    size: int
    confidence: float
    ood_score: float
    neither: bool = False
    scale: float = 1.0

    def allow(
        self, logits: npt.NDArray[np.float32], temperature: float, ood_score: float | None
    ) -> bool:
        """Whether the first stage answers for a photo with these raw logits `[C]`."""
        if ood_score is None:
            return False
        if ood_score > self.ood_score:
            return self.neither and ood_score >= 1
        return bool(softmax(logits, temperature).max() >= self.confidence)


def to_json(bounds: Sequence[Bounds]) -> str:
    """Bounds as metadata of an ONNX file."""
    return json.dumps([asdict(each) for each in bounds])


def from_json(text: str) -> tuple[Bounds, ...]:
    """Read what `to_json` wrote.

    Raises:
        ValueError, KeyError, TypeError: a value is missing or out of its range.
    """
    values: Any = json.loads(text)
    bounds = tuple(
        Bounds(
            int(each["size"]),
            float(each["confidence"]),
            float(each["ood_score"]),
            bool(each["neither"]),
            float(each["scale"]),
        )
        for each in values
    )
    within = all(0 <= x <= 1 for each in bounds for x in (each.confidence, each.ood_score))
    if not (bounds and within and all(0.01 <= each.scale <= 100 for each in bounds)):
        raise ValueError(f"{text} is empty, or a value is not within its range")
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
        bounds: when it answers, for each resolution at which it looks; the lowest first.
    """

    def __init__(self, small: Small, bounds: Sequence[Bounds]) -> None:
        self.small = small
        self.bounds = tuple(bounds)

    def preprocess(self, bounds: Bounds) -> Preprocess:
        """Preprocessing for the resolution of these bounds."""
        return replace(self.small.model.preprocess, size=bounds.size)

    def prepare(self, image: Callable[[int], Image.Image]) -> Prepared:
        """Make the input of the first look, and what makes that of the others.

        Args:
            image: decodes the photo near a size in pixels.

        Raises:
            PhotoError: the photo can't be read.
        """
        first = self.preprocess(self.bounds[0])
        decoded = image(first.size)

        def again(preprocess: Preprocess) -> Pixels:
            large_enough = min(decoded.size) >= preprocess.size
            return preprocess.pixels(decoded if large_enough else image(preprocess.size))

        return Prepared(first.pixels(decoded), again=again)

    def outputs_of(
        self,
        prepared: Sequence[Prepared],
        large: Callable[[Sequence[Pixels]], list[Output]],
        preprocess: Preprocess,
    ) -> list[Output | PhotoError]:
        """Outputs for what `prepare` made: the small network's, or the large one's.

        Args:
            prepared: the photos.
            large: runs the large network.
            preprocess: of the large network.

        Returns:
            An output for each photo, or the error for one that can't be decoded again.
        """
        results: dict[int, Output | PhotoError] = {}
        unsure = dict(enumerate(photo.pixels for photo in prepared))
        then = [self.preprocess(bounds) for bounds in self.bounds[1:]] + [preprocess]
        for bounds, following in zip(self.bounds, then, strict=True):
            for row, output in zip(
                tuple(unsure), self.look([*unsure.values()], bounds), strict=True
            ):
                if self.is_sure(output, bounds):
                    results[row] = output
                    del unsure[row]
            rows = tuple(unsure)
            read = partial(_again, preprocess=following)
            again = in_parallel(read, [prepared[row] for row in rows])
            for row, pixels in zip(rows, again, strict=True):
                if isinstance(pixels, PhotoError):
                    results[row] = pixels
                    del unsure[row]
                else:
                    unsure[row] = pixels
        results.update(zip(unsure, large([*unsure.values()]), strict=True))
        return [results[row] for row in range(len(prepared))]

    def look(self, pixels: Sequence[Pixels], bounds: Bounds) -> list[Output]:
        """The small network's outputs at one resolution.

        Args:
            pixels: of `preprocess`, `uint8 [S, S, 3]` each.
            bounds: of the resolution.
        """
        return [
            replace(output, logits=output.logits * np.float32(bounds.scale))
            for output in self.small.outputs(pixels)
        ]

    def is_sure(self, output: Output, bounds: Bounds) -> bool:
        """Whether the small network answers for the photo that it has this output for."""
        return bounds.allow(output.logits, self.small.model.temperature, output.ood_score)


def _again(photo: Prepared, preprocess: Preprocess) -> Pixels | PhotoError:
    assert photo.again is not None
    try:
        return photo.again(preprocess)
    except PhotoError as error:
        return error


def open_first_stage(path: Path) -> tuple[OnnxBackend, ModelInfo, tuple[Bounds, ...]]:
    """Read the file of a first stage: an ordinary model file that also says when it answers.

    Its logits are scaled so that the temperature of the large network calibrates them, too.

    Raises:
        CatordogError: it is missing, damaged, or no first stage.
    """
    backend, model = open_onnx(path)
    try:
        bounds = from_json(backend.metadata[KEY])
    except (KeyError, ValueError, TypeError) as error:
        raise CatordogError(f"model {path}: not a first stage ({error!r})") from None
    return backend, model, bounds
