from __future__ import annotations

import csv
import json

import pytest

from catordog.confidence.verdict import judge
from catordog.errors import CatordogError, PhotoError
from catordog.escaping import printable
from catordog.report.rows import Rows

CLASSES = ("cat", "dog")
RESULTS = {
    "a.jpg": judge([3.0, -1.5], CLASSES),
    'a "quoted",\nname.jpg': judge([0.7, 1.0], CLASSES),
    "=SUM(A1).jpg": PhotoError("=SUM(A1).jpg", "truncated file"),
    "übung.jpg": judge([-4.0, 9.0], CLASSES),
}


def write(path, style, *, resume=False, classes=CLASSES):
    """Write a row for every photo that has none. Returns the number of rows there were."""
    with Rows(path, style, classes, resume=resume) as rows:
        for photo, result in RESULTS.items():
            if not rows.has(photo):
                rows.write(photo, result)
    return rows.resumed


@pytest.mark.parametrize("style", ["jsonl", "csv"])
def test_a_file_cut_off_at_any_byte_is_resumed_without_a_lost_or_doubled_row(tmp_path, style):
    out, partial = tmp_path / f"r.{style}", tmp_path / f"r.{style}.partial"
    write(out, style)
    complete = out.read_bytes()
    resumed = set()
    for size in range(len(complete) + 1):
        out.unlink(missing_ok=True)
        partial.write_bytes(complete[:size])
        resumed.add(write(out, style, resume=True))
        assert out.read_bytes() == complete, size
        assert not partial.exists()
    assert resumed == set(range(len(RESULTS) + 1))


def test_a_complete_file_is_resumed_too(tmp_path):
    write(tmp_path / "r.csv", "csv")
    complete = (tmp_path / "r.csv").read_bytes()
    assert write(tmp_path / "r.csv", "csv", resume=True) == len(RESULTS)
    assert (tmp_path / "r.csv").read_bytes() == complete


@pytest.mark.parametrize(
    ("style", "classes"),
    [("csv", ("cat", "fox")), ("jsonl", ("cat", "fox")), ("jsonl", CLASSES), ("csv", CLASSES)],
)
def test_rows_in_another_format_or_of_other_classes_are_refused(tmp_path, style, classes):
    path = tmp_path / "r"
    other = {"csv": "jsonl", "jsonl": "csv"}[style]
    write(path, other if classes == CLASSES else style)
    complete = path.read_bytes()
    with (
        pytest.raises(CatordogError, match="another format or of other classes: move it away"),
        Rows(path, style, classes, resume=True),
    ):
        pytest.fail("the work has started")
    assert path.read_bytes() == complete
    assert list(tmp_path.iterdir()) == [path]


BROKEN = "=SUM(A1).jpg"
"""The photo of `RESULTS` with an error."""

READABLE = judge([1.0, 2.0], CLASSES)


@pytest.mark.parametrize("style", ["jsonl", "csv"])
def test_photos_with_an_error_are_tried_again_and_their_rows_replaced(tmp_path, style):
    out = tmp_path / "r"
    write(out, style)
    with Rows(tmp_path / "expected", style, CLASSES) as rows:
        for photo, result in RESULTS.items():
            rows.write(photo, READABLE if photo == BROKEN else result)
    with Rows(out, style, CLASSES, resume=True) as rows:
        assert (rows.resumed, rows.errors) == (4, 1)
        assert [photo for photo in RESULTS if not rows.has(photo)] == [BROKEN]
        rows.write(BROKEN, READABLE)
        assert rows.errors == 0
    assert out.read_bytes() == (tmp_path / "expected").read_bytes()
    with Rows(out, style, CLASSES, resume=True) as rows:
        assert (rows.resumed, rows.errors) == (4, 0)


@pytest.mark.parametrize("style", ["jsonl", "csv"])
def test_a_resumed_file_knows_the_verdict_of_each_photo(tmp_path, style):
    classes = ("=1", "not sure")
    results = {
        "formula.jpg": judge([9.0, 0.0], classes),
        "class.jpg": judge([0.0, 9.0], classes),
        "not sure.jpg": judge([0.1, 0.0], classes),
        "neither.jpg": judge([9.0, 0.0], classes, ood_score=1.0),
        "broken.jpg": PhotoError("broken.jpg", "truncated file"),
    }
    with Rows(tmp_path / "r", style, classes) as rows:
        for photo, result in results.items():
            rows.write(photo, result)
            assert rows.verdict_of(photo) is None, "it is a row of this run"
    with Rows(tmp_path / "r", style, classes, resume=True) as rows:
        found = [rows.verdict_of(photo) for photo in (*results, "new.jpg")]
    assert found == ["=1", "class not sure", "not sure", "neither", None, None]


