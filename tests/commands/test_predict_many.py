"""Predicting many photos: going on after a kill, sorting into folders, watching a folder."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from catordog.cli import main
from catordog.photos.photo import Photo
from catordog.report.sorted_folders import SortedFolders
from conftest import jpeg, named, write_folder, write_zip


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
    def test_wherever_it_was_cut_no_row_is_lost_or_doubled(self, photos, tmp_path, style):
        whole = tmp_path / f"whole.{style}"
        words = ["predict", str(photos), "--format", style, "--out"]
        assert main([*words, str(whole)]) == 0
        wanted = whole.read_bytes()
        out, part = tmp_path / f"r.{style}", tmp_path / f"r.{style}.partial"
        for cut in range(0, len(wanted), 211):
            part.write_bytes(wanted[:cut])
            out.unlink(missing_ok=True)
            assert main([*words, str(out), "--resume"]) == 0
            assert out.read_bytes() == wanted, cut
            assert not part.exists()

    def test_after_a_kill_it_goes_on(self, tmp_path):
        photos = write_folder(
            tmp_path / "photos", {f"{i:04}.jpg": jpeg(i % 40) for i in range(600)}
        )
        out, part = tmp_path / "r.jsonl", tmp_path / "r.jsonl.partial"
        words = ["predict", str(photos), "--format", "jsonl", "--out", str(out)]
        process = subprocess.Popen(
            [sys.executable, "-m", "catordog", *words], stderr=subprocess.DEVNULL
        )
        while not (part.exists() and part.stat().st_size > 20_000):
            time.sleep(0.01)
            assert process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert not out.exists()
        before = len(rows_of_whole_lines(part))
        assert 0 < before < 600
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
        assert "rows of another kind" in capsys.readouterr().err
        assert "confidence_fox" in Path(f"{out}.partial").read_text()

    @pytest.mark.parametrize("words", [["--out", "r.txt"], ["--format", "csv"]])
    def test_a_table_or_a_screen_cant_be_gone_on_with(self, photos, capsys, words, tmp_path):
        os.chdir(tmp_path)
        assert main(["predict", str(photos), "--resume", *words]) == 2
        assert "--resume" in capsys.readouterr().err


def rows_of_whole_lines(path: Path) -> list[str]:
    return [line for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]


class TestSorting:
    def test_each_photo_gets_a_copy_and_stays(self, shared_photos, tmp_path):
        source = tmp_path / "photos"
        for folder in ("cat", "dog"):
            names = sorted((shared_photos / "dogs-vs-cats-original-600" / folder).iterdir())[:4]
            for place, file in enumerate(names):
                target = source / str(place) / f"{folder}.jpg"  # the same names in each folder
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(file, target)
        (source / "broken.jpg").write_bytes(b"no photo")
        before = {path: path.read_bytes() for path in source.rglob("*.jpg")}
        shelves = tmp_path / "sorted"
        for _ in range(2):  # the second time changes nothing
            assert main(["predict", str(source), "--sort-into", str(shelves)]) == 1
            copies = sorted(path.relative_to(shelves).as_posix() for path in shelves.rglob("*.jpg"))
            assert len(copies) == 8
            assert {"cat/cat.jpg", "cat/cat (2).jpg", "dog/dog.jpg"} <= set(copies)
        assert {path: path.read_bytes() for path in source.rglob("*.jpg")} == before
        contents = {path.read_bytes() for path in shelves.rglob("*.jpg")}
        assert contents == set(before.values()) - {b"no photo"}

    def test_links_take_no_room(self, photos, tmp_path):
        shelves = tmp_path / "sorted"
        for _ in range(2):
            assert main(["predict", str(photos), "--sort-into", str(shelves), "--link"]) == 0
            links = list(shelves.rglob("*.jpg"))
            assert len(links) == len(list(photos.iterdir()))
            assert all(path.stat().st_nlink == 2 for path in links)

    def test_photos_in_an_archive_are_copied(self, tmp_path):
        archive = write_zip(tmp_path / "p.zip", named(4))
        assert main(["predict", str(archive), "--sort-into", str(tmp_path / "s"), "--link"]) == 0
        found = {path.name: path.read_bytes() for path in (tmp_path / "s").rglob("*.jpg")}
        assert found == named(4)

    def test_what_is_there_is_never_overwritten(self, tmp_path):
        shelf = tmp_path / "s" / "cat"
        write_folder(shelf, {"a.jpg": b"mine"})
        source = write_folder(tmp_path, {"a.jpg": jpeg(0)}) / "a.jpg"
        photo = Photo.from_file(source)
        assert SortedFolders(tmp_path / "s").put(photo, "cat") == shelf / "a (2).jpg"
        assert SortedFolders(tmp_path / "s").put(photo, "cat") == shelf / "a (2).jpg"
        assert (shelf / "a.jpg").read_bytes() == b"mine"

    def test_no_verdict_leads_out_of_the_folder(self, tmp_path):
        source = write_folder(tmp_path, {"a.jpg": jpeg(0)}) / "a.jpg"
        for verdict in ("../../etc", "/etc", "..", "a/b"):
            placed = SortedFolders(tmp_path / "s").put(Photo.from_file(source), verdict)
            assert placed.resolve().parent.parent == (tmp_path / "s").resolve()

    def test_a_folder_that_cant_be_made_is_one_line(self, photos, tmp_path, capsys):
        (tmp_path / "file").write_text("")
        code = main(["predict", str(photos), "--sort-into", str(tmp_path / "file" / "s")])
        assert code == 2
        assert "can't put" in capsys.readouterr().err


class TestWatching:
    def test_photos_are_handled_as_they_arrive_each_once_and_whole(self, tmp_path):
        folder = write_folder(tmp_path / "inbox", {"first.jpg": jpeg(0)})
        out = tmp_path / "r.jsonl"
        process = subprocess.Popen(
            [sys.executable, "-m", "catordog", "predict", str(folder), "--watch",
             "--format", "jsonl", "--out", str(out)],
            stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        part = Path(f"{out}.partial")
        try:
            wait_for(lambda: part.exists() and "first.jpg" in part.read_text())
            whole = jpeg(1)
            with (folder / "second.jpg").open("wb") as file:
                for start in range(0, len(whole), len(whole) // 3):  # it arrives slowly
                    file.write(whole[start : start + len(whole) // 3])
                    file.flush()
                    time.sleep(0.5)
            (folder / "broken.jpg").write_bytes(b"no photo")
            wait_for(lambda: "second.jpg" in part.read_text() and "broken" in part.read_text())
            time.sleep(2.5)
        finally:
            process.send_signal(signal.SIGINT)
            _, said = process.communicate(timeout=30)
        assert process.returncode == 1, said  # one could not be read
        assert "Traceback" not in said
        found = [json.loads(line) for line in out.read_text().splitlines()]
        assert sorted(Path(row["path"]).name for row in found) == [
            "broken.jpg", "first.jpg", "second.jpg"
        ]  # fmt: skip
        assert {Path(row["path"]).name: row["error"] is None for row in found} == {
            "broken.jpg": False, "first.jpg": True, "second.jpg": True
        }  # fmt: skip

    def test_only_folders_can_be_watched(self, tmp_path, capsys):
        (tmp_path / "a.jpg").write_bytes(jpeg(0))
        assert main(["predict", str(tmp_path / "a.jpg"), "--watch"]) == 2
        assert "name folders only" in capsys.readouterr().err


def wait_for(happened, seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.05)
