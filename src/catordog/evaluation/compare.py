"""`catordog compare`: several models on the same held-out photos, and which one to trust where."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from catordog.confidence.temperature import log_loss
from catordog.errors import CatordogError
from catordog.evaluation.evaluate import Evaluation, evaluate
from catordog.model.classifier import load
from catordog.photos.decode import DEFAULT_RULES, DecodeRules
from catordog.photos.splits import Split

_RESAMPLES = 2000


@dataclass(frozen=True, slots=True)
class Pair:
    """Two models on the same photos; differences are the second's figure minus the first's.

    Attributes:
        first, second: places of the models.
        accuracy_difference: −1…1.
        accuracy_ci95: its 95 % interval, over photos that are drawn in pairs.
        nll_difference: of the loss, in nats; below 0 the second's confidence is truer.
        nll_ci95: its 95 % interval.
        only_first: photos that only the first gets right.
        only_second: photos that only the second gets right.
        mcnemar_p: how likely a difference of accuracies as large as this is by chance alone, in
            0…1 (McNemar 1947, exact).
    """

    first: int
    second: int
    accuracy_difference: float
    accuracy_ci95: tuple[float, float]
    nll_difference: float
    nll_ci95: tuple[float, float]
    only_first: int
    only_second: int
    mcnemar_p: float

    @property
    def accuracies_differ(self) -> bool:
        """Beyond chance, at 5 %."""
        return self.mcnemar_p < 0.05

    @property
    def confidences_differ(self) -> bool:
        """Beyond chance, at 5 %."""
        low, high = self.nll_ci95
        return low > 0 or high < 0


@dataclass(frozen=True, slots=True)
class Comparison:
    """Several models on the same photos.

    Attributes:
        results: an evaluation of each model; all of the same photos in the same order.
        pairs: every two of them.
        disagreements: places of photos on which they disagree, those first where they are surest.
    """

    results: list[Evaluation]
    pairs: list[Pair]
    disagreements: list[int]

    def to_dict(self) -> dict[str, Any]:
        """The keys of `catordog compare --json`; fractions, not percent."""
        names = [result.model for result in self.results]
        return {
            "n": self.results[0].metrics.n,
            "models": [
                {
                    "model": result.model,
                    "accuracy": result.metrics.accuracy,
                    "accuracy_ci95": result.metrics.accuracy_ci95,
                    "nll": result.metrics.nll,
                    "ece": result.metrics.ece,
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
                    "only_first": pair.only_first,
                    "only_second": pair.only_second,
                    "mcnemar_p": pair.mcnemar_p,
                }
                for pair in self.pairs
            ],
            "disagreements": [
                {
                    "path": self.results[0].photos[place].path,
                    "label": self.results[0].classes[int(self.results[0].labels[place])],
                    "said": [one.classes[int(one.logits[place].argmax())] for one in self.results],
                    "confidence": [
                        float(result.confidences_of(place).max()) for result in self.results
                    ],
                }
                for place in self.disagreements
            ],
        }


def compare(
    models: Sequence[str],
    data: str,
    split: Split | Literal["all"] = "test",
    *,
    exclude: str | None = None,
    rules: DecodeRules = DEFAULT_RULES,
) -> Comparison:
    """Run the same photos through several models.

    Args:
        models: paths of model files, two or more.
        data: as `open_dataset` takes it.
        split: which photos.
        exclude: a CSV file with a column `path`: photos to leave out.
        rules: what is decoded.

    Raises:
        CatordogError: there are fewer than two, or they know other classes, or they were trained
            on other splits, so that one has seen what is held out from another.
    """
    if len(models) < 2:
        raise CatordogError("compare needs two models or more")
    classifiers = [load(model) for model in models]
    first = classifiers[0]
    for model, other in zip(models, classifiers, strict=True):
        if other.classes != first.classes:
            raise CatordogError(
                f"{model} knows {', '.join(other.classes)}, and {models[0]} knows "
                f"{', '.join(first.classes)}: they can't be compared"
            )
        if other.model.split_fractions != first.model.split_fractions and split != "all":
            raise CatordogError(
                f"{model} and {models[0]} held out different photos "
                f"({other.model.split_fractions} and {first.model.split_fractions}), so one was "
                "trained on photos that test the other: give photos that neither has seen, and "
                "--split all"
            )
    results = [
        evaluate(classifier, data, split, model=model, exclude=exclude, rules=rules)
        for model, classifier in zip(models, classifiers, strict=True)
    ]
    said = np.stack([result.logits.argmax(axis=1) for result in results])
    surest = np.stack([result.confidences.max(axis=1) for result in results]).max(axis=0)
    differ = np.flatnonzero((said != said[0]).any(axis=0))
    order = differ[np.argsort(-surest[differ], kind="stable")]
    pairs = [_pair(results, i, j) for i, j in combinations(range(len(results)), 2)]
    return Comparison(results, pairs, order.tolist())


def _pair(results: Sequence[Evaluation], i: int, j: int) -> Pair:
    from scipy.stats import binomtest

    one, two = results[i], results[j]
    right = [result.logits.argmax(axis=1) == result.labels for result in (one, two)]
    only_first = int((right[0] & ~right[1]).sum())
    only_second = int((right[1] & ~right[0]).sum())
    torn = only_first + only_second
    losses = [log_loss(result.confidences, result.labels) for result in (one, two)]
    gains = right[1].astype(float) - right[0]
    return Pair(
        i,
        j,
        float(gains.mean()),
        _interval(gains),
        float((losses[1] - losses[0]).mean()),
        _interval(losses[1] - losses[0]),
        only_first,
        only_second,
        float(binomtest(only_first, torn, 0.5).pvalue) if torn else 1.0,
    )


def _interval(differences: npt.NDArray[np.float64], seed: int = 0) -> tuple[float, float]:
    """The 95 % bootstrap interval of a mean."""
    generator = np.random.default_rng(seed)
    n = len(differences)
    means = [differences[generator.integers(0, n, n)].mean() for _ in range(_RESAMPLES)]
    low, high = np.quantile(means, (0.025, 0.975))
    return float(low), float(high)
