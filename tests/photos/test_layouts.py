"""Layouts of folders as people have them: none trains on splits, wrappers or stray files."""

from __future__ import annotations

from collections import Counter

import pytest

from catordog.errors import CatordogError
from catordog.photos.datasets import open_dataset
from catordog.photos.layouts import labels_from_names, split_named
from catordog.photos.splits import SplitFractions
from conftest import write_folder, write_zip

FRACTIONS = SplitFractions(0.25, 0.25)


def names(*patterns: str, n: int = 3) -> list[str]:
    """n names for each pattern, whose `#` is a number."""
    return sorted(pattern.replace("#", str(i)) for pattern in patterns for i in range(n))


def tally(photos: list[str]) -> dict[tuple[str, str | None], int]:
    """How many photos have each label and split."""
    found = labels_from_names(photos)
    return dict(Counter(zip(found.labels, found.splits, strict=True)))


def both_splits(*classes: str) -> dict[tuple[str, str | None], int]:
    return {(name, split): 3 for name in classes for split in ("train", "test")}


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("training_set/training_set", "test_set/test_set"),
        ("archive/training_set/training_set", "archive/test_set/test_set"),
        ("dataset/training_set", "dataset/test_set"),
        ("Train Set/train-set", "Test Set/TEST"),
        ("train/train/train", "test1/test1"),
        ("train/images", "test/images"),
    ],
)
def test_folders_repeated_in_themselves_are_looked_through(train, test):
    photos = names(
        *(f"{split}/{name}/#.jpg" for split in (train, test) for name in ("Cats", "dogs"))
    )
    assert tally(photos) == both_splits("cats", "dogs")


@pytest.mark.parametrize(
    ("split", "words"),
    [
        ("train", "train training training_set training-set Train_Set TRAINSET train_images "
                  "train2017 trainval training_data"),
        ("val", "val valid validation validation_set Validation-Set dev dev_set val2017"),
        ("test", "test testing test_set Test-Set test1 eval evaluation holdout hold-out test_data"),
        (None, "cat tests_of_cats trainer devon valley tester contest"),
    ],
)  # fmt: skip
def test_split_folders_are_known_by_their_synonyms(split, words):
    for word in words.split():
        assert split_named(word) == split, word


def test_kaggles_archive_extracted_by_windows_has_its_labels_from_file_names():
    photos = names("train/train/cat.#.jpg", "train/train/dog.#.jpg", "test1/test1/#.jpg")
    assert tally(photos) == {("cat", None): 3, ("dog", None): 3}


@pytest.mark.parametrize(
    "stray",
    ["single_prediction/#.jpg", "single_prediction/cat_or_dog_#.jpg", "predict/predict/#.jpg"],
)
def test_photos_to_predict_beside_splits_are_no_class(stray):
    labels = ("cats", "dogs")
    one = names(*(f"dataset/training_set/{name}/#.jpg" for name in labels), f"dataset/{stray}")
    assert tally(one) == {("cats", None): 3, ("dogs", None): 3}
    two = one + names(*(f"dataset/test_set/{name}/#.jpg" for name in labels))
    assert tally(sorted(two)) == both_splits("cats", "dogs")


@pytest.mark.parametrize("stray", ["test/unknown/#.jpg", "test/test/#.jpg", "test/holiday.#.jpg"])
def test_photos_to_predict_in_the_test_folder_are_no_class(stray):
    photos = names(
        "train/cats/#.jpg", "train/dogs/#.jpg", "val/cats/#.jpg", "val/dogs/#.jpg", stray
    )
    assert {label for label, _ in tally(photos)} == {"cats", "dogs"}


def test_splits_inside_class_folders_are_used():
    photos = names(*(f"{name}/{split}/#.jpg" for name in ("cat", "dog") for split in
                     ("train", "test")))  # fmt: skip
    assert tally(photos) == both_splits("cat", "dog")


def test_photos_outside_the_splits_inside_class_folders_are_for_training(tmp_path):
    photos = names("cat/#.jpg", "dog/#.jpg", "cat/test/#.jpg", "dog/test/#.jpg")
    found = open_dataset(str(write_folder(tmp_path, dict.fromkeys(photos, b"x"))))
    assert Counter(found.photos.own_splits) == {None: 6, "test": 6}
    assert set(found.splits(SplitFractions(0, 0.2))) == {"train", "test"}
    assert set(found.splits(SplitFractions(0.5, 0.2))) == {"train", "val", "test"}


def test_a_split_inside_one_class_only_is_no_split_and_is_named(tmp_path, capsys):
    photos = names("cat/#.jpg", "dog/#.jpg", "cat/test/#.jpg")
    found = open_dataset(str(write_folder(tmp_path, dict.fromkeys(photos, b"x"))))
    assert set(found.photos.own_splits) == {None}
    assert "the folders test inside class folders are no splits" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("stray", "shown"),
    [
        ("screenshot.2020.jpg", "screenshot.2020.jpg"),
        ("IMG_1.jpg", "IMG_1.jpg"),
        ("test/dog.7.jpg", "test/"),
        ("test/1.jpg", "test/"),
    ],
)
@pytest.mark.parametrize("wrapper", ["", "pets/"])
def test_stray_files_beside_class_folders_are_left_out_and_named(tmp_path, stray, shown, wrapper):
    photos = names("cat/#.jpg", "dog/#.jpg")
    files = {wrapper + name: b"x" for name in [*photos, stray]}
    for path in (write_folder(tmp_path / "f", files), write_zip(tmp_path / "z.zip", files)):
        found = open_dataset(str(path))
        assert found.classes == ("cat", "dog")
        assert found.unlabelled == 1
        assert f"1 without a label left out: {wrapper}{shown}" in found.summary()
        assert "\n" not in found.summary()


