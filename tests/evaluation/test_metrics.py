"""Metrics: each is its definition, agrees with torchmetrics, and is one row of a table."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from catordog.confidence.softmax import softmax
from catordog.confidence.wilson import wilson
from catordog.evaluation.curves import coverage_at, equal_mass_bins, equal_width_bins, risk_coverage
from catordog.evaluation.metrics import METRICS, Metrics, ece
from catordog.evaluation.metrics import measure as measure_predictions
from catordog.evaluation.predictions import Predictions

CLASSES = ("cat", "dog")


def measure(logits, labels, classes, temperature=1.0) -> Metrics:
    return measure_predictions(Predictions(classes, labels, logits, temperature))


def some_logits(n: int = 400, classes: int = 2, seed: int = 0):
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, classes, n)
    logits = generator.normal(0, 1.5, (n, classes))
    logits[np.arange(n), labels] += 1.5
    return logits.astype(np.float32), labels


def test_metrics_are_their_definitions():
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


def test_a_confident_mistake_beyond_float_range_has_a_finite_loss():
    metrics = measure(np.array([[1e4, -1e4], [0, 1]], np.float32), np.array([1, 1]), CLASSES)
    assert metrics.nll == pytest.approx(1e4, rel=1e-3)


def test_the_confusion_matrix_has_labels_before_predictions():
    logits = np.array([[2, 0], [2, 0], [0, 2]], np.float32)
    confusion = measure(logits, np.array([0, 1, 1]), CLASSES).confusion
    assert confusion == {"cat": {"cat": 1, "dog": 0}, "dog": {"cat": 1, "dog": 1}}


def test_auroc_is_undefined_where_a_class_has_no_photo():
    assert measure(np.zeros((3, 2), np.float32), np.zeros(3, int), CLASSES).auroc is None


def test_the_temperature_changes_the_loss_but_neither_accuracy_nor_auroc():
    logits, labels = some_logits()
    plain, softened = (measure(logits, labels, CLASSES, t) for t in (1.0, 3.0))
    assert plain.accuracy == softened.accuracy
    assert plain.auroc == softened.auroc
    assert plain.nll != softened.nll


def test_auroc_and_confusion_work_with_three_classes():
    logits, labels = some_logits(300, 3)
    metrics = measure(logits, labels, ("cat", "dog", "hare"))
    assert metrics.auroc is not None
    assert 0.5 < metrics.auroc < 1
    assert sum(sum(row.values()) for row in metrics.confusion.values()) == 300


def test_wilson_interval_is_the_published_one():
    # Newcombe 1998, table I, method 3: 81 of 263, and 0 of 20.
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=1e-4)
    assert wilson(0, 20) == pytest.approx((0.0, 0.1611), abs=1e-4)


def test_coverage_is_the_fraction_that_can_be_answered_at_an_accuracy():
    p = np.array([[0.99, 0.01]] * 100 + [[0.6, 0.4]] * 100)
    labels = np.array([0] * 99 + [1] + [0] * 50 + [1] * 50)
    assert coverage_at(p, labels) == {"0.95": 0.5, "0.99": 0.5, "0.999": 0.0}


def test_coverage_never_splits_photos_of_equal_confidence():
    p = np.array([[0.9, 0.1]] * 10)
    assert coverage_at(p, np.array([0] * 9 + [1]))["0.95"] == 0.0


def test_the_calibration_error_alone_is_that_of_the_table():
    logits, labels = some_logits(500, 3)
    metrics = measure(logits, labels, ("cat", "dog", "hare"))
    assert ece(softmax(logits), labels) == pytest.approx(metrics.ece, abs=1e-12)
    assert metrics.to_dict()["ece"] == metrics.ece


def test_a_temperature_is_the_same_as_dividing_the_logits():
    logits, labels = some_logits(500, 3)
    names = ("cat", "dog", "hare")
    assert measure(logits, labels, names, 2.0) == measure(logits.astype(float) / 2, labels, names)


def test_the_table_agrees_with_the_functions_and_is_reproducible():
    logits, labels = some_logits(500)
    metrics = measure(logits, labels, CLASSES)
    p = softmax(logits)
    assert metrics.accuracy_ci95 == wilson(round(500 * metrics.accuracy), 500)
    assert metrics.aurc == risk_coverage(p, labels)[1].mean()
    assert metrics.coverage_at == coverage_at(p, labels)
    assert metrics.coverage_at["0.95"] > 0
    assert measure(logits, labels, CLASSES) == metrics


def test_bins_include_their_upper_end_and_the_last_one_includes_1():
    bins = equal_width_bins(np.array([0.0, 0.05, 1 / 15, 0.07, 0.13, 0.9, 0.94, 1.0]))
    assert bins.tolist() == [0, 0, 0, 1, 1, 13, 14, 14]


def test_photos_of_equal_confidence_are_ranked_in_their_order():
    assert equal_mass_bins(np.array([0.9, 0.5, 0.9, 0.5]), bins=4).tolist() == [2, 0, 3, 1]
    many = np.full(300, 0.7)
    assert (np.diff(equal_mass_bins(many)) >= 0).all()
    assert equal_mass_bins(np.array([0.5])).tolist() == [0]


def test_coverage_and_risk_consider_every_class():
    p = np.array([[0.1, 0.9, 0.0], [0.0, 0.2, 0.8], [0.6, 0.3, 0.1], [0.1, 0.5, 0.4]])
    labels = np.array([1, 2, 0, 2])
    assert coverage_at(p, labels)["0.99"] == 0.75
    assert risk_coverage(p, labels)[1].tolist() == [0, 0, 0, 0.25]
    assert coverage_at(p[:3], labels[:3])["0.99"] == 1.0


@pytest.mark.parametrize("classes", [2, 3, 5])
@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.5])
def test_metrics_agree_with_torchmetrics(classes, temperature):
    import torch
    from torchmetrics import functional as tm

    logits, labels = some_logits(700, classes, seed=classes)
    names = tuple("abcde"[:classes])
    metrics = measure(logits, labels, names, temperature)
    scaled = torch.from_numpy(logits.astype(np.float64) / temperature)
    p, y = torch.from_numpy(softmax(logits, temperature)), torch.from_numpy(labels)
    task = {"task": "multiclass", "num_classes": classes}
    assert metrics.nll == pytest.approx(
        float(torch.nn.functional.cross_entropy(scaled, y)), abs=1e-6
    )
    assert metrics.ece == pytest.approx(
        float(tm.calibration_error(p, y, n_bins=15, **task)), abs=1e-6
    )
    area = tm.auroc(p[:, 1], y, task="binary") if classes == 2 else tm.auroc(p, y, **task)
    assert metrics.auroc == pytest.approx(float(area), abs=1e-6)
    confusion = [list(row.values()) for row in metrics.confusion.values()]
    assert confusion == tm.confusion_matrix(scaled, y, **task).tolist()


def test_auroc_ranks_saturated_confidences_by_their_logits():
    logits = np.array([[0, 800], [0, 900], [0, 850], [0, 950]], np.float32)
    assert (softmax(logits)[:, 1] == 1).all()
    assert measure(logits, np.array([0, 1, 0, 1]), CLASSES).auroc == 1


def test_every_row_of_the_table_is_measured_and_in_the_json():
    metrics = measure(*some_logits(), CLASSES)
    names = [metric.name for metric in METRICS]
    assert list(metrics.values) == names
    assert set(names) < set(metrics.to_dict())
    for metric in METRICS:
        assert getattr(metrics, metric.name) == metrics.values[metric.name]
        assert metric.title
        assert metric.description
        assert metric.format(0.5)


def test_the_best_of_several_values_depends_on_the_metric():
    accuracy, loss = METRICS[0], METRICS[1]
    assert accuracy.best([0.5, 0.9, None]) == [1]
    assert loss.best([0.5, 0.9, 0.50001]) == [0, 2]  # they look equal in a report
    assert loss.best([None, None]) == []


def test_metrics_can_be_pickled():
    metrics = measure(*some_logits(), CLASSES)
    assert pickle.loads(pickle.dumps(metrics)) == metrics
    with pytest.raises(AttributeError, match="f1"):
        _ = metrics.f1
