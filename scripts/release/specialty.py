"""Teach a small network on the general features to tell cats and dogs from everything else."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from catordog.confidence.specialty import Specialty
from release import calibrate
from release.features import Arrays
from release.fit import Teacher, Views, balance
from release.sources import Row
from release.views import View

NAME = "cats and dogs"

UNITS, DROPOUT, DECAY = 32, 0.3, 0.1
RATE, BATCH, EPOCHS = 2e-3, 512, 12

LARGE, SMOOTHED = 0.9, 0.01
"""How much the large network's answers count beside the labels, and how far these are from 0 and 1.
From labels alone, it took 5 times as many photos of an unseen source for a pet."""


def fit(
    arrays: Arrays, views: Views, teacher: Teacher, rows: list[Row], shown: list[View]
) -> Specialty:
    """Learn from the training views, and rank scores among validation photos of cats and dogs.

    Args:
        arrays: outputs of the frozen networks for all views.
        views: what is known of them.
        teacher: the large network's answers.
        rows: all photos.
        shown: the photo of each view.
    """
    torch.manual_seed(0)
    chosen = np.flatnonzero(views.trained)
    features = arrays.features[chosen].astype(np.float32)
    mean, scale = features.mean(0), features.std(0) + 1e-2
    inputs = torch.tensor((features - mean) / scale)
    mass = balance(views)
    weights = torch.tensor(mass / mass.mean())
    labels = torch.tensor(views.pet[chosen] * (1 - 2 * SMOOTHED) + SMOOTHED, dtype=torch.float32)
    answers = torch.tensor(teacher.pet[chosen]).sigmoid()
    targets = LARGE * answers + (1 - LARGE) * labels
    network = nn.Sequential(
        nn.Linear(inputs.shape[1], UNITS), nn.ReLU(), nn.Dropout(DROPOUT), nn.Linear(UNITS, 1)
    )
    optimiser = torch.optim.AdamW(network.parameters(), RATE, weight_decay=DECAY)
    steps = EPOCHS * len(inputs) // BATCH
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, steps)
    for _ in range(steps):
        batch = torch.randint(0, len(inputs), (BATCH,))
        each = F.binary_cross_entropy_with_logits(
            network(inputs[batch])[:, 0], targets[batch], reduction="none"
        )
        optimiser.zero_grad()
        (each * weights[batch]).mean().backward()
        optimiser.step()
        schedule.step()
    return _ranked(_plain(network, mean, scale), arrays, views, rows, shown)


def _plain(network: nn.Sequential, mean: Any, scale: Any) -> Specialty:
    """The network on features as they are, whose score is high for photos of no pet."""
    first, last = (
        {name: value.detach().numpy() for name, value in network[index].named_parameters()}
        for index in (0, 3)
    )
    weight = (first["weight"] / scale).T
    bias = first["bias"] - mean @ weight
    return Specialty(NAME, weight, bias, -last["weight"][0], calibrate.NO_RANKS)


def _ranked(
    specialty: Specialty, arrays: Arrays, views: Views, rows: list[Row], shown: list[View]
) -> Specialty:
    """With ranks among the validation photos, and weights in the steps of a file."""
    specialty = Specialty.from_dict(specialty.to_dict())
    photos = np.flatnonzero(views.whole & views.pet & (views.split == "val"))
    raw = specialty.raw(arrays.features[photos].astype(np.float32))
    found = calibrate.Measured(
        [rows[shown[index][0]] for index in photos], np.zeros((len(photos), 2), np.float32), raw
    )
    ranks = calibrate.detector_of(found, calibrate.NO_PET)
    return replace(specialty, ranks=ranks)