@pytest.mark.parametrize("style", ["jsonl", "csv"])
@pytest.mark.parametrize("name", ["a\r=1+1.png", "a\r\nb.png", "\r.png"])
def test_a_carriage_return_in_a_name_is_part_of_the_name(tmp_path, style, name):
    path = tmp_path / "r"
    for resume in (False, True):
        with Rows(path, style, CLASSES, resume=resume) as rows:
            assert rows.has(name) == rows.has("b.jpg") == resume
            if not resume:
                rows.write(name, READABLE)
                rows.write("b.jpg", READABLE)
    if style == "csv":
        with path.open(encoding="utf-8", newline="") as file:
            paths = [row["path"] for row in csv.DictReader(file)]
        assert paths == [f"./{name}" if name[0] == "\r" else name, "b.jpg"]


def test_rows_of_an_older_version_that_a_carriage_return_breaks_are_refused(tmp_path):
    write(tmp_path / "r", "csv")
    text = (tmp_path / "r").read_bytes().replace(b"a.jpg", b"a\r.jpg")
    (tmp_path / "r").write_bytes(text)
    with (
        pytest.raises(CatordogError, match="move it away"),
        Rows(tmp_path / "r", "csv", CLASSES, resume=True),
    ):
        pytest.fail("the work has started")


@pytest.mark.parametrize("style", ["jsonl", "csv"])
def test_rows_of_an_interrupted_run_are_replaced_by_no_new_run(tmp_path, style):
    write(tmp_path / "r", style)
    partial = (tmp_path / "r").rename(tmp_path / "r.partial")
    before = partial.read_bytes()
    for other in ("table", "jsonl", "csv"):
        with (
            pytest.raises(
                CatordogError, match=r"r\.partial has the rows .* continue it with --res"
            ),
            Rows(tmp_path / "r", other, CLASSES),
        ):
            pytest.fail("the work has started")
        assert list(tmp_path.iterdir()) == [partial]
        assert partial.read_bytes() == before
    write(tmp_path / "r", style, resume=True)
    assert (tmp_path / "r").read_bytes() == before


@pytest.mark.parametrize("style", ["table", "jsonl", "csv"])
def test_a_run_that_was_interrupted_before_its_first_row_is_in_no_way(tmp_path, style):
    with Rows(tmp_path / "r", style, CLASSES):
        pass
    (tmp_path / "r").rename(tmp_path / "r.partial")
    write(tmp_path / "r", style)
    assert list(tmp_path.iterdir()) == [tmp_path / "r"]


def test_a_table_shows_no_control_characters(tmp_path):
    with Rows(tmp_path / "r", "table", CLASSES) as rows:
        rows.write("\x1b[2Ja\n.jpg", READABLE)
        rows.write("\x9b.jpg", PhotoError("\x9b.jpg", "bad\x07"))
    text = (tmp_path / "r").read_text("utf-8")
    assert printable(text.replace("\n", "")) == text.replace("\n", "")
    assert text.count("\n") == 4
    assert "\\x1b[2Ja\\n.jpg" in text


@pytest.mark.parametrize("style", ["jsonl", "csv"])
def test_a_run_that_is_interrupted_after_a_retry_is_resumed(tmp_path, capsys, style):
    out = tmp_path / "r"
    write(out, style)
    lines = out.read_bytes().count(b"\n")

    def interrupted() -> None:
        with Rows(out, style, CLASSES, resume=True) as rows:
            rows.write(BROKEN, READABLE)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert f"results so far are in {out}.partial; --resume continues" in capsys.readouterr().err
    assert out.read_bytes().count(b"\n") == lines, "the complete file stays until it is replaced"
    with Rows(out, style, CLASSES, resume=True) as rows:
        assert rows.errors == 0
        assert all(map(rows.has, RESULTS))
    assert out.read_bytes().count(b"\n") == lines
    assert b"truncated file" not in out.read_bytes()


def test_an_error_that_is_not_tried_again_stays(tmp_path):
    write(tmp_path / "r", "csv")
    complete = (tmp_path / "r").read_bytes()
    with Rows(tmp_path / "r", "csv", CLASSES, resume=True) as rows:
        pass
    assert rows.errors == 1
    assert (tmp_path / "r").read_bytes() == complete


