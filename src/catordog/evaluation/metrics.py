"""How good a set of logits is, and how true the confidences that softmax makes of them."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from catordog.confidence.softmax import softmax
from catordog.evaluation.intervals import wilson

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
        ece_equal_mass: the same, with bins that hold equally many photos (Nixon et al. 2019).
        classwise_ece: the mean over classes of the same for each class's confidence, 15
            equal-width bins (Kull et al. 2019).
        aurc: area under the risk-coverage curve, the mean error among the surest 1, 2, … N photos,
            0…1 (Geifman et al. 2019). 0 is perfect.
        auroc: area under the ROC curve; of the second class where there are two, else the mean of
            each against the rest. None where a class has no photo.
        coverage_at: for each accuracy aimed at, the largest share of photos, taken from the most
            confident on, that reaches it.
        confusion: photos by true class, then by predicted class.
        ci95: 95 % bootstrap intervals of `nll`, `brier` and the calibration errors.
    """

    n: int
    accuracy: float
    accuracy_ci95: tuple[float, float]
    nll: float
    brier: float
    ece: float
    ece_equal_mass: float
    classwise_ece: float
    auroc: float | None
    aurc: float
    coverage_at: dict[str, float]
    confusion: dict[str, dict[str, int]]
    ci95: dict[str, tuple[float, float]]

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
    confusion = tm.confusion_matrix(scaled, y, task="multiclass", num_classes=count)
    right = int(confusion.diagonal().sum())
    n = len(labels)
    # From the logits and not from the confidences: log(1e-400) is still a number.
    losses = torch.nn.functional.cross_entropy(scaled, y, reduction="none").numpy()
    truth = _Truth(confidences, np.asarray(labels), losses)
    return Metrics(
        n=n,
        accuracy=right / n,
        accuracy_ci95=wilson(right, n),
        **truth.figures(),
        auroc=_auroc(scaled, p, y),
        aurc=float(risk_coverage(confidences, np.asarray(labels))[1].mean()),
        coverage_at=coverage(confidences, np.asarray(labels)),
        confusion={
            true: {said: int(confusion[i, j]) for j, said in enumerate(classes)}
            for i, true in enumerate(classes)
        },
        ci95=truth.intervals(),
    )


def calibration_error(
    confidences: npt.NDArray[np.float64], labels: npt.NDArray[np.integer[Any]]
) -> float:
    """The expected calibration error alone (see `Metrics.ece`)."""
    confidence = confidences.max(axis=1)
    gap = confidence - (confidences.argmax(axis=1) == labels)
    return float(np.abs(_spread(gap, equal_width(confidence)).mean(axis=0)).sum())


