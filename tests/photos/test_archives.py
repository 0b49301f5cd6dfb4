"""Archives in archives, and those that can't be read here."""

from __future__ import annotations

import io
import pickle
import tarfile
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from catordog.errors import CatordogError, PhotoError
from catordog.photos import archives
from catordog.photos.datasets import open_dataset
from catordog.photos.inputs import Inputs
from catordog.photos.splits import SplitFractions
from catordog.photos.stores import open_store
from conftest import jpeg, named, write_folder

FRACTIONS = SplitFractions(0.25, 0.25)


def zipped(files: dict[str, bytes]) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return packed.getvalue()


def tarred(files: dict[str, bytes], mode: str = "w") -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode=mode) as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return packed.getvalue()


def gzipped(files: dict[str, bytes]) -> bytes:
    return tarred(files, "w:gz")


PACKERS = {".zip": zipped, ".tar": tarred, ".tar.gz": gzipped}
Packer = Callable[[dict[str, bytes]], bytes]


@pytest.mark.parametrize("outer", PACKERS)
@pytest.mark.parametrize("inner", PACKERS)
def test_an_archive_in_an_archive_equals_its_folder(tmp_path, outer, inner):
    folder = open_dataset(str(write_folder(tmp_path / "pets", named(8))))
    path = tmp_path / f"pets{outer}"
    train = PACKERS[inner]({f"train/{name}": data for name, data in named(8).items()})
    test = PACKERS[inner]({f"{i}.jpg": jpeg(50 + i) for i in range(3)})
    path.write_bytes(PACKERS[outer]({f"train{inner}": train, f"test1{inner}": test, "a.csv": b""}))
    found = open_dataset(str(path))
    assert found.photos.names == [f"train/{name}" for name in sorted(named(8))]
    assert found.unlabelled == 3
    assert [photo.read() for photo in found.photos] == [photo.read() for photo in folder.photos]
    assert found.splits(FRACTIONS) == folder.splits(FRACTIONS)
    assert Inputs([str(path)]).count() == 11
    store = open_store(path)
    assert pickle.loads(pickle.dumps(store)).read("train/cat.0.jpg") == jpeg(0)


def test_archives_of_classes_are_the_classes(tmp_path):
    cats, dogs = ({f"{i}.jpg": jpeg(2 * i + odd) for i in range(3)} for odd in (0, 1))
    path = tmp_path / "pets.tar"
    path.write_bytes(tarred({"cat.tar": tarred(cats), "dog.zip": zipped(dogs)}))
    found = open_dataset(str(path))
    assert Counter(found.classes[photo.label] for photo in found.photos) == {"cat": 3, "dog": 3}


def test_an_archive_nested_for_ever_is_read_to_a_depth_only(tmp_path):
    data = zipped(named(2))
    for _ in range(9):
        data = zipped({"again.zip": data, **named(4)})
    (tmp_path / "pets.zip").write_bytes(data)
    assert len(open_dataset(str(tmp_path / "pets.zip")).photos) > 3
    assert Inputs([str(tmp_path / "pets.zip")]).count() == 12


@pytest.mark.parametrize("outer", PACKERS)
@pytest.mark.parametrize("inner", PACKERS)
def test_archives_that_unpack_to_too_much_are_refused(tmp_path, monkeypatch, outer, inner):
    monkeypatch.setattr(archives, "MAX_INNER_ARCHIVE_BYTES", 100_000)
    bomb = PACKERS[inner]({"zeros": bytes(60_000), "more": bytes(60_000)})
    path = tmp_path / f"pets{outer}"
    path.write_bytes(PACKERS[outer]({f"a{inner}": bomb, f"b{inner}": bomb, **named(2)}))
    if inner == ".zip":
        assert len(open_dataset(str(path)).photos) == 2  # zeros are not unpacked
        return
    with pytest.raises(CatordogError, match="over 0 GiB: unpack it, and give the folder") as caught:
        open_dataset(str(path))
    assert "\n" not in str(caught.value)


def test_a_damaged_photo_or_archive_in_an_archive_is_named_by_the_path_that_users_know(tmp_path):
    photos = tarred(
        {"cat.0.jpg": b"no photo", **{k: v for k, v in named(4).items() if k != "cat.0.jpg"}}
    )
    path = tmp_path / "pets.zip"
    path.write_bytes(zipped({"train.tar": photos}))
    found = open_dataset(str(path))
    with pytest.raises(PhotoError) as caught:
        found.photos[0].image()
    assert caught.value.path == f"{path}/train/cat.0.jpg"
    path.write_bytes(zipped({"train.zip": zipped(named(4))[:700]}))
    with pytest.raises(CatordogError, match=rf"{path}/train\.zip is not a complete zip"):
        open_dataset(str(path))
    path.write_bytes(zipped({"train.tar": photos[:900]}))
    with pytest.raises(CatordogError, match=rf"{path}/train\.tar is not a complete tar"):
        open_dataset(str(path))


@pytest.mark.parametrize(
    ("name", "head", "words"),
    [
        ("pets.7z", b"7z\xbc\xaf\x27\x1c", "a 7z archive, which can't be read here: unpack it"),
        ("pets.zip", b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
        ("pets.rar", b"Rar!\x1a\x07\x01\x00", "a RAR archive"),
        ("pets.tar.zst", b"\x28\xb5\x2f\xfd", "a Zstandard archive"),
        ("pets.zip.001", b"PK\x03\x04", "one part of an archive in several files"),
        ("pets.z01", b"PK\x07\x08", "one part of an archive in several files"),
        ("pets.7z.002", b"anything", "one part of an archive in several files"),
        ("pets.part2.rar", b"Rar!\x1a\x07\x01\x00", "one part of an archive in several files"),
        ("pets.tar.gz.001", b"\x1f\x8b\x08", "one part of an archive in several files"),
    ],
)
def test_an_archive_that_cannot_be_read_is_named_with_what_to_do(tmp_path, name, head, words):
    path = tmp_path / name
    path.write_bytes(head + bytes(600))
    for read in (lambda: open_dataset(str(path)), lambda: Inputs([str(path)])):
        with pytest.raises(CatordogError, match=words) as caught:
            read()
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)
        assert "give the folder" in str(caught.value)


def test_the_last_part_of_a_zip_in_several_files_is_known_by_the_others(tmp_path):
    (tmp_path / "pets.zip").write_bytes(zipped(named(4))[900:])
    (tmp_path / "pets.z01").write_bytes(zipped(named(4))[:900])
    with pytest.raises(CatordogError, match="one part of an archive in several files"):
        open_dataset(str(tmp_path / "pets.zip"))


@pytest.mark.parametrize("name", ["train.zip", "pets.7z", "pets.zip.001", "pets.z01"])
def test_a_folder_with_archives_and_no_photos_names_them(tmp_path, name):
    (tmp_path / name).write_bytes(b"PK")
    with pytest.raises(CatordogError, match=f"no photos in it, but {name}: give the path"):
        open_dataset(str(tmp_path))


def test_an_encrypted_archive_in_an_archive_is_named(tmp_path):
    inner = bytearray(zipped({"train.zip": zipped(named(2))}))
    for signature, flag in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        inner[inner.rindex(signature) + flag if signature == b"PK\x01\x02" else flag] |= 1
    Path(tmp_path / "pets.zip").write_bytes(inner)
    with pytest.raises(CatordogError, match=r"pets\.zip/train\.zip: encrypted: unpack"):
        open_dataset(str(tmp_path / "pets.zip"))
