"""A first layer that is computed from photos, and frozen."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from catordog.cli import main
from catordog.errors import CatordogError
from catordog.model.networks import ResidualNet
from catordog.photos.synthetic import draw
from catordog.training.whitening import components, whiten
from training.test_fit import SMALL


@pytest.fixture(scope="module")
def photos() -> torch.Tensor:
    pictures = [torch.from_numpy(np.array(draw(index, 3, size=48).image)) for index in range(60)]
    return (torch.stack(pictures).permute(0, 3, 1, 2).float() / 255 - 0.45) / 0.225


def test_responses_have_equal_variance_and_no_correlation(photos):
    filters = components(photos, (3, 3))
    assert filters.shape == (27, 3, 3, 3)
    responses = F.conv2d(photos, filters, stride=3).transpose(0, 1).flatten(1)
    assert torch.allclose(responses[:8].cov(), torch.eye(8), atol=0.03)
    raw = F.unfold(photos, 3, stride=3).transpose(0, 1).flatten(1).corrcoef()
    assert (raw - torch.eye(27)).abs().mean() > 0.5  # unlike the pixels
    assert (responses.cov().diagonal().diff() < 0.01).all()  # the strongest first


def test_the_strongest_components_and_their_negatives_are_filters(photos):
    network = ResidualNet(2)
    whiten(network, photos)
    weight = network.stem[0].weight
    assert torch.equal(weight[:16], components(photos, (3, 3))[:16])
    assert torch.equal(weight[16:], -weight[:16])
    assert not weight.requires_grad
    assert all(p.requires_grad for p in network.parameters() if p is not weight)


def test_surplus_filters_keep_their_weights(photos):
    network = ResidualNet(2, widths=(64, 64), blocks=(1, 1))
    surplus = network.stem[0].weight[54:].clone()
    whiten(network, photos)
    assert torch.equal(network.stem[0].weight[27:54], -network.stem[0].weight[:27])
    assert torch.equal(network.stem[0].weight[54:], surplus)


def test_rounding_of_pixels_to_8_bits_does_not_dominate_any_response():
    generator = torch.Generator().manual_seed(0)
    walk = torch.randn(8, 3, 96, 96, generator=generator).cumsum(2).cumsum(3)  # smooth, as photos
    smooth = F.avg_pool2d(walk - walk.mean((2, 3), keepdim=True), 5, 1)
    levels = (128 + 40 * smooth / smooth.std((1, 2, 3), keepdim=True)).clamp(0, 255)
    exact, rounded = ((each / 255 - 0.45) / 0.225 for each in (levels, levels.round()))
    network = ResidualNet(2)
    whiten(network, rounded)
    with torch.no_grad():
        changes = network.stem(exact) - network.stem(rounded)  # batch norm makes variances 1
    assert changes.square().mean((0, 2, 3)).sqrt().max() < 0.5


@pytest.mark.parametrize(
    "network", [nn.Linear(3, 2), nn.Conv2d(1, 8, 3), nn.Conv2d(3, 6, 3, groups=3)]
)
def test_a_network_without_a_first_convolution_of_photos_is_refused(network, photos):
    with pytest.raises(
        CatordogError, match="does not begin with a convolution of three input channels"
    ):
        whiten(network, photos)


@pytest.mark.slow
def test_a_run_freezes_its_first_layer_and_trains_the_others(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = [*SMALL, "--model.whiten", "true", "--trainer.max_epochs", "2"]
    words += ["--trainer.callbacks+", "catordog.training.callbacks.MovingAverage"]
    found = []
    for seed in ("1", "2"):
        assert main(["train", *words, "--seed_everything", seed]) == 0
        path = f"runs/run/version_{int(seed) - 1}/checkpoints/best.ckpt"
        found.append(torch.load(path, weights_only=True)["state_dict"])
    one, other = found
    assert torch.equal(one["network.stem.0.weight"], other["network.stem.0.weight"])
    for name in ("network.stem.1.weight", "network.head.weight"):
        assert not torch.equal(one[name], other[name])


def test_pretrained_filters_are_not_replaced(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    torch.save(ResidualNet(2).state_dict(), "pretrained.pth")
    words = ["--data", "drawn:n=100,size=32", "--model.whiten", "true"]
    assert main(["train", *words, "--model.weights", "pretrained.pth"]) == 2
    assert "would replace pretrained filters" in capsys.readouterr().err
