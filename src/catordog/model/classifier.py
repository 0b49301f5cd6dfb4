"""The Classifier: photos to raw logits and predictions, with everything from one model file."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import chain, islice
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar, overload

import numpy as np
import numpy.typing as npt
from PIL import Image

from catordog.confidence.conformal import lowest_error_rate, quantile
from catordog.confidence.ood import ACCEPT
from catordog.confidence.verdict import Prediction, check_rules, judge
from catordog.errors import CatordogError, PhotoError
from catordog.model.backends import BATCH, Backend, Floats
from catordog.model.backends.onnx import OnnxBackend
from catordog.model.bundled import BUNDLED, BUNDLED_FIRST
from catordog.model.first_stage import FirstStage, Output, Prepared, open_first_stage
from catordog.model.formats import format_of
from catordog.model.info import ModelInfo
from catordog.model.onnx_file import open_bundled
from catordog.model.photo_forms import PhotoLike, Pictured, is_one, reread, several, to_image
from catordog.model.tta import average_flip, never_one
from catordog.photos.parallel import batched, in_parallel, threads

if TYPE_CHECKING:
    from catordog.model.backbone import Backbone

Item = TypeVar("Item")


class Classifier:
    """Preprocessing, network, class names and calibration in one object.

    Make one with `catordog.load`. It can be pickled, used from several threads, and used after a
    fork.

    Attributes:
        model: the description in the model file.
        backend: runs the network.
        first_stage: answers for easy photos; None: there is none. `logits`, `predict`,
            `predictions` and `stream` use it; what takes pixels does not.
    """

    def __init__(
        self, backend: Backend, model: ModelInfo, first_stage: FirstStage | None = None
    ) -> None:
        self.model = model
        self.backend = backend
        self.first_stage = first_stage
        self.backbone: Backbone | None = None
        if model.backbone is not None:
            from catordog.model.backbone import Backbone  # which most models do without

            self.backbone = Backbone.known_as(model.backbone)

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
        rows = [np.empty((0, len(self.classes)), np.float32)]
        for _, output in self.stream(map(reread, several(photos)), to_image):
            if isinstance(output, PhotoError):
                raise output
            rows.append(output.logits[None])
        return np.concatenate(rows)

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
        items = (Pictured(reread(photo)) for photo in several(photos))
        for item, output in self.stream(items, Pictured.image):
            if isinstance(output, PhotoError):
                raise output
            prediction = self.judge(output, threshold, error_rate, accept)
            results.append(replace(prediction, picture=item.picture))
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
        for _, output in self.stream(map(reread, several(photos)), to_image):
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
            regions=output.regions,
        )

    def outputs(
        self,
        pixels: Sequence[npt.NDArray[np.uint8]],
        general: Sequence[npt.NDArray[np.uint8]] | None = None,
    ) -> list[Output]:
        """The network's outputs for preprocessed photos, `uint8 [S, S, 3]` each.

        Args:
            pixels: of N photos.
            general: of the same photos, for the general backbone, where the model has one beside
                its network; without them there is no ood score.
        """
        if not len(pixels):
            return []
        detector = self.model.ood
        if self.backbone is not None and general is None:
            detector = None
        needs = () if detector is None or self.backbone is not None else detector.needs
        names = ("logits", *needs, *(["regions"] if self.has_regions else []))
        found = dict(zip(names, self.run(np.stack(pixels), *names), strict=True))
        if self.backbone is not None and general is not None:
            found["features"] = self.backbone.features(np.stack(general))
            found["concepts"] = self.backbone.concepts(found["features"])
        scores = (
            None if detector is None else detector.scores(*(found[name] for name in detector.needs))
        )
        return [
            Output(
                logits,
                None if scores is None else float(scores[row]),
                found["regions"][row] if self.has_regions else None,
            )
            for row, logits in enumerate(found["logits"])
        ]

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
                f"{len(scores):,} photos: the lowest is {lowest_error_rate(len(scores)):g}"
            )
        return found

    def logits_of_pixels(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Raw logits `[N, C]` of preprocessed photos, `uint8 [N, S, S, 3]`."""
        if not len(pixels):
            return np.empty((0, len(self.classes)), np.float32)
        (logits,) = self.run(pixels, "logits")
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
        logits, features = self.run(pixels, "logits", "features")
        return logits, features

    def run(self, pixels: npt.NDArray[np.uint8], *names: str) -> list[Floats]:
        """Named outputs of the network, with the test-time augmentation.

        Args:
            pixels: preprocessed photos, `uint8 [N, S, S, 3]`, N ≥ 1.
            names: of `Backend.outputs`; `logits` first.

        Raises:
            CatordogError: the network has no such output.
        """

        def run(inputs: Floats) -> tuple[Floats, ...]:
            return self.backend.run(inputs, names)

        parts = []
        for start in range(0, len(pixels), BATCH):
            inputs = self.model.preprocess.normalise(pixels[start : start + BATCH])
            if self.model.tta_flip:
                below = self.model.tta_flip_below
                parts.append(average_flip(run, inputs, below, never_one(self.model.ood, names)))
            else:
                parts.append(run(inputs))
        return [np.concatenate(column) for column in zip(*parts, strict=True)]

    @property
    def has_features(self) -> bool:
        """Whether `features_of_pixels` works."""
        return self.backend.has_features

    @property
    def has_regions(self) -> bool:
        """Whether predictions tell which other classes a photo shows; see `Prediction.also`."""
        return "regions" in self.backend.outputs

    def prepare(self, image: Callable[[int], Image.Image]) -> Prepared:
        """Make the input of the network that sees a photo first; may be called from any thread.

        Args:
            image: decodes the photo near a size in pixels, as `Photo.image` does. With a first
                stage it may be called again, as long as the result is in use.

        Raises:
            PhotoError: the photo can't be read.
        """
        if self.first_stage is not None:
            return self.first_stage.prepare(image)
        pixels = self.model.preprocess.pixels(image(self.model.preprocess.size))
        if self.backbone is None:
            return Prepared(pixels)
        general = self.backbone.preprocess
        return Prepared(pixels, general.pixels(image(general.size)))

    def outputs_of(self, prepared: Sequence[Prepared]) -> list[Output | PhotoError]:
        """Outputs for what `prepare` made, or the error for a photo that can't be read again."""
        if self.first_stage is None:
            general = [photo.general for photo in prepared if photo.general is not None]
            return list(self.outputs([photo.pixels for photo in prepared], general or None))
        results = self.first_stage.outputs_of(prepared, self.outputs, self.model.preprocess)
        if not self.has_regions:
            return results
        # The first stage only answers where it sees one class.
        nowhere = np.full(len(self.classes), -1, np.float32)
        return [
            replace(result, regions=nowhere)
            if isinstance(result, Output) and result.regions is None
            else result
            for result in results
        ]

    def stream(
        self, items: Iterable[Item], image: Callable[[Item, int], Image.Image]
    ) -> Iterator[tuple[Item, Output | PhotoError]]:
        """Run the network on any number of photos, in order and in bounded memory.

        Args:
            items: photos, or anything else that `image` takes.
            image: decodes an item near a size in pixels, as `Photo.image` does, or raises
                `PhotoError`; called from several threads, and again where a first stage is not
                sure.

        Yields:
            Each item with the network's output, or with the error if it can't be read.
        """

        def prepared(item: Item) -> tuple[Item, Prepared | PhotoError]:
            try:
                return item, self.prepare(lambda near: image(item, near))
            except PhotoError as error:
                return item, error

        iterator = iter(items)
        first = list(islice(iterator, BATCH + 1))
        items = chain(first, iterator)
        if len(first) > BATCH and isinstance(self.backend, OnnxBackend):
            # Many photos: a thread reads and predicts some of them alone, which saves the threads
            # from waiting for each other after each layer.
            results = in_parallel(
                lambda batch: self._with_outputs([*map(prepared, batch)]),
                batched(items, max(4, 2 * BATCH // threads())),
                ahead=2 * threads(),
                alone=True,
            )
        else:
            pairs = in_parallel(prepared, items, ahead=8 * BATCH)
            results = map(self._with_outputs, batched(pairs, BATCH))
        yield from chain.from_iterable(results)

    def _with_outputs(
        self, pairs: list[tuple[Item, Prepared | PhotoError]]
    ) -> list[tuple[Item, Output | PhotoError]]:
        """Items with the network's outputs instead of its inputs."""
        outputs = iter(self.outputs_of([x for _, x in pairs if not isinstance(x, PhotoError)]))
        return [(item, x if isinstance(x, PhotoError) else next(outputs)) for item, x in pairs]


def load(path: str | PathLike[str] | None = None) -> Classifier:
    """Read a model file.

    Args:
        path: a `.ckpt` of `catordog train`, or an `.onnx` of `catordog export`, which needs no
            torch; None or `bundled`: the model that comes with the package.

    Raises:
        CatordogError: there is no such file, or it is not a model.
    """
    if path is None or str(path) == "bundled":
        backend, model, bounds = open_first_stage(BUNDLED_FIRST)
        first_stage = FirstStage(Classifier(backend, model), bounds)
        return Classifier(*open_bundled(BUNDLED), first_stage)
    file = Path(path)
    return Classifier(*format_of(file).open(file))
