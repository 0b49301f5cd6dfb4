"""Two models on the same photos: which differences are significant, and how they are worded."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest

from catordog.confidence.softmax import softmax
from catordog.evaluation.compare import accuracy_interval, compare_pair
from catordog.evaluation.evaluate import Evaluation
from catordog.report.comparison_text import sentence


def evaluation(logits, labels, temperature: float = 1.0) -> Evaluation:
    """An evaluation as `evaluate` returns it, of photos that are nowhere."""
    return Evaluation(
        model="m", data="d", split="test", classes=("cat", "dog"), photos=[],
        labels=np.asarray(labels), logits=np.asarray(logits, np.float32), temperature=temperature,
        threshold=0.8, ood_score=None, failures=[],
    )  # fmt: skip


def calibrated(n: int, seed: int = 0):
    """Logits whose softmax is the true probability of each label."""
    generator = np.random.default_rng(seed)
    logits = generator.normal(0, 2, (n, 2))
    labels = (generator.random(n) > softmax(logits)[:, 0]).astype(int)
    return logits, labels


def of_correctness(correct, margin: float = 3.0) -> np.ndarray:
    """Logits for cats: right by a margin, or wrong by it."""
    return np.where(np.asarray(correct)[:, None], [margin, 0.0], [0.0, margin])


def words_of(one: Evaluation, two: Evaluation) -> str:
    return sentence(compare_pair(one, two), ["A", "B"])


def test_six_photos_are_too_few_even_if_one_model_gets_all_of_them_right():
    """100 % against 17 %: five discordant photos to none, p = 0.0625."""
    cats = np.zeros(6, int)
    one = evaluation(of_correctness([True] * 6), cats)
    two = evaluation(of_correctness([True] + [False] * 5), cats)
    pair = compare_pair(one, two)
    assert pair.mcnemar_p == pytest.approx(0.0625)
    assert not pair.accuracies_differ
    words = sentence(pair, ["A", "B"])
    assert words.startswith("No significant difference in accuracy between A and B (B − A: -83.33")
    assert "6 photos are too few to tell" in words
    assert "6 photos are too few to compare calibration and loss" in words
    assert "equal" not in words
    assert "better" not in words
    assert "lower loss" not in words


def test_many_photos_with_a_narrow_interval_are_not_called_too_few():
    correct = np.arange(4000) % 10 != 0
    one = evaluation(of_correctness(correct), np.zeros(4000, int))
    two = evaluation(of_correctness(np.roll(correct, 1)), np.zeros(4000, int))
    words = words_of(one, two)
    assert words.startswith("No significant difference in accuracy between A and B")
    assert "too few" not in words


def test_a_significant_difference_in_accuracy_names_the_better_model():
    correct = np.arange(400) % 10 != 0
    one = evaluation(of_correctness(correct & (np.arange(400) % 3 != 0)), np.zeros(400, int))
    two = evaluation(of_correctness(correct), np.zeros(400, int))
    assert words_of(one, two).startswith("B is more accurate (B − A: +")
    assert words_of(two, one).startswith("A is more accurate (B − A: -")


def test_a_softer_temperature_is_better_calibrated_where_the_model_was_overconfident():
    logits, labels = calibrated(2000)
    one, two = evaluation(4 * logits, labels), evaluation(4 * logits, labels, temperature=4)
    pair = compare_pair(one, two)
    assert pair.calibrations_differ
    assert pair.ece_difference < 0
    words = sentence(pair, ["A", "B"])
    assert "B is better calibrated" in words
    assert "B has the lower loss" in words
    assert "No significant difference in accuracy" in words


def test_a_lower_loss_alone_is_not_called_better_calibrated():
    """Both are calibrated, but one knows more."""
    generator = np.random.default_rng(3)
    truth = generator.normal(0, 3, 4000)
    labels = (generator.random(4000) < 1 / (1 + np.exp(-truth))).astype(int)
    knows = np.stack([np.zeros_like(truth), truth], axis=1)
    guesses = np.full((4000, 2), [0.0, float(np.log(labels.mean() / (1 - labels.mean())))])
    one, two = evaluation(guesses, labels), evaluation(knows, labels)
    pair = compare_pair(one, two)
    assert pair.losses_differ
    assert "B has the lower loss" in sentence(pair, ["A", "B"])
    assert not pair.calibrations_differ
    assert "no significant difference in calibration" in sentence(pair, ["A", "B"])


@pytest.mark.slow
def test_equally_calibrated_models_are_rarely_called_different():
    """At a level of 5 %, a few of 60 pairs of calibrated models may differ, and no more."""
    found = 0
    for seed in range(60):
        generator = np.random.default_rng(seed)
        common, first, second = generator.normal(0, 1.5, (3, 400))
        labels = (generator.random(400) < 1 / (1 + np.exp(-common - first - second))).astype(int)
        noise = 1 / np.sqrt(1 + np.pi * 1.5**2 / 8)  # the logit of the expected probability
        logits = [np.stack([0 * x, noise * (common + x)], axis=1) for x in (first, second)]
        found += compare_pair(*(evaluation(x, labels) for x in logits)).calibrations_differ
    assert found <= 8  # P(more than 8 of 60 at 5 %) is 0.4 %


@pytest.mark.parametrize("discordant", [1, 5, 6, 20, 101])
def test_the_interval_excludes_0_exactly_where_mcnemars_test_is_significant(discordant):
    for only_first in range(discordant + 1):
        low, high = accuracy_interval(only_first, discordant - only_first, 300)
        significant = binomtest(only_first, discordant, 0.5).pvalue < 0.05
        assert (low > 0 or high < 0) == significant
        assert low <= (discordant - 2 * only_first) / 300 <= high


def test_without_a_discordant_photo_the_interval_narrows_with_more_photos():
    few, many = accuracy_interval(0, 0, 6), accuracy_interval(0, 0, 6000)
    assert few[0] < -0.3 < 0.3 < few[1]
    assert -0.001 < many[0] < 0 < many[1] < 0.001
