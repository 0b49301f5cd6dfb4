"""Outputs of every command are checked before the work, and never replace an input."""

from __future__ import annotations

import csv
import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from catordog.cli import main
from conftest import jpeg, named, write_folder


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    """The current folder, with a dataset, and a model and a photo beside it."""
    write_folder(tmp_path / "data" / "cat", {f"{i}.jpg": jpeg(2 * i) for i in range(8)})
    write_folder(tmp_path / "data" / "dog", {f"{i}.jpg": jpeg(2 * i + 1) for i in range(8)})
    write_folder(tmp_path, {"m.onnx": b"a model", "photo.png": jpeg(0), "file": b""})
    monkeypatch.chdir(tmp_path)
    return tmp_path


EVALUATE = ["evaluate", "bundled", "--data", "data", "--split", "all"]
COMPARE = ["compare", "bundled", "bundled", "--data", "data", "--split", "all"]
AUDIT = ["audit", "--data", "data"]


@pytest.mark.parametrize(
    ("words", "output"),
    [
        (["evaluate", "m.onnx", "--data", "data", "--json", "m.onnx"], "m.onnx"),
        ([*EVALUATE, "--csv", "data/cat/0.jpg"], "data/cat/0.jpg"),
        ([*EVALUATE, "--exclude", "file", "--html", "file"], "file"),
        (["compare", "bundled", "m.onnx", "--data", "data", "--json", "m.onnx"], "m.onnx"),
        ([*AUDIT, "--html", "data/dog/1.jpg"], "data/dog/1.jpg"),
        ([*AUDIT, "--model", "m.onnx", "--fix-list", "m.onnx"], "m.onnx"),
        (["explain", "photo.png", "--out", "photo.png"], "photo.png"),
        (["export", "m.onnx", "--out", "m.onnx"], "m.onnx"),
        (["teach", "data", "--backbone", "m.onnx", "--out", "m.onnx"], "m.onnx"),
        (["teach", "data", "--exclude", "m.onnx", "--out", "m.onnx"], "m.onnx"),
        (["teach", "data", "--decisions", "m.onnx", "--out", "m.onnx"], "m.onnx"),
        (["predict", "data", "--out", "data/cat/0.jpg"], "data/cat/0.jpg"),
        (["predict", "data", "--model", "m.onnx", "--out", "m.onnx"], "m.onnx"),
    ],
)
def test_an_output_that_is_an_input_is_refused(here, capsys, words, output):
    before = (here / output).read_bytes()
    assert main(words) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert len(err.splitlines()) == 1
    assert f"{output} would replace an input: give another file" in err
    assert (here / output).read_bytes() == before


@pytest.mark.parametrize(
    ("words", "options"),
    [
        (EVALUATE, ["--json", "--html", "--csv"]),
        (COMPARE, ["--json", "--html"]),
        (AUDIT, ["--json", "--html", "--fix-list"]),
        (["predict", "data"], ["--out"]),
    ],
)
def test_an_output_that_is_a_photo_is_refused(here, capsys, words, options):
    write_folder(here, {"named": jpeg(2)})
    before = {path: path.read_bytes() for path in here.rglob("*") if path.is_file()}
    for option in options:
        for path in ("photo.png", "new.jpg", "named"):
            assert main([*words, option, path]) == 2
            out, err = capsys.readouterr()
            assert out == ""
            assert len(err.splitlines()) == 1
            assert f"{option} {path} is a photo, or has the name of one: give the name" in err
    assert {path: path.read_bytes() for path in here.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    ("words", "options"),
    [
        (EVALUATE, ["--json", "--html", "--csv"]),
        (COMPARE, ["--json", "--html"]),
        (AUDIT, ["--json", "--html", "--fix-list"]),
        (["explain", "photo.png"], ["--out"]),
        (["export", "none.ckpt"], ["--out"]),
        (["predict", "data"], ["--out", "--sort-into"]),
        (["shard", "--data", "data"], ["--out"]),
        (["demo"], ["--out"]),
    ],
)
def test_an_output_that_cannot_be_written_is_refused_before_the_work(
    here, capsys, monkeypatch, words, options
):
    def read(*_: object) -> None:
        pytest.fail("a photo is read")

    monkeypatch.setattr("catordog.photos.stores.read_file", read)
    before = sorted(here.rglob("*"))
    for option in options:
        for path in ("file/r", "n" * 300, ""):
            assert main([*words, option, path]) == 2
            out, err = capsys.readouterr()
            assert out == ""
            assert len(err.splitlines()) == 1
            named = f" {path}: " if path else f"{option} '': the name is empty"
            assert named in err
    assert sorted(here.rglob("*")) == before


