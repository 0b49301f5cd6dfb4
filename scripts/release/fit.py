"""Train what the bundled model has learnt: the branch for cats and dogs, and the first stage."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from release.features import SMALL, Arrays, export, normalised, session
from release.networks import CUT, FIRST_CUT, MIX, Branch, Evidence, Trunk, pretrained
from release.sources import KAGGLE, NEITHER, THINGS, UNSEEN, Row
from release.views import View

Floats = npt.NDArray[np.float32]

BATCH = 64

IMPOSSIBLE = 4.0
"""The teacher's loss above which a label is not learnt."""


@dataclass(frozen=True, eq=False)
class Views:
    """What is known of N views, `[N]` each: `label`, `source`, `split`, and whether `whole`."""

    label: npt.NDArray[np.int64]
    source: npt.NDArray[np.str_]
    split: npt.NDArray[np.str_]
    whole: npt.NDArray[np.bool_]
    animal: npt.NDArray[np.bool_]

    @classmethod
    def of(cls, rows: list[Row], views: list[View]) -> Views:
        """The columns of all views."""
        chosen = [rows[index] for index, _ in views]
        return cls(
            np.array([row.label for row in chosen]),
            np.array([row.source for row in chosen]),
            np.array([row.split for row in chosen]),
            np.array([view == 0 for _, view in views]),
            np.array([row.is_animal for row in chosen]),
        )

    @property
    def pet(self) -> npt.NDArray[np.bool_]:
        """Whether a view shows a cat or dog."""
        return self.label != NEITHER

    @property
    def trained(self) -> npt.NDArray[np.bool_]:
        """Whether a view is for training."""
        return (self.split == "train") & ~np.isin(self.source, UNSEEN)


@dataclass(frozen=True, eq=False)
class Teacher:
    """What a network is taught to answer. The first is linear classifiers on the frozen features.

    Attributes:
        logits: of cat and dog for all views, `[N, 2]`.
        pet: raw logit of "cat or dog", `[N]`.
        weight, bias: of the logits on the features as they are, `[1280, 2]` and `[2]`.
        spread: standard deviation of `pet` before it was scaled to one of 3.
    """

    logits: Floats
    pet: Floats
    weight: Floats
    bias: Floats
    spread: float


def logistic_regression(
    x: Floats,
    y: npt.NDArray[np.int64] | Floats,
    decay: float,
    weights: Floats,
    steps: int = 40,
    start: tuple[Floats, Floats] | None = None,
) -> tuple[Floats, Floats]:
    """Multinomial logistic regression with L2, on two classes.

    Args:
        x: inputs, `[N, D]`.
        y: classes, `[N]`, or their probabilities, `[N, 2]`.
        decay: strength of the penalty.
        weights: of the rows, `[N]`.
        steps: of the solver, at most.
        start: weight `[D, 2]`, to which the penalty draws, and bias `[2]`; None: zeros.
    """
    inputs, labels, mass = torch.tensor(x), torch.tensor(y), torch.tensor(weights)
    before, offset = start or (np.zeros((x.shape[1], 2), np.float32), np.zeros(2, np.float32))
    origin = torch.tensor(before).contiguous()
    weight = origin.clone().requires_grad_()
    bias = torch.tensor(offset, requires_grad=True)
    solver = torch.optim.LBFGS(
        [weight, bias], max_iter=steps, history_size=20, line_search_fn="strong_wolfe"
    )

    def loss() -> Tensor:
        solver.zero_grad()
        each = F.cross_entropy(inputs @ weight + bias, labels, reduction="none")
        value = (each * mass).sum() / mass.sum() + decay * (weight - origin).square().sum()
        value.backward()  # type: ignore[no-untyped-call]
        return value

    solver.step(loss)  # type: ignore[arg-type]
    return weight.detach().numpy(), bias.detach().numpy()


def evidence_of(concepts: npt.NDArray[np.float16]) -> Floats:
    """See `networks.Evidence`."""
    result: Floats = Evidence()(torch.tensor(concepts.astype(np.float32))).numpy()
    return result


def fit_evidence(arrays: Arrays, views: Views) -> tuple[Floats, float]:
    """Weights `[7]` and bias with which the evidence tells cats and dogs from everything else."""
    evidence = evidence_of(arrays.concepts)
    mean, scale = evidence.mean(0), evidence.std(0)
    weight, bias = logistic_regression(
        ((evidence - mean) / scale)[views.trained], views.pet[views.trained].astype(np.int64),
        1e-3, balance(views),
    )  # fmt: skip
    direction = (weight[:, 1] - weight[:, 0]) / scale
    return direction, float(bias[1] - bias[0] - direction @ mean)


