"""`catordog export --out m.tflite`."""

from __future__ import annotations

import json
import sys
import zipfile
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

import catordog
from catordog.cli import main
from catordog.model.onnx_file import to_json
from catordog.photos.synthetic import draw
from model.small import write_model
from model.test_core_ml import taught

installed = pytest.mark.skipif(find_spec("onnx2tf") is None, reason="needs onnx2tf")


def outputs(file: Path, n: int) -> dict[str, np.ndarray]:
    """What LiteRT gives for synthetic pictures, with nothing known but the file."""
    from ai_edge_litert.interpreter import Interpreter

    with zipfile.ZipFile(file) as archive:
        known = json.loads(archive.read("catordog.json"))
    how = known["preprocess"]
    run = Interpreter(str(file)).get_signature_runner()
    rows = []
    for index in range(n):
        pixels = np.asarray(draw(index, 31, size=how["size"]).image)
        photo = ((pixels / 255 - how["mean"]) / how["std"]).astype(np.float32)
        rows.append(run(photos=photo[None]))
    return {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}


def expected(model: Path | str, n: int) -> dict[str, np.ndarray]:
    """The outputs of the network in an ONNX file or a checkpoint for these pictures."""
    classifier = catordog.load(model)
    preprocess, backend = classifier.model.preprocess, classifier.backend
    pixels = [np.asarray(draw(index, 31, size=preprocess.size).image) for index in range(n)]
    found = backend.run(preprocess.normalise(np.stack(pixels)), backend.outputs)
    return dict(zip(backend.outputs, found, strict=True))


@installed
@pytest.mark.slow
@pytest.mark.parametrize("model", ["small.ckpt", "small.onnx", "taught.onnx", "bundled"])
def test_every_output_is_that_of_the_original(model, tmp_path):
    if model == "taught.onnx":
        taught(tmp_path / model)
    elif model != "bundled":
        write_model(tmp_path, model.removeprefix("small."))
    given = model if model == "bundled" else tmp_path / model
    out = tmp_path / "m.tflite"
    assert main(["export", str(given), "--out", str(out)]) == 0
    wanted, found = expected(given, 50), outputs(out, 50)
    assert found.keys() == wanted.keys() >= {"logits"}
    for name, values in wanted.items():
        np.testing.assert_allclose(found[name], values, atol=1e-3, err_msg=name)
    with zipfile.ZipFile(out) as archive:
        known = json.loads(archive.read("catordog.json"))
        assert archive.read("labels.txt").decode().splitlines() == known["classes"]
    assert known == json.loads(to_json(catordog.load(given).model))


@installed
@pytest.mark.slow
def test_a_file_that_gives_other_logits_is_not_written(tmp_path, monkeypatch, capsys):
    import onnx
    import onnx2tf
    from onnx import numpy_helper

    convert = onnx2tf.convert

    def damaged(path: str, **options: object) -> None:
        model = onnx.load(path)
        for tensor in model.graph.initializer:
            if (values := numpy_helper.to_array(tensor)).dtype == np.float32:
                tensor.CopyFrom(numpy_helper.from_array(2 * values, tensor.name))
        onnx.save(model, path)
        convert(path, **options)

    monkeypatch.setattr(onnx2tf, "convert", damaged)
    model = write_model(tmp_path, "onnx")
    out = tmp_path / "m.tflite"
    assert main(["export", str(model), "--out", str(out)]) == 2
    assert "the converter onnx2tf changes 'logits'" in capsys.readouterr().err
    assert not out.exists()


def test_without_the_converter_the_error_names_the_extra_or_the_python_for_it(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.setitem(sys.modules, "onnx2tf", None)
    assert main(["export", "--out", str(tmp_path / "m.tflite")]) == 2
    fits = (3, 12) <= sys.version_info < (3, 14)
    what = "run pip install 'catordog[tflite]'" if fits else "needs Python 3.12 or 3.13"
    assert what in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--half", "--int8"])
def test_smaller_numbers_are_refused_in_one_line(option, tmp_path, capsys):
    words = ["export", "--out", str(tmp_path / "m.tflite"), option, "--data", "drawn"]
    assert main(words) == 2
    assert f"{option} is not possible for .tflite" in capsys.readouterr().err
