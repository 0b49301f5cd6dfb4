"""A stream of predictions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from catordog.confidence.verdict import Prediction
from catordog.errors import CatordogError, PhotoError
from catordog.model.classifier import Classifier
from catordog.photos.decode import DEFAULT_RULES, DecodeRules, decode
from catordog.photos.inputs import Input

Result = Prediction | PhotoError


@dataclass(frozen=True, slots=True)
class VerdictRules:
    """How photos are read, and how verdicts are made of what the network says of them.

    Attributes:
        threshold, error_rate, accept: as in `Classifier.judge`.
        decode: which photos can be read.

    Raises:
        CatordogError: a value is out of its range.
    """

    threshold: float | None = None
    error_rate: float | None = None
    accept: float | None = None
    decode: DecodeRules = DEFAULT_RULES

    def __post_init__(self) -> None:
        if self.threshold is not None and not 0 <= self.threshold <= 1:
            raise CatordogError(f"--threshold {self.threshold} is not a confidence within 0…1")
        if self.accept is not None and not 0 < self.accept <= 1:
            raise CatordogError(f"--accept {self.accept} is not a share within 0…1")
        if self.threshold is not None and self.error_rate is not None:
            raise CatordogError("--threshold and --error-rate both decide the verdict: give one")


def predictions(
    classifier: Classifier, inputs: Iterable[Input], rules: VerdictRules
) -> Iterator[tuple[Input, Result]]:
    """Yield each photo with its prediction, or with why it can't be read, in order."""
    side = classifier.model.preprocess.size

    def read(item: Input) -> Any:
        return decode(item.read(), item.path, near=side, rules=rules.decode)

    for item, result in classifier.stream(inputs, read):
        if isinstance(result, PhotoError):
            yield item, result
        else:
            yield item, classifier.judge(result, rules.threshold, rules.error_rate, rules.accept)
