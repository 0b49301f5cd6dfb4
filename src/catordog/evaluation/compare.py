"""Compare models on the same held-out photos, with significance: `catordog compare`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from catordog.confidence.wilson import wilson
from catordog.errors import CatordogError
from catordog.evaluation.evaluate import Evaluation, Model, evaluate, model_name
from catordog.evaluation.intervals import bootstrap, centred_interval
from catordog.evaluation.metrics import FEW_PHOTOS, ece_terms
from catordog.model.class_matching import match_classes
from catordog.model.classifier import Classifier, load
from catordog.photos.decode import DEFAULT_RULES, DecodeRules
from catordog.photos.splits import Split

LEVEL = 0.05
"""Differences are significant at this level."""

_RESAMPLES = 2000


@dataclass(frozen=True, slots=True)
class Pair:
    """Two models on the same photos; differences are the second's value minus the first's.

    Attributes:
        first, second: indices of the models.
        n: the number of photos.
        accuracy_difference: −1…1.
        accuracy_ci95: its exact 95 % interval, which excludes 0 just where McNemar's test is
            significant.
        nll_difference: of the loss, in nats.
        nll_ci95: its 95 % interval, by the paired bootstrap.
        ece_difference: of the expected calibration error, −1…1.
        ece_ci95: its 95 % interval, by the paired bootstrap.
        only_first: photos that only the first gets right.
        only_second: photos that only the second gets right.
        mcnemar_p: the probability that equally accurate models differ this much by chance, 0…1
            (McNemar 1947, the exact test).
    """

    first: int
    second: int
    n: int
    accuracy_difference: float
    accuracy_ci95: tuple[float, float]
    nll_difference: float
    nll_ci95: tuple[float, float]
    ece_difference: float
    ece_ci95: tuple[float, float]
    only_first: int
    only_second: int
    mcnemar_p: float

    @property
    def discordant(self) -> int:
        """How many photos one model gets right and the other wrong."""
        return self.only_first + self.only_second

    @property
    def accuracies_differ(self) -> bool:
        """Whether the accuracies differ significantly."""
        return self.mcnemar_p < LEVEL

    @property
    def losses_differ(self) -> bool:
        """Whether the losses differ significantly."""
        return self.n >= FEW_PHOTOS and _excludes_0(self.nll_ci95)

    @property
    def calibrations_differ(self) -> bool:
        """Whether the calibration errors differ significantly."""
        return self.n >= FEW_PHOTOS and _excludes_0(self.ece_ci95)


@dataclass(frozen=True, slots=True)
class Comparison:
    """Several models on the same photos.

    Attributes:
        results: an evaluation of each model, all of the same photos in the same order.
        pairs: every two of them.
        disagreements: indices of the photos on which they disagree, the most confident first.
    """

    results: list[Evaluation]
    pairs: list[Pair]
    disagreements: list[int]

    def to_dict(self) -> dict[str, Any]:
        """The content of `catordog compare --json`; fractions, not percent."""
        names = [result.model for result in self.results]
        first = self.results[0]
        return {
            "n": first.metrics.n,
            "models": [
                {
                    "model": result.model,
                    **result.metrics.values,
                    "accuracy_ci95": result.metrics.accuracy_ci95,
                    "temperature": result.temperature,
                }
                for result in self.results
            ],
            "mcnemar_p": self.pairs[0].mcnemar_p,
            "pairs": [
                {
                    "models": [names[pair.first], names[pair.second]],
                    "accuracy_difference": pair.accuracy_difference,
                    "accuracy_ci95": pair.accuracy_ci95,
                    "nll_difference": pair.nll_difference,
                    "nll_ci95": pair.nll_ci95,
                    "ece_difference": pair.ece_difference,
                    "ece_ci95": pair.ece_ci95,
                    "only_first": pair.only_first,
                    "only_second": pair.only_second,
                    "mcnemar_p": pair.mcnemar_p,
                }
                for pair in self.pairs
            ],
            "disagreements": [
                {
                    "path": first.photos[index].path,
                    "label": first.classes[int(first.labels[index])],
                    "said": [one.classes[int(one.predicted[index])] for one in self.results],
                    "confidence": [float(one.confidence[index]) for one in self.results],
                }
                for index in self.disagreements
            ],
        }


def compare(
    models: Sequence[Model],
    data: str,
    split: Split | Literal["all"] = "test",
    *,
    exclude: str | None = None,
    decisions: str | None = None,
    rules: DecodeRules = DEFAULT_RULES,
) -> Comparison:
    """Predict the same photos with several models, and test their differences.

    Args:
        models: two or more, each as in `evaluate`.
        data: as in `open_dataset`.
        split: which photos.
        exclude: a CSV file with a column `path`: photos to leave out.
        decisions: a file of decisions: labels to replace, photos to leave out.
        rules: which photos are decoded.

    Raises:
        CatordogError: there are fewer than two models; or they know different classes (the order
            may differ, and so may case and a final s, as in `match_classes`); or they
            were trained on different splits, so that one was trained on photos that are held out
            from another.
    """
    if len(models) < 2:
        raise CatordogError(f"compare needs two or more models, and got {len(models)}")
    classifiers = [model if isinstance(model, Classifier) else load(model) for model in models]
    first = classifiers[0].classes
    names = [model_name(model) for model in models]
    orders = _check_comparable(names, classifiers, split)
    results = [
        _in_order(
            evaluate(
                one, data, split, exclude=exclude, decisions=decisions, rules=rules, name=name
            ),
            order,
            first,
        )
        for name, one, order in zip(names, classifiers, orders, strict=True)
    ]
    predicted = np.stack([result.predicted for result in results])
    highest = np.stack([result.confidence for result in results]).max(axis=0)
    differ = np.flatnonzero((predicted != predicted[0]).any(axis=0))
    order = differ[np.argsort(-highest[differ], kind="stable")]
    pairs = [
        compare_pair(results[i], results[j], i, j) for i, j in combinations(range(len(results)), 2)
    ]
    return Comparison(results, pairs, order.tolist())


def _check_comparable(
    names: Sequence[str], classifiers: Sequence[Classifier], split: str
) -> list[list[int]]:
    """For each model, the index of each class of the first model among its own."""
    first, orders = classifiers[0], []
    for name, other in zip(names, classifiers, strict=True):
        order = _order(first.classes, other.classes)
        if order is None:
            raise CatordogError(
                f"{name} knows {', '.join(other.classes)}, and {names[0]} knows "
                f"{', '.join(first.classes)}: models of different classes can't be compared"
            )
        if other.model.split_fractions != first.model.split_fractions and split != "all":
            raise CatordogError(
                f"{name} and {names[0]} held out different photos "
                f"({other.model.split_fractions} and {first.model.split_fractions}), so one was "
                "trained on photos that test the other: give photos that neither was trained on, "
                "with --split all"
            )
        orders.append(order)
    return orders


def _order(first: tuple[str, ...], other: tuple[str, ...]) -> list[int] | None:
    """The index of each class of one model among those of another; None if they differ."""
    try:
        order = match_classes(first, other, "the first model")
    except CatordogError:
        return None
    return order if sorted(order) == list(range(len(other))) else None


def _in_order(result: Evaluation, order: Sequence[int], classes: tuple[str, ...]) -> Evaluation:
    """The same evaluation with the class names of the first model, in their order."""
    if result.classes == classes:
        return result
    labels = np.argsort(order)[result.labels]
    return replace(result, classes=classes, labels=labels, logits=result.logits[:, order])


def compare_pair(one: Evaluation, two: Evaluation, first: int = 0, second: int = 1) -> Pair:
    """Test the differences of two models.

    Args:
        one: the first model's evaluation.
        two: the second model's, of the same photos in the same order.
        first: the index of the first model.
        second: the index of the second model.
    """
    from scipy.stats import binomtest

    n = len(one.labels)
    only_first = int((one.correct & ~two.correct).sum())
    only_second = int((two.correct & ~one.correct).sum())
    discordant = only_first + only_second
    losses = two.losses - one.losses
    terms = [ece_terms(result.confidences, result.labels) for result in (one, two)]
    errors = [float(np.abs(each.mean(axis=0)).sum()) for each in terms]
    draws = bootstrap({"one": terms[0], "two": terms[1]})
    return Pair(
        first=first,
        second=second,
        n=n,
        accuracy_difference=(only_second - only_first) / n,
        accuracy_ci95=accuracy_interval(only_first, only_second, n),
        nll_difference=float(losses.mean()),
        nll_ci95=_mean_interval(losses),
        ece_difference=errors[1] - errors[0],
        ece_ci95=centred_interval(draws["two"] - draws["one"], errors[1] - errors[0]),
        only_first=only_first,
        only_second=only_second,
        mcnemar_p=float(binomtest(only_first, discordant, 0.5).pvalue) if discordant else 1.0,
    )


def accuracy_interval(only_first: int, only_second: int, n: int) -> tuple[float, float]:
    """The exact 95 % interval of a difference of accuracies, given the discordant photos.

    The fraction of discordant photos that the second model gets right has a Clopper-Pearson
    interval. It excludes one half just where the exact McNemar test is significant, so interval and
    test never contradict each other. Without discordant photos, the interval is what n photos
    allow for their fraction.

    >>> accuracy_interval(5, 0, 6)[1] > 0  # five photos to none can be chance
    True
    >>> accuracy_interval(6, 0, 6)[1] < 0
    True
    """
    from scipy.stats import binomtest

    discordant = only_first + only_second
    if not discordant:
        most = wilson(0, n)[1]
        return -most, most
    exact = binomtest(only_second, discordant).proportion_ci(1 - LEVEL, method="exact")
    fraction = discordant / n
    return float(2 * exact.low - 1) * fraction, float(2 * exact.high - 1) * fraction


def _mean_interval(differences: npt.NDArray[np.float64], seed: int = 0) -> tuple[float, float]:
    """The 95 % bootstrap interval of a mean."""
    generator = np.random.default_rng(seed)
    n = len(differences)
    means = [differences[generator.integers(0, n, n)].mean() for _ in range(_RESAMPLES)]
    low, high = np.quantile(means, (0.025, 0.975))
    return float(low), float(high)


def _excludes_0(interval: tuple[float, float]) -> bool:
    low, high = interval
    return low > 0 or high < 0
