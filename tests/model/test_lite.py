"""EfficientNet-Lite2 in torch: the bundled backbone's features, from the file in the package."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from catordog.errors import CatordogError
from catordog.model import lite
from catordog.model.backbone import Backbone
from catordog.model.lite import Lite2
from catordog.model.networks import build_network
from catordog.photos.preprocess import Preprocess
from catordog.photos.synthetic import draw
from model.tiny_backbone import write_backbone


def test_its_features_are_those_of_the_bundled_backbone():
    backbone = Backbone.read()
    size = backbone.preprocess.size
    pixels = np.stack([np.asarray(draw(index, 7, size=size).image) for index in range(3)])
    network = build_network("lite2", 2, weights="DEFAULT", size=size).eval()
    with torch.no_grad():
        features = network.features(torch.from_numpy(Preprocess(size).normalise(pixels)))
    np.testing.assert_allclose(features.numpy(), backbone.features(pixels), atol=1e-3)


def test_it_takes_photos_of_any_size_and_batches_of_one():
    network = Lite2(3)
    assert network(torch.zeros(1, 3, 75, 75)).shape == (1, 3)
    with pytest.raises(CatordogError, match="num_classes = 0"):
        Lite2(0)


def test_weights_of_another_backbone_are_not_taken(tmp_path, monkeypatch):
    monkeypatch.setattr(lite, "BUNDLED", write_backbone(tmp_path))
    with pytest.raises(CatordogError, match="the bundled backbone is not EfficientNet-Lite2"):
        build_network("lite2", 2, weights="DEFAULT", size=64)
