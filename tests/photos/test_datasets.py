from __future__ import annotations

import contextlib
import gzip
import io
import os
import pickle
import sys
import tarfile
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from catordog.errors import CatordogError, PhotoError
from catordog.photos.datasets import open_dataset
from catordog.photos.splits import SplitFractions
from conftest import jpeg, named, save, write_folder, write_zip

FRACTIONS = SplitFractions(0.25, 0.25)


def tally(found) -> dict[str, int]:
    return dict(Counter(found.classes[photo.label] for photo in found.photos))


def shown_by_class(found) -> dict[str, list[bytes]]:
    """What the photos of each class show, whatever they are called."""
    shown: dict[str, list[bytes]] = {}
    for photo in found.photos:
        shown.setdefault(found.classes[photo.label], []).append(photo.image().tobytes())
    return {label: sorted(pictures) for label, pictures in shown.items()}


def by_folder(n: int, prefix: str = "") -> dict[str, bytes]:
    return {f"{prefix}{('Cat', 'dog')[i % 2]}/{i}.jpg": jpeg(i) for i in range(n)}


def test_a_folder_for_each_class(tmp_path):
    found = open_dataset(str(write_folder(tmp_path / "pets", by_folder(6))))
    assert found.classes == ("cat", "dog")
    assert tally(found) == {"cat": 3, "dog": 3}


def test_class_folders_inside_wrapper_folders(tmp_path):
    root = write_folder(tmp_path, by_folder(6, "download/PetImages/"))
    assert open_dataset(str(root)).classes == ("cat", "dog")


def test_photos_deep_below_a_class_folder_belong_to_the_class(tmp_path):
    files = {"cat/2024/june/a.jpg": jpeg(0), "cat/b.jpg": jpeg(2), "dog/rex/c.jpg": jpeg(1)}
    assert tally(open_dataset(str(write_folder(tmp_path, files)))) == {"cat": 2, "dog": 1}


def test_more_than_two_classes_with_names_in_any_script(tmp_path):
    files = {f"{name}/{i}.jpg": jpeg(i) for name in ("猫", "Hund", "хомяк") for i in range(2)}
    found = open_dataset(str(write_folder(tmp_path, files)))
    assert set(found.classes) == {"猫", "hund", "хомяк"}
    assert len(found.photos) == 6


def test_a_flat_folder_of_cat_n_and_dog_n(tmp_path):
    assert tally(open_dataset(str(write_folder(tmp_path, named(8))))) == {"cat": 4, "dog": 4}


@pytest.mark.parametrize("names", [("train", "val", "test"), ("Training", "valid", "TEST")])
def test_the_split_of_a_dataset_wins(tmp_path, names):
    files = {}
    for number, name in enumerate(names):
        files |= {f"{name}/{('cats', 'dogs')[i % 2]}/{i}.jpg": jpeg(10 * number + i) for i in
                  range(2 * (3 - number))}  # fmt: skip
    found = open_dataset(str(write_folder(tmp_path, files)))
    sizes = [len(found.split(split, FRACTIONS)) for split in ("train", "val", "test")]
    assert sizes == [6, 4, 2]
    assert len(found.split("all", FRACTIONS)) == 12


def test_missing_validation_photos_are_taken_from_the_training_photos(tmp_path):
    photos = list(named(64).items())
    files = {f"train/{name}": data for name, data in photos[:60]}
    files |= {f"test/{name}": data for name, data in photos[60:]}
    found = open_dataset(str(write_folder(tmp_path, files)))
    sizes = Counter(found.splits(FRACTIONS))
    assert sizes["test"] == 4
    assert sizes["val"] > 5
    assert sizes["train"] > sizes["val"]