def test_many_photos_without_a_label_are_counted_and_the_first_named(tmp_path):
    photos = names("cat/#.jpg", "dog/#.jpg") + names("screen.#.jpg", n=9)
    with pytest.raises(CatordogError, match="one class"):
        open_dataset(str(write_folder(tmp_path, dict.fromkeys(photos[:3] + photos[6:], b"x"))))
    found = open_dataset(str(write_folder(tmp_path, dict.fromkeys(photos, b"x"))))
    assert found.classes == ("cat", "dog")
    assert "9 without a label left out: screen.0.jpg, screen.1.jpg, screen.2.jpg, …" in (
        found.summary()
    )


def test_a_stray_folder_beside_flat_files_is_left_out():
    photos = names("cat.#.jpg", "dog.#.jpg", "examples/#.jpg")
    assert tally(photos) == {("cat", None): 3, ("dog", None): 3}


@pytest.mark.parametrize(
    ("patterns", "words"),
    [
        (["train/cats/#.jpg", "train/dogs/#.jpg", "cats/#.jpg", "dogs/#.jpg"],
         r"train/ has the name of a split, .*\(cats, dogs\) is also beside it: give the path"),
        (["valid/2023/#.jpg", "valid/2024/#.jpg", "invalid/2023/#.jpg"],
         r"valid/ has the name of a split.*rename it if it is a class"),
        (["cat.#.jpg", "dog.#.jpg", "cat.#0.jpg", "docs/#.jpg", "figures/#.jpg"],
         "9 files are named like .*class folders docs, figures: keep the files or the folders"),
    ],
)  # fmt: skip
def test_mixed_forms_are_refused_in_words(tmp_path, patterns, words):
    root = write_folder(tmp_path, dict.fromkeys(names(*patterns), b"x"))
    with pytest.raises(CatordogError, match=words) as caught:
        open_dataset(str(root))
    assert str(root) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_class_with_the_name_of_a_split_is_warned_of(tmp_path, capsys):
    photos = names("valid/#.jpg", "invalid/#.jpg")
    found = open_dataset(str(write_folder(tmp_path, dict.fromkeys(photos, b"x"))))
    assert found.classes == ("invalid", "valid")
    assert "valid: called like a split, but taken for a class" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("patterns", "warned"),
    [
        (["cat_train/#.jpg", "cat_test/#.jpg", "dog_train/#.jpg", "dog_test/#.jpg"], True),
        (["train station/#.jpg", "bus station/#.jpg"], False),
        (["cat/#.jpg", "dog/#.jpg"], False),
    ],
)
def test_splits_inside_class_names_are_warned_of(tmp_path, capsys, patterns, warned):
    open_dataset(str(write_folder(tmp_path, dict.fromkeys(names(*patterns), b"x"))))
    assert ("called like a split" in capsys.readouterr().err) == warned


def test_splits_may_have_a_common_prefix():
    photos = names(*(f"{split}/{split}/{name}/#.jpg" for split in ("seg_train", "seg_test")
                     for name in ("sea", "forest")), "seg_pred/seg_pred/#.jpg")  # fmt: skip
    assert tally(photos) == both_splits("sea", "forest")


def test_validation_photos_inside_the_training_folder_are_a_split():
    photos = names(*(f"train/{split}/{name}/#.jpg" for split in ("train", "valid")
                     for name in ("cats", "dogs")), "test/#.jpg")  # fmt: skip
    assert set(tally(photos)) == {(name, split) for name in ("cats", "dogs")
                                  for split in ("train", "val")}  # fmt: skip


def test_a_copy_of_the_dataset_inside_itself_is_left_out():
    photos = names("Pets/Cat/#.jpg", "Pets/Dog/#.jpg", "Pets/Pets/Cat/#.jpg", "Pets/Pets/Dog/#.jpg")
    assert tally(photos) == {("cat", None): 3, ("dog", None): 3}


def test_unlabelled_folders_of_splits_are_no_classes(tmp_path):
    photos = names("training_set/#.jpg", "test_set/#.jpg")
    with pytest.raises(CatordogError, match="6 photos but no labels"):
        open_dataset(str(write_folder(tmp_path, dict.fromkeys(photos, b"x"))))


def test_a_class_name_is_the_same_from_a_mac_and_from_linux():
    composed, decomposed = (
        "caf\N{LATIN SMALL LETTER E WITH ACUTE}",
        "Cafe\N{COMBINING ACUTE ACCENT}",
    )
    assert set(labels_from_names([f"{composed}/1.jpg", f"{decomposed}/2.jpg"]).labels) == {composed}
    flat = labels_from_names([f"{decomposed}.1.jpg", f"{composed}.2.jpg", "dog.3.jpg"])
    assert set(flat.labels) == {composed, "dog"}


@pytest.mark.parametrize("name", ["not sure", "Neither", "two\nlines", "bell\x07", " "])
def test_a_class_that_is_no_name_or_a_verdict_is_refused_with_what_to_do(tmp_path, name):
    files = {f"{label}/{i}.jpg": b"x" for label in (name, "dog") for i in range(2)}
    with pytest.raises(
        CatordogError, match=r"the class name .* rename its folder or label"
    ) as caught:
        open_dataset(str(write_zip(tmp_path / "pets.zip", files)))
    assert "\n" not in str(caught.value)
    assert "\x07" not in str(caught.value)
