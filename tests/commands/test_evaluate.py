"""`catordog evaluate`: its text, JSON and CSV, its exit codes, and its twin in Python."""

from __future__ import annotations

import csv
import json
import subprocess
import sys

import numpy as np
import pytest

import catordog
from catordog.evaluation.evaluate import evaluate
from catordog.evaluation.metrics import METRICS
from catordog.photos.datasets import open_dataset
from conftest import jpeg, named, write_folder

KEYS = {"model", "data", "split", "n", "unreadable", "excluded", "accuracy_with_excluded",
        "relabelled", "accuracy_as_labelled", "accuracy", "accuracy_ci95", "nll",
        "brier", "ece", "ece_equal_mass", "classwise_ece",
        "aurc", "auroc", "ci95", "temperature", "coverage_at", "confusion", "uncalibrated",
        "alternatives", "promises", "truth", "damage", "accept", "neither", "also"}  # fmt: skip


@pytest.fixture(scope="module")
def evaluated(drawn_run, catordog, tmp_path_factory):
    """`catordog evaluate` on the demo's held-out pictures, with every output there is."""
    folder = tmp_path_factory.mktemp("evaluated")
    ended = catordog("evaluate", drawn_run.checkpoint, "--data", "drawn", "--split", "test",
                     "--json", folder / "e.json", "--csv", folder / "e.csv")  # fmt: skip
    assert ended.code == 0, ended.err
    rows = list(csv.DictReader((folder / "e.csv").open(encoding="utf-8")))
    return ended, json.loads((folder / "e.json").read_text()), rows


def test_a_small_network_passes_95_percent_on_held_out_drawn_pictures(evaluated):
    _, figures, _ = evaluated
    assert figures["accuracy"] > 0.95
    low, high = figures["accuracy_ci95"]
    assert low < figures["accuracy"] < high


def test_the_json_has_the_promised_keys_and_fractions(evaluated):
    _, figures, _ = evaluated
    assert set(figures) == KEYS
    assert set(figures["ci95"]) == {"nll", "brier", "ece", "ece_equal_mass", "classwise_ece"}
    assert set(figures["uncalibrated"]) == {*figures["ci95"], "ci95"}
    assert (figures["data"], figures["split"], figures["unreadable"]) == ("drawn", "test", 0)
    assert 0 <= figures["ece"] <= 1
    assert sum(sum(row.values()) for row in figures["confusion"].values()) == figures["n"]
    assert figures["n"] == pytest.approx(1600, abs=80)


def test_the_csv_has_a_row_for_each_photo_and_agrees_with_the_metrics(evaluated):
    _, figures, rows = evaluated
    assert len(rows) == figures["n"]
    logits = np.array([[float(row["logit_cat"]), float(row["logit_dog"])] for row in rows])
    confidences = np.array([float(row["confidence_dog"]) for row in rows])
    p = catordog.softmax(logits, figures["temperature"])
    assert np.allclose(p[:, 1], confidences, atol=1e-12)
    right = np.mean([row["label"] == row["predicted"] for row in rows])
    assert right == pytest.approx(figures["accuracy"])
    labels = np.array([row["label"] == "dog" for row in rows], int)
    assert -np.log(p[np.arange(len(p)), labels]).mean() == pytest.approx(figures["nll"], abs=1e-5)


def test_only_held_out_pictures_are_evaluated(evaluated, drawn_run):
    _, _, rows = evaluated
    fractions = catordog.load(drawn_run.checkpoint).model.split_fractions
    held_out = {photo.path for photo in open_dataset("drawn").split("test", fractions)}
    assert {row["path"] for row in rows} == held_out


