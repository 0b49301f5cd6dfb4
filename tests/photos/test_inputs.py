"""Paths and patterns of `predict`: each photo once."""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path

import pytest

from catordog.errors import PhotoError
from catordog.photos.inputs import Inputs, searched_folders
from conftest import jpeg, write_folder, write_zip


@pytest.fixture
def pets(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    files = {"1.jpg": jpeg(1), "sub/2.jpg": jpeg(2), "sub/deep/3.jpg": jpeg(3)}
    folder = write_folder(tmp_path / "pets", {**files, "notes.txt": b"no photo"})
    write_zip(folder / "more.zip", {"4.jpg": jpeg(4)})
    return folder


def found(*paths: str) -> list[str]:
    inputs = Inputs(paths)
    names = [photo.path for photo in inputs]
    assert inputs.count() == len(names)
    assert len(names) == len(set(names))
    return sorted(names)


@pytest.mark.parametrize("pattern", ["pets/**", "pet*/**", "pets/*"])
def test_what_a_pattern_matches_twice_is_taken_once(pets, pattern):
    expected = {"pets/1.jpg", "pets/more.zip/4.jpg", "pets/sub/2.jpg", "pets/sub/deep/3.jpg"}
    assert {*found(pattern)} - {"pets/notes.txt"} == expected


def test_a_pattern_for_files_alone_takes_each_of_them(pets):
    assert found("pets/**/*.jpg") == ["pets/1.jpg", "pets/sub/2.jpg", "pets/sub/deep/3.jpg"]


def test_a_file_that_is_named_itself_is_always_taken(pets):
    named = ["pets/notes.txt", "pets/1.jpg", "pets/1.jpg", "pets"]
    assert [photo.path for photo in Inputs(named)][:4] == [*named[:3], "pets/1.jpg"]


def test_a_file_that_cannot_be_opened_is_one_unreadable_photo(pets, monkeypatch):
    access, opened = os.access, Path.open

    def refused(path: object) -> bool:
        return Path(str(path)).name == "1.jpg"

    def without_right(self: Path, *args: object, **kwargs: object) -> object:
        if refused(self):
            raise PermissionError(errno.EACCES, "Permission denied")
        return opened(self, *args, **kwargs)

    monkeypatch.setattr(os, "access", lambda path, mode: not refused(path) and access(path, mode))
    monkeypatch.setattr(Path, "open", without_right)
    locked, other = Inputs(["pets/1.jpg", "pets/sub/2.jpg"])
    assert other.read() == jpeg(2)
    with pytest.raises(PhotoError, match="Permission denied"):
        locked.read()


@pytest.mark.skipif(sys.platform == "win32", reason="there is no /dev/fd")
def test_a_pipe_can_be_read_again():
    reader, writer = os.pipe()
    os.write(writer, jpeg(1))
    os.close(writer)
    (photo,) = Inputs([f"/dev/fd/{reader}"])
    assert photo.read() == photo.read() == jpeg(1)
    os.close(reader)


def test_the_folders_that_a_pattern_searches(pets):
    assert searched_folders("pets/**/*.jpg") == ["pets"]
    assert searched_folders("pe*/s?b/**/*.jpg") == ["pets/sub"]
    assert searched_folders("**/*.jpg") == ["."]
    assert searched_folders("pets/*.jpg") == searched_folders("pets") == []
