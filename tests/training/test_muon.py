"""Muon: orthogonalised steps for matrices, Nesterov momentum for the rest."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from catordog.training.module import ClassifierModule
from catordog.training.muon import Muon, orthogonal
from catordog.training.optim import OptimizerSettings, build_optimizer
from catordog.training.transfer import Transfer


@pytest.mark.parametrize("shape", [(16, 48), (8, 300), (300, 8), (1, 5)])
@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e4])
def test_all_singular_values_come_out_about_equal(shape, scale):
    torch.manual_seed(0)
    singular = torch.linalg.svdvals(orthogonal(scale * torch.randn(shape)))
    assert (singular > 0.5).all()
    assert (singular < 1.5).all()


def test_singular_vectors_stay():
    torch.manual_seed(0)
    left, _, right = torch.linalg.svd(torch.randn(12, 20), full_matrices=False)
    matrix = left @ torch.diag(torch.linspace(0.5, 1, 12)) @ right
    found = left.T @ orthogonal(matrix) @ right.T
    assert (found.diagonal() > 0.5).all()
    assert (found - found.diagonal().diag()).abs().max() < 0.1


def test_zeros_stay_zeros():
    assert torch.equal(orthogonal(torch.zeros(3, 4)), torch.zeros(3, 4))


def test_other_groups_take_the_steps_of_sgd_with_nesterov_momentum():
    torch.manual_seed(0)
    ours, theirs = nn.Linear(5, 3), nn.Linear(5, 3)
    theirs.load_state_dict(ours.state_dict())
    one = Muon([{"params": ours.parameters()}], lr=0.1, momentum=0.9)
    two = torch.optim.SGD(theirs.parameters(), lr=0.1, momentum=0.9, nesterov=True)
    for _ in range(5):
        photos = torch.randn(4, 5)
        for network, optimizer in ((ours, one), (theirs, two)):
            optimizer.zero_grad()
            network(photos).square().sum().backward()
            optimizer.step()
    assert torch.allclose(ours.weight, theirs.weight, atol=1e-6)


def test_the_last_layer_biases_and_norms_are_not_orthogonalised():
    module = ClassifierModule(["cat", "dog"])
    settings = OptimizerSettings(lr=0.02)
    optimizer = build_optimizer("muon", module.network, module.network.head, Transfer(), settings)
    groups = optimizer.param_groups
    assert [group["orthogonal"] for group in groups] == [True, False, False]
    assert all(weight.ndim == 4 for weight in groups[0]["params"])
    assert [tuple(weight.shape) for weight in groups[1]["params"]] == [(2, 256)]
    assert groups[1]["lr"] == groups[2]["lr"] == pytest.approx(0.1)
    counted = sum(len(group["params"]) for group in groups)
    assert counted == len(list(module.network.parameters()))
