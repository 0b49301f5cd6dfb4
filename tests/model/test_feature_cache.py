"""Features are computed once, and an interrupted run has not computed them in vain."""

from __future__ import annotations

import numpy as np
import pytest

from catordog.model import feature_cache
from catordog.model.backbone import Backbone
from catordog.model.feature_cache import features_of
from catordog.photos.datasets import open_dataset
from catordog.photos.decode import DEFAULT_RULES
from model.tiny_backbone import colours, write_backbone


class Counting(Backbone):
    """A backbone that counts the photos it sees, and can be interrupted after some of them."""

    seen = 0
    until = 10_000

    def features(self, pixels):
        if Counting.seen >= Counting.until:
            raise KeyboardInterrupt
        Counting.seen += len(pixels)
        return super().features(pixels)


def test_an_interrupted_run_keeps_the_features_that_it_has_computed(tmp_path, monkeypatch):
    monkeypatch.setenv("CATORDOG_DATA", str(tmp_path / "data"))
    monkeypatch.setattr(feature_cache, "SAVE_EVERY", 16)
    photos = list(open_dataset(str(colours(tmp_path / "colours", red=30, green=30))).photos)
    backbone = Counting.read(write_backbone(tmp_path))
    monkeypatch.setattr(Counting, "until", 32)
    with pytest.raises(KeyboardInterrupt):
        features_of(photos, backbone, DEFAULT_RULES)
    assert Counting.seen == 32
    monkeypatch.setattr(Counting, "until", 10_000)
    records, found, failures = features_of(photos, backbone, DEFAULT_RULES)
    assert Counting.seen == 60
    assert (found, failures) == (list(range(60)), [])
    again, *_ = features_of(photos, backbone, DEFAULT_RULES)
    assert Counting.seen == 60
    assert np.array_equal(records, again)
