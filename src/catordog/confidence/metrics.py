"""How good a set of logits is: figures from torchmetrics, over softmax confidences."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from catordog.confidence.softmax import softmax

if TYPE_CHECKING:
    import torch

COVERAGE_TARGETS = (0.95, 0.99, 0.999)


@dataclass(frozen=True, slots=True)
class Metrics:
    """Figures over N photos; fractions, not percent.

    Attributes:
        n: number of photos.
        accuracy: share of photos whose highest logit is the label's.
        accuracy_ci95: Wilson's 95 % interval of the accuracy.
        nll: mean negative log-likelihood of the label, in nats; the loss. 0 is perfect, and
            log(C) is a coin toss.
        brier: mean squared distance of confidences and truth, summed over classes, 0…2.
        ece: expected calibration error of the winner's confidence, 15 equal-width bins, 0…1
            (Naeini et al. 2015).
        auroc: area under the ROC curve; of the second class where there are two, else the mean of
            each against the rest. None where a class has no photo.
        coverage_at: for each accuracy aimed at, the largest share of photos, taken from the most
            confident on, that reaches it.
        confusion: photos by true class, then by predicted class.
    """

    n: int
    accuracy: float
    accuracy_ci95: tuple[float, float]
    nll: float
    brier: float
    ece: float
    auroc: float | None
    coverage_at: dict[str, float]
    confusion: dict[str, dict[str, int]]

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for JSON."""
        return asdict(self)


def measure(
    logits: npt.NDArray[np.floating[Any]],
    labels: npt.NDArray[np.integer[Any]],
    classes: tuple[str, ...],
    temperature: float = 1.0,
) -> Metrics:
    """Hold logits against the truth.

    Args:
        logits: raw, `[N, C]`, N ≥ 1.
        labels: indices into `classes`, `[N]`.
        classes: names, in the order of the logits.
        temperature: see `softmax`.
    """
    import torch
    from torchmetrics import functional as tm

    count = len(classes)
    confidences = softmax(logits, temperature)
    scaled = torch.from_numpy(np.asarray(logits, dtype=np.float64) / temperature)
    p, y = torch.from_numpy(confidences), torch.from_numpy(np.asarray(labels, dtype=np.int64))
    one_hot = torch.nn.functional.one_hot(y, count).to(p)
    confusion = tm.confusion_matrix(scaled, y, task="multiclass", num_classes=count)
    right = int(confusion.diagonal().sum())
    n = len(labels)
    return Metrics(
        n=n,
        accuracy=right / n,
        accuracy_ci95=wilson(right, n),
        # From the logits and not from the confidences: log(1e-400) is still a number.
        nll=float(torch.nn.functional.cross_entropy(scaled, y)),
        brier=count * float(tm.mean_squared_error(p, one_hot)),
        ece=float(tm.calibration_error(p, y, task="multiclass", num_classes=count, n_bins=15)),
        auroc=_auroc(scaled, p, y),
        coverage_at=coverage(confidences, np.asarray(labels)),
        confusion={
            true: {said: int(confusion[i, j]) for j, said in enumerate(classes)}
            for i, true in enumerate(classes)
        },
    )


def wilson(right: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """The interval that holds the true accuracy in `level` of all cases (Wilson 1927).

    Unlike ±1.96 standard errors it stays within 0…1, also when all or none are right.

    >>> [round(end, 4) for end in wilson(95, 100)]
    [0.8882, 0.9785]
    """
    z = NormalDist().inv_cdf((1 + level) / 2)
    share = right / n
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return max(0.0, middle - half), min(1.0, middle + half)


def coverage(
    confidences: npt.NDArray[np.float64], labels: npt.NDArray[np.integer[Any]]
) -> dict[str, float]:
    """The share of photos that can be answered at each accuracy of `COVERAGE_TARGETS`."""
    confidence = confidences.max(axis=-1)
    order = np.argsort(-confidence, kind="stable")
    right = (confidences.argmax(axis=-1) == labels)[order]
    accuracy = np.cumsum(right) / np.arange(1, len(right) + 1)
    # A threshold takes all photos of one confidence or none: ties end together.
    ranked = confidence[order]
    ends = np.append(ranked[1:] != ranked[:-1], True)
    shares = {}
    for target in COVERAGE_TARGETS:
        reached = np.flatnonzero(ends & (accuracy >= target))
        shares[str(target)] = float((reached[-1] + 1) / len(right)) if len(reached) else 0.0
    return shares


def _auroc(scaled: torch.Tensor, p: torch.Tensor, y: torch.Tensor) -> float | None:
    import torch
    from torchmetrics import functional as tm

    count = p.shape[1]
    if len(set(y.tolist())) < count:
        return None
    if count == 2:
        # Ranks of the margin: confidences of exactly 1 would tie where the logits still differ.
        _, rank = np.unique((scaled[:, 1] - scaled[:, 0]).numpy(), return_inverse=True)
        area = tm.auroc(torch.from_numpy(rank / len(rank)), y, task="binary")
    else:
        area = tm.auroc(p, y, task="multiclass", num_classes=count)
    return None if area is None else float(area)
