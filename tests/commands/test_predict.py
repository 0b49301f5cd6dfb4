from __future__ import annotations

import csv
import gzip
import io
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import catordog
from catordog.cli import main
from catordog.confidence import softmax
from conftest import CATORDOG, jpeg, named, write_folder, write_zip
from model.small import write_checkpoint

KEYS = ["path", "label", "confidence", "confidences", "logits", "verdict", "error"]

ALWAYS_A_CLASS = ("--threshold", "0.5", "--accept", "1")
"""Makes every verdict a class: confidences differ slightly between machines."""


@pytest.fixture
def predict(capsys):
    """Run `catordog predict` with the bundled model. Returns its exit code, stdout and stderr."""

    def run(*words: object) -> tuple[int, str, str]:
        code = main(["predict", *map(str, words)])
        out, err = capsys.readouterr()
        return code, out, err

    return run


def test_unreadable_photos_of_a_folder_are_skipped_and_reported(predict, photo_folder):
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


def test_confidences_are_the_softmax_of_the_logits(predict, tmp_path):
    temperature = catordog.load().model.temperature
    write_folder(tmp_path / "p", named(20))
    _, out, _ = predict(tmp_path / "p", "--format", "jsonl")
    for row in map(json.loads, out.splitlines()):
        p = softmax(list(row["logits"].values()), temperature)
        assert list(row["confidences"].values()) == pytest.approx(p.tolist(), abs=1e-12)
        assert row["confidence"] == max(row["confidences"].values())
        assert row["verdict"] in {row["label"], "not sure", "neither"}


def test_rows_come_in_the_order_of_the_arguments(predict, tmp_path):
    folder = write_folder(tmp_path, named(6))
    asked = [folder / name for name in ("dog.2.jpg", "cat.0.jpg", "dog.2.jpg", "cat.1.jpg")]
    code, out, _ = predict(*asked, "--format", "jsonl")
    assert code == 0
    assert [json.loads(line)["path"] for line in out.splitlines()] == [str(p) for p in asked]


def test_zips_and_globs_can_be_predicted(predict, tmp_path):
    write_folder(tmp_path / "p", named(6))
    write_zip(tmp_path / "z.zip", named(4))
    _, out, _ = predict(tmp_path / "p" / "cat.*.jpg", tmp_path / "z.zip", "--format", "csv")
    paths = [row["path"] for row in csv.DictReader(io.StringIO(out))]
    assert [Path(path).name for path in paths] == [
        "cat.0.jpg", "cat.1.jpg", "cat.2.jpg", "cat.0.jpg", "cat.1.jpg", "dog.0.jpg", "dog.1.jpg",
    ]  # fmt: skip


def test_a_file_name_with_brackets_is_not_a_glob(predict, tmp_path):
    write_folder(tmp_path, {"cat[1].jpg": jpeg(0)})
    code, out, _ = predict(tmp_path / "cat[1].jpg", "--format", "jsonl")
    assert code == 0
    assert len(out.splitlines()) == 1


def test_the_table_shows_verdict_confidences_and_logits(predict, photo_folder):
    _, rows, _ = predict(photo_folder, *ALWAYS_A_CLASS, "--format", "jsonl")
    known = next(row for row in map(json.loads, rows.splitlines()) if "a cat" in row["path"])
    code, out, _ = predict(photo_folder, *ALWAYS_A_CLASS)
    lines = out.splitlines()
    assert code == 1
    cat = next(line for line in lines if line.endswith("a cat.jpg"))
    match = re.match(r"cat +([\d.]+) % +([\d.]+) +([\d.]+) +([-\d.]+) +([-\d.]+) ", cat)
    assert match is not None, cat
    assert 0 <= 100 * known["confidence"] - float(match[1]) < 1  # rounded down
    assert float(match[2]) == pytest.approx(known["confidences"]["cat"], abs=1e-4)
    assert float(match[5]) == pytest.approx(known["logits"]["dog"], abs=1e-3)
    assert {line.find(str(photo_folder)) for line in lines[2:]} == {lines[1].index("photo")}
    broken = next(line for line in lines if "page.jpg" in line)
    assert broken.startswith("unreadable ")
    assert broken.endswith("page.jpg: not a photo (it is an HTML page)")
    assert "100 %" not in out
    assert "1.0000" not in out


def test_the_threshold_decides_what_is_not_sure(predict, tmp_path):
    grey = Image.new("RGB", (64, 64), (120, 120, 120))
    grey.save(tmp_path / "grey.png")
    _, out, _ = predict(tmp_path / "grey.png", "--format", "jsonl")
    assert json.loads(out)["verdict"] == "neither"
    confidence = json.loads(out)["confidence"]
    above, below = (min(1, confidence + 1e-6), max(0.5, confidence - 1e-3))
    for threshold, sure in ((above, False), (below, True)):
        words = ("--threshold", threshold, "--accept", 1)
        _, out, _ = predict(tmp_path / "grey.png", "--format", "jsonl", *words)
        assert (json.loads(out)["verdict"] != "not sure") == sure
    _, out, _ = predict(tmp_path / "grey.png", "--threshold", above, "--accept", 1)
    assert "not sure (" in out


