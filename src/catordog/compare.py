"""`catordog compare`: several models on the same held-out photos, and which one to trust where."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from catordog.classifier import load
from catordog.confidence.calibration import log_loss
from catordog.confidence.softmax import honest
from catordog.errors import CatordogError
from catordog.evaluate import Evaluation, evaluate
from catordog.files import write_text
from catordog.photos.decode import DEFAULT_RULES, DecodeRules
from catordog.photos.split import Split
from catordog.terminal import say, table

SHOWN = 8
"""Disagreements that are listed."""

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
        data: as `open_data` takes it.
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
        if other.model.fractions != first.model.fractions and split != "all":
            raise CatordogError(
                f"{model} and {models[0]} held out other shares of photos ({other.model.fractions} "
                f"and {first.model.fractions}), so one has trained on what tests the other: give "
                "photos that neither has seen, and --split all"
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


def run(
    models: Sequence[str],
    data: str,
    split: str,
    json_file: str | None,
    html_file: str | None,
    exclude: str | None = None,
    rules: DecodeRules = DEFAULT_RULES,
) -> int:
    """`catordog compare`. Returns 1 if a photo could not be read, else 0."""
    which: Split | Literal["all"] = split  # type: ignore[assignment]  # the parser has checked it
    result = compare(models, data, which, exclude=exclude, rules=rules)
    if json_file:
        write_text(Path(json_file), json.dumps(result.to_dict(), indent=2, allow_nan=False) + "\n")
    if html_file:
        from catordog.report.comparison import comparison_page

        write_text(Path(html_file), comparison_page(result))
    print(report(result))
    failures = result.results[0].failures
    for failure in failures:
        say(f"can't be read: {failure}")
    return 1 if failures else 0


def report(result: Comparison) -> str:
    """The comparison for people to read."""
    first = result.results[0]
    names = short_names([one.model for one in result.results])
    parts = [
        f"{first.data}, {first.split} split: {first.metrics.n:,} photos",
        table(*summary(result, names)),
        *(sentence(pair, names) for pair in result.pairs),
    ]
    if result.disagreements:
        parts.append(where(result, names))
        rows = [["  label", *names, "photo"]]
        for place in result.disagreements[:SHOWN]:
            answers = [answer(one, place) for one in result.results]
            label = first.classes[int(first.labels[place])]
            rows.append([f"  {label}", *answers, first.photos[place].path])
        parts.append("where they disagree most surely\n" + table(rows))
    return "\n\n".join(parts)


def short_names(models: Sequence[str]) -> list[str]:
    """A, B, C, …: paths are too long for columns."""
    return [chr(ord("A") + place) if place < 26 else f"M{place}" for place, _ in enumerate(models)]


def summary(result: Comparison, names: Sequence[str]) -> tuple[list[list[str]], frozenset[int]]:
    """A row for each model, with a head, and which columns are numbers."""
    classes = result.results[0].classes
    rows = [["", "accuracy", "loss (NLL)", "ECE", *classes, "model"]]
    for name, one in zip(names, result.results, strict=True):
        rows.append([name, *_figures(one), one.model])
    return rows, frozenset(range(1, 4 + len(classes)))


def answer(one: Evaluation, place: int) -> str:
    """What a model says of one photo, and how confidently."""
    said = one.classes[int(one.logits[place].argmax())]
    return f"{said} {honest(float(one.confidences_of(place).max()))}"


def _figures(one: Evaluation) -> list[str]:
    """Accuracy, loss, calibration error, and the accuracy on each class."""
    metrics = one.metrics
    each = []
    for name in one.classes:
        row = metrics.confusion[name]
        total = sum(row.values())
        each.append(f"{100 * row[name] / total:.2f} %" if total else "–")
    accuracy, ece = f"{100 * metrics.accuracy:.2f} %", f"{100 * metrics.ece:.2f} %"
    return [accuracy, f"{metrics.nll:.4f}", ece, *each]


def sentence(pair: Pair, names: Sequence[str]) -> str:
    """What the difference of two models comes to."""
    a, b = names[pair.first], names[pair.second]
    low, high = pair.accuracy_ci95
    spread = f"{100 * low:+.2f} to {100 * high:+.2f} points, McNemar's p = {pair.mcnemar_p:.2g}"
    if pair.accuracies_differ:
        better = b if pair.accuracy_difference > 0 else a
        words = f"{better} is more accurate ({b} − {a}: {spread})"
    else:
        words = f"{a} and {b} are equally accurate, as far as these photos tell "
        words += f"({b} − {a}: {spread})"
    low, high = pair.nll_ci95
    loss = f"loss of {b} − {a}: {low:+.4f} to {high:+.4f}"
    if pair.confidences_differ:
        truer = b if pair.nll_difference < 0 else a
        return f"{words}; {truer}'s confidence is truer ({loss})"
    return f"{words}; neither's confidence is truer ({loss})"


def where(result: Comparison, names: Sequence[str]) -> str:
    """Which model is right where they disagree."""
    places = np.array(result.disagreements)
    labels = result.results[0].labels[places]
    said = np.stack([one.logits[places].argmax(axis=1) for one in result.results])
    confidence = np.stack([one.confidences[places].max(axis=1) for one in result.results])
    surer = said[confidence.argmax(axis=0), np.arange(len(places))]
    rights = ", ".join(
        f"{name} is right on {int((row == labels).sum()):,}"
        for name, row in zip(names, said, strict=True)
    )
    return (
        f"they disagree on {len(places):,} photos: {rights}; the surer one of them on "
        f"{int((surer == labels).sum()):,}"
    )