@pytest.mark.parametrize("style", ["jsonl", "csv"])
def test_relative_and_absolute_paths_of_a_photo_are_the_same_photo(tmp_path, monkeypatch, style):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "r", style)
    with Rows(tmp_path / "r", style, CLASSES, resume=True) as rows:
        for photo in RESULTS.keys() - {BROKEN}:
            assert rows.has(photo)
            assert rows.has(f"./{photo}")
            assert rows.has(str(tmp_path / photo))
            assert not rows.has(str(tmp_path / "another" / photo))


def test_a_file_is_resumed_from_another_folder(tmp_path, monkeypatch):
    settings = {"model": "m"}
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        monkeypatch.chdir(tmp_path / folder)
        with Rows(tmp_path / "r", "jsonl", CLASSES, resume=True, settings=settings) as rows:
            assert not rows.has("a.jpg"), "a photo of the same name is another photo"
            assert rows.has("../one/a.jpg") == (folder == "two")
            rows.write("a.jpg", RESULTS["a.jpg"])
    paths = [json.loads(line)["path"] for line in (tmp_path / "r").read_text().splitlines()]
    assert paths == ["a.jpg", str(tmp_path / "two" / "a.jpg")]


@pytest.mark.parametrize("attributes", [True, False])
@pytest.mark.parametrize("state", ["complete", "partial"])
@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"model": "n", "--accept": 1.0}, "rows of another model"),
        ({"model": "m", "--accept": 0.9}, "rows with --accept 1.0, and this run has --accept 0.9"),
        ({"model": "m", "--accept": None}, "with --accept 1.0, and this run has no --accept"),
    ],
)
def test_rows_of_another_run_are_refused(tmp_path, monkeypatch, attributes, state, other, message):
    if not attributes:  # as on systems that have none
        monkeypatch.setattr("catordog.report.run_record.sys.platform", "another")
    settings = {"model": "m", "--accept": 1.0}
    for resume in (False, True):
        with Rows(tmp_path / "r", "csv", CLASSES, resume=resume, settings=settings) as rows:
            if not rows.has("a.jpg"):
                rows.write("a.jpg", RESULTS["a.jpg"])
            assert rows.resumed == int(resume)
    if state == "partial":
        (tmp_path / "r").rename(tmp_path / "r.partial")
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with (
        pytest.raises(CatordogError, match=message),
        Rows(tmp_path / "r", "csv", CLASSES, resume=True, settings=other),
    ):
        pytest.fail("the work has started")
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_file_of_an_older_version_is_resumed_with_a_line(tmp_path, capsys):
    write(tmp_path / "r", "csv")
    settings = {"model": "m"}
    for _ in range(2):
        with Rows(tmp_path / "r", "csv", CLASSES, resume=True, settings=settings) as rows:
            assert rows.resumed == len(RESULTS)
        err = capsys.readouterr().err
        assert len(err.splitlines()) == 1
        assert "can't check that they are the same" in err


def test_a_new_run_forgets_the_old_one(tmp_path):
    for model in ("m", "n"):
        for resume in (False, True):
            settings = {"model": model}
            with Rows(tmp_path / "r", "csv", CLASSES, resume=resume, settings=settings) as rows:
                rows.write("a.jpg", RESULTS["a.jpg"])


@pytest.mark.parametrize("style", ["jsonl", "csv"])
def test_rows_can_be_read_back(tmp_path, style):
    path = tmp_path / f"r.{style}"
    write(path, style)
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file)) if style == "csv" else list(map(json.loads, file))
    photos = ["./=SUM(A1).jpg" if style == "csv" and name[0] == "=" else name for name in RESULTS]
    assert [row["path"] for row in rows] == photos
    assert [row["label"] or "" for row in rows] == ["cat", "dog", "", "dog"]
    assert [row["error"] or "" for row in rows] == ["", "", "truncated file", ""]
    assert float(rows[0]["confidence"]) == RESULTS["a.jpg"].confidence


def test_of_several_rows_of_a_photo_the_last_has_its_verdict(tmp_path):
    out = tmp_path / "r.csv"
    with Rows(out, "csv", CLASSES) as rows:
        for number, logits in enumerate(([9.0, 0.0], [0.0, 9.0])):
            rows.write("changed.jpg", judge(logits, CLASSES))
            rows.write(f"{number}.jpg", judge(logits, CLASSES))
    with Rows(out, "csv", CLASSES, resume=True) as rows:
        assert rows.verdict_of("changed.jpg") == CLASSES[-1]
        assert rows.verdict_of("gone.jpg") is None