def test_a_zip_is_read_in_place_and_equals_its_folder(tmp_path):
    folder = open_dataset(str(write_folder(tmp_path / "photos", named(8))))
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        path = write_zip(tmp_path / f"{method}.zip", named(8), method)
        before = sorted(tmp_path.iterdir())
        archive = open_dataset(str(path))
        assert shown_by_class(archive) == shown_by_class(folder)
        assert archive.splits(FRACTIONS) == folder.splits(FRACTIONS)
        assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_the_zip_of_zips_from_kaggle(tmp_path, method):
    train = io.BytesIO()
    with zipfile.ZipFile(train, "w") as archive:
        for name, data in named(8).items():
            archive.writestr(f"train/{name}", data)
    unlabelled = io.BytesIO()
    with zipfile.ZipFile(unlabelled, "w") as archive:
        for i in range(3):
            archive.writestr(f"test1/{i + 1}.jpg", jpeg(50 + i))
    files = {"train.zip": train.getvalue(), "test1.zip": unlabelled.getvalue(),
             "sampleSubmission.csv": b"id,label\n1,0\n"}  # fmt: skip
    found = open_dataset(str(write_zip(tmp_path / "dogs-vs-cats.zip", files, method)))
    assert tally(found) == {"cat": 4, "dog": 4}
    assert found.unlabelled == 3
    assert "3 without a label left out" in found.summary()
    assert set(found.splits(SplitFractions(0.3, 0.4))) == {"train", "val", "test"}
    assert all(photo.image().size == (48, 48) for photo in found.photos)


def test_the_official_oxford_pet_layout(tmp_path):
    files = {f"images/{name}": jpeg(i) for i, name in enumerate(
        ["Abyssinian_1.jpg", "beagle_1.jpg", "Abyssinian_2.jpg", "beagle_2.jpg", "boxer_9.jpg"]
    )}  # fmt: skip
    files["images/Abyssinian_1.mat"] = b"not a photo"
    files["annotations/trainval.txt"] = b"Abyssinian_1 1 1 1\nbeagle_1 2 2 1\n"
    files["annotations/test.txt"] = b"Abyssinian_2 1 1 1\nbeagle_2 2 2 1\nmissing_3 2 2 1\n"
    files["annotations/README"] = b"SPECIES: 1:Cat 2:Dog"
    files["annotations/trimaps/beagle_1.png"] = jpeg(9)
    found = open_dataset(str(write_folder(tmp_path, files)))
    assert tally(found) == {"cat": 2, "dog": 2}
    assert [Path(photo.path).stem for photo in found.split("test", FRACTIONS)] == [
        "Abyssinian_2", "beagle_2",
    ]  # fmt: skip


def test_the_archive_from_microsoft(tmp_path):
    files = {f"PetImages/{name}": data for name, data in by_folder(6).items()}
    files |= {"readme[1].txt": b"read me", "MSR-LA - 3467.docx": b"licence"}
    files |= {"PetImages/Cat/Thumbs.db": b"litter", "PetImages/Cat/666.jpg": b""}
    found = open_dataset(str(write_zip(tmp_path / "kagglecatsanddogs_5340.zip", files)))
    assert tally(found) == {"cat": 4, "dog": 3}
    broken = next(photo for photo in found.photos if photo.path.endswith("666.jpg"))
    with pytest.raises(PhotoError, match=r"666\.jpg.*empty file"):
        broken.image()


def test_the_synthetic_dataset_by_name():
    found = open_dataset("drawn:n=40,seed=3,size=32")
    assert tally(found) == {"cat": 20, "dog": 20}
    assert found.photos[0].image().size == (32, 32)
    assert len(open_dataset("drawn").photos) == 8000


def test_hidden_files_and_litter_are_skipped(tmp_path):
    files = named(6) | {
        "__MACOSX/._cat.0.jpg": b"x",
        ".hidden/cat.9.jpg": jpeg(0),
        "._cat.1.jpg": b"x",
        "Thumbs.db": b"x",
        "desktop.ini": b"x",
    }
    for path in (write_folder(tmp_path / "f", files), write_zip(tmp_path / "z.zip", files)):
        assert len(open_dataset(str(path)).photos) == 6


