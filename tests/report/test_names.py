"""Reports print names of any kind: formulas, line breaks, other scripts, bytes that are no text."""

from __future__ import annotations

import csv
import json
import os
import sys
from html import unescape

import numpy as np
import pytest

from catordog.cli import main
from catordog.confidence.verdict import judge
from catordog.evaluation.predictions import Predictions
from catordog.photos.photo import Photo
from catordog.report.figures import figures_of, svg
from catordog.report.sorted_folders import SortedFolders
from conftest import jpeg, write_folder
from model.small import write_checkpoint

NAMES = ["caf\udce9", "$\\frac{$", "two\nlines", "x" * 300, "\u05e7\u05d8", "$", "\\", "a_b^c"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("classes", [2, 3])
def test_figures_take_any_class_name(name, classes, recwarn):
    logits = np.random.default_rng(0).normal(size=(40, classes))
    labels = np.arange(40) % classes
    found = Predictions((name, "dog", "fox")[:classes], labels, logits)
    for title, figure in figures_of(found).items():
        svg(figure, title).encode("utf-8")
    assert not [str(each.message) for each in recwarn if "layout" in str(each.message)]


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have only names that are text")
def test_a_photo_or_class_whose_name_is_no_text_is_in_every_report(tmp_path, capsys):
    data = tmp_path / "data"
    for index in range(24):
        folder = os.fsencode(data) + (b"/caf\xe9", b"/$\\frac{$")[index % 2]
        os.makedirs(folder, exist_ok=True)  # noqa: PTH103 - of bytes
        name = {20: b"caf\xe9.jpg", 21: b"two\nlines.jpg", 22: b"bad\xe9.jpg"}.get(index)
        with open(folder + b"/" + (name or b"%d.jpg" % index), "wb") as file:  # noqa: PTH123
            file.write(b"text" if index == 22 else jpeg(index, size=40))
    model = write_checkpoint(tmp_path / "m.ckpt", classes=("caf\\xe9", "$\\frac{$"))
    files = {kind: tmp_path / f"e.{kind}" for kind in ("json", "html", "csv")}
    words = [word for kind, file in files.items() for word in (f"--{kind}", str(file))]
    assert main(["evaluate", str(model), "--data", str(data), "--split", "all", *words]) == 1
    out, err = capsys.readouterr()
    assert "bad\\xe9.jpg" in err
    assert "caf\\xe9" in out
    rows = list(csv.DictReader(files["csv"].open(encoding="utf-8", newline="")))
    assert len(rows) == 24
    assert any(row["path"].endswith("caf\\xe9.jpg") for row in rows)
    assert json.loads(files["json"].read_text("utf-8"))["unreadable"] == 1
    assert "caf\\xe9" in unescape(files["html"].read_text("utf-8"))
    files = [tmp_path / "a.json", tmp_path / "a.html"]
    words = ["--json", str(files[0]), "--html", str(files[1])]
    assert main(["audit", "--data", str(data), *words]) == 1
    assert "bad\\xe9.jpg" in capsys.readouterr().out
    (row,) = json.loads(files[0].read_text("utf-8"))["unreadable"]
    assert row["path"].endswith("bad\\xe9.jpg")
    assert "bad\\xe9.jpg" in files[1].read_text("utf-8")


@pytest.mark.parametrize("name", ["not sure", "neither"])
def test_a_class_called_like_a_verdict_is_kept_apart_from_it(name, tmp_path):
    classes = (name, "dog")
    answer = judge([9.0, 0.0], classes)
    not_sure, neither = judge([0.1, 0.0], classes), judge([9.0, 0.0], classes, ood_score=1.0)
    verdicts = [each.verdict for each in (answer, not_sure, neither)]
    assert verdicts == [f"class {name}", "not sure", "neither"]
    assert len({each.in_words() for each in (answer, not_sure, neither)}) == 3
    assert judge([9.0, 0.0], classes, quantile=0.1).verdict == f"class {name}"
    folders = SortedFolders(tmp_path / "sorted")
    for number, verdict in enumerate(verdicts):
        folders.put(Photo.from_bytes(jpeg(number), f"{number}.jpg"), verdict)
    assert {path.name for path in (tmp_path / "sorted").iterdir()} == set(verdicts)


def test_a_name_that_another_process_takes_meanwhile_is_not_replaced(tmp_path, monkeypatch):
    folders = SortedFolders(tmp_path / "sorted")
    change, others = os.utime, []

    def slow(*words, **options) -> None:
        if not others:
            others.append(SortedFolders(tmp_path / "sorted"))
            others[0].put(Photo.from_file(two), "cat")
        change(*words, **options)

    one, two = tmp_path / "1" / "a.jpg", tmp_path / "2" / "a.jpg"
    write_folder(tmp_path, {"1/a.jpg": b"one", "2/a.jpg": b"two"})
    monkeypatch.setattr(os, "utime", slow)
    assert folders.put(Photo.from_file(one), "cat").name == "a (2).jpg"
    files = {path.name: path.read_bytes() for path in (tmp_path / "sorted/cat").iterdir()}
    assert files == {"a.jpg": b"two", "a (2).jpg": b"one"}


def test_linking_after_copying_puts_no_photo_there_twice(tmp_path):
    write_folder(tmp_path, {"1/a.jpg": b"one", "2/a.jpg": b"two"})
    for link in (False, True):
        for number in "12":
            photo = Photo.from_file(tmp_path / number / "a.jpg")
            SortedFolders(tmp_path / "sorted", link=link).put(photo, "cat")
    names = sorted(path.name for path in (tmp_path / "sorted/cat").iterdir())
    assert names == ["a (2).jpg", "a.jpg"]
