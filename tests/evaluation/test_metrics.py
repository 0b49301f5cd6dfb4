from __future__ import annotations

import numpy as np
import pytest

from catordog.confidence.softmax import softmax
from catordog.evaluation.intervals import wilson
from catordog.evaluation.metrics import (
    calibration_error,
    coverage,
    equal_mass,
    equal_width,
    measure,
    risk_coverage,
)

CLASSES = ("cat", "dog")


def some_logits(n: int = 400, classes: int = 2, seed: int = 0):
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, classes, n)
    logits = generator.normal(0, 1.5, (n, classes))
    logits[np.arange(n), labels] += 1.5
    return logits.astype(np.float32), labels


def test_figures_are_those_of_their_definitions():
    logits, labels = some_logits()
    metrics = measure(logits, labels, CLASSES)
    p = softmax(logits)
    truth = np.eye(2)[labels]
    assert metrics.n == 400
    assert metrics.accuracy == pytest.approx((logits.argmax(1) == labels).mean())
    assert metrics.nll == pytest.approx(-np.log(p[np.arange(400), labels]).mean(), abs=1e-6)
    assert metrics.brier == pytest.approx(((p - truth) ** 2).sum(1).mean(), abs=1e-6)
    # AUROC: how often a dog's margin is above a cat's.
    margin = logits[:, 1] - logits[:, 0]
    dogs, cats = margin[labels == 1], margin[labels == 0]
    assert metrics.auroc == pytest.approx((dogs[:, None] > cats[None]).mean(), abs=1e-6)


def test_ece_is_the_gap_between_confidence_and_accuracy_over_15_bins():
    logits, labels = some_logits()
    p = softmax(logits)
    confidence, right = p.max(1), p.argmax(1) == labels
    bins = np.minimum((confidence * 15).astype(int), 14)
    gaps = [
        (bins == b).mean() * abs(confidence[bins == b].mean() - right[bins == b].mean())
        for b in range(15)
        if (bins == b).any()
    ]
    assert measure(logits, labels, CLASSES).ece == pytest.approx(sum(gaps), abs=1e-5)


def test_a_photo_with_hopeless_logits_has_a_finite_loss():
    metrics = measure(np.array([[1e4, -1e4], [0, 1]], np.float32), np.array([1, 1]), CLASSES)
    assert metrics.nll == pytest.approx(1e4, rel=1e-3)


def test_confusion_names_the_truth_first():
    logits = np.array([[2, 0], [2, 0], [0, 2]], np.float32)
    confusion = measure(logits, np.array([0, 1, 1]), CLASSES).confusion
    assert confusion == {"cat": {"cat": 1, "dog": 0}, "dog": {"cat": 1, "dog": 1}}


def test_one_true_class_has_no_auroc():
    assert measure(np.zeros((3, 2), np.float32), np.zeros(3, int), CLASSES).auroc is None


def test_the_temperature_changes_confidences_and_not_accuracy():
    logits, labels = some_logits()
    plain, humble = (measure(logits, labels, CLASSES, t) for t in (1.0, 3.0))
    assert plain.accuracy == humble.accuracy
    assert plain.auroc == humble.auroc
    assert plain.nll != humble.nll


def test_three_classes_work():
    logits, labels = some_logits(300, 3)
    metrics = measure(logits, labels, ("cat", "dog", "hare"))
    assert metrics.auroc is not None
    assert 0.5 < metrics.auroc < 1
    assert sum(sum(row.values()) for row in metrics.confusion.values()) == 300


def test_wilson_interval_is_the_published_one():
    # Newcombe 1998, table I, method 3: 81 of 263, and 0 of 20.
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=1e-4)
    assert wilson(0, 20) == pytest.approx((0.0, 0.1611), abs=1e-4)


def test_coverage_is_the_share_that_can_be_answered_at_an_accuracy():
    p = np.array([[0.99, 0.01]] * 100 + [[0.6, 0.4]] * 100)
    labels = np.array([0] * 99 + [1] + [0] * 50 + [1] * 50)
    assert coverage(p, labels) == {"0.95": 0.5, "0.99": 0.5, "0.999": 0.0}


def test_coverage_never_takes_a_part_of_equally_confident_photos():
    p = np.array([[0.9, 0.1]] * 10)
    assert coverage(p, np.array([0] * 9 + [1]))["0.95"] == 0.0


def test_the_calibration_error_alone_is_that_of_the_whole_table():
    logits, labels = some_logits(500, 3)
    metrics = measure(logits, labels, ("cat", "dog", "hare"))
    assert calibration_error(softmax(logits), labels) == pytest.approx(metrics.ece, abs=1e-12)
    assert metrics.to_dict()["ece"] == metrics.ece


def test_a_temperature_is_the_same_as_dividing_the_logits():
    logits, labels = some_logits(500, 3)
    names = ("cat", "dog", "hare")
    assert measure(logits, labels, names, 2.0) == measure(logits.astype(float) / 2, labels, names)


def test_the_table_holds_what_each_figure_alone_says_and_says_it_again():
    logits, labels = some_logits(500)
    metrics = measure(logits, labels, CLASSES)
    p = softmax(logits)
    assert metrics.accuracy_ci95 == wilson(round(500 * metrics.accuracy), 500)
    assert metrics.aurc == risk_coverage(p, labels)[1].mean()
    assert metrics.coverage_at == coverage(p, labels)
    assert metrics.coverage_at["0.95"] > 0
    assert measure(logits, labels, CLASSES) == metrics


def test_bins_are_closed_above_and_the_last_holds_certainty():
    bins = equal_width(np.array([0.0, 0.05, 1 / 15, 0.07, 0.13, 0.9, 0.94, 1.0]))
    assert bins.tolist() == [0, 0, 0, 1, 1, 13, 14, 14]


def test_photos_as_sure_as_each_other_stand_in_the_order_they_came_in():
    assert equal_mass(np.array([0.9, 0.5, 0.9, 0.5]), bins=4).tolist() == [2, 0, 3, 1]
    many = np.full(300, 0.7)
    assert (np.diff(equal_mass(many)) >= 0).all()
    assert equal_mass(np.array([0.5])).tolist() == [0]


def test_coverage_and_risk_look_at_every_class():
    p = np.array([[0.1, 0.9, 0.0], [0.0, 0.2, 0.8], [0.6, 0.3, 0.1], [0.1, 0.5, 0.4]])
    labels = np.array([1, 2, 0, 2])
    assert coverage(p, labels)["0.99"] == 0.75
    assert risk_coverage(p, labels)[1].tolist() == [0, 0, 0, 0.25]
    assert coverage(p[:3], labels[:3])["0.99"] == 1.0
