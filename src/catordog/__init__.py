"""Cat or dog? Train, evaluate and use image classifiers with calibrated confidence.

Photos go in, raw logits come out of the network, and confidences are computed from the logits.
Names are imported on first use, so that `import catordog` imports neither numpy nor torch.
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from catordog.commands.train import train
    from catordog.commands.train_result import TrainResult
    from catordog.confidence.softmax import softmax
    from catordog.confidence.verdict import Prediction
    from catordog.errors import CatordogError, PhotoError
    from catordog.evaluation.audit import Audit, audit
    from catordog.evaluation.compare import Comparison, compare
    from catordog.evaluation.evaluate import Evaluation, evaluate
    from catordog.model.calibrate import Calibration, calibrate
    from catordog.model.classifier import Classifier, load
    from catordog.model.contract import RawLogitsError, check_raw_logits
    from catordog.model.teach import Taught, teach

__version__ = "0.1.0"

__all__ = [
    "Audit",
    "Calibration",
    "CatordogError",
    "Classifier",
    "Comparison",
    "Evaluation",
    "PhotoError",
    "Prediction",
    "RawLogitsError",
    "Taught",
    "TrainResult",
    "audit",
    "calibrate",
    "check_raw_logits",
    "compare",
    "evaluate",
    "load",
    "softmax",
    "teach",
    "train",
]

_HOMES = {
    "Audit": "catordog.evaluation.audit",
    "Calibration": "catordog.model.calibrate",
    "CatordogError": "catordog.errors",
    "Classifier": "catordog.model.classifier",
    "Comparison": "catordog.evaluation.compare",
    "Evaluation": "catordog.evaluation.evaluate",
    "PhotoError": "catordog.errors",
    "Prediction": "catordog.confidence.verdict",
    "RawLogitsError": "catordog.model.contract",
    "Taught": "catordog.model.teach",
    "TrainResult": "catordog.commands.train_result",
    "audit": "catordog.evaluation.audit",
    "calibrate": "catordog.model.calibrate",
    "check_raw_logits": "catordog.model.contract",
    "compare": "catordog.evaluation.compare",
    "evaluate": "catordog.evaluation.evaluate",
    "load": "catordog.model.classifier",
    "softmax": "catordog.confidence.softmax",
    "teach": "catordog.model.teach",
    "train": "catordog.commands.train",
}


# Torch's threads spin while they wait for one another. Where another program takes one of the
# cores, they may take the other from those that work. 10,000 turns instead of the usual 300,000
# prevent that, and cost little where all cores are free (scripts/benchmark.py busy). Torch reads
# this at its import.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'catordog' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