def test_shards_do_not_go_into_the_folder_of_the_photos(here, capsys):
    assert main(["shard", "--data", "data", "--out", "data/../data"]) == 2
    assert "--out data/../data is --data, too" in capsys.readouterr().err
    assert main(["shard", "--data", "data", "--out", "s", "--photos", "0"]) == 2
    assert "--photos 0: a shard needs at least one photo" in capsys.readouterr().err


@pytest.mark.skipif(sys.platform != "linux", reason="needs a device that is always full")
@pytest.mark.parametrize(
    ("words", "option", "result"),
    [
        (EVALUATE, "--json", "accuracy"),
        (COMPARE, "--json", "accuracy"),
        (AUDIT, "--json", "photos"),
    ],
)
def test_the_result_is_printed_even_if_a_file_cannot_be_written(
    here, capsys, words, option, result
):
    assert main([*words, option, "/dev/full"]) == 2
    out, err = capsys.readouterr()
    assert result in out
    assert "can't write /dev/full: No space left on device" in err


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such files")
@pytest.mark.parametrize(
    ("words", "options"),
    [(EVALUATE, ["--json", "--csv"]), (AUDIT, ["--json", "--html", "--fix-list"])],
)
def test_reports_may_go_to_a_device_and_to_links(here, words, options):
    (here / "link").symlink_to("target")
    assert main([*words, *(word for option in options for word in (option, "/dev/null"))]) == 0
    assert stat.S_ISCHR(Path("/dev/null").stat().st_mode)
    assert main([*words, options[0], "link"]) == 0
    assert (here / "link").is_symlink()
    json.loads((here / "target").read_text("utf-8"))


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such names")
def test_a_carriage_return_in_a_name_starts_no_row_of_any_csv_file(here, capsys):
    """A spreadsheet would run the formula after it; the fix list is read again."""
    name = "a\r=1+1.jpg"
    write_folder(here, {f"data/cat/{name}": b"no photo", f"data/dog/{name}": jpeg(1)})
    assert main([*EVALUATE, "--csv", "e.csv"]) == 1
    assert main([*AUDIT, "--no-labels", "--fix-list", "f.csv"]) == 1
    assert main(["predict", "data", "--out", "p.csv"]) == 1
    assert main(["predict", "data", "--out", "p.csv", "--resume"]) == 1
    found = {}
    for file in ("e.csv", "f.csv", "p.csv"):
        with Path(file).open(encoding="utf-8", newline="") as opened:
            rows = list(csv.DictReader(opened))
        assert all(None not in row.values() and None not in row for row in rows), file
        found[file] = sorted(row["path"] for row in rows if "\r" in row["path"])
    assert [len(paths) for paths in found.values()] == [2, 2, 2]
    assert all(path.endswith(name) for paths in found.values() for path in paths)
    capsys.readouterr()
    assert main(["shard", "--data", "data", "--out", "shards", "--exclude", "f.csv"]) == 0
    assert "2 excluded" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
@pytest.mark.parametrize(
    ("words", "options"),
    [(EVALUATE, ["--json", "--csv", "--html"]), (AUDIT, ["--json", "--html", "--fix-list"])],
)
def test_names_that_are_not_utf8_are_escaped_in_every_report(here, words, options):
    files = named(4)
    names = (b"caf\xe9.jpg", b"copy\xe9.jpg", b"broken\xe9.jpg")
    for name, data in zip(names, (files["cat.1.jpg"], files["cat.1.jpg"], b"no"), strict=True):
        (here / "data" / "cat" / os.fsdecode(name)).write_bytes(data)
    data = os.fsdecode(b"d\xe9ta")
    (here / "data").rename(data)
    words = [data if word == "data" else word for word in words]
    assert main([*words, *(word for option in options for word in (option, f"r{option}"))]) == 1
    for option in options:
        text = (here / f"r{option}").read_text("utf-8").replace("\\\\", "\\")
        assert r"d\xe9ta" in text
    json.loads((here / "r--json").read_bytes())


def test_files_are_written_even_if_the_reader_of_the_result_has_ended(here):
    read, write = os.pipe()
    os.close(read)  # as `catordog audit … | head` does after ten lines
    words = [sys.executable, "-m", "catordog", *AUDIT, "--json", "a.json"]
    ended = subprocess.run(words, stdout=write, stderr=subprocess.PIPE, check=False, timeout=120)
    os.close(write)
    assert (ended.returncode, b"Traceback" in ended.stderr) == (0, False)
    assert json.loads(Path("a.json").read_text("utf-8"))["n"] == 16