def everyday_concepts(arrays: Arrays, views: Views) -> Floats:
    """The mean confidence in each of ImageNet's classes on photos of things, `[1000]`."""
    rows = views.trained & views.whole & (views.source == THINGS[0]) & ~views.animal
    logits = torch.tensor(arrays.concepts[rows].astype(np.float32))
    result: Floats = logits.softmax(1).mean(0).numpy()
    return result


def balance(views: Views) -> Floats:
    """Weights of the training views: as much for pets as for the rest; small sources count more."""
    pet = views.pet[views.trained]
    mass = np.where(pet, 1 / pet.sum(), 1 / (~pet).sum())
    mass[pet & (views.source[views.trained] != KAGGLE)] *= 8
    return mass.astype(np.float32)


def fit_teacher(arrays: Arrays, views: Views) -> Teacher:
    """Fit the linear classifiers."""
    features = arrays.features.astype(np.float32)
    mean, scale = features.mean(0), features.std(0) + 1e-2
    x = (features - mean) / scale
    rows = views.trained & views.pet
    mass = np.where(views.source == KAGGLE, 1, 3).astype(np.float32)
    weight, bias = logistic_regression(x[rows], views.label[rows], 3e-2, mass[rows])
    evidence = evidence_of(arrays.concepts)
    direction, offset = fit_evidence(arrays, views)
    inputs = np.concatenate([x, 3 * (evidence - evidence.mean(0)) / evidence.std(0)], 1)
    w, b = logistic_regression(
        inputs[views.trained], views.pet[views.trained].astype(np.int64), 1e-1, balance(views)
    )
    both = inputs @ (w[:, 1] - w[:, 0]) + b[1] - b[0] + evidence @ direction + offset
    return Teacher(
        logits=x @ weight + bias,
        pet=(3 * both / both.std()).astype(np.float32),
        weight=weight / scale[:, None],
        bias=bias - (mean / scale) @ weight,
        spread=float(both.std()),
    )


