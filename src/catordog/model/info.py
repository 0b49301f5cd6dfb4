"""ModelInfo: the description of a model in its file."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from reprlib import repr as shown
from typing import Any, Self, TypeVar

import numpy as np

from catordog.confidence.detectors import Detector, detector_from_dict
from catordog.confidence.verdict import DEFAULT_THRESHOLD
from catordog.errors import CatordogError
from catordog.photos.class_names import check_class_names
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


ENSEMBLE = "ensemble"
"""The network of a model whose raw logits are the mean of several networks' (`--folds`)."""


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
        values = _current(values)
        ood = _read(values, "ood", _ood, None)
        classes = _read(values, "classes", partial(_classes, least=2 if ood is None else 1))
        check_class_names(f"{_DAMAGED}: classes", classes)
        return cls(
            classes=classes,
            network=_read(values, "network", _text),
            network_args=_read(values, "network_args", _mapping),
            preprocess=_preprocess(values),
            split_fractions=_read(values, "split_fractions", _split_fractions),
            tta_flip=_read(values, "tta_flip", _flag, False),
            tta_flip_below=_read(values, "tta_flip_below", _fraction, 1.0),
            temperature=_read(values, "temperature", _positive),
            threshold=_read(values, "threshold", _fraction),
            nonconformity=_read(values, "nonconformity", _ascending, ()),
            ood=ood,
            backbone=_read(values, "backbone", _digest, None),
        )


_DAMAGED = "the model file is incomplete or damaged"

_WRONG = (ArithmeticError, AttributeError, TypeError, ValueError)
"""What values of the wrong type or out of their range raise; 10**400 raises OverflowError."""


def _current(values: Any) -> dict[str, Any]:
    """The values with the keys of the current format."""
    known = _read({"description": values}, "description", _mapping)
    found = _read(known, "format", _whole)
    if found == 1:
        return {_FORMAT_1_KEYS.get(key, key): value for key, value in known.items()}
    if found != FORMAT:
        raise CatordogError(
            f"the model file has format {found}, and this version of catordog reads 1 to {FORMAT}: "
            "use the version that wrote it, or train again"
        )
    return known


T = TypeVar("T")


def _read(
    values: dict[str, Any], name: str, check: Callable[[Any], T], *default: T, of: str = ""
) -> T:
    """A value that is checked.

    Args:
        values: by name.
        name: of the value; it is in every error.
        check: gives the value, or raises.
        default: for a file without it; none: each file has it.
        of: what has the values: a name and a dot.
    """
    if name not in values:
        if default:
            return default[0]
        raise CatordogError(f"{_DAMAGED}: it has no {of}{name}")
    try:
        return check(values[name])
    except KeyError as error:
        raise CatordogError(f"{_DAMAGED}: {of}{name} has no {error}") from None
    except (CatordogError, *_WRONG) as error:
        raise CatordogError(f"{_DAMAGED}: {of}{name}: {error}") from None


def _classes(value: Any, least: int) -> tuple[str, ...]:
    names = tuple(map(_text, _list(value)))
    if len(names) < least:
        raise ValueError(f"{len(names)} names, and not {least} or more")
    return names


def _preprocess(values: Any) -> Preprocess:
    inner = _read(values, "preprocess", _mapping)
    _read(inner, "size", _whole, of="preprocess.")
    _read(inner, "mean", partial(_colour, least=-_LARGEST), of="preprocess.")
    _read(inner, "std", partial(_colour, least=1 / _LARGEST), of="preprocess.")
    return _read(values, "preprocess", Preprocess.from_dict)


def _split_fractions(value: Any) -> SplitFractions:
    return SplitFractions.of(_fraction(value["val"]), _fraction(value["test"]))


def _ood(value: Any) -> Detector | None:
    if value is None:
        return None
    with np.errstate(over="raise"):  # numbers that are finite, but not as float32
        return detector_from_dict(value)


def _ascending(value: Any) -> tuple[float, ...]:
    scores = tuple(map(_fraction, _list(value)))
    if any(left > right for left, right in pairwise(scores)):
        raise ValueError("its numbers are not ascending")
    return scores


_LARGEST = 1e6
"""Of the numbers that pixels in 0…1 are normalised by; beyond it, inputs may not be finite."""


def _colour(value: Any, least: float) -> None:
    numbers = [_number(each) for each in _list(value)]
    if len(numbers) != 3 or not all(least <= number <= _LARGEST for number in numbers):
        raise ValueError(f"{shown(value)} is not three numbers within {least:g}…{_LARGEST:g}")


def _mapping(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise TypeError(f"{shown(value)} is not values by name")
    return dict(value)


def _digest(value: Any) -> str | None:
    return None if value is None else _text(value)


def _list(value: Any) -> Sequence[Any]:
    if not isinstance(value, (list, tuple)):
        raise TypeError(f"{shown(value)} is not a list")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{shown(value)} is not text")
    return value


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"{shown(value)} is not true or false")
    return value


def _whole(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{shown(value)} is not a whole number")
    if abs(value) > 2**31:
        raise ValueError("it is far out of its range")
    return value


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{shown(value)} is not a number")
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(f"{number} is not a finite number")
    return number


def _positive(value: Any) -> float:
    number = _number(value)
    if number <= 0:
        raise ValueError(f"{number} is not above 0")
    return number


def _fraction(value: Any) -> float:
    number = _number(value)
    if not 0 <= number <= 1:
        raise ValueError(f"{number} is not within 0…1")
    return number
