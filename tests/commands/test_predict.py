from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import catordog
from catordog.cli import main
from catordog.confidence import softmax
from conftest import jpeg, named, write_folder, write_zip

KEYS = ["path", "label", "confidence", "confidences", "logits", "verdict", "error"]

SURE = ("--threshold", 0.5, "--accept", 1)
"""Says cat or dog of everything: how sure a network is differs a little from machine to machine."""


@pytest.fixture
def predict(drawn_run, capsys):
    def run(*words: object) -> tuple[int, str, str]:
        code = main(["predict", *map(str, words), "--model", str(drawn_run.checkpoint)])
        out, err = capsys.readouterr()
        return code, out, err

    return run


def test_a_folder_as_it_comes(predict, photo_folder):
    code, out, err = predict(photo_folder, "--format", "jsonl")
    rows = {Path(row["path"]).name: row for row in map(json.loads, out.splitlines())}
    assert code == 1
    assert set(rows) == {"a cat.jpg", "hund.JPEG", "page.jpg", "half.jpg", "empty.png"}
    assert all(list(row) == KEYS for row in rows.values())
    assert rows["a cat.jpg"]["label"] == "cat"
    assert rows["hund.JPEG"]["label"] == "dog"
    assert rows["page.jpg"]["error"] == "not a photo (it is an HTML page)"
    assert rows["half.jpg"]["error"].startswith("truncated file")
    assert rows["empty.png"]["error"] == "empty file"
    for name in ("page.jpg", "half.jpg", "empty.png"):
        assert [rows[name][key] for key in KEYS[1:6]] == [None] * 5
    assert "3 unreadable" in err


def test_logits_and_confidences_stand_side_by_side_and_agree(predict, drawn_run, tmp_path):
    temperature = catordog.load(drawn_run.checkpoint).model.temperature
    write_folder(tmp_path / "p", named(20))
    _, out, _ = predict(tmp_path / "p", "--format", "jsonl")
    for row in map(json.loads, out.splitlines()):
        p = softmax(list(row["logits"].values()), temperature)
        assert list(row["confidences"].values()) == pytest.approx(p.tolist(), abs=1e-12)
        assert row["confidence"] == max(row["confidences"].values())
        assert row["verdict"] in {row["label"], "not sure", "neither"}


def test_photos_come_in_the_order_asked_for(predict, tmp_path):
    folder = write_folder(tmp_path, named(6))
    asked = [folder / name for name in ("dog.2.jpg", "cat.0.jpg", "dog.2.jpg", "cat.1.jpg")]
    code, out, _ = predict(*asked, "--format", "jsonl")
    assert code == 0
    assert [json.loads(line)["path"] for line in out.splitlines()] == [str(p) for p in asked]


def test_zips_and_globs(predict, tmp_path):
    write_folder(tmp_path / "p", named(6))
    write_zip(tmp_path / "z.zip", named(4))
    _, out, _ = predict(tmp_path / "p" / "cat.*.jpg", tmp_path / "z.zip", "--format", "csv")
    paths = [row["path"] for row in csv.DictReader(io.StringIO(out))]
    assert [Path(path).name for path in paths] == [
        "cat.0.jpg", "cat.1.jpg", "cat.2.jpg", "cat.0.jpg", "cat.1.jpg", "dog.0.jpg", "dog.1.jpg",
    ]  # fmt: skip


def test_a_name_with_brackets_is_a_name_where_there_is_such_a_file(predict, tmp_path):
    write_folder(tmp_path, {"cat[1].jpg": jpeg(0)})
    code, out, _ = predict(tmp_path / "cat[1].jpg", "--format", "jsonl")
    assert code == 0
    assert len(out.splitlines()) == 1


