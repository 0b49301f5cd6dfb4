"""`catordog evaluate`: how good a model is on photos that it has not trained on."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

from catordog.checkpoint import run_folder
from catordog.classifier import Classifier, Output, load
from catordog.confidence.calibration import Alternative, alternatives
from catordog.confidence.conformal import Promise, check_promise
from catordog.confidence.metrics import Metrics, calibration_error, measure
from catordog.confidence.novelty import ACCEPT, LEAST_PHOTOS
from catordog.confidence.softmax import honest, softmax
from catordog.errors import CatordogError, PhotoError
from catordog.files import path_cell, text_cell, write_text
from catordog.photos.damage import DEGREES, KINDS, damage
from catordog.photos.decode import DEFAULT_RULES, DecodeRules, decode
from catordog.photos.reading import report_failures
from catordog.photos.sources import Photo, open_data
from catordog.photos.split import Split
from catordog.terminal import progress, table

ERROR_RATES = (0.01, 0.05)
"""Promises that are checked where the user names none."""

SHOWN = 8
"""How many mistakes, and how many unsure photos, are listed."""


@dataclass(frozen=True)
class Evaluation:
    """A model's logits on a data set, and what they come to.

    Attributes:
        model, data, split: as the user named them.
        classes: in the order of the logits.
        photos: the N photos that could be read.
        labels: `int64 [N]`, indices into `classes`.
        logits: raw, `float32 [N, C]`.
        strangeness: the share of validation photos that look less strange, `[N]`; None where the
            model doesn't know.
        temperature: of `softmax`.
        metrics: the figures.
        promises: how error rates that the model can promise came out.
        failures: one for each photo that could not be read.
        excluded: how many photos the user has left out.
        accuracy_with_excluded: the accuracy if they were not; None if there are none.
    """

    model: str
    data: str
    split: str
    classes: tuple[str, ...]
    photos: list[Photo]
    labels: npt.NDArray[np.int64]
    logits: npt.NDArray[np.float32]
    strangeness: npt.NDArray[np.float64] | None
    temperature: float
    metrics: Metrics
    failures: list[PhotoError]
    promises: list[Promise] = field(default_factory=list)
    excluded: int = 0
    accuracy_with_excluded: float | None = None

    @cached_property
    def uncalibrated(self) -> Metrics | None:
        """The figures at a temperature of 1; None if that is the model's."""
        return None if self.temperature == 1 else measure(self.logits, self.labels, self.classes)

    @cached_property
    def alternatives(self) -> list[Alternative]:
        """Other calibrations, and whether they would do better."""
        return alternatives(self.logits, self.labels)

    @cached_property
    def confidences(self) -> npt.NDArray[np.float64]:
        """Softmax of the logits, `[N, C]`."""
        return softmax(self.logits, self.temperature)

    def confidences_of(self, place: int) -> npt.NDArray[np.float64]:
        """Softmax of one photo's logits, `[C]`."""
        return softmax(self.logits[place], self.temperature)

    def to_dict(self) -> dict[str, Any]:
        """The keys of `catordog evaluate --json`; fractions, not percent."""
        return {
            "model": self.model,
            "data": self.data,
            "split": self.split,
            "unreadable": len(self.failures),
            "excluded": self.excluded,
            "accuracy_with_excluded": self.accuracy_with_excluded,
            "temperature": self.temperature,
            **self.metrics.to_dict(),
            "uncalibrated": {
                name: value
                for name, value in (self.uncalibrated or self.metrics).to_dict().items()
                if name in self.metrics.ci95 or name == "ci95"
            },
            "alternatives": [
                {**asdict(other), "better": other.better} for other in self.alternatives
            ],
            "promises": [asdict(promise) for promise in self.promises],
        }