def test_copies_are_in_the_same_split(tmp_path):
    files = named(40)
    files |= {f"{name.split('.')[0]}.{900 + i}.jpg": data for i, (name, data) in
              enumerate(named(40).items())}  # fmt: skip
    found = open_dataset(str(write_folder(tmp_path, files)))
    splits: dict[bytes, set[str]] = {}
    for photo, split in zip(found.photos, found.splits(FRACTIONS), strict=True):
        splits.setdefault(photo.read(), set()).add(split)
    assert len(splits) == 40
    assert all(len(split) == 1 for split in splits.values())
    assert set.union(*splits.values()) == {"train", "val", "test"}


def test_new_photos_move_none_of_the_old_ones(tmp_path):
    before = open_dataset(str(write_folder(tmp_path, named(40))))
    old = dict(zip((p.path for p in before.photos), before.splits(FRACTIONS), strict=True))
    after = open_dataset(str(write_folder(tmp_path, named(60))))
    new = dict(zip((p.path for p in after.photos), after.splits(FRACTIONS), strict=True))
    assert {path: new[path] for path in old} == old


def test_a_path_in_an_archive_never_leaves_its_folder(tmp_path):
    files = {"../../cat.1.jpg": jpeg(0), "/dog.1.jpg": jpeg(1), "..\\dog.2.jpg": jpeg(3)}
    found = open_dataset(str(write_zip(tmp_path / "evil.zip", files)))
    assert not any(".." in photo.path for photo in found.photos)
    assert len(found.photos) == 3
    assert all(photo.image() for photo in found.photos)


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights on Windows")
def test_links_are_followed_but_not_in_a_loop(tmp_path):
    root = write_folder(tmp_path / "pets", by_folder(4))
    write_folder(tmp_path / "elsewhere", {"far.jpg": jpeg(8)})
    (root / "Cat" / "linked").symlink_to(tmp_path / "elsewhere")
    (root / "Cat" / "round").symlink_to(root)
    (root / "dog" / "dangling.jpg").symlink_to(root / "nowhere.jpg")
    found = open_dataset(str(root))
    assert tally(found) == {"cat": 3, "dog": 3}
    dangling = next(photo for photo in found.photos if "dangling" in photo.path)
    with pytest.raises(PhotoError, match="No such file"):
        dangling.image()


def test_a_zip_can_be_read_by_another_process(tmp_path):
    from catordog.photos.stores import Zip

    store = Zip(write_zip(tmp_path / "a.zip", named(2)))
    copy = pickle.loads(pickle.dumps(store))
    assert copy.read("cat.0.jpg") == store.read("cat.0.jpg")


def test_a_damaged_photo_in_a_zip_is_named(tmp_path):
    path = write_zip(tmp_path / "a.zip", named(4))
    data = bytearray(path.read_bytes())
    start = data.find(jpeg(0)) + 200
    data[start : start + 20] = bytes(20)
    path.write_bytes(data)
    found = open_dataset(str(path))
    bad = [photo for photo in found.photos if photo.path.endswith("cat.0.jpg")]
    with pytest.raises(PhotoError, match=r"cat\.0\.jpg.*damaged in its archive"):
        bad[0].image()
    others = [photo for photo in found.photos if photo != bad[0]]
    assert all(isinstance(np.asarray(photo.image()), np.ndarray) for photo in others)


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({}, "no photos in it"),
        ({"notes.txt": b"x"}, "no photos in it"),
        ({"cat/1.jpg": b"x", "cat/2.jpg": b"x"}, "one class, 'cat'"),
        ({"img1.jpg": b"x", "img2.jpg": b"x"}, "no labels"),
    ],
)
def test_a_folder_that_is_no_dataset_is_refused_with_the_reason(tmp_path, files, words):
    (tmp_path / "data").mkdir()
    root = write_folder(tmp_path / "data", files)
    with pytest.raises(CatordogError, match=words) as caught:
        open_dataset(str(root))
    assert "\n" not in str(caught.value)
    assert str(root) in str(caught.value)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("nowhere", "no such file or folder"),
        ("drawn:n=x", "unusable setting"),
        ("drawn:colour=1", "unusable setting"),
        ("drawn:n=0", "n > 0"),
    ],
)
def test_an_unknown_name_or_setting_is_refused(name, words):
    with pytest.raises(CatordogError, match=words):
        open_dataset(name)


