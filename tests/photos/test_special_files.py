"""Files that are no photos, folders that are litter, and names that are not UTF-8."""

from __future__ import annotations

import errno
import io
import os
import socket
import sys
import tarfile
from pathlib import Path

import pytest

from catordog.errors import CatordogError, PhotoError
from catordog.photos.datasets import open_dataset
from catordog.photos.findings import audit
from catordog.photos.inputs import Inputs
from catordog.photos.reading import report_failures
from catordog.photos.shards import Shards
from catordog.photos.splits import SplitFractions
from conftest import jpeg, named, write_folder, write_zip

FRACTIONS = SplitFractions(0.25, 0.25)
LITTER = (
    "@eaDir", "$RECYCLE.BIN", "System Volume Information", "lost+found", "runs", ".Trashes",
    "__MACOSX", ".ipynb_checkpoints", "#recycle", ".@__thumb", "@Recycle", "lightning_logs",
)  # fmt: skip


@pytest.mark.parametrize("litter", LITTER)
def test_folders_of_systems_and_runs_hold_no_photos_and_no_class(tmp_path, litter):
    files = {f"{label}/{i}.jpg": jpeg(i) for i, label in enumerate(("cat", "dog") * 3)}
    for folder in (litter, f"cat/{litter}", f"{litter.upper()}/deep"):
        files[f"{folder}/0.jpg"] = jpeg(20)
    for path in (write_folder(tmp_path / "f", files), write_zip(tmp_path / "z.zip", files)):
        found = open_dataset(str(path))
        assert found.classes == ("cat", "dog")
        assert len(found.photos) == 6
        assert Inputs([str(path)]).count() == 6


@pytest.mark.parametrize("name", ["runs", "lost+found", ".hidden"])
def test_a_folder_that_the_user_names_is_read_whatever_its_name(tmp_path, name):
    root = write_folder(tmp_path / name, named(4))
    assert len(open_dataset(str(root)).photos) == 4
    assert Inputs([str(root)]).count() == 4


def test_a_skipped_folder_of_runs_is_named_once(tmp_path, capsys):
    root = write_folder(tmp_path, named(4) | {"runs/a/figure.png": b"x"})
    for _ in range(2):
        open_dataset(str(root))
    assert capsys.readouterr().err.count(f"skipped: {root / 'runs'}") == 1


def make_special(path: Path, kind: str) -> None:
    if kind == "named pipe":
        os.mkfifo(path)
    else:
        # An address is at most 108 bytes long, so it is bound by its name.
        before = Path.cwd()
        os.chdir(path.parent)
        try:
            socket.socket(socket.AF_UNIX).bind(path.name)
        finally:
            os.chdir(before)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has none in folders")
@pytest.mark.parametrize("kind", ["named pipe", "socket"])
def test_what_is_no_regular_file_is_unreadable_and_never_blocks(tmp_path, kind):
    root = write_folder(tmp_path, named(8))
    special = root / "cat.99.jpg"
    make_special(special, kind)
    found = open_dataset(str(root))
    assert len(found.photos) == 9
    photo = next(photo for photo in found.photos if photo.name == special.name)
    with pytest.raises(PhotoError, match=rf"cat\.99\.jpg: not a regular file, but a {kind}"):
        photo.image()
    assert dict(zip(found.photos.names, found.splits(FRACTIONS), strict=True))[photo.name] == (
        "train"
    )
    (named_itself,) = Inputs([str(special)])
    with pytest.raises(PhotoError, match="not a regular file"):
        named_itself.read()
    with pytest.raises(CatordogError, match=f"not a regular file, but a {kind}"):
        open_dataset(str(special))


@pytest.mark.skipif(sys.platform == "win32", reason="no such device")
def test_a_device_is_unreadable(tmp_path):
    (tmp_path / "x.jpg").symlink_to("/dev/zero")
    (photo,) = Inputs([str(tmp_path)])
    with pytest.raises(PhotoError, match="not a regular file, but a device"):
        photo.read()


@pytest.mark.skipif(sys.platform == "win32", reason="no such paths")
def test_what_a_shell_passes_as_a_file_is_read():
    reading, writing = os.pipe()
    with os.fdopen(writing, "wb") as file:
        file.write(jpeg(0))
    (photo,) = Inputs([f"/dev/fd/{reading}"])
    assert photo.read() == jpeg(0)
    os.close(reading)


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights on Windows")
def test_a_link_to_itself_costs_only_itself(tmp_path):
    root = write_folder(tmp_path, named(4))
    (root / "dog.9.jpg").symlink_to(root / "dog.9.jpg")
    assert len(open_dataset(str(root)).photos) == 5


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights on Windows")
def test_a_folder_that_two_links_lead_to_is_read_once_and_the_other_link_is_named(tmp_path, capsys):
    root = write_folder(tmp_path / "pets", {"cat/0.jpg": jpeg(0), "dog/0.jpg": jpeg(1)})
    write_folder(tmp_path / "real", {"0.jpg": jpeg(2)})
    for name in ("ant", "emmet"):
        (root / name).symlink_to("../real", target_is_directory=True)
    for _ in range(2):
        assert open_dataset(str(root)).classes == ("cat", "dog", "emmet")
    line = f"skipped: {root / 'ant'}: already read as {root / 'emmet'}\n"
    assert capsys.readouterr().err.count(line) == 1


