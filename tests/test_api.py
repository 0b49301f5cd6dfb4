"""The public Python API: `import catordog`."""

from __future__ import annotations

import subprocess
import sys

import pytest

import catordog

NAMES = [
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


def test_the_public_names_are_these():
    assert catordog.__all__ == NAMES
    assert set(NAMES) <= set(dir(catordog))


@pytest.mark.parametrize("name", NAMES)
def test_every_public_name_can_be_imported(name):
    assert getattr(catordog, name).__name__ == name


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'catordog' has no attribute 'nothing'"):
        _ = catordog.nothing


def test_importing_catordog_imports_neither_numpy_nor_torch():
    code = "import catordog, sys; print(sorted({'numpy', 'torch', 'PIL'} & set(sys.modules)))"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout == "[]\n"
