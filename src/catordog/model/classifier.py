"""Classifier: from photos to raw logits, with all that the model file knows."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from os import PathLike
from pathlib import Path
from typing import IO, TypeGuard, TypeVar, overload

import numpy as np
import numpy.typing as npt
from PIL import Image

from catordog.confidence.conformal import quantile
from catordog.confidence.ood import ACCEPT
from catordog.confidence.verdict import Prediction, judge
from catordog.errors import CatordogError, PhotoError
from catordog.model.backends import Backend, TorchBackend, open_onnx
from catordog.model.checkpoint import load_checkpoint
from catordog.model.info import ModelInfo
from catordog.photos.decode import decode
from catordog.photos.parallel import in_parallel
from catordog.photos.photo import Photo
from catordog.photos.preprocess import thumbnail

PhotoLike = str | PathLike[str] | IO[bytes] | Image.Image | npt.NDArray[np.uint8]

Item = TypeVar("Item")
Out = TypeVar("Out")

BATCH = 16
"""Photos that go through the network at once: so few that the CPU's caches hold what is made."""

BUNDLED = Path(__file__).parent / "bundled.onnx"
"""The model that comes with the package."""


@dataclass(frozen=True, slots=True)
class Output:
    """What the network says of one photo.

    Attributes:
        logits: raw, `float32 [C]`.
        ood_score: the share of validation photos that look less strange, 0…1; None where the
            model doesn't know.
    """

    logits: npt.NDArray[np.float32]
    ood_score: float | None = None