def test_an_incomplete_archive_and_a_file_that_is_none_are_refused(tmp_path):
    (tmp_path / "half.zip").write_bytes(write_zip(tmp_path / "a.zip", named(4)).read_bytes()[:900])
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(CatordogError, match="not a complete zip"):
        open_dataset(str(tmp_path / "half.zip"))
    with pytest.raises(CatordogError, match="neither a folder nor an archive"):
        open_dataset(str(tmp_path / "notes.txt"))


def test_a_split_without_a_class_is_refused(tmp_path):
    files = {"train/cat/1.jpg": jpeg(0), "train/dog/1.jpg": jpeg(1), "test/cat/2.jpg": jpeg(2)}
    found = open_dataset(str(write_folder(tmp_path, files)))
    with pytest.raises(CatordogError, match="test split has no photo of dog"):
        found.split("test", FRACTIONS)


def test_the_error_for_a_missing_split_lists_the_existing_ones(tmp_path):
    files = {f"train/{name}": data for name, data in named(4).items()}
    files |= {f"val/{name}": jpeg(90 + i) for i, name in enumerate(named(4))}
    found = open_dataset(str(write_folder(tmp_path, files)))
    with pytest.raises(CatordogError, match="no test photos; it has train, val"):
        found.split("test", FRACTIONS)


@pytest.fixture(scope="module")
def real_splits(shared_photos) -> dict[str, str]:
    """The split of each of Kaggle's photos, such as cat.10360."""
    found = open_dataset(str(shared_photos / "dogs-vs-cats-200px.zip"))
    names = (Path(name).stem for name in found.photos.names)
    return dict(zip(names, found.splits(SplitFractions(0.1, 0.2)), strict=True))


@pytest.mark.slow
def test_the_real_zip_is_split_by_the_fractions_in_each_class(real_splits):
    assert len(real_splits) == 20_000
    for label in ("cat", "dog"):
        own = Counter(split for name, split in real_splits.items() if name.startswith(label))
        assert own["test"] / own.total() == pytest.approx(0.2, abs=0.01)
        assert own["val"] / own.total() == pytest.approx(0.1, abs=0.01)


def test_the_real_folders_are_read(shared_photos):
    original = open_dataset(str(shared_photos / "dogs-vs-cats-original-600"))
    assert original.classes == ("cat", "dog")
    assert len(original.photos) == 600
    pets = open_dataset(str(shared_photos / "oxford-iiit-pet-60"))
    assert pets.classes == ("cat", "dog")
    assert set(pets.splits(SplitFractions(0, 0.2))) == {"train", "test"}


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_a_tar_equals_its_folder(tmp_path, mode):
    folder = open_dataset(str(write_folder(tmp_path / "photos", named(8))))
    path = tmp_path / "photos.archive"  # recognised by content, not by name
    write_tar(path, named(8), mode)
    archive = open_dataset(str(path))
    assert shown_by_class(archive) == shown_by_class(folder)
    assert archive.splits(FRACTIONS) == folder.splits(FRACTIONS)


