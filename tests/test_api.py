"""The public Python API: `import catordog`."""

from __future__ import annotations

import os
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


@pytest.mark.parametrize(
    ("environment", "turns"),
    [({}, "10000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "active"}, "None")],
)
def test_torchs_threads_do_not_spin_for_long_unless_the_environment_says_so(environment, turns):
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("GOMP_", "OMP_"))}
    code = "import os, catordog; print(os.environ.get('GOMP_SPINCOUNT'))"
    ended = subprocess.run(
        [sys.executable, "-c", code], env={**kept, **environment},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert ended.stdout == f"{turns}\n"