class _Truth:
    """Figures that are sums over photos, or over bins of photos: so they can be drawn again."""

    def __init__(
        self,
        confidences: npt.NDArray[np.float64],
        labels: npt.NDArray[np.integer[Any]],
        losses: npt.NDArray[np.float64],
    ) -> None:
        n, count = confidences.shape
        one_hot = np.eye(count)[labels]
        best = confidences.argmax(axis=1)
        confidence = confidences[np.arange(n), best]
        gap = confidence - (best == labels)
        # Each column is a value of each photo; its name says which figure it adds to.
        self.columns: dict[str, npt.NDArray[np.float64]] = {
            "nll": losses[:, None],
            "brier": ((confidences - one_hot) ** 2).sum(axis=1, keepdims=True),
            "ece": _spread(gap, equal_width(confidence)),
            "ece_equal_mass": _spread(gap, equal_mass(confidence)),
            "classwise_ece": np.concatenate(
                [
                    _spread(confidences[:, i] - one_hot[:, i], equal_width(confidences[:, i]))
                    for i in range(count)
                ],
                axis=1,
            )
            / count,
        }
        self.n = n

    def figures(self) -> dict[str, float]:
        everyone = np.full((1, self.n), 1 / self.n)
        return {name: float(values[0]) for name, values in self._of(everyone).items()}

    def intervals(self, seed: int = 0) -> dict[str, tuple[float, float]]:
        """Percentile intervals over photos that are drawn again and again (Efron 1979).

        A calibration error is larger among photos that are drawn twice, as chance gaps don't
        average out; so the draws are moved until their mean is the figure itself.
        """
        generator = np.random.default_rng(seed)
        draws = RESAMPLES if self.n <= 50_000 else RESAMPLES // 5
        at_once = max(1, 4_000_000 // self.n)
        found: dict[str, list[npt.NDArray[np.float64]]] = {name: [] for name in self.columns}
        for start in range(0, draws, at_once):
            rounds = min(at_once, draws - start)
            times = generator.multinomial(self.n, np.full(self.n, 1 / self.n), rounds)
            for name, values in self._of(times / self.n).items():
                found[name].append(values)
        intervals = {}
        figures = self.figures()
        for name, parts in found.items():
            drawn = np.concatenate(parts)
            low, high = np.quantile(drawn + (figures[name] - drawn.mean()), (0.025, 0.975))
            intervals[name] = (max(0.0, float(low)), float(high))
        return intervals

    def _of(self, weights: npt.NDArray[np.float64]) -> dict[str, npt.NDArray[np.float64]]:
        """Each figure under several weightings `[R, N]` of the photos, `[R]`."""
        return {
            name: np.abs(weights @ columns).sum(axis=1) for name, columns in self.columns.items()
        }


BINS = 15
RESAMPLES = 1000


def equal_width(confidence: npt.NDArray[np.float64], bins: int = BINS) -> npt.NDArray[np.int64]:
    """The bin of each confidence, 0…bins − 1, each `1/bins` wide and closed above."""
    edges = np.linspace(0, 1, bins + 1)[1:-1]
    return np.searchsorted(edges, confidence, side="left")


def equal_mass(confidence: npt.NDArray[np.float64], bins: int = BINS) -> npt.NDArray[np.int64]:
    """The bin of each confidence, 0…bins − 1, by rank: each holds as many photos as the others."""
    ranks = np.argsort(np.argsort(confidence, kind="stable"), kind="stable")
    return ranks * bins // max(1, len(confidence))


def _spread(
    values: npt.NDArray[np.float64], places: npt.NDArray[np.int64], bins: int = BINS
) -> npt.NDArray[np.float64]:
    """Each photo's value in the column of its bin, `[N, bins]`."""
    columns = np.zeros((len(values), bins))
    columns[np.arange(len(values)), places] = values
    return columns


@dataclass(frozen=True, slots=True)
class Bin:
    """Photos of about the same confidence.

    Attributes:
        n: how many.
        confidence: their mean, 0…1.
        accuracy: the share that is right, 0…1.
        ci95: Wilson's interval of it.
    """

    n: int
    confidence: float
    accuracy: float
    ci95: tuple[float, float]


def reliability(
    confidences: npt.NDArray[np.float64], labels: npt.NDArray[np.integer[Any]]
) -> list[Bin]:
    """The bins of a reliability diagram, equally wide, without the empty ones."""
    best = confidences.argmax(axis=1)
    confidence = confidences.max(axis=1)
    right, places = best == labels, equal_width(confidence)
    found = []
    for place in np.unique(places):
        inside = places == place
        n, good = int(inside.sum()), int(right[inside].sum())
        found.append(Bin(n, float(confidence[inside].mean()), good / n, wilson(good, n)))
    return found


def risk_coverage(
    confidences: npt.NDArray[np.float64], labels: npt.NDArray[np.integer[Any]]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """The error among the surest photos: coverage `[N]`, rising to 1, and the error at each `[N]`.

    Photos of one confidence share the mean error of all that are as sure or surer.
    """
    confidence = confidences.max(axis=1)
    order = np.argsort(-confidence, kind="stable")
    wrong = (confidences.argmax(axis=1) != labels)[order]
    counts = np.arange(1, len(wrong) + 1)
    ranked = confidence[order]
    last = np.searchsorted(-ranked, -ranked, side="right") - 1  # of those with the same confidence
    risk = (np.cumsum(wrong) / counts)[last]
    return counts / len(wrong), risk


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
