"""Every command matches the classes of data and models by name, in the same way."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest

import catordog
from catordog.cli import main
from catordog.evaluation.compare import compare
from catordog.evaluation.evaluate import evaluate
from conftest import jpeg, write_folder
from model.small import write_checkpoint, write_model


def pets(folder, *classes, n=20):
    """Photos of these classes in a folder each."""
    files = {f"{name}/{i}.jpg": jpeg(len(classes) * i + k, size=40)
             for k, name in enumerate(classes) for i in range(n)}  # fmt: skip
    return str(write_folder(folder, files))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return pets(tmp_path_factory.mktemp("data"), "cat", "dog", n=40)


def test_models_with_plural_names_in_another_order_can_be_compared(tmp_path, data):
    (tmp_path / "other").mkdir()
    one = catordog.load(write_model(tmp_path, "ckpt"))
    other = catordog.load(write_model(tmp_path / "other", "ckpt", classes=("Dogs", "CATS")))
    result = compare([one, other], data, "all")
    alone = evaluate(other, data, "all")
    first, second = result.results
    assert first.classes == second.classes == ("cat", "dog")
    assert (first.labels == second.labels).all()
    assert second.metrics.accuracy == alone.metrics.accuracy
    assert second.metrics.nll == alone.metrics.nll
    # The same weights, with the classes swapped: one of the two is right.
    assert (first.predicted != second.predicted).all()
    assert (second.logits == first.logits[:, ::-1]).all()
    for row in result.to_dict()["disagreements"]:
        assert set(row["said"]) == {"cat", "dog"}


@pytest.mark.parametrize("classes", [("cat", "fox"), ("ant", "cat", "dog"), ("cat", "cats")])
def test_models_of_different_classes_are_not_compared(tmp_path, data, classes, capsys):
    models = [
        write_checkpoint(tmp_path / "a.ckpt"),
        write_checkpoint(tmp_path / "b.ckpt", classes=classes),
    ]
    assert main(["compare", *map(str, models), "--data", data, "--split", "all"]) == 2
    assert "models of different classes can't be compared" in capsys.readouterr().err


@pytest.mark.slow
def test_an_export_reports_the_accuracy_that_evaluate_reports(tmp_path, data, capsys):
    model = write_checkpoint(tmp_path / "m.ckpt", classes=("ant", "cat", "dog"))
    assert main(["export", str(model), "--out", str(tmp_path / "m.onnx"), "--data", data]) == 0
    err = capsys.readouterr().err
    accuracy = evaluate(model, data).metrics.accuracy
    assert f"accuracy on them: {accuracy:.2%} before" in err


@pytest.mark.parametrize("command", ["evaluate", "export", "calibrate", "compare"])
def test_data_of_unknown_classes_are_refused_before_anything_is_written(tmp_path, command, capsys):
    model = write_checkpoint(tmp_path / "m.ckpt")
    before = model.read_bytes()
    foxes = pets(tmp_path / "foxes", "cat", "fox", n=8)
    further = {"export": ["--out", str(tmp_path / "m.onnx")], "compare": [str(model)]}
    words = [command, str(model), *further.get(command, []), "--data", foxes]
    assert main(words) == 2
    assert re.search("has the class 'fox', which the model doesn't know", capsys.readouterr().err)
    assert model.read_bytes() == before
    assert not (tmp_path / "m.onnx").exists()


def test_the_exact_name_wins_over_one_that_differs_by_a_final_s(tmp_path):
    data = pets(tmp_path / "plural", "cat", "cats")
    model = write_checkpoint(tmp_path / "m.ckpt", classes=("cats", "cat"))
    result = evaluate(model, data, "all")
    folders = [photo.name.partition("/")[0] for photo in result.photos]
    assert [result.classes[label] for label in result.labels] == folders
    assert np.bincount(result.labels).tolist() == [20, 20]
    file = tmp_path / "e.json"
    assert (
        main(["evaluate", str(model), "--data", data, "--split", "all", "--json", str(file)]) == 0
    )
    confusion = json.loads(file.read_text())["confusion"]
    assert [sum(row.values()) for row in confusion.values()] == [20, 20]
