"""Datasets for an audit need no labels; and splits that copies make impossible say so."""

from __future__ import annotations

import pytest

from catordog.errors import CatordogError
from catordog.photos.datasets import open_dataset
from catordog.photos.findings import audit
from catordog.photos.splits import SplitFractions
from conftest import jpeg, write_folder, write_zip

FRACTIONS = SplitFractions(0.25, 0.25)


@pytest.mark.parametrize("form", ["folder", "zip"])
def test_a_flat_folder_without_labels_can_be_audited(tmp_path, form):
    files = {f"IMG_{i}.jpg": jpeg(i) for i in range(4)} | {"copy.jpg": jpeg(0), "bad.jpg": b"x"}
    data = write_folder(tmp_path / "f", files) if form == "folder" else (
        write_zip(tmp_path / "z.zip", files))  # fmt: skip
    with pytest.raises(CatordogError, match="no labels"):
        open_dataset(str(data))
    found = open_dataset(str(data), labels="optional")
    assert found.classes == ()
    assert [photo.label for photo in found.photos] == [None] * 6
    assert found.summary() == f"{data}: 6 photos"
    assert set(found.splits(FRACTIONS)) <= {"train", "val", "test"}
    findings = audit(found)
    facts = findings.to_dict()
    assert facts["classes"] == {}
    assert len(facts["exact_copies"]) == 1
    assert len(facts["unreadable"]) == 1
    assert facts["contradictions"] == []
    assert findings.label(0) == ""


def test_a_single_class_can_be_audited(tmp_path):
    root = write_folder(tmp_path, {f"cat/{i}.jpg": jpeg(2 * i) for i in range(3)})
    found = open_dataset(str(root), labels="optional")
    assert found.classes == ("cat",)
    assert audit(found).to_dict()["classes"] == {"cat": 3}


def test_optional_labels_change_nothing_about_a_labelled_dataset(tmp_path):
    files = {f"{label}/{i}.jpg": jpeg(2 * i + odd) for odd, label in enumerate(("cat", "dog"))
             for i in range(9)}  # fmt: skip
    root = str(write_folder(tmp_path, files))
    required, optional = open_dataset(root), open_dataset(root, labels="optional")
    assert required.summary() == optional.summary()
    assert required.splits(FRACTIONS) == optional.splits(FRACTIONS)


def test_a_folder_without_photos_is_refused_even_if_labels_are_optional(tmp_path):
    with pytest.raises(CatordogError, match="no photos in it"):
        open_dataset(str(tmp_path), labels="optional")


def test_a_class_of_copies_is_named_when_a_split_lacks_it(tmp_path):
    files = {f"dog/{i}.jpg": jpeg(2 * i + 1) for i in range(20)}
    files |= {f"cat/{i}.jpg": jpeg(0) for i in range(5)} | {"cat/bad.jpg": b"x"}
    found = open_dataset(str(write_folder(tmp_path, files)))
    splits = dict(zip(found.photos.names, found.splits(FRACTIONS), strict=True))
    missing = {"train", "val", "test"} - {splits[name] for name in splits if "cat" in name}
    assert missing
    for split in missing:
        with pytest.raises(CatordogError) as caught:
            found.split(split, FRACTIONS)
        words = "all 5 readable photos of cat are copies or near copies of one another"
        assert words in str(caught.value)
        assert "\n" not in str(caught.value)
    assert len(found.split("all", FRACTIONS)) == 26


def test_a_dataset_of_copies_says_that_it_cannot_be_split(tmp_path):
    files = {f"{label}/{i}.jpg": jpeg(0) for label in ("cat", "dog") for i in range(5)}
    found = open_dataset(str(write_folder(tmp_path, files)))
    (only,) = set(found.splits(FRACTIONS))
    for split in {"train", "val", "test"} - {only}:
        with pytest.raises(CatordogError, match="all 10 readable photos are copies"):
            found.split(split, FRACTIONS)
