"""Calibrate a model on photos that it was not trained on: temperature, conformal scores, ood."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from catordog.confidence.conformal import nonconformity, thinned
from catordog.confidence.detectors import Detector
from catordog.confidence.ood import LEAST_PHOTOS, OodDetector, fit_ood
from catordog.confidence.ood_general import GeneralOodDetector
from catordog.confidence.ood_output import OutputDetector, fit_output
from catordog.confidence.softmax import softmax
from catordog.confidence.temperature import fit_temperature, log_loss
from catordog.errors import CatordogError, PhotoError
from catordog.model.backbone import Backbone
from catordog.model.backends import BATCH
from catordog.model.bundled import BUNDLED
from catordog.model.class_matching import match_classes
from catordog.model.classifier import Classifier, load
from catordog.model.formats import format_of
from catordog.model.info import ENSEMBLE, ModelInfo
from catordog.model.knowledge import Knowledge
from catordog.model.onnx_graph import metadata_of
from catordog.model.own_split import check_own_split
from catordog.photos.datasets import open_dataset
from catordog.photos.decode import DEFAULT_RULES, DecodeRules
from catordog.photos.near_copies import Hashes, copy_groups, hashes_of_pixels
from catordog.photos.photo import Photo
from catordog.photos.reading import decoded, none_read
from catordog.photos.splits import Split
from catordog.terminal import info, progress

_OOD_NEEDS = (OutputDetector.needs, GeneralOodDetector.needs, OodDetector.needs)
"""Outputs of a network that ood detectors need, the best detector first."""

Batches = Iterable[tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]]
"""Photos `uint8 [N, S, S, 3]` with their labels `[N]`."""

_PHOTOS = {
    "train": "training photos",
    "val": "validation photos",
    "test": "test photos",
    "all": "photos of all splits",
}


@dataclass(frozen=True, slots=True)
class Calibration:
    """The result of a calibration.

    Attributes:
        model: the new description in the model file.
        logits: raw logits of the N photos, `float32 [N, C]`.
        labels: their labels, `int64 [N]`.
        temperature_before, temperature: of `softmax`.
        nll_before, nll: mean negative log-likelihood of the labels at these, in nats.
        accuracy: 0…1; calibration does not change it.
        failures: one for each photo that could not be read.
    """

    model: ModelInfo
    logits: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int64]
    temperature_before: float
    temperature: float
    nll_before: float
    nll: float
    accuracy: float
    failures: tuple[PhotoError, ...] = ()

    @property
    def n(self) -> int:
        """The number of photos."""
        return len(self.labels)


def calibrate(
    model: str | PathLike[str],
    data: str | PathLike[str] | Batches,
    split: Split | Literal["all"] = "val",
    *,
    general: bool = False,
    exclude: str | None = None,
    decisions: str | None = None,
    rules: DecodeRules = DEFAULT_RULES,
) -> Calibration:
    """Fit a model's confidence to labelled photos that it was not trained on.

    The model file gets a new temperature, conformal scores and ood detector. Weights and raw logits
    stay as they are.

    Args:
        model: a `.ckpt` or `.onnx` file; it is replaced atomically.
        data: a dataset, as `open_dataset` takes it; or batches, as `calibrate_on` takes them, to
            which none of the other arguments apply.
        split: which photos of the dataset. Confidence fitted to training photos is too high.
        general: fit the ood detector on features of the package's general backbone, not on those of
            the model's own network. It rejects more, above all for networks that were trained from
            scratch, and runs on every photo that is predicted. A model of `--folds` always has it.
        exclude: a CSV file with a column `path`: photos to leave out.
        decisions: a file of decisions: labels to replace, photos to leave out.
        rules: which photos are decoded.

    Raises:
        CatordogError: the model or the data can't be read, the model lacks a class of the data, or
            no photo could be read. Then the model file is unchanged.
    """
    if not isinstance(data, (str, PathLike)):
        return calibrate_on(Path(model), data)
    if str(model) == "bundled":
        raise CatordogError(
            f"the bundled model can't be calibrated in place: copy {BUNDLED}, and give the copy"
        )
    classifier = load(model)
    check_own_split(str(data), split, model)
    dataset = open_dataset(str(data), rules=rules, exclude=exclude, decisions=decisions)
    indices = match_classes(dataset.classes, classifier.classes, str(data))
    photos = dataset.split(split, classifier.model.split_fractions)
    if split in ("train", "all"):
        info(f"--split {split} includes training photos: confidence fitted to them is too high")
    failures = list(dataset.unopened)
    batches = _read(photos, classifier, indices, failures)
    # The features of an ensemble are those of its last network, which has learnt from most photos.
    general = general or classifier.model.network == ENSEMBLE
    beside = (lambda: _general_ood(photos)) if general else None
    return _calibrate(Path(model), classifier, batches, _PHOTOS[split], failures, beside)


def calibrate_on(path: Path, batches: Batches) -> Calibration:
    """Fit a model's confidence to batches of validation photos.

    Args:
        path: a `.ckpt` or `.onnx` file; it is replaced atomically.
        batches: photos `uint8 [N, S, S, 3]` with their labels `[N]`.

    Raises:
        CatordogError: the file can't be read or written, or there are no photos. Then it is
            unchanged.
    """
    return _calibrate(path, load(path), batches, "validation photos", [])


def _calibrate(
    path: Path,
    classifier: Classifier,
    batches: Batches,
    what: str,
    failures: list[PhotoError],
    general: Callable[[], tuple[Detector | None, str]] | None = None,
) -> Calibration:
    if len(classifier.classes) == 1:
        raise CatordogError(
            f"{path} has one class, and no confidence to fit: teach it again with more photos"
        )
    outputs = classifier.backend.outputs
    needs = next((names for names in _OOD_NEEDS if set(names) <= set(outputs)), ())
    if general is not None:
        needs = ()
    parts, hashes = [], []
    for pixels, labels in batches:
        parts.append((*classifier.run(pixels, "logits", *needs), labels))
        if needs:
            hashes.append(hashes_of_pixels(pixels))
    if not parts:
        raise (
            none_read(failures)
            if failures
            else CatordogError(f"{path} can't be calibrated: there are no {what}")
        )
    logits, *needed, labels = (np.concatenate(column) for column in zip(*parts, strict=True))
    if general:
        ood, backbone = general()
    else:
        ood, backbone = _ood(path, needs, needed, labels, hashes), None
    model = replace(classifier.model, ood=ood, backbone=backbone)
    return _fit(path, model, logits, labels, what, failures)


def calibrate_on_logits(
    path: Path,
    logits: npt.NDArray[np.float32],
    labels: npt.NDArray[np.int64],
    photos: list[Photo],
) -> Calibration:
    """Fit a model's confidence to logits of cross-validation, since it has seen every photo.

    Its ood detector is fitted on the package's general backbone, which has not learnt from them.

    Args:
        path: a `.ckpt` or `.onnx` file; it is replaced atomically.
        logits: raw, each from a network that has not seen its photo, `[N, C]`.
        labels: of these photos, `[N]`.
        photos: of the classes, for the ood detector.

    Raises:
        CatordogError: the file can't be read or written. Then it is unchanged.
    """
    ood, backbone = _general_ood(photos)
    model = replace(load(path).model, ood=ood, backbone=backbone)
    return _fit(path, model, logits, labels, "photos by cross-validation", [])


def _fit(
    path: Path,
    model: ModelInfo,
    logits: npt.NDArray[np.float32],
    labels: npt.NDArray[np.int64],
    what: str,
    failures: list[PhotoError],
) -> Calibration:
    """Fit temperature and conformal scores, and write them into the file."""
    before, temperature = model.temperature, fit_temperature(logits, labels)
    confidences = softmax(logits, temperature)
    scores = np.sort(nonconformity(confidences, labels))
    model = replace(model, temperature=temperature, nonconformity=thinned(scores))
    result = Calibration(
        model=model,
        logits=logits,
        labels=labels,
        temperature_before=before,
        temperature=temperature,
        nll_before=float(log_loss(softmax(logits, before), labels).mean()),
        nll=float(log_loss(confidences, labels).mean()),
        accuracy=float((logits.argmax(axis=1) == labels).mean()),
        failures=tuple(failures),
    )
    format_of(path).rewrite(path, model)
    info(
        f"calibrated on {result.n:,} {what} (accuracy {100 * result.accuracy:.2f} %): temperature "
        f"{before:.3f} before and {temperature:.3f} after, NLL {result.nll_before:.4f} before and "
        f"{result.nll:.4f} after"
    )
    if result.n < LEAST_PHOTOS:
        info(f"too few {what} ({result.n}): treat confidence as rough")
    return result


def _read(
    photos: list[Photo], classifier: Classifier, indices: list[int], failures: list[PhotoError]
) -> Iterator[tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]]:
    """Yield photos in batches with the model's labels; collect those that can't be read."""
    pixels: list[npt.NDArray[np.uint8]] = []
    labels: list[int] = []
    with progress("calibrating", len(photos)) as done:
        results = decoded(photos, classifier.model.preprocess)
        for count, (photo, result) in enumerate(zip(photos, results, strict=True), 1):
            if isinstance(result, PhotoError):
                failures.append(result)
            elif photo.label is not None:
                pixels.append(result)
                labels.append(indices[photo.label])
            if pixels and (len(pixels) == BATCH or count == len(photos)):
                yield np.stack(pixels), np.array(labels, dtype=np.int64)
                pixels, labels = [], []
            done(count)


def _ood(
    path: Path,
    needs: tuple[str, ...],
    outputs: Sequence[npt.NDArray[np.float32]],
    labels: npt.NDArray[np.int64],
    hashes: Sequence[Hashes],
) -> Detector | None:
    """Fit a detector on the outputs that it needs; none where it needs none."""
    try:
        if needs == OutputDetector.needs:
            return fit_output(*outputs)
        if needs == OodDetector.needs:
            (features,) = outputs
            return fit_ood(features, groups=_groups(hashes))
        if needs == GeneralOodDetector.needs:
            features, concepts = outputs
            shapes = features.shape[1], concepts.shape[1]
            knowledge = Knowledge.of(metadata_of(path.read_bytes()), *shapes)
            return knowledge.fit_ood(features, concepts, _groups(hashes), labels)
    except (CatordogError, ValueError) as error:
        info(f"no photo will be called 'neither': {error}")
    return None


def _general_ood(photos: list[Photo]) -> tuple[Detector | None, str]:
    """A detector on the package's general backbone, and the digest of that backbone."""
    backbone = Backbone.read()
    features: list[npt.NDArray[np.float32]] = []
    labels: list[int] = []
    pixels: list[npt.NDArray[np.uint8]] = []
    hashes: list[Hashes] = []
    with progress("comparing", len(photos)) as done:
        results = decoded(photos, backbone.preprocess)
        for count, (photo, result) in enumerate(zip(photos, results, strict=True), 1):
            if not isinstance(result, PhotoError):
                pixels.append(result)
                labels.append(photo.label or 0)
            if pixels and (len(pixels) == BATCH or count == len(photos)):
                features.append(backbone.features(np.stack(pixels)))
                hashes.append(hashes_of_pixels(pixels))
                pixels = []
            done(count)
    rows = np.concatenate(features)
    concepts = backbone.concepts(rows)
    detector = backbone.knowledge.fit_ood(rows, concepts, _groups(hashes), np.array(labels))
    return detector, backbone.digest


def _groups(hashes: Sequence[Hashes]) -> npt.NDArray[np.int64]:
    """A number for each photo of all batches, `[N]`; copies and near copies share one.

    They are all in one split, so a photo would be its copy's nearest neighbour.
    """
    plain, mirrored = (
        np.concatenate([getattr(each, name) for each in hashes]) for name in ("plain", "mirrored")
    )
    return copy_groups(Hashes(plain, mirrored))
