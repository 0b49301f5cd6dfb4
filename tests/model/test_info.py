"""What a model file says of itself is anyone's: each value is checked, and errors name it."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from typing import Any

import onnx
import pytest
import torch

import catordog
from catordog.cli import main
from catordog.confidence.ood_output import GRID
from catordog.errors import CatordogError
from catordog.model.knowledge import SPECIALTY_KEY, Knowledge
from conftest import jpeg
from model.small import INFO, write_checkpoint, write_model

INF, NAN, HUGE = float("inf"), float("nan"), 10**400

WRONG: list[tuple[str, Any]] = [
    ("classes", ["cat", "cat"]),
    ("classes", ["cat", "\x1b[31mdog"]),
    ("classes", ["cat", "neither"]),
    ("classes", ["cat", ""]),
    ("classes", ["cat", 7]),
    ("classes", "cd"),
    ("classes", ["cat"]),
    ("classes", {"cat": 0, "dog": 1}),
    ("network", ["residual"]),
    ("network_args", 3),
    ("preprocess", None),
    ("preprocess.size", INF),
    ("preprocess.size", HUGE),
    ("preprocess.size", 32.5),
    ("preprocess.size", 10**9),
    ("preprocess.size", "large"),
    ("preprocess.size", 0),
    ("preprocess.mean", [NAN, 0.5, 0.5]),
    ("preprocess.mean", [0.5, 0.5, -INF]),
    ("preprocess.mean", [0.5, 0.5, 1e300]),
    ("preprocess.mean", [0.5, 0.5]),
    ("preprocess.mean", 0.5),
    ("preprocess.std", [NAN, 0.5, 0.5]),
    ("preprocess.std", [INF, 0.5, 0.5]),
    ("preprocess.std", [0.5, 0, 0.5]),
    ("preprocess.std", [0.5, 1e-320, 0.5]),
    ("preprocess.std", [0.5, HUGE, 0.5]),
    ("preprocess.resize", "stretch"),
    ("split_fractions", {"val": HUGE, "test": 0.2}),
    ("split_fractions", {"val": 0.6, "test": 0.6}),
    ("split_fractions", {"val": NAN, "test": 0.2}),
    ("split_fractions", {"val": 0.1}),
    ("tta_flip", "no"),
    ("tta_flip_below", 2),
    ("temperature", HUGE),
    ("temperature", INF),
    ("temperature", NAN),
    ("temperature", 0),
    ("temperature", True),
    ("temperature", "1"),
    ("threshold", 5),
    ("threshold", -0.1),
    ("threshold", NAN),
    ("nonconformity", [0.2, 0.1]),
    ("nonconformity", [0.2, 1.1]),
    ("nonconformity", [0.2, NAN]),
    ("nonconformity", [HUGE]),
    ("nonconformity", "0"),
    ("ood", {"kind": "?"}),
    ("ood", {"kind": "output", "quantiles": [HUGE] * GRID}),
    ("ood", {"kind": "output", "quantiles": [1e300] * GRID}),
    ("ood", {"bank": "AAAA", "photos": 1, "step": 1e300, "distances": [0.0] * 257}),
    ("ood", {"bank": "AAAA", "photos": INF, "step": 1.0, "distances": [0.0] * 257}),
    ("ood", []),
    ("backbone", 7),
    ("backbone", []),
    ("format", INF),
    ("format", "\x1b[31m"),
]


def described(field: str, value: Any) -> dict[str, Any]:
    """A description with one value replaced."""
    values = INFO.to_dict()
    inner, _, name = field.rpartition(".")
    (values[inner] if inner else values)[name] = value
    return values


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Of a good checkpoint."""
    path = write_checkpoint(tmp_path_factory.mktemp("model") / "m.ckpt")
    return torch.load(path, weights_only=True)


@pytest.mark.parametrize(("field", "value"), WRONG)
def test_a_wrong_value_is_refused_in_a_line_that_names_file_and_field(
    content, tmp_path, field, value
):
    path = tmp_path / "m.ckpt"
    torch.save({**content, "catordog": described(field, value)}, path)
    with pytest.raises(CatordogError) as caught:
        catordog.load(path)
    line = str(caught.value)
    assert line.startswith(f"model {path}: ")
    assert field.rpartition(".")[2] in line
    assert line.isprintable()
    assert len(line) < 300 + len(str(path))


@pytest.mark.parametrize("field", INFO.to_dict())
def test_a_value_of_any_other_type_is_refused_or_harmless(content, tmp_path, field):
    path = tmp_path / "m.ckpt"
    for value in (None, [], {}, [[]], {"": []}, 10**5000, b"x"):
        torch.save({**content, "catordog": {**INFO.to_dict(), field: value}}, path)
        with contextlib.suppress(CatordogError):
            catordog.load(path)
    values = INFO.to_dict()
    del values[field]
    torch.save({**content, "catordog": values}, path)
    with contextlib.suppress(CatordogError):
        catordog.load(path)


@pytest.mark.parametrize("values", [None, 3, [], "format", {}, [["format", 2]]])
def test_what_is_no_description_is_refused(content, tmp_path, values):
    torch.save({**content, "catordog": values}, tmp_path / "m.ckpt")
    with pytest.raises(CatordogError, match="incomplete or damaged"):
        catordog.load(tmp_path / "m.ckpt")


def test_an_onnx_file_with_a_wrong_value_is_an_error_in_one_line(tmp_path, capsys):
    path = write_model(tmp_path, "onnx")
    (tmp_path / "a.jpg").write_bytes(jpeg(0))
    proto = onnx.load(path)
    for field, value in WRONG[::7]:
        onnx.helper.set_model_props(proto, {"catordog": json.dumps(described(field, value))})
        path.write_bytes(proto.SerializeToString())
        assert main(["predict", str(tmp_path / "a.jpg"), "--model", str(path)]) == 2, field
        out, err = capsys.readouterr()
        assert out == ""
        assert len(err.splitlines()) == 1, err
        assert field.rpartition(".")[2] in err


def test_numbers_of_a_backbone_that_are_too_large_are_refused():
    values = {"name": "pets", "weight": "AAAA", "bias": [0.0] * 3, "output": [0.0] * 3}
    for number in (HUGE, 1e300):
        text = json.dumps({**values, "steps": [number] * 3})
        with pytest.raises(ValueError, match="is damaged"):
            Knowledge.of({SPECIALTY_KEY: text}, width=1, concept_count=1)


LOAD = """
import resource, sys, torch
import catordog
from catordog.errors import CatordogError
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    catordog.load(sys.argv[1])
except CatordogError as error:
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before, error)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="memory is measured in KiB on Linux only")
def test_a_description_of_a_huge_network_takes_no_memory(tmp_path):
    path = write_checkpoint(tmp_path / "m.ckpt")
    content = torch.load(path, weights_only=True)
    content["catordog"]["network_args"] = {"widths": [3000], "blocks": [1]}
    torch.save(content, path)
    ended = subprocess.run(
        [sys.executable, "-c", LOAD, str(path)], capture_output=True, text=True, check=True
    )
    taken, _, error = ended.stdout.partition(" ")
    assert int(taken) < 300_000, "the network alone would have 648 MB"
    assert "weights don't fit its network" in error
    for widths, blocks in (([2**20], [1]), ([8], [4000])):
        content["catordog"]["network_args"] = {"widths": widths, "blocks": blocks}
        torch.save(content, path)
        with pytest.raises(CatordogError, match=r"don't fit its network|500 blocks at most"):
            catordog.load(path)
