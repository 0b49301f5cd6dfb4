"""Exclude lists: paths of any kind match, and those that don't are named."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path

import pytest

from catordog.errors import CatordogError
from catordog.photos.datasets import open_dataset
from conftest import named, write_folder, write_zip

WANTED = ("cat/1.jpg", "dog/2.jpg")


@pytest.fixture
def pets(tmp_path):
    files = {f"{name[:3]}/{name[4:]}": data for name, data in named(8).items()}
    return write_folder(tmp_path / "pets", files)


def excluded(data: Path | str, text: str | bytes, suffix: str = ".csv") -> set[str]:
    """The names that a list with this text excludes."""
    listed = Path(data).absolute().parent / "lists" / f"out{suffix}"
    listed.parent.mkdir(exist_ok=True)
    listed.write_bytes(text.encode() if isinstance(text, str) else text)
    return set(open_dataset(str(data), exclude=str(listed)).excluded)


@pytest.mark.parametrize("given", ["absolute", "relative", "with dots", "zip"])
@pytest.mark.parametrize(
    "form",
    ["{root}/{name}", "{name}", "./{name}", "pets/{name}", "./pets/../pets/{name}",
     "../pets/{name}", "{root}/./{name}"],
)  # fmt: skip
def test_paths_match_whether_they_are_absolute_or_relative(pets, given, form):
    data = {"absolute": str(pets), "relative": "pets", "with dots": "./pets/../pets/"}.get(given)
    root = pets
    if data is None:
        root = write_zip(pets.parent / "pets.zip", {str(path.relative_to(pets)): path.read_bytes()
                         for path in pets.rglob("*.jpg")})  # fmt: skip
        data, form = str(root), form.replace("pets/", "pets.zip/")
    rows = "".join(form.format(root=root, name=name) + "\n" for name in WANTED)
    with contextlib.chdir(pets.parent):
        assert excluded(data, "path\n" + rows) == set(WANTED)


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights on Windows")
def test_paths_match_through_links_to_folders(pets, tmp_path):
    (tmp_path / "link").symlink_to(pets)
    rows = [str(tmp_path / "link" / name) for name in WANTED]
    assert excluded(pets, "\n".join(["path", *rows])) == set(WANTED)
    rows = [str(pets / name) for name in WANTED]
    assert excluded(tmp_path / "link", "\n".join(["path", *rows])) == set(WANTED)


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="has no such file names")
def test_absolute_paths_match_though_the_first_name_is_not_utf_8(pets, tmp_path):
    first = "cat/!\udce9.jpg"
    (pets / first).write_bytes((pets / "cat/0.jpg").read_bytes())
    (tmp_path / "link").symlink_to(pets)
    rows = [str((pets / name).resolve()) for name in WANTED]
    assert open_dataset(str(pets)).photos.names[0] == first
    assert excluded(tmp_path / "link", "\n".join(["path", *rows])) == set(WANTED)


def test_a_name_that_starts_with_a_tilde_is_no_home_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    files = {f"~{name}": data for name, data in named(4).items()}
    write_folder(tmp_path / "~pets", files)
    names = sorted(files)
    Path("~out.csv").write_text(f"path\n{names[0]}\n~pets/{names[1]}\n")
    dataset = open_dataset("~pets", exclude="~out.csv", labels="optional")
    assert dataset.excluded == {*names[:2]}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_a_list_may_have_any_usual_encoding_and_delimiter(pets, encoding, delimiter):
    rows = [("reason", "path"), *(("unscharf, größer", name) for name in WANTED)]
    text = "\r\n".join(delimiter.join(f'"{cell}"' for cell in row) for row in rows)
    assert excluded(pets, text.encode(encoding)) == set(WANTED)


@pytest.mark.parametrize("suffix", [".csv", ".txt", ""])
@pytest.mark.parametrize(
    "text",
    ["cat/1.jpg\ndog/2.jpg\n", "cat/1.jpg,blurred\ndog/2.jpg,dark\n", "file\ncat/1.jpg\ndog/2.jpg"],
)
def test_a_list_may_be_plain_or_name_its_column_otherwise(pets, suffix, text):
    assert excluded(pets, text, suffix) == set(WANTED)


@pytest.mark.parametrize("header", ["", "path\n"])
@pytest.mark.parametrize(
    "names",
    [
        ["cat/Smith, J0.jpg", "dog/Doe, A, B.jpg"],
        ["cat/Smith, J0.jpg"],
        ["cat/0.jpg", "cat/Smith, J0.jpg", "dog/1;2|3.jpg"],
    ],
)
def test_names_in_a_plain_list_may_have_commas(pets, header, names, capsys):
    for name in names:
        (pets / name).write_bytes((pets / "cat/1.jpg").read_bytes())
    for folder in ("", f"{pets}/"):
        assert excluded(pets, header + "".join(f"{folder}{name}\n" for name in names)) == set(names)
    assert "are not in" not in capsys.readouterr().err


def test_paths_that_are_no_photo_are_counted_and_the_first_named(pets, capsys):
    rows = [*WANTED, *(f"cat/gone{number}.jpg" for number in range(5))]
    assert excluded(pets, "\n".join(["path", *rows])) == set(WANTED)
    line = capsys.readouterr().err
    assert "5 of its 7 paths are not in" in line
    assert "cat/gone0.jpg, cat/gone1.jpg, cat/gone2.jpg, …" in line


def test_an_empty_list_excludes_nothing(pets):
    assert excluded(pets, "path\n") == set()


def test_a_list_without_paths_is_refused_with_its_columns(pets):
    with pytest.raises(CatordogError, match="no column 'path', but 'reason', 'by'"):
        excluded(pets, "reason;by\nblurred;me\n")
    with pytest.raises(CatordogError, match="no text, but should be a CSV file"):
        excluded(pets, bytes(range(256)) * 4)
    with pytest.raises(CatordogError, match="a cell has over 131,072 characters: is it a table"):
        excluded(pets, 'path\n"cat/1.jpg\n' + "dog/2.jpg\n" * 20_000)
