"""Predicting many photos: resume after a kill, sort into folders, watch a folder."""

from __future__ import annotations

import csv
import errno
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from catordog.cli import main
from catordog.commands import predict
from catordog.errors import PhotoError
from catordog.model.bundled import BUNDLED
from catordog.photos.inputs import Inputs
from catordog.photos.photo import Photo
from catordog.report.sorted_folders import SortedFolders
from conftest import CATORDOG, jpeg, named, wait_until, write_folder, write_zip


def rows(path: Path) -> list[str]:
    """The photos that have a row."""
    with path.open(encoding="utf-8", newline="") as file:
        if path.suffixes[0] == ".csv":
            return [row["path"] for row in csv.DictReader(file)]
        return [json.loads(line)["path"] for line in file]


def tree(root: Path) -> dict[str, bytes]:
    """The files under a folder."""
    files = (path for path in root.rglob("*") if path.is_file())
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in files}


@pytest.fixture
def photos(tmp_path):
    return write_folder(tmp_path / "photos", {**named(12), 'a "quoted",\nname.jpg': jpeg(3)})


class TestResume:
    @pytest.mark.parametrize("style", ["jsonl", "csv"])
    def test_a_resumed_run_writes_the_same_file(self, photos, tmp_path, style):
        out, partial = tmp_path / f"r.{style}", tmp_path / f"r.{style}.partial"
        words = ["predict", str(photos), "--format", style, "--out", str(out)]
        assert main(words) == 0
        complete = out.read_bytes()
        out.unlink()
        partial.write_bytes(complete[: len(complete) // 2])
        assert main([*words, "--resume"]) == 0
        assert out.read_bytes() == complete
        assert not partial.exists()

    @pytest.mark.slow
    def test_a_killed_run_is_resumed(self, tmp_path):
        photos = write_folder(
            tmp_path / "photos", {f"{i:04}.jpg": jpeg(i % 40) for i in range(600)}
        )
        out, partial = tmp_path / "r.jsonl", tmp_path / "r.jsonl.partial"
        words = ["predict", str(photos), "--format", "jsonl", "--out", str(out)]
        process = subprocess.Popen([*CATORDOG, *words], stderr=subprocess.DEVNULL)
        try:
            wait_until(lambda: partial.exists() and b"\n" in partial.read_bytes(), "a row")
        finally:
            process.kill()
            process.wait()
        assert not out.exists(), "the run ended before it was killed"
        assert 0 < partial.read_bytes().count(b"\n") < 600
        assert main([*words, "--resume"]) == 0
        assert rows(out) == [str(photos / f"{i:04}.jpg") for i in range(600)]

    def test_new_photos_are_added_to_a_finished_file(self, photos, tmp_path, capsys):
        out = tmp_path / "r.csv"
        words = ["predict", str(photos), "--format", "csv", "--out", str(out)]
        assert main(words) == 0
        before = out.read_text()
        (photos / "another.jpg").write_bytes(jpeg(5))
        capsys.readouterr()
        assert main([*words, "--resume"]) == 0
        assert "1 photo:" in capsys.readouterr().err
        assert out.read_text().startswith(before)
        assert sorted(rows(out)) == sorted(map(str, photos.iterdir()))

    def test_rows_of_an_interrupted_run_are_not_thrown_away(self, photos, tmp_path, capsys):
        out, partial = tmp_path / "r.csv", tmp_path / "r.csv.partial"
        words = ["predict", str(photos), "--out", str(out)]
        assert main(words) == 0
        out.rename(partial)
        before = partial.read_bytes()
        capsys.readouterr()
        assert main(words) == 2
        err = capsys.readouterr().err
        assert "r.csv.partial has the rows of an interrupted run: continue it with --resume" in err
        assert len(err.splitlines()) == 1
        assert partial.read_bytes() == before
        assert main([*words, "--resume"]) == 0
        assert out.read_bytes() == before

    def test_rows_of_another_model_are_not_mixed_in(self, photos, tmp_path, capsys):
        out = tmp_path / "r.csv"
        out.write_text("path,label,confidence,confidence_fox,logit_fox,verdict,error\n")
        assert main(["predict", str(photos), "--format", "csv", "--out", str(out), "--resume"]) == 2
        assert "of other classes: move it away" in capsys.readouterr().err
        assert "confidence_fox" in out.read_text()
        assert sorted(path.name for path in tmp_path.iterdir()) == ["photos", "r.csv"]

    @pytest.mark.parametrize("state", ["complete", "partial"])
    @pytest.mark.parametrize(
        ("other", "message"),
        [
            (["--threshold", "0.99"], "--threshold 0.8, and this run has --threshold 0.99"),
            (["--error-rate", "0.1"], "and this run has --error-rate 0.1"),
            (["--accept", "1"], "--accept 0.99, and this run has --accept 1.0"),
            (["--format", "jsonl"], "another format or of other classes"),
            (["--model", "other.onnx"], "rows of another model"),
        ],
    )
    def test_rows_of_other_options_are_not_mixed_in(
        self, photos, tmp_path, capsys, monkeypatch, state, other, message
    ):
        onnx = pytest.importorskip("onnx")
        monkeypatch.chdir(tmp_path)
        proto = onnx.load(str(BUNDLED))
        proto.doc_string = "other"
        onnx.save(proto, "other.onnx")
        words = ["predict", "photos", "--format", "csv", "--out", "r.csv"]
        assert main(words) == 0
        if state == "partial":
            Path("r.csv").rename("r.csv.partial")
        before = {path: path.read_bytes() for path in tmp_path.glob("*r*") if path.is_file()}
        capsys.readouterr()
        assert main([*words, *other, "--resume"]) == 2
        err = capsys.readouterr().err
        assert message in err
        assert len(err.splitlines()) == 1
        assert {
            path: path.read_bytes() for path in tmp_path.glob("*r*") if path.is_file()
        } == before
        assert main([*words, "--threshold", "0.8", "--resume"]) == 0, "the model's own threshold"

    def test_unreadable_photos_are_tried_again_until_none_is_left(self, photos, tmp_path, capsys):
        data = (photos / "dog.3.jpg").read_bytes()
        (photos / "cat.2.jpg").write_bytes(data[:-200])
        (photos / "dog.3.jpg").write_bytes(b"")
        out = tmp_path / "r.csv"
        words = ["predict", str(photos), "--format", "csv", "--out", str(out), "--resume"]
        assert main(words) == 1
        asked = rows(out)
        (photos / "cat.2.jpg").write_bytes(data)
        assert main(words) == 1, "one is still unreadable"
        capsys.readouterr()
        assert main(["predict", str(photos / "cat.0.jpg"), *words[2:]]) == 1, "another has an error"
        assert "1 more in the file with an error" in capsys.readouterr().err
        (photos / "dog.3.jpg").write_bytes(data)
        assert main(words) == 0
        assert rows(out) == asked
        with out.open(newline="") as file:
            assert not any(row["error"] for row in csv.DictReader(file))

    def test_a_relative_and_an_absolute_path_give_one_row(self, photos, tmp_path, monkeypatch):
        out = tmp_path / "r.jsonl"
        words = ["--format", "jsonl", "--out", str(out), "--resume"]
        for folder, path in ((tmp_path, "photos"), (photos, "."), (tmp_path, str(photos))):
            monkeypatch.chdir(folder)
            assert main(["predict", path, *words]) == 0
            assert len(rows(out)) == 13

    def test_of_two_runs_with_one_file_the_second_is_refused(self, photos, tmp_path, capsys):
        out, partial = tmp_path / "r.csv", tmp_path / "r.csv.partial"
        words = ["predict", str(photos), "--format", "csv", "--out", str(out)]
        first = subprocess.Popen([*CATORDOG, *words, "--watch"], stderr=subprocess.DEVNULL)
        try:
            wait_until(lambda: partial.exists() and "name.jpg" in partial.read_text(), "a row")
            for further in ([], ["--resume"]):
                before = partial.read_bytes()
                assert main([*words, *further]) == 2
                err = capsys.readouterr().err
                assert f"{out} is being written by another run" in err
                assert len(err.splitlines()) == 1
                assert partial.read_bytes().startswith(before)
            wait_until(lambda: partial.read_bytes().count(b"\n") == 15, "all rows")
        finally:
            first.send_signal(signal.SIGINT)
            assert first.wait(120) == 0
        assert sorted(rows(out)) == sorted(map(str, photos.iterdir()))
        assert sorted(path.name for path in tmp_path.iterdir()) == ["photos", "r.csv"]
        assert main(words) == 0


class TestSorting:
    @pytest.mark.parametrize("style", ["jsonl", "csv"])
    def test_a_resumed_run_sorts_photos_that_have_a_row(self, photos, tmp_path, capsys, style):
        (photos / "broken.jpg").write_bytes(b"no photo")
        out, folders = tmp_path / f"r.{style}", tmp_path / "s"
        words = ["predict", str(photos), "--out", str(out)]
        assert main([*words, "--sort-into", str(tmp_path / "at once")]) == 1
        expected = tree(tmp_path / "at once")
        assert len(expected) == 13
        (folders / "cat").mkdir(parents=True)
        for _ in range(2):  # the second time changes nothing
            assert main([*words, "--resume", "--sort-into", str(folders)]) == 1
            assert tree(folders) == expected
        assert "not sorted" not in capsys.readouterr().err

    def test_a_photo_that_did_not_fit_on_the_disk_is_sorted_by_the_resumed_run(
        self, photos, tmp_path, capsys, monkeypatch
    ):
        """The disk is full while the fifth photo is copied."""
        out, folders = tmp_path / "r.jsonl", tmp_path / "s"
        words = ["predict", str(photos), "--out", str(out), "--sort-into", str(folders)]
        change, calls = os.utime, []

        def full(*words, **options) -> None:
            calls.append(words)
            if len(calls) == 5:
                raise OSError(errno.ENOSPC, "No space left on device")
            change(*words, **options)

        with monkeypatch.context() as patch:
            patch.setattr(os, "utime", full)
            assert main(words) == 2
        err = capsys.readouterr().err
        assert "No space left on device" in err
        assert "results so far are in" in err
        assert "--resume continues" in err
        assert len(tree(folders)) == len(rows(tmp_path / "r.jsonl.partial")) == 4
        assert main([*words, "--resume"]) == 0
        assert sorted(tree(folders).values()) == sorted(map(Path.read_bytes, photos.iterdir()))
        assert len(rows(out)) == 13

    @pytest.mark.skipif(os.name == "nt", reason="Windows has no paths of this length")
    def test_a_name_that_is_too_long_there_stops_no_other_photo(self, tmp_path, capsys):
        """In a folder so deep that a path with a long name is longer than any can be."""
        photos = write_folder(tmp_path / "photos", {f"{'x' * 240}.jpg": jpeg(0), "a.jpg": jpeg(1)})
        folders = tmp_path
        while len(str(folders)) < 3900:
            folders /= "d" * min(200, 3900 - len(str(folders)))
        words = ["predict", str(photos), "--out", str(tmp_path / "r.csv"), "--accept", "1"]
        words += ["--threshold", "0.5", "--sort-into", str(folders)]
        for further in ([], ["--resume"]):
            assert main([*words, *further]) == 1
            err = capsys.readouterr().err
            assert err.count("not sorted: ") == 1
            assert "xxx.jpg: can't be put into" in err
            assert "File name too long" in err
            assert "1 photo was not sorted" in err
            assert [path.name for path in folders.rglob("*.jpg")] == ["a.jpg"]
        assert len(rows(tmp_path / "r.csv")) == 2

    def test_the_longest_names_are_numbered_and_shortened(self, tmp_path):
        name = "x" * 251 + ".jpg"
        files = {f"{number}/{name}": jpeg(number) for number in range(4)}
        write_zip(tmp_path / "p.zip", {"y" * 300 + ".jpg": jpeg(4), "no suffix." + "z" * 300: b""})
        words = [str(write_folder(tmp_path / "p", files)), str(tmp_path / "p.zip")]
        assert main(["predict", *words, "--sort-into", str(tmp_path / "s")]) == 0
        copies = tree(tmp_path / "s")
        assert sorted(copies.values()) == sorted(jpeg(number) for number in range(5))
        assert {Path(copy).suffix for copy in copies} == {".jpg"}

    @pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
    def test_a_copy_has_the_bytes_of_the_original_name(self, tmp_path):
        name = os.fsdecode(b"\x8e" * 120 + b".jpg")
        for option in ([], ["--link"]):
            photos, folders = tmp_path / f"p{len(option)}", tmp_path / f"s{len(option)}"
            write_folder(photos, {f"a/{name}": jpeg(0), f"b/{name}": jpeg(2)})
            assert main(["predict", str(photos), "--sort-into", str(folders), *option]) == 0
            names = {path.name for path in folders.rglob("*.jpg")}
            assert name in names
            assert len(tree(folders)) == 2

    @pytest.mark.parametrize("link", [False, True])
    def test_a_photo_that_is_gone_is_named(self, tmp_path, link):
        photo = Photo.from_file(tmp_path / "gone.jpg")
        with pytest.raises(PhotoError, match="No such file"):
            SortedFolders(tmp_path / "s", link=link).put(photo, "cat")

    @pytest.mark.parametrize(
        ("verdicts", "folders"),
        [
            (["a:b", "a?b", "a*b"], ["a_b", "a_b (2)", "a_b (3)"]),
            (["a.", "a"], ["a (2)", "a"]),
            (["a:b", "a_b", "not sure"], ["a_b (2)", "a_b", "not sure"]),
            (["..", "//"], ["_", "__"]),
            (["A", "a"], ["A", "a"]),
        ],
    )
    def test_no_two_verdicts_share_a_folder(self, tmp_path, monkeypatch, verdicts, folders):
        monkeypatch.setattr("catordog.report.sorted_folders.sys.platform", "linux")
        assert [SortedFolders(tmp_path, verdicts).names[each] for each in verdicts] == folders
        for system in ("win32", "darwin"):
            monkeypatch.setattr("catordog.report.sorted_folders.sys.platform", system)
            assert SortedFolders(tmp_path, ["A", "a"]).names == {"A": "A", "a": "a (2)"}

    def test_each_photo_is_copied_and_the_original_stays(self, shared_photos, tmp_path):
        source = tmp_path / "photos"
        for folder in ("cat", "dog"):
            names = sorted((shared_photos / "dogs-vs-cats-original-600" / folder).iterdir())[:4]
            for index, file in enumerate(names):
                target = source / str(index) / f"{folder}.jpg"  # the same names in each folder
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(file, target)
        (source / "broken.jpg").write_bytes(b"no photo")
        before = {path: path.read_bytes() for path in source.rglob("*.jpg")}
        folders = tmp_path / "sorted"
        for _ in range(2):  # the second time changes nothing
            assert main(["predict", str(source), "--sort-into", str(folders)]) == 1
            copies = sorted(path.relative_to(folders).as_posix() for path in folders.rglob("*.jpg"))
            assert len(copies) == 8
            assert {"cat/cat.jpg", "cat/cat (2).jpg", "dog/dog.jpg"} <= set(copies)
        assert {path: path.read_bytes() for path in source.rglob("*.jpg")} == before
        contents = {path.read_bytes() for path in folders.rglob("*.jpg")}
        assert contents == set(before.values()) - {b"no photo"}

    def test_links_share_the_file(self, photos, tmp_path):
        folders = tmp_path / "sorted"
        for _ in range(2):
            assert main(["predict", str(photos), "--sort-into", str(folders), "--link"]) == 0
            links = list(folders.rglob("*.jpg"))
            assert len(links) == len(list(photos.iterdir()))
            assert all(path.stat().st_nlink == 2 for path in links)

    def test_photos_in_an_archive_are_copied(self, tmp_path):
        archive = write_zip(tmp_path / "p.zip", named(4))
        assert main(["predict", str(archive), "--sort-into", str(tmp_path / "s"), "--link"]) == 0
        found = {path.name: path.read_bytes() for path in (tmp_path / "s").rglob("*.jpg")}
        assert found == named(4)

    def test_nothing_is_overwritten(self, tmp_path):
        folder = tmp_path / "s" / "cat"
        write_folder(folder, {"a.jpg": b"mine"})
        source = write_folder(tmp_path, {"a.jpg": jpeg(0)}) / "a.jpg"
        photo = Photo.from_file(source)
        assert SortedFolders(tmp_path / "s").put(photo, "cat") == folder / "a (2).jpg"
        assert SortedFolders(tmp_path / "s").put(photo, "cat") == folder / "a (2).jpg"
        assert (folder / "a.jpg").read_bytes() == b"mine"

    def test_no_class_name_leads_out_of_the_folder(self, tmp_path):
        source = write_folder(tmp_path, {"a.jpg": jpeg(0)}) / "a.jpg"
        for verdict in ("../../etc", "/etc", "..", "a/b"):
            placed = SortedFolders(tmp_path / "s").put(Photo.from_file(source), verdict)
            assert placed.resolve().parent.parent == (tmp_path / "s").resolve()

    def test_a_folder_that_cannot_be_created_is_one_line(self, photos, tmp_path, capsys):
        (tmp_path / "file").write_text("")
        code = main(["predict", str(photos), "--sort-into", str(tmp_path / "file" / "s")])
        assert code == 2
        assert "can't put" in capsys.readouterr().err


class TestWatching:
    def test_a_photo_is_taken_once_when_two_scans_find_it_unchanged(self, tmp_path, monkeypatch):
        monkeypatch.setattr(predict, "_PAUSE", 0)
        known = {str(tmp_path / "known.jpg")}
        write_folder(tmp_path, {"known.jpg": b"k", "first.jpg": b"1"})
        second = tmp_path / "second.jpg"
        scans = predict.watched(Inputs([str(tmp_path)]), known.__contains__)

        def scan() -> list[str]:
            return [Path(photo.path).name for photo in next(scans)]

        assert scan() == []
        second.write_bytes(b"2")
        assert scan() == ["first.jpg"]
        second.write_bytes(b"22")  # it is still being copied
        assert scan() == []
        second.write_bytes(b"222")
        assert scan() == []
        assert scan() == ["second.jpg"]
        assert scan() == []
        scans.close()

    def test_a_photo_that_changes_is_taken_again(self, tmp_path, monkeypatch):
        monkeypatch.setattr(predict, "_PAUSE", 0)
        write_folder(tmp_path, {"known.jpg": b"k", "new.jpg": b"1"})
        known = {str(tmp_path / "known.jpg")}
        scans = predict.watched(Inputs([str(tmp_path)]), known.__contains__)

        def scan() -> list[str]:
            return [Path(photo.path).name for photo in next(scans)]

        assert [scan(), scan(), scan()] == [[], ["new.jpg"], []]
        write_folder(tmp_path, {"known.jpg": b"k2", "new.jpg": b"12"})
        assert [scan(), scan(), scan()] == [[], ["known.jpg", "new.jpg"], []]
        os.utime(tmp_path / "new.jpg", ns=(1, 1))  # another photo of the same size
        assert [scan(), scan(), scan()] == [[], ["new.jpg"], []]
        scans.close()

    def test_a_removed_folder_is_one_line_and_is_scanned_when_it_returns(
        self, tmp_path, monkeypatch, capsys
    ):
        monkeypatch.setattr(predict, "_PAUSE", 0)
        folder = write_folder(tmp_path / "inbox", {"first.jpg": b"1"})
        scans = predict.watched(Inputs([str(folder)]), lambda _: False)

        def scan() -> list[str]:
            return [Path(photo.path).name for photo in next(scans)]

        assert [scan(), scan()] == [[], ["first.jpg"]]
        for _ in range(2):
            folder.rename(tmp_path / "away")
            assert [scan(), scan(), scan()] == [[], [], []]
            assert len(capsys.readouterr().err.splitlines()) == 1
            (tmp_path / "away").rename(folder)
            assert [scan(), scan()] == [[], []], "its photos have rows already"
        write_folder(folder, {"second.jpg": b"2"})
        assert [scan(), scan()] == [[], ["second.jpg"]]
        assert capsys.readouterr().err == ""
        scans.close()

    def test_a_copy_that_takes_a_break_gets_its_row_in_the_end(self, tmp_path):
        folder, data = tmp_path / "inbox", jpeg(0)
        write_folder(folder, {"slow.jpg": data[: len(data) // 2]})
        out, partial = tmp_path / "r.jsonl", tmp_path / "r.jsonl.partial"
        words = ["predict", str(folder), "--watch", "--format", "jsonl", "--out", str(out)]
        process = subprocess.Popen([*CATORDOG, *words], stderr=subprocess.PIPE, text=True)

        def has(text: str) -> bool:
            return partial.exists() and text in partial.read_text()

        try:
            wait_until(lambda: has("truncated file"), "the row of the incomplete copy")
            (folder / "slow.jpg").write_bytes(data)
            wait_until(lambda: has('"error": null'), "the row of the complete copy")
        finally:
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
        assert err.splitlines()[-1].startswith("1 photo: ")
        assert "unreadable" not in err.splitlines()[-1]
        assert [json.loads(line)["error"] for line in out.read_text().splitlines()] == [None]

    def test_ctrl_c_ends_the_scans_and_is_free_again_afterwards(self, tmp_path):
        before = signal.getsignal(signal.SIGINT)
        scans = predict.watched(Inputs([str(tmp_path)]), lambda _: False)
        next(scans)
        signal.raise_signal(signal.SIGINT)
        assert list(scans) == []
        assert signal.getsignal(signal.SIGINT) is before

    def test_photos_get_rows_as_they_arrive_until_ctrl_c(self, tmp_path):
        folder = write_folder(tmp_path / "inbox", {"first.jpg": jpeg(0)})
        out, partial = tmp_path / "r.jsonl", tmp_path / "r.jsonl.partial"
        words = ["predict", str(folder), "--watch", "--format", "jsonl", "--out", str(out)]
        process = subprocess.Popen([*CATORDOG, *words], stderr=subprocess.PIPE, text=True)

        def has_row(name: str) -> bool:
            return partial.exists() and f'/{name}"' in partial.read_text()

        try:
            wait_until(lambda: has_row("first.jpg"), "the row of first.jpg")
            write_folder(folder, {"second.jpg": jpeg(1), "broken.jpg": b"no photo"})
            wait_until(lambda: has_row("second.jpg"), "the row of second.jpg")
            wait_until(lambda: has_row("broken.jpg"), "the row of broken.jpg")
        finally:
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=120)
        assert process.returncode == 1, err  # one is unreadable
        assert err.splitlines()[-1].startswith("3 photos: ")
        assert "Traceback" not in err
        found = [json.loads(line) for line in out.read_text().splitlines()]
        readable = {Path(row["path"]).name: row["error"] is None for row in found}
        assert len(found) == 3
        assert readable == {"broken.jpg": False, "first.jpg": True, "second.jpg": True}
