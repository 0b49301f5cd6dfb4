"""Teach a model own classes from a few photos, in seconds: `catordog teach`.

The features of the general backbone stay as they are; only a linear layer on them is learnt.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path

import numpy as np
import numpy.typing as npt

from catordog.confidence.softmax import softmax
from catordog.confidence.verdict import Prediction
from catordog.errors import CatordogError, PhotoError
from catordog.files import write_bytes
from catordog.model.backbone import Backbone
from catordog.model.classifier import Classifier
from catordog.model.feature_cache import features_of, record_type
from catordog.model.linear_head import Learned
from catordog.model.onnx_file import description
from catordog.model.onnx_graph import metadata_of
from catordog.model.photo_forms import PhotoLike
from catordog.model.taught_file import EXAMPLES_KEY, Examples
from catordog.model.taught_layer import NETWORK, learn_layer
from catordog.model.teaching_photos import TeachingPhotos, find_photos
from catordog.photos.decode import DEFAULT_RULES, DecodeRules
from catordog.photos.photo import Photo


@dataclass(frozen=True, slots=True)
class Hard:
    """A photo that a model which has not seen it gets wrong, or is least sure of.

    Attributes:
        photo: of the folder.
        label: its class.
        confidence: in its class, 0…1.
        predicted: the class with the highest confidence.
    """

    photo: Photo
    label: str
    confidence: float
    predicted: str


@dataclass(frozen=True, slots=True, eq=False)
class Taught:
    """A taught model, and how good it is.

    Attributes:
        classifier: the model, ready to predict.
        counts: number of photos that it has learnt from, by class.
        learned: the linear layer, with its accuracy by cross-validation; None for one class.
        hardest: photos, the hardest first; only of those given now.
        failures: one error for each unreadable photo.
        copies: number of photos left out because others have the same content.
        contradictions: paths of photos left out because the same picture is in another class.
        examples_bytes: size of the photos' features in the model file; 0 if they are not in it.
        examples: number of photos whose features are in the model file.
        data: content of the model file.
    """

    classifier: Classifier
    counts: dict[str, int]
    learned: Learned | None
    hardest: tuple[Hard, ...]
    failures: tuple[PhotoError, ...]
    copies: int
    contradictions: tuple[str, ...]
    examples_bytes: int
    examples: int
    data: bytes = field(repr=False)

    def predict(
        self,
        photos: PhotoLike | Iterable[PhotoLike],
        *,
        threshold: float | None = None,
        error_rate: float | None = None,
        accept: float | None = None,
    ) -> Prediction | list[Prediction]:
        """Predict what photos show; see `Classifier.predict`."""
        return self.classifier.predict(
            photos, threshold=threshold, error_rate=error_rate, accept=accept
        )

    def save(self, path: str | PathLike[str]) -> None:
        """Write the model file, an `.onnx`, atomically.

        Raises:
            CatordogError: it can't be written.
        """
        write_bytes(Path(path), self.data)


def teach(
    data: str | PathLike[str] | None,
    *,
    add_to: str | PathLike[str] | None = None,
    forget: bool = False,
    exclude: str | None = None,
    decisions: str | None = None,
    rules: DecodeRules = DEFAULT_RULES,
    backbone: str | PathLike[str] | None = None,
) -> Taught:
    """Teach a model the classes of a folder.

    Args:
        data: photos, as `open_dataset` takes them; or a folder of photos of one class, whose name
            is the class; None to change nothing but `forget`.
        add_to: a taught model, which learns more: new classes, or more photos of its own.
        forget: leave the features of the photos out of the model file. Then nothing can be added to
            it.
        exclude: a CSV file with a column `path`: photos to leave out.
        decisions: a file of decisions: labels to replace, also by new ones, photos to leave out.
        rules: which photos are decoded.
        backbone: an ONNX file with the outputs `features` and `concepts`; None: the bundled one.
            With `add_to`, that of the model.

    Raises:
        CatordogError: the data or the model can't be read, a class has no readable photo, or the
            only class has fewer than three different photos.
    """
    if data is None and add_to is None:
        raise CatordogError("give a folder of photos")
    trunk = Backbone.read(backbone if add_to is None else add_to)
    before, examples = _learnt_before(add_to, trunk)
    photos = (
        TeachingPhotos((), ()) if data is None else find_photos(data, rules, exclude, decisions)
    )
    classes, matched = _merged(before, photos.classes)
    records, found, failures = features_of(photos.photos, trunk, rules)
    readable = [photos.photos[index] for index in found]
    labels = np.array([matched[photo.label or 0] for photo in readable], np.int64)
    _check_readable(classes, matched, labels, photos, failures)
    kept, copies, contradictions = _different(records["key"], labels, readable, examples, classes)
    records, labels = records[kept], labels[kept]
    everything = Examples(
        np.concatenate([examples.records, records]), np.concatenate([examples.labels, labels])
    )
    layer = learn_layer(everything, classes, trunk, bank=not forget)
    saved = everything.limited()
    text = None if forget else saved.to_text()
    content = layer.to_onnx(trunk, text)
    own = [readable[index] for index in kept]
    counts = np.bincount(everything.labels, minlength=len(classes)).tolist()
    return Taught(
        classifier=layer.classifier(content),
        counts=dict(zip(classes, counts, strict=True)),
        learned=layer.learned,
        hardest=_hardest(layer.learned, everything.labels, len(examples.labels), own, classes),
        failures=(*photos.unopened, *failures),
        copies=copies,
        contradictions=tuple(contradictions),
        examples_bytes=len(text or ""),
        examples=0 if forget else len(saved.labels),
        data=content,
    )


def _learnt_before(
    path: str | PathLike[str] | None, trunk: Backbone
) -> tuple[tuple[str, ...], Examples]:
    """The classes of a taught model, and the photos that it has learnt from."""
    if path is None:
        return (), Examples(np.zeros(0, record_type(trunk.width)), np.zeros(0, np.int64))
    # `Backbone.read` has found it to be sound.
    metadata = metadata_of(Path(path).read_bytes())
    model = description(metadata, Path(path))
    if model.network != NETWORK:
        raise CatordogError(f"--add-to {path}: not a model of 'catordog teach'")
    text = metadata.get(EXAMPLES_KEY)
    if text is None:
        raise CatordogError(
            f"--add-to {path}: it was written with --forget, without the features of its photos: "
            "teach again from all photos"
        )
    try:
        return model.classes, Examples.from_text(text, trunk.width, len(model.classes))
    except ValueError as error:
        raise CatordogError(f"--add-to {path}: {error}") from None


def _merged(
    before: tuple[str, ...], new: tuple[str, ...]
) -> tuple[tuple[str, ...], dict[int, int]]:
    """All classes, and for each new one its index in them."""
    classes = list(before)
    index = {name.casefold(): number for number, name in enumerate(before)}
    matched = {}
    for number, name in enumerate(new):
        if name.casefold() not in index:
            index[name.casefold()] = len(classes)
            classes.append(name)
        matched[number] = index[name.casefold()]
    return tuple(classes), matched


def _check_readable(
    classes: tuple[str, ...],
    matched: dict[int, int],
    labels: npt.NDArray[np.int64],
    photos: TeachingPhotos,
    failures: Sequence[PhotoError],
) -> None:
    for label in matched.values():
        if label not in labels:
            raise CatordogError(
                f"{photos.name}: no photo of {classes[label]!r} could be read; first: "
                f"{failures[0] if failures else 'it has none'}"
            )


def _different(
    keys: npt.NDArray[np.uint64],
    labels: npt.NDArray[np.int64],
    photos: Sequence[Photo],
    before: Examples,
    classes: tuple[str, ...],
) -> tuple[list[int], int, list[str]]:
    """Which photos to learn from: each content once, and none that is in two classes.

    Returns:
        Indices of the photos, the number of copies left out, and the paths of photos that are in
        two classes.
    """
    known = dict(zip(before.records["key"].tolist(), before.labels.tolist(), strict=True))
    own: dict[int, set[int]] = {}
    for key, label in zip(keys.tolist(), labels.tolist(), strict=True):
        own.setdefault(key, {known[key]} if key in known else set()).add(label)
    kept: list[int] = []
    contradictions = []
    seen = set(known)
    for index, key in enumerate(keys.tolist()):
        if len(own[key]) > 1:
            contradictions.append(photos[index].path)
        elif key not in seen:
            seen.add(key)
            kept.append(index)
    for label in sorted(set(labels.tolist()) - set(before.labels.tolist())):
        if not any(labels[index] == label for index in kept):
            raise CatordogError(
                f"every photo of {classes[label]!r} is in another class, too, such as "
                f"{contradictions[0]}: leave it in one"
            )
    return kept, len(keys) - len(kept) - len(contradictions), contradictions


def _hardest(
    learned: Learned | None,
    labels: npt.NDArray[np.int64],
    before: int,
    photos: Sequence[Photo],
    classes: tuple[str, ...],
) -> tuple[Hard, ...]:
    if learned is None or not len(learned.tested):
        return ()
    confidences = softmax(learned.logits, learned.temperature)
    right = labels[learned.tested]
    own = confidences[np.arange(len(right)), right]
    return tuple(
        Hard(
            photos[learned.tested[row] - before],
            classes[right[row]],
            float(own[row]),
            classes[int(confidences[row].argmax())],
        )
        for row in np.argsort(own, kind="stable").tolist()
        if learned.tested[row] >= before
    )
