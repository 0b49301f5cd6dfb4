"""Predicting many photos: resume after a kill, sort into folders, watch a folder."""

from __future__ import annotations

import csv
import json
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from catordog.cli import main
from catordog.commands import predict
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

    def test_rows_of_another_model_are_not_mixed_in(self, photos, tmp_path, capsys):
        out = tmp_path / "r.csv"
        out.write_text("path,label,confidence,confidence_fox,logit_fox,verdict,error\n")
        assert main(["predict", str(photos), "--format", "csv", "--out", str(out), "--resume"]) == 2
        assert "of other classes: move it away" in capsys.readouterr().err
        assert "confidence_fox" in Path(f"{out}.partial").read_text()


class TestSorting:
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
