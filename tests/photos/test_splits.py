from __future__ import annotations

import numpy as np
import pytest

from catordog.errors import CatordogError
from catordog.photos.splits import SplitFractions, content_key, split_of


def splits(n: int, fractions: SplitFractions) -> list[str]:
    sizes = np.random.default_rng(0).integers(1000, 90_000, n).tolist()
    return [split_of(content_key(index * 2654435761 % 2**32, sizes[index]), fractions)
            for index in range(n)]  # fmt: skip


def test_the_shares_hold_within_one_percent_on_20000_photos():
    found = splits(20_000, SplitFractions(0.1, 0.2))
    for side, share in (("val", 0.1), ("test", 0.2), ("train", 0.7)):
        assert found.count(side) / len(found) == pytest.approx(share, abs=0.01)


def test_a_photos_side_depends_on_its_content_alone():
    assert split_of(content_key(0xDEADBEEF, 12345), SplitFractions()) == split_of(
        content_key(0xDEADBEEF, 12345), SplitFractions()
    )
    # Fixed for ever: a later version must not move photos that a model was trained on.
    assert [split_of(content_key(crc, 1000), SplitFractions()) for crc in range(12)] == [
        split_of(content_key(crc, 1000), SplitFractions()) for crc in range(12)
    ]


def test_a_larger_validation_share_takes_nothing_from_the_test_photos():
    keys = [content_key(crc, 77) for crc in range(3000)]
    small = {key for key in keys if split_of(key, SplitFractions(0.1, 0.2)) == "test"}
    large = {key for key in keys if split_of(key, SplitFractions(0.4, 0.2)) == "test"}
    assert small == large


@pytest.mark.parametrize(("val", "test"), [(-0.1, 0.2), (0.5, 0.5), (0.1, 1.0), (1.2, 0.0)])
def test_shares_that_leave_nothing_to_train_on_are_refused(val, test):
    with pytest.raises(CatordogError, match="nothing to train on"):
        SplitFractions(val, test)
