"""Cat or dog? Train, evaluate and use image classifiers whose confidence can be believed.

Photos go in, raw logits come out of the network, and confidences are made from the logits.
Names are imported when they are first used, so that `import catordog` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from catordog.confidence import Prediction, softmax
    from catordog.errors import CatordogError, PhotoError
    from catordog.model.classifier import Classifier, load
    from catordog.model.contract import RawLogitsError, check_raw_logits

__version__ = "0.1.0"

__all__ = [
    "CatordogError",
    "Classifier",
    "PhotoError",
    "Prediction",
    "RawLogitsError",
    "check_raw_logits",
    "load",
    "softmax",
]

_HOMES = {
    "CatordogError": "catordog.errors",
    "Classifier": "catordog.model.classifier",
    "PhotoError": "catordog.errors",
    "Prediction": "catordog.confidence.verdict",
    "RawLogitsError": "catordog.model.contract",
    "check_raw_logits": "catordog.model.contract",
    "load": "catordog.model.classifier",
    "softmax": "catordog.confidence.softmax",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'catordog' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