def test_the_text_has_every_metric_the_confusion_and_the_photos_to_look_at(evaluated):
    ended, figures, _ = evaluated
    assert f"{100 * figures['accuracy']:.2f} %" in ended.out
    assert "95 % interval" in ended.out
    for metric in METRICS:
        assert f"\n{metric.title} " in ended.out
    for words in ("confusion", "predicted cat", "most confident mistakes",
                  "least confident photos", "logit dog"):  # fmt: skip
        assert words in ended.out
    assert "1.0000" not in ended.out


@pytest.mark.slow
def test_python_gets_the_same_numbers_as_the_command(evaluated, drawn_run):
    _, figures, _ = evaluated
    result = evaluate(drawn_run.checkpoint, "drawn")
    own, theirs = leaves(json.loads(json.dumps(result.to_dict()))), leaves(figures)
    assert own.keys() == theirs.keys()
    for key, value in theirs.items():  # another process may add in another order
        assert own[key] == (pytest.approx(value, abs=1e-6) if isinstance(value, float) else value)


def leaves(value: object, path: tuple[object, ...] = ()) -> dict[tuple[object, ...], object]:
    """The values in nested JSON, by the keys and indices that lead to them."""
    if not isinstance(value, dict | list):
        return {path: value}
    items = value.items() if isinstance(value, dict) else enumerate(value)
    found: dict[tuple[object, ...], object] = {}
    for key, inner in items:
        found |= leaves(inner, (*path, key))
    return found


@pytest.mark.slow
def test_a_classifier_can_be_evaluated_as_well_as_a_path():
    classifier = catordog.load()
    by_classifier = evaluate(classifier, "drawn:n=60,seed=3", "all")
    by_name = evaluate("bundled", "drawn:n=60,seed=3", "all")
    assert by_classifier.metrics == by_name.metrics
    assert (by_classifier.confidences == by_name.confidences).all()
    assert by_name.model == evaluate(None, "drawn:n=60,seed=3", "all").model == "bundled"


@pytest.mark.slow
def test_evaluating_an_onnx_model_imports_no_torch(tmp_path):
    code = (
        "import sys; from catordog.cli import main; "
        "code = main(['evaluate', 'bundled', '--data', 'drawn:n=120,seed=3', '--split', 'all', "
        f"'--json', {str(tmp_path / 'e.json')!r}]); "
        "sys.exit(code or int('torch' in sys.modules))"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=300)
    assert json.loads((tmp_path / "e.json").read_text())["n"] == 120


def test_unreadable_photos_are_counted_and_named(drawn_run, catordog, tmp_path):
    folder = write_folder(tmp_path / "pets", named(12) | {"cat.77.jpg": jpeg(0)[:300]})
    ended = catordog("evaluate", drawn_run.checkpoint, "--data", folder, "--split", "all",
                     "--json", tmp_path / "e.json", "--csv", tmp_path / "e.csv")  # fmt: skip
    assert ended.code == 1
    assert "cat.77.jpg" in ended.err
    figures = json.loads((tmp_path / "e.json").read_text())
    assert (figures["n"], figures["unreadable"]) == (12, 1)
    rows = list(csv.DictReader((tmp_path / "e.csv").open(encoding="utf-8")))
    assert "truncated" in rows[-1]["error"]


def test_class_names_may_be_plural_or_in_capitals(drawn_run, catordog, tmp_path):
    files = {f"{k}/{i}.jpg": jpeg(2 * i + (k == "DOGS")) for k in ("Cats", "DOGS")
             for i in range(4)}  # fmt: skip
    ended = catordog(
        "evaluate",
        drawn_run.checkpoint,
        "--data",
        write_folder(tmp_path, files),
        "--split",
        "all",
    )
    assert ended.code == 0, ended.err


def test_the_real_photos_can_be_evaluated(drawn_run, catordog, shared_photos):
    ended = catordog("evaluate", drawn_run.checkpoint, "--data",
                     shared_photos / "oxford-iiit-pet-60", "--split", "all")  # fmt: skip
    assert ended.code == 0, ended.err
    assert "60 photos (40 cat, 20 dog)" in ended.out
