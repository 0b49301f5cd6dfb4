from __future__ import annotations

import hashlib

import numpy as np
import pytest

from catordog.errors import CatordogError
from catordog.photos.splits import SplitFractions, content_key, split_of, splits_of


def splits(n: int, fractions: SplitFractions) -> list[str]:
    sizes = np.random.default_rng(0).integers(1000, 90_000, n).tolist()
    return [split_of(content_key(index * 2654435761 % 2**32, sizes[index]), fractions)
            for index in range(n)]  # fmt: skip


def test_the_fractions_hold_within_one_percent_on_20000_photos():
    found = splits(20_000, SplitFractions(0.1, 0.2))
    for split, fraction in (("val", 0.1), ("test", 0.2), ("train", 0.7)):
        assert found.count(split) / len(found) == pytest.approx(fraction, abs=0.01)


def test_no_version_moves_photos_that_a_model_was_trained_on():
    assert content_key(0xDEADBEEF, 12345) == 380739385224193515
    assert [split_of(content_key(crc, 1000), SplitFractions()) for crc in range(12)] == [
        "train", "test", "val", "val", "train", "train",
        "train", "test", "test", "train", "train", "train",
    ]  # fmt: skip


def test_a_group_of_copies_is_in_one_split_and_a_photo_without_a_key_in_training():
    keys = [content_key(crc, 1000) for crc in range(300)] + [None]
    labels = [index % 2 for index in range(301)]
    groups = [index // 3 for index in range(301)]
    found = splits_of(keys, labels, SplitFractions(0.3, 0.3), groups)
    assert all(len(set(found[start : start + 3])) == 1 for start in range(0, 300, 3))
    assert set(found) == {"train", "val", "test"}
    assert found[-1] == "train"


def test_a_class_of_three_photos_has_one_in_each_split():
    for first in range(20):
        keys = [content_key(crc, 1000) for crc in range(first, first + 103)]
        labels = [0] * 100 + [1] * 3
        found = splits_of(keys, labels, SplitFractions())
        assert sorted(found[100:]) == ["test", "train", "val"]


def test_no_version_moves_photos_of_small_classes():
    """2,000 classes of 5 photos, most without one in some split; copies across classes too."""
    keys = [content_key(index * 2654435761 % 2**32, 1000) for index in range(10_000)]
    labels = [index % 2000 for index in range(10_000)]
    copies = [index * index % 9973 for index in range(10_000)]
    found = [splits_of(keys, labels, SplitFractions(), groups) for groups in (None, copies)]
    text = " ".join(split for splits in found for split in splits)
    assert hashlib.blake2b(text.encode(), digest_size=8).hexdigest() == "49536fdd72050464"


def test_a_larger_validation_fraction_moves_no_test_photo():
    keys = [content_key(crc, 77) for crc in range(3000)]
    small = {key for key in keys if split_of(key, SplitFractions(0.1, 0.2)) == "test"}
    large = {key for key in keys if split_of(key, SplitFractions(0.4, 0.2)) == "test"}
    assert small == large


@pytest.mark.parametrize(("val", "test"), [(-0.1, 0.2), (0.5, 0.5), (0.1, 1.0), (1.2, 0.0)])
def test_fractions_that_leave_nothing_to_train_on_are_refused(val, test):
    with pytest.raises(CatordogError, match="nothing to train on"):
        SplitFractions(val, test)