def test_a_folder_that_cannot_be_opened_is_unreadable(tmp_path, monkeypatch, capsys):
    files = {f"{label}/{i}.jpg": jpeg(i) for i, label in enumerate(("cat", "dog") * 3)}
    root = write_folder(tmp_path / "pets", files | {"cat/locked/1.jpg": b"", "locked/1.jpg": b""})
    scandir = os.scandir

    def refusing(folder):  # no mode keeps root out of a folder
        if Path(folder).name == "locked":
            raise PermissionError(errno.EACCES, "Permission denied")
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", refusing)
    unreadable = {}
    for photo in Inputs([str(root)]):
        try:
            photo.read()
        except PhotoError as error:
            unreadable[error.path] = error.reason
    locked = {str(root / "cat/locked"), str(root / "locked")}
    assert unreadable == dict.fromkeys(locked, "Permission denied")
    found = open_dataset(str(root))
    assert found.classes == ("cat", "dog")
    assert len(found.photos) == 7
    assert found.left_out == ("locked",)
    assert {each["path"] for each in audit(found).to_dict()["unreadable"]} == locked
    assert capsys.readouterr().err.count(f"skipped: {root / 'locked'}: Permission denied") == 1


def test_a_file_whose_whole_name_is_a_suffix_is_no_photo(tmp_path):
    root = write_folder(tmp_path, named(4) | {"jpg": jpeg(9)})
    assert len(open_dataset(str(root)).photos) == 4


linux = pytest.mark.skipif(sys.platform != "linux", reason="names are bytes on Linux only")


def stray(name: bytes) -> str:
    return os.fsdecode(name)


@pytest.fixture(params=["folder", "tar"])
def not_utf8(request, tmp_path, monkeypatch):
    """A dataset with a photo, and with a class folder, whose names are not UTF-8."""
    monkeypatch.setenv("CATORDOG_DATA", str(tmp_path / "data"))
    files = {stray(b"caf\xe9/%d.jpg" % i): jpeg(2 * i) for i in range(4)}
    files |= {f"dog/{i}.jpg": jpeg(2 * i + 1) for i in range(4)}
    files |= {stray(b"dog/caf\xe9.jpg"): jpeg(9), stray(b"dog/half\xe9.jpg"): b"no photo"}
    if request.param == "folder":
        return write_folder(tmp_path / "pets", files)
    with tarfile.open(tmp_path / "pets.tar", "w") as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return tmp_path / "pets.tar"


@linux
def test_names_that_are_not_utf8_are_escaped_in_paths_classes_and_errors(not_utf8, tmp_path):
    found = open_dataset(str(not_utf8))
    assert found.classes == (r"caf\xe9", "dog")
    assert r"caf\xe9" in found.summary()
    paths = [photo.path for photo in found.photos]
    assert rf"{not_utf8}/dog/caf\xe9.jpg" in paths
    assert rf"{not_utf8}/caf\xe9/0.jpg" in paths
    failures = []
    for photo in found.photos:
        photo.path.encode()
        try:
            photo.image()
        except PhotoError as error:
            failures.append(error)
    assert [failure.path for failure in failures] == [rf"{not_utf8}/dog/half\xe9.jpg"]
    report_failures(failures, tmp_path / "unreadable.txt")
    assert r"half\xe9.jpg" in (tmp_path / "unreadable.txt").read_text("utf-8")


@linux
def test_names_that_are_not_utf8_go_through_splits_caches_and_shards(not_utf8, tmp_path):
    from catordog.photos.cache import cached_pixels
    from catordog.photos.pack import pack
    from catordog.photos.preprocess import Preprocess

    found = open_dataset(str(not_utf8))
    assert len(found.splits(FRACTIONS)) == 10
    for _ in range(2):
        cached = cached_pixels(list(found.photos), Preprocess(32))
        assert len(cached.photos) == 9
        assert cached.failures[0].path.endswith(r"half\xe9.jpg")
    pack(found, tmp_path / "shards", 4, FRACTIONS)
    packed = open_dataset(str(tmp_path / "shards"))
    assert packed.classes == found.classes
    assert len(Shards(tmp_path / "shards")) == 10