def test_only_regular_files_of_a_tar_are_read_and_a_truncated_tar_is_refused(tmp_path):
    path = tmp_path / "evil.tar"
    with tarfile.open(path, "w") as archive:
        for name, data in {"../../cat.1.jpg": jpeg(0), "/dog.1.jpg": jpeg(1)}.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE):
            info = tarfile.TarInfo(f"dog.{9 + ord(kind)}.jpg")
            info.type, info.linkname = kind, "/etc/passwd"
            archive.addfile(info)
    found = open_dataset(str(path))
    assert sorted(photo.name for photo in found.photos) == ["cat.1.jpg", "dog.1.jpg"]
    complete = path.read_bytes()
    path.write_bytes(complete[: len(jpeg(0)) // 2])
    with pytest.raises(CatordogError, match="not a complete tar"):
        open_dataset(str(path))
    (tmp_path / "half.tar.gz").write_bytes(gzip.compress(complete)[:900])
    with pytest.raises(CatordogError, match="can't be unpacked"):
        open_dataset(str(tmp_path / "half.tar.gz"))


def write_tar(path: Path, files: dict[str, bytes], mode: str) -> None:
    with tarfile.open(path, mode) as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))


def test_photos_are_found_below_1100_nested_and_1100_adjacent_folders(tmp_path):
    root = write_folder(tmp_path, {"dog/1.jpg": jpeg(1), "cat/0.jpg": jpeg(0)})
    deep = str(root / "dog")
    made = 0
    try:
        while made < 1100:  # above Python's recursion limit
            deep += "/d"
            Path(deep).mkdir()
            made += 1
    except OSError:  # a system with shorter paths
        deep = deep.removesuffix("/d")
    Path(deep, "x.jpg").write_bytes(jpeg(3))
    for number in range(1100):
        (root / "cat" / f"{number:04}").mkdir()
    (root / "cat" / "1099" / "y.jpg").write_bytes(jpeg(2))
    assert made > 200
    counted = tally(open_dataset(str(root)))
    Path(deep, "x.jpg").unlink()
    for _ in range(made):  # too deep for pytest's own clean-up
        Path(deep).rmdir()
        deep = deep.removesuffix("/d")
    assert counted == {"cat": 2, "dog": 2}


def test_names_may_differ_by_case_alone_or_be_no_valid_unicode(tmp_path):
    root = write_folder(tmp_path, by_folder(4))
    (root / "Cat" / "a.jpg").write_bytes(jpeg(10))
    (root / "Cat" / "A.JPG").write_bytes(jpeg(12))
    same_file = (root / "Cat" / "a.jpg").read_bytes() == jpeg(12)  # a file system that ignores case
    (root / "dog" / "Füchsle 狐.jpg").write_bytes(jpeg(11))
    if sys.platform == "linux":
        Path(os.fsdecode(os.fsencode(root / "dog") + b"/\xff\xfe.jpg")).write_bytes(jpeg(13))
    found = open_dataset(str(root))
    assert tally(found)["cat"] == (3 if same_file else 4)
    assert all(photo.image() for photo in found.photos)
    assert found.splits(FRACTIONS)


def scaled(data: bytes, *, mirror: bool = False, quality: int = 70) -> bytes:
    image = Image.open(io.BytesIO(data)).resize((64, 60))
    return save(ImageOps.mirror(image) if mirror else image, "JPEG", quality=quality)


def test_scaled_reencoded_and_mirrored_copies_are_in_the_same_split(tmp_path, monkeypatch):
    monkeypatch.setenv("CATORDOG_DATA", str(tmp_path / "data"))
    files = named(60)
    for i, data in enumerate(list(named(60).values())):
        files[f"{('cat', 'dog')[i % 2]}.{500 + i}.jpg"] = scaled(data, mirror=i % 3 == 0)
    found = open_dataset(str(write_folder(tmp_path / "pets", files)))
    splits = dict(zip(found.photos.names, found.splits(FRACTIONS), strict=True))
    for i, name in enumerate(named(60)):
        assert splits[name] == splits[f"{('cat', 'dog')[i % 2]}.{500 + i}.jpg"]
    assert set(splits.values()) == {"train", "val", "test"}


