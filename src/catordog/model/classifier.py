"""The Classifier: photos to raw logits and predictions, with everything from one model file."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from os import PathLike
from pathlib import Path
from typing import TypeVar, overload

import numpy as np
import numpy.typing as npt

from catordog.confidence.conformal import quantile
from catordog.confidence.ood import ACCEPT
from catordog.confidence.verdict import Prediction, check_rules, judge
from catordog.errors import CatordogError, PhotoError
from catordog.model.backends import Backend, Floats
from catordog.model.formats import format_of
from catordog.model.info import ModelInfo
from catordog.model.photo_forms import PhotoLike, is_one, several, to_image
from catordog.model.tta import average_flip
from catordog.photos.parallel import in_parallel
from catordog.photos.preprocess import thumbnail

Item = TypeVar("Item")
Out = TypeVar("Out")

BATCH = 16
"""Photos per batch: few enough for the activations to fit into the CPU's caches."""

BUNDLED = Path(__file__).parent / "bundled.onnx"
"""The model that comes with the package."""


@dataclass(frozen=True, slots=True)
class Output:
    """A network's output for one photo.

    Attributes:
        logits: raw, `float32 [C]`.
        ood_score: see `OodDetector.scores`, 0…1; None where the model has no ood detector.
    """

    logits: npt.NDArray[np.float32]
    ood_score: float | None = None