def evaluate(
    classifier: Classifier,
    data: str,
    split: Split | Literal["all"] = "test",
    *,
    model: str = "",
    exclude: str | None = None,
    error_rates: Sequence[float] = ERROR_RATES,
    rules: DecodeRules = DEFAULT_RULES,
) -> Evaluation:
    """Run every photo of a split through a model.

    The split is cut with the fractions that the model was trained with, so that "test" means
    photos that took no part in making it.

    Args:
        classifier: the model.
        data: as `open_data` takes it.
        split: which photos.
        model: what to call the model.
        exclude: a CSV file with a column `path`: photos to leave out.
        error_rates: promises to check, each in 0…1 (see `confidence.conformal`).
        rules: what is decoded.

    Raises:
        CatordogError: the data has no such split, other classes, or no readable photo.
    """
    photo_set = open_data(data, rules=rules, exclude=exclude)
    place = _match(photo_set.classes, classifier.classes, data)
    chosen = photo_set.split(split, classifier.model.fractions, excluded=True)
    photos: list[Photo] = []
    outputs: list[Output] = []
    failures: list[PhotoError] = []
    side = classifier.model.preprocess.size
    with progress(f"evaluating {split} photos", len(chosen)) as done:
        stream = classifier.stream(chosen, lambda photo: photo.image(near=side))
        for count, (photo, result) in enumerate(stream, 1):
            if isinstance(result, PhotoError):
                failures.append(result)
            else:
                photos.append(photo)
                outputs.append(result)
            done(count)
    if not photos:
        raise CatordogError(
            f"none of the {len(chosen):,} photos of {data} could be read: {failures[0]}"
        )
    labels = np.array([place[photo.label] for photo in photos], dtype=np.int64)
    stacked = np.stack([output.logits for output in outputs])
    strange = np.array([output.strangeness for output in outputs], dtype=np.float64)
    out = np.array([photo.name in photo_set.excluded for photo in photos])
    if out.all():
        raise CatordogError(f"--exclude {exclude} leaves no {split} photo of {data}")
    temperature = classifier.model.temperature
    kept, truth = stacked[~out], labels[~out]
    scores = classifier.model.strangeness
    confidences = softmax(kept, temperature)
    return Evaluation(
        model=model,
        data=data,
        split=split,
        classes=classifier.classes,
        photos=[photo for photo, left_out in zip(photos, out, strict=True) if not left_out],
        labels=truth,
        logits=kept,
        strangeness=None if classifier.model.novelty is None else strange[~out],
        temperature=temperature,
        metrics=measure(kept, truth, classifier.classes, temperature),
        failures=failures,
        promises=[
            check_promise(scores, error_rate, confidences, truth)
            for error_rate in error_rates
            if scores
        ],
        excluded=int(out.sum()),
        accuracy_with_excluded=float((stacked.argmax(1) == labels).mean()) if out.any() else None,
    )


