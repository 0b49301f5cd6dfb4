"""ModelInfo: the description of a model in its file."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Self

from catordog.confidence.detectors import Detector, detector_from_dict
from catordog.confidence.verdict import DEFAULT_THRESHOLD
from catordog.errors import CatordogError
from catordog.photos.preprocess import Preprocess
from catordog.photos.splits import SplitFractions

FORMAT = 2
"""Format of new files. Format 1 differs only in the names of the keys below."""

_FORMAT_1_KEYS = {
    "fractions": "split_fractions",
    "mirror": "tta_flip",
    "strangeness": "nonconformity",
    "novelty": "ood",
}


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """Everything in a model file except the weights. Plain data, so that loading runs no code.

    Attributes:
        classes: names, in the order of the logits. A model of a single class has an ood detector,
            which decides between this class and `neither`.
        network: as in `build_network`.
        network_args: as in `build_network`.
        preprocess: how a photo becomes input.
        split_fractions: of validation and test photos, so that evaluation uses the same split.
        tta_flip: test-time augmentation: average logits over a photo and its horizontal flip.
        tta_flip_below: with `tta_flip`, flip only the photos whose confidence without the flip, at
            a temperature of 1, is lower, 0…1; 1: flip all.
        temperature: of `softmax`.
        threshold: below this confidence the verdict is `not sure`.
        nonconformity: of the right answers on validation photos, each in 0…1, ascending (see
            `confidence.conformal`); empty before calibration.
        ood: detects photos of no class; None before calibration, or after one on too few photos.
        backbone: digest of the package's general backbone, if `ood` takes its features and concepts
            instead of the network's own outputs.
    """

    classes: tuple[str, ...]
    network: str
    network_args: dict[str, Any] = field(default_factory=dict)
    preprocess: Preprocess = field(default_factory=Preprocess)
    split_fractions: SplitFractions = field(default_factory=SplitFractions)
    tta_flip: bool = False
    tta_flip_below: float = 1.0
    temperature: float = 1.0
    threshold: float = DEFAULT_THRESHOLD
    nonconformity: tuple[float, ...] = ()
    ood: Detector | None = None
    backbone: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain data for a model file, in the current format."""
        return {
            "format": FORMAT,
            "classes": list(self.classes),
            "network": self.network,
            "network_args": self.network_args,
            "preprocess": self.preprocess.to_dict(),
            "split_fractions": {
                "val": self.split_fractions.val,
                "test": self.split_fractions.test,
            },
            "tta_flip": self.tta_flip,
            "tta_flip_below": self.tta_flip_below,
            "temperature": self.temperature,
            "threshold": self.threshold,
            "nonconformity": list(self.nonconformity),
            "ood": self.ood and self.ood.to_dict(),
            "backbone": self.backbone,
        }

    @classmethod
    def from_dict(cls, values: Any) -> Self:
        """Read what `to_dict` wrote. Every value is checked, as model files are untrusted.

        Raises:
            CatordogError: a value is missing, of the wrong type, or out of its range.
        """
        try:
            values = _current(values)
            classes = tuple(values["classes"])
            ood = _ood(values.get("ood"))
            least = 2 if ood is None else 1
            if len(classes) < least or not all(isinstance(name, str) for name in classes):
                raise TypeError("classes are not two or more names")
            if not isinstance(values["network"], str):
                raise TypeError("network is not a name")
            return cls(
                classes=classes,
                network=values["network"],
                network_args=dict(values["network_args"]),
                preprocess=Preprocess.from_dict(values["preprocess"]),
                split_fractions=SplitFractions.of(
                    values["split_fractions"]["val"], values["split_fractions"]["test"]
                ),
                tta_flip=bool(values.get("tta_flip", False)),
                tta_flip_below=_fraction(values.get("tta_flip_below", 1.0)),
                temperature=_positive(values["temperature"]),
                threshold=_positive(values["threshold"]),
                nonconformity=tuple(_fraction(score) for score in values.get("nonconformity", ())),
                ood=ood,
                backbone=_digest(values.get("backbone")),
            )
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise CatordogError(f"the model file is incomplete or damaged: {error!r}") from None


def _current(values: Any) -> dict[str, Any]:
    """The values with the keys of the current format."""
    if values["format"] == 1:
        return {_FORMAT_1_KEYS.get(key, key): value for key, value in values.items()}
    if values["format"] != FORMAT:
        raise CatordogError(
            f"the model file has format {values['format']}, and this version of catordog reads 1 "
            f"to {FORMAT}: use the version that wrote it, or train again"
        )
    return dict(values)


def _digest(value: Any) -> str | None:
    if not isinstance(value, str | None):
        raise TypeError("backbone is not a digest")
    return value


def _positive(value: Any) -> float:
    number = float(value)
    if not (number > 0 and math.isfinite(number)):
        raise ValueError(f"{value} is not a number above 0")
    return number


def _ood(values: Any) -> Detector | None:
    return None if values is None else detector_from_dict(values)


def _fraction(value: Any) -> float:
    number = float(value)
    if not 0 <= number <= 1:
        raise ValueError(f"{value} is not within 0…1")
    return number
