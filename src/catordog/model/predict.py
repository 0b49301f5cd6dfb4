"""A stream of predictions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from catordog.confidence.verdict import Prediction
from catordog.errors import CatordogError, PhotoError
from catordog.model.classifier import Classifier
from catordog.photos.photo import Photo

Result = Prediction | PhotoError


@dataclass(frozen=True, slots=True)
class VerdictRules:
    """How verdicts are made of what the network says of photos.

    Attributes:
        threshold, error_rate, accept: as in `Classifier.judge`.

    Raises:
        CatordogError: a value is out of its range.
    """

    threshold: float | None = None
    error_rate: float | None = None
    accept: float | None = None

    def __post_init__(self) -> None:
        if self.threshold is not None and not 0 <= self.threshold <= 1:
            raise CatordogError(f"--threshold {self.threshold} is not a confidence within 0…1")
        if self.accept is not None and not 0 < self.accept <= 1:
            raise CatordogError(f"--accept {self.accept} is not a share within 0…1")
        if self.threshold is not None and self.error_rate is not None:
            raise CatordogError("--threshold and --error-rate both decide the verdict: give one")


def predictions(
    classifier: Classifier, photos: Iterable[Photo], rules: VerdictRules
) -> Iterator[tuple[Photo, Result]]:
    """Yield each photo with its prediction, or with why it can't be read, in order."""
    for photo, result in classifier.stream(photos, classifier.model.preprocess.load):
        if isinstance(result, PhotoError):
            yield photo, result
        else:
            yield photo, classifier.judge(result, rules.threshold, rules.error_rate, rules.accept)
