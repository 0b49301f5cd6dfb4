"""Archives in archives, and those that can't be read here."""

from __future__ import annotations

import gzip
import io
import json
import pickle
import sys
import tarfile
import tempfile
import tracemalloc
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from catordog.cli import main
from catordog.errors import CatordogError, PhotoError
from catordog.photos import archives, tars, unpacking
from catordog.photos.datasets import open_dataset
from catordog.photos.findings import audit
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
    monkeypatch.setattr(unpacking, "MAX_INNER_ARCHIVE_BYTES", 100_000)
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
    with pytest.raises(CatordogError, match=rf"{path}/train\.zip: not a complete zip"):
        open_dataset(str(path))
    path.write_bytes(zipped({"train.tar": photos[:900]}))
    with pytest.raises(CatordogError, match=rf"{path}/train\.tar: not a complete tar"):
        open_dataset(str(path))


BROKEN = {
    ".zip": lambda: zipped(named(4))[:700],
    ".tar": lambda: tarred(named(4))[:900],
    ".tar.gz": lambda: gzipped(named(4))[:700],
}


@pytest.mark.parametrize("outer", PACKERS)
@pytest.mark.parametrize("inner", BROKEN)
def test_a_damaged_archive_in_an_archive_is_one_unreadable_photo(tmp_path, capsys, outer, inner):
    name, path = f"more{inner}", tmp_path / f"pets{outer}"
    good = {f"{kind}/{i}.jpg": jpeg(2 * i + (kind == "dog")) for kind in ("cat", "dog")
            for i in range(5)}  # fmt: skip
    broken = BROKEN[inner]()
    path.write_bytes(PACKERS[outer]({**good, name: broken, f"cat/{name}": broken}))
    out = tmp_path / "out.jsonl"
    assert main(["predict", str(path), "--format", "jsonl", "--out", str(out)]) == 1
    rows = [json.loads(line) for line in out.read_text("utf-8").splitlines()]
    errors = {row["path"]: row["error"] for row in rows if row["error"]}
    assert set(errors) == {f"{path}/{name}", f"{path}/cat/{name}"}
    assert all("copy or download it again" in error for error in errors.values())
    assert len(rows) == 12
    assert f"skipped: {path}/{name}: " in capsys.readouterr().err
    findings = audit(open_dataset(str(path)))
    assert {each["path"] for each in findings.to_dict()["unreadable"]} == set(errors)
    assert [error.path for error in findings.unreadable] == [f"{path}/cat/{name}"]  # has a label
    assert pickle.loads(pickle.dumps(open_store(path))).names()


@pytest.mark.parametrize("outer", PACKERS)
def test_the_limit_of_unpacking_is_one_for_all_archives_in_an_archive(tmp_path, monkeypatch, outer):
    monkeypatch.setattr(unpacking, "MAX_INNER_ARCHIVE_BYTES", 200_000)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    inner = {f"{i}.tar.gz": gzipped({"zeros": bytes(60_000)}) for i in range(8)}
    path = tmp_path / f"pets{outer}"
    for depth in (inner, {"deep.zip": zipped(inner)}):
        path.write_bytes(PACKERS[outer](depth))
        with pytest.raises(CatordogError, match=r"pets\S+ unpacks to over 0 GiB: unpack it, and"):
            open_store(path)
    written = sum(file.stat().st_size for file in tmp_path.glob("catordog-*/*"))
    assert written <= 2 * 200_000


