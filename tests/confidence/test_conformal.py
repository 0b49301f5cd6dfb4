"""Conformal prediction keeps its error rate."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import betabinom

from catordog.confidence.conformal import nonconformity, prediction_set, quantile
from catordog.confidence.softmax import softmax
from catordog.confidence.verdict import judge
from catordog.confidence.wilson import wilson
from catordog.errors import CatordogError
from catordog.evaluation.error_rate_check import check_error_rate
from confidence.test_temperature import honest_logits


@pytest.mark.parametrize("error_rate", [0.01, 0.05, 0.2])
@pytest.mark.parametrize("scale", [0.3, 1.0, 5.0])
def test_the_error_rate_is_kept_over_100_random_splits_even_with_wrong_confidences(
    error_rate, scale
):
    """The misses among m new photos, after n calibration photos, are beta-binomial."""
    logits, labels = honest_logits(2000, 3, seed=11)
    confidences = softmax(scale * logits)
    n, m, inside, missed = 1000, 1000, 0, []
    k = math.ceil((n + 1) * (1 - error_rate))
    low, high = betabinom(m, n + 1 - k, k).ppf([0.025, 0.975])
    for seed in range(100):
        order = np.random.default_rng(seed).permutation(2000)
        learn, new = order[:n], order[n:]
        scores = nonconformity(confidences[learn], labels[learn])
        check = check_error_rate(scores, error_rate, confidences[new], labels[new])
        missed.append(check.missed)
        inside += low <= check.missed * m <= high
    assert inside >= 89  # 95 are expected; fewer than 89 have a probability of 1 in 200
    assert np.mean(missed) == pytest.approx(error_rate, abs=0.004)


def test_verdicts_follow_the_prediction_set():
    names = ("cat", "dog")
    sure, torn = [4.0, 0.0], [0.1, 0.0]
    assert judge(sure, names, quantile=0.1).verdict == "cat"
    assert judge(torn, names, quantile=0.6).verdict == "not sure"
    assert judge(torn, names, quantile=0.3).verdict == "neither"
    assert judge(torn, names, quantile=0.3).in_words() == "neither (cat 52 %)"


def test_the_quantile_counts_the_new_photo_as_one_more():
    assert quantile([0.1, 0.2, 0.3, 0.4], 0.4) == 0.3
    assert quantile([0.1, 0.2, 0.3, 0.4], 0.2) == 0.4
    assert quantile([0.1, 0.2, 0.3, 0.4], 0.1) == math.inf  # too few scores for that


def test_an_infinite_quantile_puts_every_class_into_the_set():
    assert prediction_set(np.array([1.0, 0.0]), math.inf).all()


@pytest.mark.parametrize("error_rate", [0.0, 1.0, -0.1, math.nan])
def test_an_error_rate_outside_0_to_1_is_refused(error_rate):
    with pytest.raises(CatordogError, match="within 0…1"):
        quantile([0.1], error_rate)


def test_a_class_at_the_quantile_is_in_the_set():
    assert prediction_set(np.array([0.75, 0.25]), 0.25).tolist() == [True, False]


def test_an_error_rate_is_compared_with_the_misses():
    """The quantile is 0.5. Prediction sets of one, two, no and one wrong class."""
    confidences = np.array([[0.9, 0.1, 0.0], [0.5, 0.5, 0.0], [0.4, 0.3, 0.3], [0.0, 0.2, 0.8]])
    check = check_error_rate([0.1, 0.2, 0.5, 0.7], 0.4, confidences, np.array([0, 1, 1, 1]))
    assert check.error_rate == 0.4
    assert check.missed == 0.5  # the empty set, and the one with the wrong class
    assert check.missed_ci95 == wilson(2, 4)
    assert (check.answered, check.not_sure, check.neither) == (0.5, 0.25, 0.25)
    assert (check.outside_set, check.rejected) == (0.5, 0)


def test_photos_that_the_ood_detector_calls_neither_count_as_missed():
    """The same sets; the detector rejects the right answer, and the wrong one."""
    confidences = np.array([[0.9, 0.1, 0.0], [0.5, 0.5, 0.0], [0.4, 0.3, 0.3], [0.0, 0.2, 0.8]])
    ood_score, labels = np.array([0.99, 0.1, 0.2, 1.0]), np.array([0, 1, 1, 1])
    check = check_error_rate([0.1, 0.2, 0.5, 0.7], 0.4, confidences, labels, ood_score, 0.95)
    assert (check.missed, check.missed_ci95) == (0.75, wilson(3, 4))
    assert (check.outside_set, check.rejected) == (0.5, 0.25)
    assert (check.answered, check.not_sure, check.neither) == (0, 0.25, 0.75)