class Classifier:
    """Preprocessing, network, class names and calibration in one object.

    Make one with `catordog.load`. It can be pickled, used from several threads, and used after a
    fork.

    Attributes:
        model: the description in the model file.
        backend: runs the network.
    """

    def __init__(self, backend: Backend, model: ModelInfo) -> None:
        self.model = model
        self.backend = backend

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names, in the order of the logits."""
        return self.model.classes

    def logits(self, photos: PhotoLike | Iterable[PhotoLike]) -> npt.NDArray[np.float32]:
        """Raw logits `float32 [N, C]` of photos.

        Args:
            photos: one or several of these: a path, the bytes of a photo file, a binary file
                object, a `PIL.Image` of any mode, an array `[H, W, 3]` in RGB or `[H, W]` in grey,
                or a torch tensor `[3, H, W]`. Arrays and tensors may hold `uint8`, 16-bit or other
                integers, or floats, 0…1 or 0…255; those of four dimensions are several photos.

        Raises:
            PhotoError: one of them can't be read, or is no photo.
        """
        pixels = self._pixels(photos)
        if not pixels:
            return np.empty((0, len(self.classes)), np.float32)
        return self.logits_of_pixels(np.stack(pixels))

    @overload
    def predict(  # type: ignore[overload-overlap]
        self,
        photos: PhotoLike,
        *,
        threshold: float | None = None,
        error_rate: float | None = None,
        accept: float | None = None,
    ) -> Prediction: ...
    @overload
    def predict(
        self,
        photos: Iterable[PhotoLike],
        *,
        threshold: float | None = None,
        error_rate: float | None = None,
        accept: float | None = None,
    ) -> list[Prediction]: ...
    def predict(
        self,
        photos: PhotoLike | Iterable[PhotoLike],
        *,
        threshold: float | None = None,
        error_rate: float | None = None,
        accept: float | None = None,
    ) -> Prediction | list[Prediction]:
        """Predict what photos show: a `Prediction` for one photo, a list of them for several.

        In a notebook a prediction shows itself, with a small picture. For very many photos use
        `predictions`.

        Args:
            photos: as in `logits`.
            threshold: as in `judge`.
            error_rate: as in `judge`.
            accept: as in `judge`.

        Raises:
            PhotoError: one of the photos can't be read.
            CatordogError: a rule is out of its range, or the model can't guarantee the error rate.

        >>> from catordog.photos.synthetic import draw
        >>> classifier = load()
        >>> prediction = classifier.predict(draw(0).image)
        >>> sorted(prediction.logits) == sorted(prediction.confidences) == ["cat", "dog"]
        True
        >>> abs(sum(prediction.confidences.values()) - 1) < 1e-12
        True
        >>> classifier.predict(draw(0).image, threshold=1, accept=1).verdict
        'not sure'
        """
        check_rules(threshold, error_rate, accept)
        results = []
        for batch in _batches(iter(several(photos)), BATCH):
            images = [to_image(p, near=self.model.preprocess.size) for p in batch]
            outputs = self.outputs([self.model.preprocess.pixels(image) for image in images])
            results += [
                replace(self.judge(output, threshold, error_rate, accept), picture=thumbnail(image))
                for output, image in zip(outputs, images, strict=True)
            ]
        return results[0] if is_one(photos) else results

    def predictions(
        self, photos: PhotoLike | Iterable[PhotoLike]
    ) -> Iterator[Prediction | PhotoError]:
        """Predict any number of photos, in order, in parallel and in bounded memory.

        Args:
            photos: as in `logits`; consumed as needed.

        Yields:
            A `Prediction` for each photo, or the error for one that can't be read.

        >>> from catordog.photos.synthetic import draw
        >>> endless = (draw(index).image for index in range(10**9))
        >>> next(load().predictions(endless)).label in ("cat", "dog")
        True
        """
        for _, output in self.stream(several(photos), self._load):
            yield output if isinstance(output, PhotoError) else self.judge(output)

    def judge(
        self,
        output: Output,
        threshold: float | None = None,
        error_rate: float | None = None,
        accept: float | None = None,
    ) -> Prediction:
        """Make a prediction from the network's output for one photo, with this model's calibration.

        Args:
            output: of `stream` or `outputs`.
            threshold: below this confidence the verdict is `not sure`, 0…1; None: the model's.
            error_rate: decide by the prediction set for this error rate instead, 0…1 (see
                `quantile_for`).
            accept: true-accept rate, 0…1: the fraction of photos of the classes that is not called
                `neither`; 1: never say `neither`; None: 0.99.

        Raises:
            CatordogError: see `quantile_for`.
        """
        return judge(
            output.logits,
            self.classes,
            temperature=self.model.temperature,
            threshold=self.model.threshold if threshold is None else threshold,
            quantile=None if error_rate is None else self.quantile_for(error_rate),
            ood_score=output.ood_score,
            accept=ACCEPT if accept is None else accept,
        )

    def outputs(self, pixels: Sequence[npt.NDArray[np.uint8]]) -> list[Output]:
        """The network's outputs for preprocessed photos, `uint8 [S, S, 3]` each."""
        if not len(pixels):
            return []
        if self.model.ood is None:
            return [Output(row) for row in self.logits_of_pixels(np.stack(pixels))]
        logits, features = self.features_of_pixels(np.stack(pixels))
        scores = self.model.ood.scores(features).tolist()
        return [Output(row, score) for row, score in zip(logits, scores, strict=True)]

    def quantile_for(self, error_rate: float) -> float:
        """The conformal quantile of an error rate: the largest nonconformity in a prediction set.

        Args:
            error_rate: the fraction of photos whose prediction set may miss the right class, 0…1.

        Returns:
            In 0…1; see `confidence.conformal.quantile`.

        Raises:
            CatordogError: the model is not calibrated, or on too few photos for this error rate.
        """
        scores = self.model.nonconformity
        if not scores:
            raise CatordogError(
                "this model can't guarantee an error rate: it is not calibrated; calibrate it with "
                "'catordog calibrate'"
            )
        found = quantile(scores, error_rate)
        if found > 1:
            raise CatordogError(
                f"an error rate of {error_rate} is too low for a model that was calibrated on "
                f"{len(scores):,} photos: the lowest is {1 / (len(scores) + 1):.2g}"
            )
        return found

    def logits_of_pixels(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Raw logits `[N, C]` of preprocessed photos, `uint8 [N, S, S, 3]`."""
        if not len(pixels):
            return np.empty((0, len(self.classes)), np.float32)
        (logits,) = self._run(lambda inputs: (self.backend.logits(inputs),), pixels)
        return logits

    def features_of_pixels(
        self, pixels: npt.NDArray[np.uint8]
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Raw logits `[N, C]`, and the features `[N, D]` that the last layer computes them from.

        Args:
            pixels: preprocessed photos, `uint8 [N, S, S, 3]`, N ≥ 1.

        Raises:
            CatordogError: the network does not expose its features.
        """
        # The last layer is linear: the mean of both features gives the mean of both logits.
        logits, features = self._run(self.backend.features, pixels)
        return logits, features

    def _run(
        self, run: Callable[[Floats], tuple[Floats, ...]], pixels: npt.NDArray[np.uint8]
    ) -> list[Floats]:
        """Run the network in batches on N ≥ 1 photos, with the test-time augmentation."""
        parts = []
        for start in range(0, len(pixels), BATCH):
            inputs = self.model.preprocess.normalise(pixels[start : start + BATCH])
            if self.model.tta_flip:
                parts.append(average_flip(run, inputs, self.model.tta_flip_below))
            else:
                parts.append(run(inputs))
        return [np.concatenate(column) for column in zip(*parts, strict=True)]

    @property
    def has_features(self) -> bool:
        """Whether `features_of_pixels` works."""
        return self.backend.has_features

    def stream(
        self, items: Iterable[Item], load: Callable[[Item], npt.NDArray[np.uint8]]
    ) -> Iterator[tuple[Item, Output | PhotoError]]:
        """Run the network on any number of photos, in order and in bounded memory.

        Args:
            items: photos, or anything else that `load` takes.
            load: gives pixels `uint8 [S, S, 3]`, as `Preprocess.load` does, or raises `PhotoError`;
                called from several threads.

        Yields:
            Each item with the network's output, or with the error if it can't be read.
        """

        def pixels(item: Item) -> tuple[Item, npt.NDArray[np.uint8] | PhotoError]:
            try:
                return item, load(item)
            except PhotoError as error:
                return item, error

        for batch in _batches(in_parallel(pixels, items, ahead=8 * BATCH), BATCH):
            good = [result for _, result in batch if not isinstance(result, PhotoError)]
            rows = iter(self.outputs(good))
            for item, result in batch:
                yield item, result if isinstance(result, PhotoError) else next(rows)

    def _pixels(self, photos: PhotoLike | Iterable[PhotoLike]) -> list[npt.NDArray[np.uint8]]:
        return [self._load(photo) for photo in several(photos)]

    def _load(self, photo: PhotoLike) -> npt.NDArray[np.uint8]:
        preprocess = self.model.preprocess
        return preprocess.pixels(to_image(photo, near=preprocess.size))


def _batches(items: Iterable[Out], size: int) -> Iterator[list[Out]]:
    """Consecutive lists of at most `size` items; Python 3.12 has `itertools.batched`."""
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch


def load(path: str | PathLike[str] | None = None) -> Classifier:
    """Read a model file.

    Args:
        path: a `.ckpt` of `catordog train`, or an `.onnx` of `catordog export`, which needs no
            torch; None or `bundled`: the model that comes with the package.

    Raises:
        CatordogError: there is no such file, or it is not a model.
    """
    file = BUNDLED if path is None or str(path) == "bundled" else Path(path)
    return Classifier(*format_of(file).open(file))