@dataclass(frozen=True, slots=True)
class Damage:
    """What damage to photos does to a model.

    Attributes:
        kinds: of damage, K of them.
        accuracy: `[K, D + 1]`, without damage and at each degree, 0…1.
        ece: the same of the expected calibration error.
        n: photos that it was measured on.
    """

    kinds: tuple[str, ...]
    accuracy: npt.NDArray[np.float64]
    ece: npt.NDArray[np.float64]
    n: int

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for JSON."""
        return {
            "n": self.n,
            **{
                kind: {"accuracy": self.accuracy[row].tolist(), "ece": self.ece[row].tolist()}
                for row, kind in enumerate(self.kinds)
            },
        }


def damaged(classifier: Classifier, result: Evaluation, most: int = 400) -> Damage:
    """Evaluate the same photos after blur, noise and JPEG compression in three degrees.

    Args:
        classifier: the model.
        result: its evaluation.
        most: so many photos, evenly chosen.
    """
    places = np.unique(np.linspace(0, len(result.photos) - 1, most).astype(int))
    labels = result.labels[places]
    preprocess = classifier.model.preprocess
    whole = [
        preprocess.pixels(result.photos[place].image(near=preprocess.size)) for place in places
    ]
    shape = (len(KINDS), len(DEGREES) + 1)
    accuracy, ece = np.empty(shape), np.empty(shape)
    with progress("damaging photos", len(KINDS) * len(DEGREES)) as done:
        for row, kind in enumerate(KINDS):
            for degree in (0, *DEGREES):
                if degree:
                    pairs = enumerate(whole)
                    pixels = np.stack([damage(photo, kind, degree, seed) for seed, photo in pairs])
                    logits = classifier.logits_of_pixels(pixels)
                    done(row * len(DEGREES) + degree)
                else:
                    logits = result.logits[places]
                confidences = softmax(logits, result.temperature)
                accuracy[row, degree] = (logits.argmax(axis=1) == labels).mean()
                ece[row, degree] = calibration_error(confidences, labels)
    return Damage(KINDS, accuracy, ece, len(places))


@dataclass(frozen=True, slots=True)
class Neither:
    """How well a model tells photos that show none of its classes.

    Attributes:
        n: such photos.
        auroc: the chance that one of them looks stranger than one of the evaluated, 0…1.
        false_accept: the share of them that is not called `neither`, 0…1.
        false_reject: the share of the evaluated photos that is, 0…1.
    """

    n: int
    auroc: float
    false_accept: float
    false_reject: float


def _knows_no_neither() -> CatordogError:
    return CatordogError(
        "this model can't tell photos of no class: it was not calibrated, or on too few photos; "
        f"let a training with {LEAST_PHOTOS} validation photos or more run to its end"
    )


def against_neither(classifier: Classifier, result: Evaluation, paths: Sequence[str]) -> Neither:
    """Hold the evaluated photos against photos that show none of the classes.

    Args:
        classifier: the model.
        result: its evaluation.
        paths: of those photos: files, folders, zips or globs.

    Raises:
        CatordogError: the model can't tell, or none of the photos can be read.
    """
    from sklearn.metrics import roc_auc_score

    from catordog.predict import Inputs

    if result.strangeness is None:
        raise _knows_no_neither()
    side = classifier.model.preprocess.size
    inputs = Inputs(paths)
    inputs.count()  # says so where there are none
    strange = [
        output.strangeness
        for _, output in classifier.stream(
            inputs, lambda item: decode(item.read(), item.path, near=side)
        )
        if isinstance(output, Output) and output.strangeness is not None
    ]
    if not strange:
        raise CatordogError(f"none of the photos of {', '.join(paths)} could be read")
    scores = np.concatenate([result.strangeness, strange])
    none = np.arange(len(scores)) >= len(result.strangeness)
    return Neither(
        len(strange),
        float(roc_auc_score(none, scores)),
        float((np.array(strange) <= ACCEPT).mean()),
        float((result.strangeness > ACCEPT).mean()),
    )


@dataclass(frozen=True, slots=True)
class Truth:
    """Confidence beside the true probability.

    Attributes:
        true: probability of the second class, `[N]`.
        said: the model's confidence in it, `[N]`.
        error: mean absolute difference, 0…1.
    """

    true: npt.NDArray[np.float64]
    said: npt.NDArray[np.float64]
    error: float


def against_truth(result: Evaluation) -> Truth | None:
    """The true probabilities of the photos; None where nobody knows them."""
    known = [photo.probability for photo in result.photos]
    if len(result.classes) != 2 or any(probability is None for probability in known):
        return None
    true = np.array(known, dtype=np.float64)
    said = result.confidences[:, 1]
    return Truth(true, said, float(np.abs(true - said).mean()))


def run(
    model: str,
    data: str,
    split: str,
    json_file: str | None,
    csv_file: str | None,
    html_file: str | None = None,
    exclude: str | None = None,
    error_rate: float | None = None,
    neither: str | None = None,
    rules: DecodeRules = DEFAULT_RULES,
) -> int:
    """`catordog evaluate`. Returns 1 if a photo could not be read, else 0."""
    which: Split | Literal["all"] = split  # type: ignore[assignment]  # the parser has checked it
    classifier = load(model)
    if error_rate is not None:
        classifier.limit_of(error_rate)  # says what is wrong with it before any photo is read
    if neither and classifier.model.novelty is None:
        raise _knows_no_neither()
    result = evaluate(
        classifier,
        data,
        which,
        model=model,
        exclude=exclude,
        error_rates=ERROR_RATES if error_rate is None else (error_rate,),
        rules=rules,
    )
    truth = against_truth(result)
    strangers = against_neither(classifier, result, [neither]) if neither else None
    harm = damaged(classifier, result) if html_file else None
    if json_file:
        figures = result.to_dict()
        figures["truth"] = truth and truth.error
        figures["damage"] = harm and harm.to_dict()
        figures["neither"] = strangers and asdict(strangers)
        write_text(Path(json_file), json.dumps(figures, indent=2, allow_nan=False) + "\n")
    if html_file:
        from catordog.report.evaluation import evaluation_page

        page = evaluation_page(
            result, classifier.model.threshold, harm, truth, strangers, partial(_looked, classifier)
        )
        write_text(Path(html_file), page)
    if csv_file:
        write_text(Path(csv_file), rows_csv(result))
    print(report(result, truth, strangers))
    report_failures(result.failures, run_folder(Path(model)) / f"unreadable-{split}.txt")
    return 1 if result.failures else 0


def _looked(classifier: Classifier, photo: Photo, label: int) -> Image.Image:
    """Where the network looked on a photo, for a class. Raises `PhotoError`."""
    from catordog.explain import explain, heat

    preprocess = classifier.model.preprocess
    image = photo.image(near=preprocess.size)
    found = explain(classifier, image).maps[classifier.classes[label]]
    image.thumbnail((320, 320))
    return heat(image, found / (float(np.abs(found).max()) or 1.0), preprocess)


def report(result: Evaluation, truth: Truth | None = None, strangers: Neither | None = None) -> str:
    """The evaluation for people to read."""
    metrics, classes = result.metrics, result.classes
    counts = [int((result.labels == label).sum()) for label in range(len(classes))]
    tally = ", ".join(f"{count:,} {name}" for count, name in zip(counts, classes, strict=True))
    low, high = metrics.accuracy_ci95
    figures = [
        [
            "accuracy",
            _percent(metrics.accuracy),
            f"95 % interval {_percent(low)} to {_percent(high)}",
        ],
        *_with_excluded(result),
        ["loss (NLL)", f"{metrics.nll:.4f}", _against(result, "nll", "{:.4f}".format)],
        ["Brier score", f"{metrics.brier:.4f}", _against(result, "brier", "{:.4f}".format)],
        ["ECE", _percent(metrics.ece), _against(result, "ece", _percent)],
        *(
            [f"  {words}", _percent(getattr(metrics, name)), _against(result, name, _percent)]
            for name, words in (("ece_equal_mass", "equal mass"), ("classwise_ece", "classwise"))
        ),
        ["AUROC", "–" if metrics.auroc is None else f"{metrics.auroc:.4f}", "0.5 is a blind guess"],
    ]
    for target, share in metrics.coverage_at.items():
        aim = f"of the photos, the surest, can be answered at {100 * float(target):g} % accuracy"
        figures.append(["coverage", _percent(share), aim])
    for promise in result.promises:
        least, most = promise.missed_ci95
        kept = f"missed ({_percent(least)} to {_percent(most)}), where {promise.error_rate:.2%} "
        kept += f"was promised; one answer for {promise.answered:.1%} of the photos"
        figures.append(["error rate", _percent(promise.missed), kept])
    if truth:
        words = "how far the confidence is from the true probability"
        figures.append(["truth", _percent(truth.error), words])
    if result.strangeness is not None:
        share = float((result.strangeness > ACCEPT).mean())
        figures.append(["neither", _percent(share), "would be called 'neither'"])
    if strangers:
        words = f"of {strangers.n:,} photos of no class are taken for one; AUROC "
        words += f"{strangers.auroc:.4f}"
        figures.append(["", _percent(strangers.false_accept), words])
    confusion = [["", *(f"said {name}" for name in classes)]]
    confusion += [
        [f"  {true}", *(f"{metrics.confusion[true][said]:,}" for said in classes)]
        for true in classes
    ]
    parts = [
        f"{result.model} on {result.data}, {result.split} split: {metrics.n:,} photos ({tally})"
        + (f", {len(result.failures):,} unreadable" if result.failures else ""),
        table(figures, frozenset({1})),
        "confusion\n" + table(confusion, frozenset(range(1, len(classes) + 1))),
    ]
    parts += [
        f"a temperature is not enough: {other.name} would lower the loss by {other.gain:.4f} "
        f"({other.gain_ci95[0]:.4f} to {other.gain_ci95[1]:.4f})"
        for other in result.alternatives
        if other.better
    ]
    confidence = result.confidences.max(axis=1)
    wrong = np.flatnonzero(result.logits.argmax(axis=1) != result.labels)
    margin = np.sort(result.logits, axis=1)
    sure_first = np.argsort(-(margin[:, -1] - margin[:, -2]), kind="stable")
    mistakes = [index for index in sure_first if index in set(wrong.tolist())]
    if mistakes:
        parts.append(
            "most confident mistakes\n" + _photo_table(result, mistakes[:SHOWN], confidence)
        )
    unsure = list(sure_first[::-1])[:SHOWN]
    parts.append("least confident photos\n" + _photo_table(result, unsure, confidence))
    return "\n\n".join(parts)


def _against(result: Evaluation, name: str, shown: Callable[[float], str]) -> str:
    """The interval of a figure, and what it was before calibration."""
    low, high = result.metrics.ci95[name]
    words = f"95 % interval {shown(low)} to {shown(high)}"
    if result.uncalibrated is None:
        return words
    return f"{words}; {shown(getattr(result.uncalibrated, name))} before calibration"


def _with_excluded(result: Evaluation) -> list[list[str]]:
    if result.accuracy_with_excluded is None:
        return []
    words = f"with the {result.excluded:,} excluded photo{'s' if result.excluded > 1 else ''}"
    return [["", _percent(result.accuracy_with_excluded), words]]


def _percent(share: float) -> str:
    return f"{100 * share:.2f} %"


def _photo_table(
    result: Evaluation, indices: list[Any], confidence: npt.NDArray[np.float64]
) -> str:
    classes = result.classes
    rows = [["  said", "true", "confidence", *(f"logit {name}" for name in classes), "photo"]]
    for index in indices:
        said = int(result.logits[index].argmax())
        rows.append(
            [
                f"  {classes[said]}",
                classes[int(result.labels[index])],
                honest(float(confidence[index])),
                *(f"{logit:.3f}" for logit in result.logits[index].tolist()),
                result.photos[index].path,
            ]
        )
    return table(rows, frozenset(range(2, 3 + len(classes))))


def rows_csv(result: Evaluation) -> str:
    """A row for each photo: path, label, predicted, confidence, then each logit and confidence."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    classes = result.classes
    writer.writerow(
        [
            *("path", "label", "predicted", "confidence"),
            *(f"logit_{name}" for name in classes),
            *(f"confidence_{name}" for name in classes),
            "error",
        ]
    )
    confidences = result.confidences
    for index, photo in enumerate(result.photos):
        said = int(result.logits[index].argmax())
        writer.writerow(
            [
                path_cell(photo.path),
                *(text_cell(classes[label]) for label in (int(result.labels[index]), said)),
                confidences[index, said],
                *result.logits[index].tolist(),
                *confidences[index].tolist(),
                "",
            ]
        )
    for failure in result.failures:
        blank = [""] * (3 + 2 * len(classes))
        writer.writerow([path_cell(failure.path), *blank, text_cell(failure.reason)])
    return text.getvalue()


def _match(data: tuple[str, ...], model: tuple[str, ...], name: str) -> list[int]:
    """For each class of the data, its index among the model's classes; cats are cat."""

    def plain(label: str) -> str:
        label = label.casefold()
        return label[:-1] if label.endswith("s") else label

    known = {label.casefold(): index for index, label in enumerate(model)}
    known |= {plain(label): index for index, label in enumerate(model)}
    places = [known.get(label.casefold(), known.get(plain(label))) for label in data]
    strange = [label for label, place in zip(data, places, strict=True) if place is None]
    if strange:
        raise CatordogError(
            f"{name} has the class {' and '.join(map(repr, strange))}, which the model doesn't "
            f"know; it knows {', '.join(model)}"
        )
    return [place for place in places if place is not None]
