from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import betabinom

from catordog.confidence.conformal import nonconformity, prediction_set, quantile
from catordog.confidence.softmax import softmax
from catordog.confidence.verdict import judge
from catordog.errors import CatordogError
from catordog.evaluation.error_rate_check import check_error_rate
from catordog.evaluation.intervals import wilson
from confidence.test_temperature import honest_logits


@pytest.mark.parametrize("error_rate", [0.01, 0.05, 0.2])
@pytest.mark.parametrize("boldness", [0.3, 1.0, 5.0])
def test_the_promise_holds_over_100_random_splits_however_wrong_the_confidences_are(
    error_rate, boldness
):
    """What is missed among m new photos, after n to learn from, follows a beta-binomial law."""
    logits, labels = honest_logits(2000, 3, seed=11)
    confidences = softmax(boldness * logits)
    n, m, inside, missed = 1000, 1000, 0, []
    k = math.ceil((n + 1) * (1 - error_rate))
    low, high = betabinom(m, n + 1 - k, k).ppf([0.025, 0.975])
    for seed in range(100):
        order = np.random.default_rng(seed).permutation(2000)
        learn, new = order[:n], order[n:]
        scores = nonconformity(confidences[learn], labels[learn])
        promise = check_error_rate(scores, error_rate, confidences[new], labels[new])
        missed.append(promise.missed)
        inside += low <= promise.missed * m <= high
    assert inside >= 89  # 95 are expected; fewer than 89 of 100 come once in 200 times
    assert np.mean(missed) == pytest.approx(error_rate, abs=0.004)


def test_verdicts_follow_the_classes_that_are_kept():
    names = ("cat", "dog")
    sure, torn = [4.0, 0.0], [0.1, 0.0]
    assert judge(sure, names, limit=0.1).verdict == "cat"
    assert judge(torn, names, limit=0.6).verdict == "not sure"
    assert judge(torn, names, limit=0.3).verdict == "neither"
    assert judge(torn, names, limit=0.3).in_words() == "neither (cat 52 %)"


def test_the_limit_counts_the_new_photo_as_one_more():
    assert quantile([0.1, 0.2, 0.3, 0.4], 0.4) == 0.3
    assert quantile([0.1, 0.2, 0.3, 0.4], 0.2) == 0.4
    assert quantile([0.1, 0.2, 0.3, 0.4], 0.1) == math.inf  # four photos can't promise that


def test_infinity_keeps_every_class():
    assert prediction_set(np.array([1.0, 0.0]), math.inf).all()


@pytest.mark.parametrize("error_rate", [0.0, 1.0, -0.1, math.nan])
def test_an_error_rate_is_a_share(error_rate):
    with pytest.raises(CatordogError, match="within 0…1"):
        quantile([0.1], error_rate)


def test_a_class_exactly_as_strange_as_the_limit_is_kept():
    assert prediction_set(np.array([0.75, 0.25]), 0.25).tolist() == [True, False]


def test_a_promise_is_held_against_what_happened():
    """Learnt: up to a strangeness of 0.5. One answer, two, none, and a wrong one."""
    confidences = np.array([[0.9, 0.1, 0.0], [0.5, 0.5, 0.0], [0.4, 0.3, 0.3], [0.0, 0.2, 0.8]])
    promise = check_error_rate([0.1, 0.2, 0.5, 0.7], 0.4, confidences, np.array([0, 1, 1, 1]))
    assert promise.error_rate == 0.4
    assert promise.missed == 0.5  # the third has no class kept, and the fourth the wrong one
    assert promise.missed_ci95 == wilson(2, 4)
    assert (promise.answered, promise.not_sure, promise.neither) == (0.5, 0.25, 0.25)