class Classifier:
    """Preprocessing, network, class names and calibration, as one thing.

    Make one with `catordog.load`.

    Attributes:
        model: all that the model file says of itself.
        backend: what runs the network.
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
            photos: one or several paths, binary file objects, `PIL.Image`s, or `uint8` arrays
                `[H, W, 3]` in RGB.

        Raises:
            PhotoError: one of them can't be read.
        """
        pixels = self._pixels(photos)
        if not pixels:
            return np.empty((0, len(self.classes)), np.float32)
        return self.logits_of_pixels(np.stack(pixels))

    @overload
    def predict(self, photos: PhotoLike) -> Prediction: ...  # type: ignore[overload-overlap]
    @overload
    def predict(self, photos: Iterable[PhotoLike]) -> list[Prediction]: ...
    def predict(self, photos: PhotoLike | Iterable[PhotoLike]) -> Prediction | list[Prediction]:
        """What is on photos: a `Prediction` for one photo, a list of them for several.

        In a notebook a prediction shows itself, with a small picture. For very many photos see
        `predictions`.

        Args:
            photos: as in `logits`.

        Raises:
            PhotoError: one of them can't be read.

        >>> from catordog.photos.synthetic import draw
        >>> classifier = load()
        >>> prediction = classifier.predict(draw(0).image)
        >>> sorted(prediction.logits) == sorted(prediction.confidences) == ["cat", "dog"]
        True
        >>> abs(sum(prediction.confidences.values()) - 1) < 1e-12
        True
        """
        results = []
        for batch in _batches(iter(_several(photos)), BATCH):
            images = [self._image(photo) for photo in batch]
            outputs = self.outputs([self.model.preprocess.pixels(image) for image in images])
            results += [
                replace(self.judge(output), picture=thumbnail(image))
                for output, image in zip(outputs, images, strict=True)
            ]
        return results[0] if _is_one(photos) else results

    def predictions(self, photos: Iterable[PhotoLike]) -> Iterator[Prediction | PhotoError]:
        """Predict any number of photos, in order, in parallel and in bounded memory.

        Args:
            photos: as in `logits`; they are asked for as they are needed.

        Yields:
            a `Prediction` for each photo, or the error that kept it from being read.

        >>> from catordog.photos.synthetic import draw
        >>> endless = (draw(index).image for index in range(10**9))
        >>> next(load().predictions(endless)).label in ("cat", "dog")
        True
        """
        for _, output in self.stream(photos, self._load):
            yield output if isinstance(output, PhotoError) else self.judge(output)

    def judge(
        self,
        output: Output,
        threshold: float | None = None,
        error_rate: float | None = None,
        accept: float | None = None,
    ) -> Prediction:
        """Make a prediction from what the network says of one photo, by this model's calibration.

        Args:
            output: of `stream` or `outputs`.
            threshold: below this confidence the verdict is `not sure`; None: the model's.
            error_rate: decide by this instead, 0…1 (see `quantile_for`).
            accept: the share of photos like those of validation that is not called `neither`, 0…1;
                1: none is; None: 0.95.
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
        """What the network says of preprocessed photos, `uint8 [S, S, 3]` each."""
        if not len(pixels):
            return []
        if self.model.ood is None:
            return [Output(row) for row in self.logits_of_pixels(np.stack(pixels))]
        logits, features = self.features_of_pixels(np.stack(pixels))
        strange = self.model.ood.scores(features).tolist()
        return [Output(row, each) for row, each in zip(logits, strange, strict=True)]

    def quantile_for(self, error_rate: float) -> float:
        """How strange a class may look that is kept, so that the right one seldom is missing.

        Args:
            error_rate: the share of photos whose right class may be missing, 0…1.

        Raises:
            CatordogError: the model has not been calibrated, or has seen too few photos for that.
        """
        scores = self.model.nonconformity
        if not scores:
            raise CatordogError(
                "this model can promise no error rate: it was not calibrated, as a run that was "
                "stopped early is not; let the training run to its end"
            )
        found = quantile(scores, error_rate)
        if found > 1:
            raise CatordogError(
                f"an error rate of {error_rate} is too little to promise after {len(scores):,} "
                f"validation photos: the least is {1 / (len(scores) + 1):.2g}"
            )
        return found

    def logits_of_pixels(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Raw logits `[N, C]` of preprocessed photos, `uint8 [N, S, S, 3]`."""
        rows = [np.empty((0, len(self.classes)), np.float32)]
        rows += [self.backend.logits(inputs) for inputs in self._inputs(pixels)]
        return np.concatenate(rows)

    def features_of_pixels(
        self, pixels: npt.NDArray[np.uint8]
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Raw logits `[N, C]`, and what the last layer makes them from, the features `[N, D]`.

        Args:
            pixels: preprocessed photos, `uint8 [N, S, S, 3]`, at least one.

        Raises:
            CatordogError: the network doesn't tell.
        """
        parts = [self.backend.features(inputs) for inputs in self._inputs(pixels)]
        logits, features = (np.concatenate(column) for column in zip(*parts, strict=True))
        return logits, features

    def _inputs(self, pixels: npt.NDArray[np.uint8]) -> Iterator[npt.NDArray[np.float32]]:
        for start in range(0, len(pixels), BATCH):
            yield self.model.preprocess.normalise(pixels[start : start + BATCH])

    @property
    def has_features(self) -> bool:
        """Whether `features_of_pixels` works."""
        return self.backend.has_features

    def stream(
        self, items: Iterable[Item], load: Callable[[Item], npt.NDArray[np.uint8]]
    ) -> Iterator[tuple[Item, Output | PhotoError]]:
        """What the network says of any number of photos, in order and in bounded memory.

        Args:
            items: photos, or anything else that `load` takes.
            load: gives pixels `uint8 [S, S, 3]`, as `Preprocess.load` does, or raises `PhotoError`;
                called from several threads.

        Yields:
            each item with what the network says, or with the error that kept it from being read.
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
        return [self._load(photo) for photo in _several(photos)]

    def _load(self, photo: PhotoLike) -> npt.NDArray[np.uint8]:
        return self.model.preprocess.pixels(self._image(photo))

    def _image(self, photo: PhotoLike) -> Image.Image:
        side = self.model.preprocess.size
        if isinstance(photo, Image.Image):
            buffer = io.BytesIO()  # through the one decoder: profiles, transparency, rotation
            photo.save(buffer, "TIFF" if photo.mode == "F" else "PNG", exif=photo.getexif())
            return decode(buffer.getvalue(), "image")
        if isinstance(photo, np.ndarray):
            if photo.dtype != np.uint8 or photo.ndim != 3 or photo.shape[2] != 3:
                raise CatordogError(
                    f"an array of {photo.dtype} {list(photo.shape)} is no photo: "
                    "give uint8 [height, width, 3] in RGB"
                )
            return Image.fromarray(photo)
        if isinstance(photo, (str, PathLike)):
            return Photo.from_file(photo).image(near=side)
        return Photo.from_bytes(photo.read(), getattr(photo, "name", "photo")).image(near=side)


def _batches(items: Iterable[Out], size: int) -> Iterator[list[Out]]:
    """Consecutive lists of at most `size` items; Python 3.12 has `itertools.batched`."""
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch


def _several(photos: PhotoLike | Iterable[PhotoLike]) -> Iterable[PhotoLike]:
    return [photos] if _is_one(photos) else photos  # type: ignore[return-value]


def _is_one(photos: PhotoLike | Iterable[PhotoLike]) -> TypeGuard[PhotoLike]:
    return isinstance(photos, (str, PathLike, Image.Image, np.ndarray)) or hasattr(photos, "read")


def load(path: str | PathLike[str] | None = None) -> Classifier:
    """Read a model file.

    Args:
        path: a `.ckpt` of `catordog train`, or an `.onnx` of `catordog export`, which needs no
            torch; None or `bundled`: the model that comes with the package.

    Raises:
        CatordogError: there is no such file, or it is not a model.
    """
    file = BUNDLED if path is None or str(path) == "bundled" else Path(path)
    if file.suffix == ".onnx":
        return _load_onnx(file)
    checkpoint = load_checkpoint(file)
    from catordog.model.networks import build_network

    model = checkpoint.model
    network = build_network(
        model.network, len(model.classes), model.network_args, size=model.preprocess.size
    )
    weights = {
        key.removeprefix("network."): value
        for key, value in checkpoint.state.items()
        if key.startswith("network.")
    }
    try:
        network.load_state_dict(weights)
    except (RuntimeError, TypeError, AttributeError) as error:
        reason = str(error).splitlines()[-1].strip()
        raise CatordogError(f"{file}: its weights don't fit its network: {reason}") from None
    backend = TorchBackend(network, model.preprocess.size, tta_flip=model.tta_flip)
    return Classifier(backend, model)


def _load_onnx(path: Path) -> Classifier:
    backend, said = open_onnx(path)
    if "catordog" not in said:
        raise CatordogError(
            f"model {path}: not written by 'catordog export' (it has no class names and no "
            "preprocessing)"
        )
    try:
        model = ModelInfo.from_dict(json.loads(said["catordog"]))
    except (CatordogError, ValueError, RecursionError) as error:
        raise CatordogError(f"model {path}: {error}") from None
    side = model.preprocess.size
    fits = backend.shapes[0][1:] == [3, side, side] and backend.shapes[1][1:] == [
        len(model.classes)
    ]
    if model.ood is not None:
        fits = fits and backend.shapes[2:3] == [[backend.shapes[0][0], model.ood.bank.shape[1]]]
    if not fits:
        raise CatordogError(f"model {path}: its network is not the one that it describes")
    return Classifier(backend, model)
