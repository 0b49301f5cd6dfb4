"""Optimisers, the learning-rate schedule, and seeds of steps."""

from __future__ import annotations

from typing import get_args

import pytest
import torch

from catordog.model.networks import ResidualNet
from catordog.training.optim import (
    OPTIMIZERS,
    OptimizerName,
    OptimizerSettings,
    build_optimizer,
    learning_rate,
    restarting_schedule,
)
from catordog.training.seeding import step_seed
from catordog.training.transfer import Transfer


def test_the_learning_rate_rises_linearly_then_falls_to_0_along_a_cosine():
    rates = [learning_rate(step, 200, 0.2) for step in range(201)]
    assert rates[39] < rates[40] == 1.0
    assert rates[:41] == sorted(set(rates[:41]))
    assert rates[40:] == sorted(set(rates[40:]), reverse=True)
    assert rates[120] == pytest.approx(0.5)
    assert rates[200] == pytest.approx(0)


def test_without_a_last_step_the_learning_rate_stays_at_its_peak():
    assert learning_rate(10, float("inf"), 0.2) < 0.1
    assert learning_rate(10_000, float("inf"), 0.2) == 1.0


def test_the_schedule_restarts_when_the_head_no_longer_learns_alone():
    factor = restarting_schedule(100, 40, 0.1)
    assert factor(39) < 0.05
    assert factor(46) == 1.0
    assert restarting_schedule(100, 0, 0.1)(30) == learning_rate(30, 100, 0.1)


def test_every_name_has_an_optimiser():
    assert set(OPTIMIZERS) == set(get_args(OptimizerName))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimiser_lowers_the_loss_and_decays_weights_only(name):
    torch.manual_seed(0)
    network = ResidualNet(2, widths=(8, 16), blocks=(1, 1))
    settings = OptimizerSettings(lr=0.02, weight_decay=0.1)
    optimizer = build_optimizer(name, network, network.head, Transfer(), settings)
    groups = optimizer.param_groups
    assert sum(len(group["params"]) for group in groups) == len([*network.parameters()])
    decayed = [p for group in groups if group["weight_decay"] for p in group["params"]]
    assert decayed
    assert all(p.ndim > 1 for p in decayed)
    photos, labels = torch.randn(16, 3, 32, 32), torch.arange(16) % 2
    losses = []
    for _ in range(20):
        loss = torch.nn.functional.cross_entropy(network(photos), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.9 * losses[0]


def test_seeds_differ_between_steps_and_streams():
    seeds = [step_seed(0, 1), step_seed(0, 2), step_seed(1, 1), step_seed(0, 1, 0, 1)]
    assert len(set(seeds)) == 4
    assert step_seed(0, 1) == seeds[0]
    assert all(0 <= seed < 2**32 for seed in seeds)