def test_the_table_says_it_in_words_and_lines_up(predict, photo_folder):
    _, rows, _ = predict(photo_folder, *SURE, "--format", "jsonl")
    known = next(row for row in map(json.loads, rows.splitlines()) if "a cat" in row["path"])
    code, out, _ = predict(photo_folder, *SURE)
    lines = out.splitlines()
    assert code == 1
    cat = next(line for line in lines if line.endswith("a cat.jpg"))
    said = re.match(r"cat +([\d.]+) % +([\d.]+) ", cat)
    assert said is not None, cat
    assert float(said[1]) == pytest.approx(100 * known["confidence"], abs=0.5)
    assert float(said[2]) == pytest.approx(known["confidences"]["cat"], abs=1e-4)
    broken = next(line for line in lines if "page.jpg" in line)
    assert "HTML" in broken
    assert "100 %" not in out
    assert "1.0000" not in out


def test_the_threshold_decides_what_is_not_sure(predict, tmp_path):
    grey = Image.new("RGB", (64, 64), (120, 120, 120))
    grey.save(tmp_path / "grey.png")
    _, out, _ = predict(tmp_path / "grey.png", "--format", "jsonl")
    assert json.loads(out)["verdict"] == "neither"  # and it is true
    confidence = json.loads(out)["confidence"]
    above, below = (min(1, confidence + 1e-6), max(0.5, confidence - 1e-3))
    for threshold, sure in ((above, False), (below, True)):
        words = ("--threshold", threshold, "--accept", 1)
        _, out, _ = predict(tmp_path / "grey.png", "--format", "jsonl", *words)
        assert (json.loads(out)["verdict"] != "not sure") == sure
    _, out, _ = predict(tmp_path / "grey.png", "--threshold", above, "--accept", 1)
    assert "not sure (" in out


def test_out_writes_the_file_whole_and_leaves_stdout_empty(predict, tmp_path):
    write_folder(tmp_path / "p", named(4))
    code, out, err = predict(tmp_path / "p", "--format", "csv", "--out", tmp_path / "r.csv")
    assert (code, out) == (0, "")
    assert len((tmp_path / "r.csv").read_text().splitlines()) == 5
    assert err.startswith("4 photos: ")
    assert not list(tmp_path.glob("*.tmp*"))


def test_photos_of_any_aspect_ratio_are_taken(predict, tmp_path):
    for size in ((600, 20), (20, 600), (1, 1), (3000, 2000)):
        Image.new("RGB", size, (90, 60, 30)).save(tmp_path / f"{size[0]}x{size[1]}.jpg")
    code, out, _ = predict(tmp_path, "--format", "jsonl")
    rows = [json.loads(line) for line in out.splitlines()]
    assert code == 0
    assert all(np.isfinite(list(row["logits"].values())).all() for row in rows)


def test_as_a_process_results_are_on_stdout_and_words_on_stderr(catordog, drawn_run, photo_folder):
    words = (photo_folder, "--model", drawn_run.checkpoint, "--format", "jsonl", *SURE)
    ended = catordog("predict", *words)
    assert ended.code == 1
    assert len([json.loads(line) for line in ended.out.splitlines()]) == 5
    assert ended.err.strip() == "5 photos: 1 cat, 1 dog, 3 unreadable"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["nowhere.jpg"], "nowhere.jpg: no such file or folder"),
        (["*.nothing"], "nothing matches"),
        (["EMPTY"], "no photos in it"),
        (["PHOTO", "--threshold", "1.5"], "--threshold 1.5 is not a confidence"),
        (["PHOTO", "--format", "xml"], "invalid choice: 'xml'"),
        (["PHOTO", "--out", "photo.jpg/r.csv"], "can't write photo.jpg/r.csv"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(predict, tmp_path, monkeypatch, words, says):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    write_folder(tmp_path, {"photo.jpg": jpeg(0)})
    places = {"EMPTY": "empty", "PHOTO": "photo.jpg"}
    code, out, err = predict(*[places.get(word, word) for word in words])
    assert (code, out) == (2, "")
    assert says in err.splitlines()[-1]
    assert "Traceback" not in err