def combine(arrays: Arrays, views: Views, branch: Branch) -> tuple[Floats, float]:
    """Weights `[8]` and bias of the branch's "cat or dog" and the evidence, each by its spread."""
    direction, offset = fit_evidence(arrays, views)
    rows = np.flatnonzero(views.trained & views.whole)
    rows = np.sort(np.random.default_rng(5).permutation(rows)[:4000])
    with torch.no_grad():
        pet = torch.cat(
            [
                branch.eval()(torch.tensor(arrays.middle[part].astype(np.float32)))[1]
                for part in np.array_split(rows, len(rows) // BATCH)
            ]
        )
    spread = float((evidence_of(arrays.concepts[rows]) @ direction).std())
    weight = np.concatenate([[1 / float(pet.std())], direction / spread]).astype(np.float32)
    return weight, offset / spread


def answers(
    arrays: Arrays, branch: Branch, teacher: Teacher, weight: Floats, bias: float
) -> Teacher:
    """What the large network answers, as the teacher of the small one.

    Args:
        arrays: outputs of its frozen parts.
        branch: trained.
        teacher: the linear classifiers.
        weight: see `combine`.
        bias: likewise.
    """
    parts = np.array_split(np.arange(len(arrays.middle)), len(arrays.middle) // BATCH)
    with torch.no_grad():
        found = [branch.eval()(torch.tensor(arrays.middle[p].astype(np.float32))) for p in parts]
    logits, pet = (torch.cat(column).numpy() for column in zip(*found, strict=True))
    both = np.concatenate([pet[:, None], evidence_of(arrays.concepts)], 1) @ weight + bias
    return Teacher(
        logits=(1 - MIX) * logits + MIX * teacher.logits,
        pet=(3 * both / both.std()).astype(np.float32),
        weight=teacher.weight,
        bias=teacher.bias,
        spread=float(both.std()),
    )


def losses(logits: Floats, labels: npt.NDArray[np.int64]) -> Floats:
    """Negative log-likelihood, `[N]`."""
    result: Floats = F.cross_entropy(
        torch.tensor(logits), torch.tensor(labels), reduction="none"
    ).numpy()
    return result


def fit_branch(arrays: Arrays, views: Views, teacher: Teacher) -> Branch:
    """Fine-tune the branch of Lite2, on the half of the views that teaches most."""
    branch = Branch(pretrained(2), CUT, 2, fold=True)
    branch.out.weight.data[:2, :1280] = torch.tensor(teacher.weight.T)
    branch.out.bias.data[:2] = torch.tensor(teacher.bias)
    middle = np.array(arrays.middle)
    order = _order(views, teacher, epochs=3, hard=0.5)
    return _train(
        branch, lambda rows: torch.tensor(middle[rows].astype(np.float32)), order, views, teacher,
        rate=3e-4, soft=0.3,
    )  # fmt: skip


def fit_first_stage(
    arrays: Arrays, views: Views, teacher: Teacher, work: Path
) -> tuple[Trunk, Branch]:
    """Train the small network: Lite0 from block `FIRST_CUT` on; the blocks before it are frozen."""
    trunk, branch = (
        Trunk(pretrained(0), FIRST_CUT),
        Branch(pretrained(0), FIRST_CUT, 1, fold=False),
    )
    _renew_norms(trunk, arrays.small)
    path = work / "first-trunk.onnx"
    export(trunk, path, SMALL, ["middle"])
    network = session(path)
    middle = np.concatenate(
        [
            network.run(None, {"photos": normalised(arrays.small[start : start + BATCH])})[0]
            for start in range(0, len(arrays.small), BATCH)
        ],
        dtype=np.float16,
        casting="same_kind",
    )
    order = _order(views, teacher, epochs=4, hard=1)
    trained = _train(
        branch, lambda rows: torch.tensor(middle[rows].astype(np.float32)), order, views, teacher,
        rate=1.5e-3, soft=0.5,
    )  # fmt: skip
    return trunk, trained


def _renew_norms(trunk: Trunk, small: npt.NDArray[np.uint8]) -> None:
    """Estimate the statistics of the batch norms again, on small photos (Li et al. 2016)."""
    for module in trunk.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None
            module.reset_running_stats()
    rng = np.random.default_rng(0)
    trunk.train()
    with torch.no_grad():
        for _ in range(30):
            rows = np.sort(rng.choice(len(small), BATCH, replace=False))
            trunk(torch.tensor(normalised(small[rows])))
    trunk.eval()


def _order(views: Views, teacher: Teacher, epochs: int, hard: float) -> npt.NDArray[np.int64]:
    """Rows in the order of training; small sources twice.

    Args:
        views: all of them.
        teacher: its loss tells which views are hard.
        epochs: how often each view is seen.
        hard: the fraction of the views that are seen in an epoch: 70 % of them the hardest, the
            others at random; 1: all.
    """
    rng = np.random.default_rng(1)
    rows = np.where(views.trained)[0]
    sign = np.where(views.pet, 1, -1)
    score = np.log1p(np.exp(-sign * teacher.pet))
    score[views.pet] += losses(teacher.logits[views.pet], views.label[views.pet])
    twice = views.pet & (views.source != KAGGLE)
    parts = []
    for _ in range(epochs):
        chosen = rows
        if hard < 1:
            most = int(len(rows) * hard * 0.7)
            ranked = rows[np.argsort(-score[rows])]
            others = rng.choice(ranked[most:], int(len(rows) * hard * 0.3), replace=False)
            chosen = np.concatenate([ranked[:most], others])
        parts.append(rng.permutation(np.concatenate([chosen, chosen[twice[chosen]]])))
    return np.concatenate(parts)


@dataclass(frozen=True, eq=False)
class Targets:
    """What networks are trained to answer: the labels, mixed with the teacher's answers.

    A label that the teacher finds all but impossible is not learnt: about 1 in 300 is wrong.

    Attributes:
        pet: whether a view shows a cat or dog, `[N]`.
        label: of cats and dogs, `[N]`.
        possible: whether the teacher finds the label possible, `[N]`.
        answers: the teacher's confidences, `[N, 2]`.
        pets: the teacher's confidence that it is a cat or dog, `[N]`.
    """

    pet: Tensor
    label: Tensor
    possible: Tensor
    answers: Tensor
    pets: Tensor

    @classmethod
    def of(cls, views: Views, teacher: Teacher, temperature: float) -> Targets:
        """The targets of all views; `temperature` is the teacher's."""
        return cls.from_answers(
            torch.tensor(views.label),
            torch.tensor(teacher.logits),
            torch.tensor(teacher.pet),
            temperature,
        )

    @classmethod
    def from_answers(
        cls, label: Tensor, logits: Tensor, pet: Tensor, temperature: float = 1.0
    ) -> Targets:
        """The targets of N views.

        Args:
            label: CAT, DOG or NEITHER, `[N]`.
            logits: of the teacher, `[N, 2]`.
            pet: its raw logit of "cat or dog", `[N]`.
            temperature: of its logits.
        """
        is_pet = label != NEITHER
        known = torch.where(is_pet, label, 0)
        impossible = is_pet & (F.cross_entropy(logits, known, reduction="none") > IMPOSSIBLE)
        answers = (logits / temperature).softmax(1).float()
        return cls(is_pet, known, ~impossible, answers, pet.sigmoid())

    def loss(
        self,
        logits: Tensor,
        pet: Tensor,
        rows: npt.NDArray[np.int64] | Tensor,
        soft: float,
        soft_pet: float,
    ) -> Tensor:
        """The loss of a network's outputs.

        Args:
            logits: of cat and dog, `[B, 2]`.
            pet: raw logit of "cat or dog", `[B]`.
            rows: of the views, `[B]`.
            soft: how much the teacher's confidences count in the target of `logits`, 0…1.
            soft_pet: likewise in that of `pet`.
        """
        is_pet = self.pet[rows]
        target = F.one_hot(self.label[rows], 2) * (1 - soft) + soft * self.answers[rows]
        each = -(target * logits.log_softmax(1)).sum(1) * self.possible[rows]
        wanted = is_pet.float() * (1 - soft_pet) + soft_pet * self.pets[rows]
        accept = F.binary_cross_entropy_with_logits(pet, wanted, reduction="none")
        accept = accept * torch.where(is_pet, 1.0, 2.0)
        return (each * is_pet).sum() / is_pet.sum().clamp(min=1) + 0.5 * accept.mean()


def optimiser_of(network: nn.Module, rate: float) -> torch.optim.Optimizer:
    """AdamW that does not decay biases and norms."""
    decayed = [value for value in network.parameters() if value.ndim > 1]
    others = [value for value in network.parameters() if value.ndim <= 1]
    return torch.optim.AdamW(
        [{"params": decayed, "weight_decay": 0.05}, {"params": others, "weight_decay": 0}], lr=rate
    )


def set_rate(optimiser: torch.optim.Optimizer, rate: float, step: int, steps: int) -> None:
    """Set the learning rate of a step: 100 steps of warm-up, and a cosine."""
    for group in optimiser.param_groups:
        warm = min(1, (step + 1) / 100)
        group["lr"] = rate * warm * 0.5 * (1 + math.cos(math.pi * step / steps))


def follow(average: nn.Module, network: nn.Module, kept: float) -> None:
    """Move the average of the weights towards those of now."""
    with torch.no_grad():
        for mean, value in zip(average.parameters(), network.parameters(), strict=True):
            mean.lerp_(value, 1 - kept)
        for mean, value in zip(average.buffers(), network.buffers(), strict=True):
            mean.copy_(value)


def _train(
    network: Branch,
    inputs: Callable[[npt.NDArray[np.int64]], Tensor],
    order: npt.NDArray[np.int64],
    views: Views,
    teacher: Teacher,
    *,
    rate: float,
    soft: float,
) -> Branch:
    """Train with AdamW and a cosine schedule; return the moving average of the weights.

    Args:
        network: to train.
        inputs: of rows.
        order: rows in the order of training.
        views: all of them.
        teacher: the linear classifiers.
        rate: the highest learning rate.
        soft: how much the teacher's answers count, 0…1.
    """
    torch.manual_seed(0)
    network = network.to(memory_format=torch.channels_last)
    targets = Targets.of(views, teacher, temperature=0.8)
    optimiser = optimiser_of(network, rate)
    average = copy.deepcopy(network).eval()
    network.train()
    steps = len(order) // BATCH
    begun, total = time.monotonic(), 0.0
    for step in range(steps):
        set_rate(optimiser, rate, step, steps)
        rows = np.sort(order[step * BATCH : (step + 1) * BATCH])
        logits, pet = network(inputs(rows).to(memory_format=torch.channels_last))
        loss = targets.loss(logits, pet, rows, soft, soft)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(network.parameters(), 2.0)
        optimiser.step()
        follow(average, network, min(0.999, (step + 1) / (step + 20)))
        total += loss.item()
        if step % 100 == 99:
            speed = (step + 1) * BATCH / (time.monotonic() - begun)
            print(f"step {step + 1} of {steps}: loss {total / 100:.4f}, {speed:.0f} views/s")
            total = 0.0
    return average