def test_a_csv_file_lists_paths_labels_and_splits(tmp_path):
    folder = write_folder(tmp_path / "pets" / "photos", {f"{i}": jpeg(i) for i in range(5)})
    far = write_folder(tmp_path / "elsewhere", {"far.jpg": jpeg(6)}) / "far.jpg"
    rows = ["label,path,split", "Cat,photos/0,train", "dog,photos/1,Training", "cat,photos/2,test"]
    rows += ["dog,photos/3,test", f"cat,{far},val", "dog,photos/4,validation", ",photos/4,"]
    listed = folder.parent / "pets.csv"
    listed.write_text("\n".join(rows))
    found = open_dataset(str(listed))
    assert tally(found) == {"cat": 3, "dog": 3}
    assert {photo.name: photo.own_split for photo in found.photos} == {
        "photos/0": "train", "photos/1": "train", "photos/2": "test", "photos/3": "test",
        far.as_posix(): "val", "photos/4": "val",
    }  # fmt: skip
    assert {photo.read() for photo in found.photos} == {jpeg(i) for i in (0, 1, 2, 3, 4, 6)}


def test_a_csv_file_without_splits_is_split_like_its_folder(tmp_path):
    folder = write_folder(tmp_path / "pets", named(40))
    rows = [f"pets/{name},{name[:3]}\n" for name in reversed(named(40))]
    (tmp_path / "pets.csv").write_text("path,label\n" + "".join(rows))
    listed = open_dataset(str(tmp_path / "pets.csv"))
    assert listed.splits(FRACTIONS) == open_dataset(str(folder)).splits(FRACTIONS)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("path,when,where\n1.jpg,1,2\n2.jpg,2,1\n", "which of its columns has the labels.*'when'"),
        ("path\n1.jpg\n", "neither a folder nor an archive nor a table of two columns"),
        ("path,label\n1.jpg,cat\n1.jpg,dog\n", r"1\.jpg is listed twice"),
        ("path,label,split\n1.jpg,cat,fold7\n", "unknown split 'fold7'"),
        ("path,label\n1.jpg,cat\n2.jpg,cat\n", "one class, 'cat'"),
        ("path,label\n", "no labelled photos"),
    ],
)
def test_an_unusable_csv_file_is_refused_with_the_reason(tmp_path, text, words):
    write_folder(tmp_path, {"pets.csv": text.encode(), "1.jpg": jpeg(1), "2.jpg": jpeg(2)})
    with pytest.raises(CatordogError, match=words) as caught:
        open_dataset(str(tmp_path / "pets.csv"))
    assert "pets.csv" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_photos_on_an_exclude_list_are_in_no_split(tmp_path):
    root = write_folder(tmp_path / "pets", named(40))
    listed = tmp_path / "out.csv"
    listed.write_text("path,reason\npets/cat.3.jpg,wrong\ndog.2.jpg,blurred\n")
    with contextlib.chdir(tmp_path):
        found = open_dataset("pets", exclude=str(listed))
        assert found.excluded == {"cat.3.jpg", "dog.2.jpg"}
        left = {photo.name for photo in found.split("all", FRACTIONS)}
        assert left == set(named(40)) - found.excluded
        assert len(found.split("all", FRACTIONS, excluded=True)) == 40
        assert "2 excluded" in found.summary()
    listed.write_text("path\nelsewhere/cat.3.jpg\n")
    with pytest.raises(CatordogError, match="none of its 1 paths is in"):
        open_dataset(str(root), exclude=str(listed))
    listed.write_text("reason,by\nblurred,me\n")
    with pytest.raises(CatordogError, match="no column 'path'"):
        open_dataset(str(root), exclude=str(listed))
    with pytest.raises(CatordogError, match="No such file"):
        open_dataset(str(root), exclude=str(tmp_path / "nowhere.csv"))


@pytest.mark.slow
def test_no_copy_in_the_real_zip_straddles_two_splits(real_splits):
    for group in (
        ("cat.10360", "cat.3345"), ("cat.12408", "cat.2339"), ("cat.6143", "cat.6204"),
        ("dog.10401", "dog.10797", "dog.2877", "cat.11565"), ("dog.2027", "dog.3082"),
        ("cat.8456", "dog.8736"),
    ):  # fmt: skip
        assert len({real_splits[name] for name in group}) == 1
