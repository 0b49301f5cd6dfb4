"""Predict a stream of photos."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from catordog.confidence.verdict import Prediction, check_rules
from catordog.errors import PhotoError
from catordog.model.classifier import Classifier
from catordog.photos.photo import Photo

Result = Prediction | PhotoError


@dataclass(frozen=True, slots=True)
class VerdictRules:
    """How verdicts are decided.

    Attributes:
        threshold, error_rate, accept: as in `Classifier.judge`.

    Raises:
        CatordogError: a value is out of its range.
    """

    threshold: float | None = None
    error_rate: float | None = None
    accept: float | None = None

    def __post_init__(self) -> None:
        check_rules(self.threshold, self.error_rate, self.accept)


def predictions(
    classifier: Classifier, photos: Iterable[Photo], rules: VerdictRules
) -> Iterator[tuple[Photo, Result]]:
    """Yield each photo with its prediction, or with the error if it can't be read, in order."""
    for photo, result in classifier.stream(photos, Photo.image):
        if isinstance(result, PhotoError):
            yield photo, result
        else:
            yield photo, classifier.judge(result, rules.threshold, rules.error_rate, rules.accept)