def test_out_writes_a_file_and_nothing_to_stdout(predict, tmp_path):
    write_folder(tmp_path / "p", named(4))
    code, out, err = predict(tmp_path / "p", "--format", "csv", "--out", tmp_path / "r.csv")
    assert (code, out) == (0, "")
    assert len((tmp_path / "r.csv").read_text().splitlines()) == 5
    assert err.splitlines()[-1].startswith("4 photos: ")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["p", "r.csv"]


@pytest.mark.parametrize(
    ("name", "further", "start"),
    [
        ("r.csv", [], "path,label,confidence,"),
        ("r.JSONL", [], '{"path": '),
        ("r.txt", [], "   "),
        ("r.csv", ["--format", "jsonl"], '{"path": '),
        ("r.csv", ["--format", "table"], "   "),
    ],
)
def test_the_suffix_of_out_is_the_format_unless_another_is_given(
    predict, tmp_path, name, further, start
):
    write_folder(tmp_path / "p", named(2))
    assert predict(tmp_path / "p", "--out", tmp_path / name, *further)[0] == 0
    assert (tmp_path / name).read_text().startswith(start)


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_a_forgotten_file_name_before_a_pattern_overwrites_no_photo(tmp_path):
    write_folder(tmp_path, named(6))
    command = f"{shlex.join(CATORDOG)} predict --format csv --out *.jpg"
    ended = subprocess.run(
        ["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 2
    assert "--out cat.0.jpg is a photo, or has the name of one" in ended.stderr
    assert len(ended.stderr.splitlines()) == 1
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == named(6)


def test_a_class_called_unreadable_is_no_failure(predict, tmp_path):
    model = write_checkpoint(tmp_path / "m.ckpt", classes=("unreadable", "dog"))
    write_folder(tmp_path / "p", named(4))
    words = ("--model", model, *ALWAYS_A_CLASS, "--out", tmp_path / "r.csv")
    code, _, err = predict(tmp_path / "p", *words)
    with (tmp_path / "r.csv").open(encoding="utf-8", newline="") as file:
        verdicts = [row["verdict"] for row in csv.DictReader(file)]
    assert "unreadable" in verdicts, "else this test tells nothing"
    assert code == 0
    assert f"{verdicts.count('unreadable')} unreadable" in err


def test_photos_of_any_aspect_ratio_can_be_predicted(predict, tmp_path):
    for size in ((600, 20), (20, 600), (1, 1), (3000, 2000)):
        Image.new("RGB", size, (90, 60, 30)).save(tmp_path / f"{size[0]}x{size[1]}.jpg")
    code, out, _ = predict(tmp_path, "--format", "jsonl")
    rows = [json.loads(line) for line in out.splitlines()]
    assert code == 0
    assert all(np.isfinite(list(row["logits"].values())).all() for row in rows)


def test_results_go_to_stdout_and_the_summary_to_stderr(photo_folder):
    words = ["predict", str(photo_folder), "--format", "jsonl", *ALWAYS_A_CLASS]
    ended = subprocess.run([*CATORDOG, *words], capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert len([json.loads(line) for line in ended.stdout.splitlines()]) == 5
    assert ended.stderr.splitlines()[-1] == "5 photos: 1 cat, 1 dog, 3 unreadable"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nowhere.jpg"], "nowhere.jpg: no such file or folder"),
        (["*.nothing"], "nothing matches"),
        (["EMPTY"], "no photos in it"),
        (["PHOTO", "--threshold", "1.5"], "--threshold 1.5 is not a confidence"),
        (["PHOTO", "--threshold", "nan"], "--threshold nan is not a confidence"),
        (["PHOTO", "--accept", "nan"], "--accept nan is not a"),
        (["PHOTO", "--accept", "0"], "--accept 0.0 is not a"),
        *(
            (["PHOTO", "--error-rate", value], f"--error-rate {value} is not between 0 and 1")
            for value in ("nan", "0", "1", "1.5", "-1e-3", "inf")
        ),
        ([""], "PATH '': the name is empty"),
        (["PHOTO", "--out", ""], "--out '': the name is empty"),
        (["PHOTO", "--link"], "--link needs --sort-into DIR"),
        (["EMPTY", "--sort-into", "empty/s"], "--sort-into empty/s is within empty: give a folder"),
        (["EMPTY", "--sort-into", "empty"], "--sort-into empty is within empty: give a folder"),
        (["emp*", "--sort-into", "empty/s"], "--sort-into empty/s is within empty: give a folder"),
        (["PHOTO", "--out", "other.JPG"], "--out other.JPG is a photo, or has the name of one"),
        (["PHOTO", "--sort-into", ""], "--sort-into '': the name is empty"),
        (["PHOTO", "--out", "photo.jpg"], "--out photo.jpg would replace an input"),
        (["PHOTO", "--out", "empty"], "can't write empty: Is a directory"),
        (["PHOTO", "--format", "xml"], "invalid choice: 'xml'"),
        (["PHOTO", "--watch"], "name folders only"),
        (["PHOTO", "--resume", "--out", "r.txt"], "--resume needs --out, and --format jsonl or"),
        (["PHOTO", "--resume", "--format", "csv"], "--resume needs --out, and --format jsonl or"),
        (["PHOTO", "--out", "photo.jpg/r.csv"], "can't write photo.jpg/r.csv"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(predict, tmp_path, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    write_folder(tmp_path, {"photo.jpg": jpeg(0)})
    paths = {"EMPTY": "empty", "PHOTO": "photo.jpg"}
    code, out, err = predict(*[paths.get(word, word) for word in words])
    assert (code, out) == (2, "")
    assert message in err.splitlines()[-1]
    assert "Traceback" not in err


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_out_may_be_another_process(tmp_path):
    write_folder(tmp_path / "p", named(4))
    command = shlex.join([*CATORDOG, "predict", str(tmp_path / "p"), "--format", "csv", "--out"])
    # The second > keeps bash waiting until gzip has ended.
    script = f"{{ {command} >(gzip >{tmp_path}/r.csv.gz; echo); }} | cat"
    ended = subprocess.run(["bash", "-c", script], capture_output=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert len(gzip.decompress((tmp_path / "r.csv.gz").read_bytes()).splitlines()) == 5


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such files")
def test_out_may_be_stdout(tmp_path):
    write_folder(tmp_path / "p", named(4))
    words = ["predict", str(tmp_path / "p"), "--format", "csv", "--out", "/dev/stdout"]
    with (tmp_path / "r.csv").open("wb") as file:
        subprocess.run([*CATORDOG, *words], stdout=file, check=True)
    assert len((tmp_path / "r.csv").read_text().splitlines()) == 5


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
@pytest.mark.parametrize("style", ["table", "csv", "jsonl"])
def test_names_that_are_not_utf8_are_escaped(tmp_path, style):
    folder = tmp_path / "p"
    write_folder(folder, {os.fsdecode(b"caf\xe9.jpg"): jpeg(0), os.fsdecode(b"x\xff.jpg"): b"no"})
    words = [*CATORDOG, "predict", str(folder), "--format", style]
    ended = subprocess.run(words, capture_output=True, check=False)
    assert ended.returncode == 1
    out = tmp_path / "r"
    for _ in range(2):
        again = subprocess.run(
            [*words, "--out", str(out), *([] if style == "table" else ["--resume"])], check=False
        )
        assert again.returncode == 1
        assert out.read_bytes() == ended.stdout
    shown = r"caf\\xe9.jpg" if style == "jsonl" else r"caf\xe9.jpg"
    assert shown in ended.stdout.decode("utf-8")
    if style == "jsonl":
        paths = [json.loads(line)["path"] for line in ended.stdout.splitlines()]
        assert paths == [f"{folder}/caf\\xe9.jpg", f"{folder}/x\\xff.jpg"]


@pytest.mark.parametrize("style", ["csv", "jsonl"])
def test_json_lines_and_csv_are_utf8_in_a_pipe_of_any_encoding(tmp_path, style):
    write_folder(tmp_path, {"mačka−.jpg": jpeg(0)})
    words = [*CATORDOG, "predict", str(tmp_path), "--format", style]
    env = {**os.environ, "PYTHONIOENCODING": "cp1252"}
    ended = subprocess.run(words, capture_output=True, env=env, check=True)
    assert "mačka−.jpg" in ended.stdout.decode("utf-8")


@pytest.mark.skipif(sys.platform != "linux", reason="needs a device that is always full")
@pytest.mark.parametrize("style", ["table", "csv", "jsonl"])
def test_a_full_disk_is_one_line_and_exit_code_2(tmp_path, style):
    write_folder(tmp_path, {"a.jpg": jpeg(0)})
    words = [*CATORDOG, "predict", str(tmp_path / "a.jpg"), "--format", style]
    for further, stdout in ((["--out", "/dev/full"], subprocess.PIPE), ([], "/dev/full")):
        with open("/dev/full", "wb") as full:  # noqa: PTH123
            ended = subprocess.run(
                [*words, *further],
                stdout=full if stdout == "/dev/full" else stdout,
                stderr=subprocess.PIPE,
                check=False,
            )
        assert ended.returncode == 2
        assert len(ended.stderr.splitlines()) == 1
        assert b"No space left on device" in ended.stderr
