from __future__ import annotations

import csv
import json

import numpy as np
import pytest

import catordog
from catordog.photos.datasets import open_dataset
from conftest import jpeg, named, write_folder

KEYS = {"data", "split", "n", "unreadable", "accuracy", "accuracy_ci95", "nll", "brier", "ece",
        "auroc", "temperature", "coverage_at", "confusion"}  # fmt: skip


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
    assert set(figures) >= KEYS
    assert (figures["data"], figures["split"], figures["unreadable"]) == ("drawn", "test", 0)
    assert 0 <= figures["ece"] <= 1
    assert sum(sum(row.values()) for row in figures["confusion"].values()) == figures["n"]
    assert figures["n"] == pytest.approx(1600, abs=80)


def test_the_csv_has_a_row_for_each_photo_and_agrees_with_the_figures(evaluated):
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


def test_only_held_out_pictures_are_judged(evaluated, drawn_run):
    _, _, rows = evaluated
    fractions = catordog.load(drawn_run.checkpoint).model.split_fractions
    held_out = {photo.path for photo in open_dataset("drawn").split("test", fractions)}
    assert {row["path"] for row in rows} == held_out


def test_people_read_accuracy_loss_confusion_mistakes_and_doubts(evaluated):
    ended, figures, _ = evaluated
    assert f"{100 * figures['accuracy']:.2f} %" in ended.out
    assert "95 % interval" in ended.out
    for words in ("loss (NLL)", "confusion", "said cat", "most confident mistakes",
                  "least confident photos", "logit dog"):  # fmt: skip
        assert words in ended.out
    assert "1.0000" not in ended.out


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


def test_class_names_may_be_written_in_other_ways(drawn_run, catordog, tmp_path):
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