@pytest.mark.parametrize("kind", [b"L", b"K", b"x", b"g"])
@pytest.mark.parametrize("size", [1000, 2**23])
def test_metadata_of_a_file_in_a_tar_are_bounded_before_they_are_read(tmp_path, kind, size):
    header = tarfile.TarInfo("././@LongLink")
    header.type, header.size = kind, size
    content = b"a" * size if kind in b"LK" else f"{size} comment=".encode().ljust(size - 1, b"a")
    metadata = header.tobuf(tarfile.GNU_FORMAT) + content.ljust(-(-size // 512) * 512, b"\n")
    path = tmp_path / "pets.tar.gz"
    path.write_bytes(gzip.compress(metadata + tarred(named(2))))
    tracemalloc.start()
    try:
        if size > 2**20:
            with pytest.raises(CatordogError, match="metadata of over 1,048,576 bytes"):
                open_store(path)
        else:
            assert len(list(open_store(path).names())) == 2
        assert tracemalloc.get_traced_memory()[1] < 6_000_000
    finally:
        tracemalloc.stop()


def test_a_name_in_a_tar_that_no_system_opens_is_refused(tmp_path):
    (tmp_path / "pets.tar").write_bytes(tarred({"cat/" + "a" * 5000: b"", **named(2)}))
    with pytest.raises(CatordogError, match="a name of 5,004 characters"):
        open_store(tmp_path / "pets.tar")


@pytest.mark.parametrize("pack", [tarred, gzipped])
def test_an_archive_is_told_by_its_content_whatever_its_name(tmp_path, pack):
    (tmp_path / "pets.zip").write_bytes(pack(named(4)))
    (tmp_path / "pets.tar").write_bytes(zipped({"train.zip": pack(named(4))}))
    for name in ("pets.zip", "pets.tar"):
        assert len(open_dataset(str(tmp_path / name)).photos) == 4


def test_a_zip_whose_names_are_not_what_it_says_is_refused_in_words(tmp_path):
    good = zipped({"cat.é.jpg": jpeg(0), "dog.0.jpg": jpeg(1)})
    path = tmp_path / "pets.zip"
    local, central = good.index("é".encode()), good.rindex("é".encode())
    for at in ((local, central), (local,)):
        data = bytearray(good)
        for start in at:
            data[start : start + 2] = b"\xff\xfe"
        path.write_bytes(data)
        if central in at:
            with pytest.raises(CatordogError, match="a name in it is not in UTF-8") as caught:
                open_store(path)
            assert "\n" not in str(caught.value)
        else:
            with pytest.raises(PhotoError, match="damaged in its archive"):
                open_store(path).read("cat.é.jpg")


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


@pytest.mark.parametrize("outer", [".zip", ".tar"])
def test_an_archive_beside_a_folder_of_its_name_hides_no_photo(tmp_path, outer):
    path = tmp_path / f"pets{outer}"
    inner = {f"{i}.jpg": jpeg(2 * i) for i in (1, 2)}
    files = {"cat/1.jpg": jpeg(40), "cat.zip": zipped(inner), "cat.tar": tarred(inner)}
    path.write_bytes(PACKERS[outer](files))
    store = open_store(path)
    found = {name: store.read(name) for name in store.names()}
    assert len(found) == len(list(store.names())) == 5
    assert {name.partition("/")[0] for name in found} == {"cat"}, "they are no classes of their own"
    assert found["cat/1.jpg"] == jpeg(40)
    assert Counter(found.values()) == {jpeg(40): 1, jpeg(2): 2, jpeg(4): 2}


def test_archives_that_are_not_looked_into_are_named(tmp_path, capsys):
    folder = write_folder(tmp_path / "pets", {**named(4), "more.zip": zipped(named(2))})
    deep = {"deep.zip": zipped({"deeper.zip": zipped({"deepest.zip": zipped(named(2))})})}
    (tmp_path / "all.zip").write_bytes(zipped({**named(4), **deep}))
    for data, name in ((folder, "more.zip"), (tmp_path / "all.zip", "deepest.zip")):
        for read in (lambda path: Inputs([path]).count(), open_dataset):
            read(str(data))
            note = capsys.readouterr().err.splitlines()[0]
            assert f"{data}: archives not searched: " in note
            assert name in note


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has /dev/full")
@pytest.mark.parametrize("outer", [".zip", ".tar.gz"])
def test_a_full_disk_is_no_damaged_archive(tmp_path, monkeypatch, outer):
    path = tmp_path / f"pets{outer}"
    path.write_bytes(PACKERS[outer]({**named(4), "more.zip": zipped(named(6))}))

    for name in ("inner.zip", "unpacked.tar"):
        (tmp_path / name).symlink_to("/dev/full")
    for module in (archives, tars):
        monkeypatch.setattr(module, "temporary_folder", lambda: tmp_path)
    with pytest.raises(CatordogError, match=r"No space left on device: make room there") as caught:
        open_dataset(str(path))
    assert not isinstance(caught.value, PhotoError)
