"""Calibrate the bundled model and its first stage on validation photos of several sources."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from catordog.confidence.conformal import nonconformity
from catordog.confidence.ood import GRID
from catordog.confidence.ood_output import OutputDetector, fit_output
from catordog.confidence.softmax import softmax
from catordog.confidence.temperature import fit_temperature
from catordog.model.classifier import Classifier
from catordog.model.first_stage import Bounds
from catordog.model.info import ModelInfo
from catordog.photos.parallel import in_parallel
from release.sources import KAGGLE, NEITHER, UNSEEN, Row, Sources

NO_PET = 0.003
"""Fraction of Kaggle's photos that show no cat and no dog; they must not set the threshold."""

MOST_SCORES = 10_000

NO_RANKS = OutputDetector(np.zeros(GRID, np.float32))
"""Of a score that is not ranked yet."""


@dataclass(frozen=True, eq=False)
class Measured:
    """Outputs of a network for rows: logits `[N, 2]`, raw ood scores `[N]`."""

    rows: list[Row]
    logits: npt.NDArray[np.float32]
    ood: npt.NDArray[np.float32]

    @property
    def label(self) -> npt.NDArray[np.int64]:
        """CAT, DOG or NEITHER, `[N]`."""
        return np.array([row.label for row in self.rows])

    @property
    def source(self) -> npt.NDArray[np.str_]:
        """The source of each row."""
        return np.array([row.source for row in self.rows])

    def where(self, chosen: npt.NDArray[np.bool_]) -> Measured:
        """The chosen rows."""
        rows = [row for row, is_chosen in zip(self.rows, chosen, strict=True) if is_chosen]
        return Measured(rows, self.logits[chosen], self.ood[chosen])


def measure(classifier: Classifier, sources: Sources, rows: Sequence[Row]) -> Measured:
    """Run a network on photos as `catordog predict` would."""
    pixels = classifier.model.preprocess.pixels
    parts = []
    images = in_parallel(lambda row: pixels(sources.image(row)), rows, ahead=64)
    batch: list[npt.NDArray[np.uint8]] = []
    for count, image in enumerate(images, 1):
        batch.append(image)
        if len(batch) == 32 or count == len(rows):
            parts.append(classifier.run(np.stack(batch), "logits", "ood"))
            batch = []
    logits, ood = (np.concatenate(column) for column in zip(*parts, strict=True))
    return Measured(list(rows), logits, ood)


def weights_of(source: npt.NDArray[np.str_]) -> npt.NDArray[np.float64]:
    """Weights of photos: half for Kaggle, half for all other sources."""
    kaggle = source == KAGGLE
    return np.where(kaggle, 0.5 / max(kaggle.sum(), 1), 0.5 / max((~kaggle).sum(), 1))


def detector_of(pets: Measured, no_pet: float) -> OutputDetector:
    """The ood detector, from validation photos of cats and dogs of all sources.

    Args:
        pets: what was measured.
        no_pet: leave out this fraction of Kaggle's photos, those with the highest scores.
    """
    kaggle = pets.source == KAGGLE
    limit = np.quantile(pets.ood[kaggle], 1 - no_pet)
    kept = pets.where(~(kaggle & (pets.ood > limit)))
    return fit_output(kept.ood, weights_of(kept.source))


def calibrated(
    info: ModelInfo,
    found: Measured,
    temperature: float | None = None,
    no_pet: float = NO_PET,
) -> ModelInfo:
    """The description with temperature, nonconformity and ood detector.

    Args:
        info: the description without them.
        found: outputs for validation photos.
        temperature: None: fit it.
        no_pet: see `detector_of`.
    """
    pets = found.where(found.label != NEITHER)
    if temperature is None:
        temperature = fit_temperature(pets.logits, pets.label)
    scores = np.sort(nonconformity(softmax(pets.logits, temperature), pets.label))[:MOST_SCORES]
    return replace(
        info,
        temperature=temperature,
        nonconformity=tuple(map(float, scores)),
        ood=detector_of(pets, no_pet),
    )


def is_sure(info: ModelInfo, found: Measured, bounds: Bounds) -> npt.NDArray[np.bool_]:
    """Which photos the first stage answers for, `[N]`."""
    assert info.ood is not None
    sure = softmax(found.logits, info.temperature).max(axis=1) >= bounds.confidence
    result: npt.NDArray[np.bool_] = sure & (info.ood.scores(found.ood) <= bounds.ood_score)
    return result


def answers(info: ModelInfo, found: Measured, bounds: Bounds) -> str:
    """How many photos the first stage answers for, and how often it is wrong, in words."""
    sure = is_sure(info, found, bounds)
    pets = found.label != NEITHER
    wrong = (found.logits.argmax(axis=1) != found.label) & sure & pets
    return (
        f"{sure[pets].mean():.1%} of the cats and dogs ({wrong.sum()} of {(sure & pets).sum()} "
        f"wrong) and {sure[~pets].mean():.1%} of the rest"
    )


def report(found: Measured, info: ModelInfo, accept: float, write: Callable[[str], object]) -> None:
    """Print accuracy and rates for each source."""
    assert info.ood is not None
    score = info.ood.scores(found.ood)
    for source in dict.fromkeys(found.source.tolist()):
        for name, chosen in (
            (source, np.array([not row.is_animal for row in found.rows])),
            (f"{source}: other animals", np.array([row.is_animal for row in found.rows])),
        ):
            rows = (found.source == source) & chosen
            if not rows.any():
                continue
            accepted = (score[rows] <= accept).mean()
            text = f"{name:<34} {rows.sum():>5} photos, accepted {accepted:.2%}"
            labels = found.label[rows]
            if (labels != NEITHER).all():
                logits = found.logits[rows]
                right = (logits.argmax(axis=1) == labels).mean()
                confidences = softmax(logits, info.temperature)
                nll = -np.log(confidences[np.arange(len(labels)), labels]).mean()
                text += f", accuracy {right:.2%}, log loss {nll:.4f}"
            write(text)


def unseen(row: Row) -> bool:
    """Whether a photo is of a source that was not trained on."""
    return row.source in UNSEEN
