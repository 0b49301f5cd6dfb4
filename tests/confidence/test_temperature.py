"""Temperature scaling, other calibrations, and the metrics that compare them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import brentq
from torchmetrics.functional.classification import (
    binary_calibration_error,
    multiclass_calibration_error,
)

from catordog.confidence.softmax import softmax
from catordog.confidence.temperature import LEAST, MOST, fit_temperature, log_loss
from catordog.confidence.wilson import wilson
from catordog.errors import CatordogError
from catordog.evaluation.alternatives import _isotonic, _vector, alternatives
from catordog.evaluation.curves import reliability, risk_coverage
from catordog.evaluation.metrics import measure
from catordog.evaluation.predictions import Predictions


def honest_logits(n: int, classes: int = 2, seed: int = 0, spread: float = 2.0):
    """Logits whose softmax is the true probability of each label."""
    generator = np.random.default_rng(seed)
    logits = generator.normal(0, spread, (n, classes))
    chances = softmax(logits).cumsum(axis=1)
    labels = (generator.random((n, 1)) > chances).sum(axis=1).clip(max=classes - 1)
    return logits, labels


def _times(count: int, logits, labels):
    return np.tile(logits, (count, 1)), np.tile(labels, count)


class TestTemperature:
    @pytest.mark.parametrize("classes", [2, 3, 10])
    @pytest.mark.parametrize("scale", [0.5, 1.0, 3.0])
    def test_it_undoes_a_scale_of_the_logits(self, classes, scale):
        logits, labels = honest_logits(20_000, classes)
        assert fit_temperature(scale * logits, labels) == pytest.approx(scale, rel=0.05)

    def test_it_is_the_exact_optimum(self):
        logits, labels = honest_logits(300, 3, seed=5)
        best = fit_temperature(2.7 * logits, labels, prior=0)

        def loss(temperature):
            return log_loss(softmax(2.7 * logits, temperature), labels).mean()

        assert loss(best) <= min(loss(best * (1 + by)) for by in (-1e-4, 1e-4, -0.1, 0.1, 1.0))
        factor = fit_temperature(27 * logits, labels, prior=0) / best
        assert factor == pytest.approx(10, rel=1e-7)

    @pytest.mark.parametrize("prior", [0.0, 4.0])
    @pytest.mark.parametrize("seed", range(5))
    def test_it_is_the_root_that_scipy_finds(self, prior, seed):
        logits, labels = honest_logits(200, 3, seed=seed)
        logits *= 0.3 * 2**seed
        true = logits[np.arange(200), labels]

        def slope(log_temperature):
            temperature = np.exp(log_temperature)
            expected = (softmax(logits, temperature) * logits).sum(axis=1)
            return (expected - true).sum() + prior * (1 - temperature)

        root = np.exp(brentq(slope, np.log(LEAST), np.log(MOST), xtol=1e-12))
        assert fit_temperature(logits, labels, prior) == pytest.approx(root, rel=1e-9)

    def test_the_optimum_includes_the_prior(self):
        logits, labels = honest_logits(30, 3, seed=5)
        best = fit_temperature(2.7 * logits, labels, prior=7)

        def loss(temperature):
            prior = 7 * (1 / temperature - 1 + np.log(temperature))
            return log_loss(softmax(2.7 * logits, temperature), labels).sum() + prior

        assert loss(best) <= min(loss(best * (1 + by)) for by in (-1e-4, 1e-4, -0.1, 0.1, 1.0))

    def test_a_few_right_photos_leave_doubt(self):
        two = np.array([[3.0, 0.0], [0.0, 1.0]]), np.array([0, 1])
        few, more = fit_temperature(*two), fit_temperature(*_times(9, *two))
        assert 0.4 < more < few < 1
        assert softmax(np.array([[3.0, 0.0]]), few).max() < 0.999

    def test_a_few_wrong_photos_leave_some_confidence(self):
        two = np.array([[3.0, 0.0], [0.0, 1.0]]), np.array([1, 0])
        few, more = fit_temperature(*two), fit_temperature(*_times(9, *two))
        assert 1 < few < more < 20

    def test_photos_outweigh_the_prior(self):
        logits, labels = honest_logits(2000)
        alone = fit_temperature(1.2 * logits, labels, prior=0)
        assert fit_temperature(1.2 * logits, labels) == pytest.approx(alone, rel=2e-3)

    def test_without_a_prior_it_is_the_lower_bound_where_every_photo_is_right(self):
        right = np.array([[3.0, 0.0], [0.0, 1.0]]), np.array([0, 1])
        assert fit_temperature(*right, prior=0) == LEAST

    def test_without_a_prior_it_is_the_upper_bound_where_every_photo_is_wrong(self):
        wrong = np.array([[3.0, 0.0], [0.0, 1.0]]), np.array([1, 0])
        assert fit_temperature(*wrong, prior=0) == MOST

    def test_logits_may_come_in_any_precision(self):
        logits, labels = honest_logits(400)
        half = np.round(logits).astype(np.float16)
        assert fit_temperature(half, labels) == fit_temperature(half.astype(np.float64), labels)

    def test_a_flat_slope_at_the_upper_bound_gives_the_upper_bound(self):
        assert fit_temperature(np.zeros((4, 2)), np.array([0, 1, 1, 1]), prior=0) == LEAST
        close = np.array([[1e-9, 0.0]] * 3), np.array([0, 1, 1])
        assert fit_temperature(*close, prior=0) == MOST

    def test_equal_logits_give_a_temperature_of_1(self):
        assert fit_temperature(np.zeros((4, 2)), np.array([0, 1, 1, 1])) == pytest.approx(1)

    def test_it_rescales_logits_of_another_scale(self):
        logits, labels = honest_logits(500)
        assert fit_temperature(20 * logits, labels) == pytest.approx(20, rel=0.3)

    def test_no_photos_are_an_error(self):
        with pytest.raises(CatordogError, match="without photos"):
            fit_temperature(np.empty((0, 2)), np.empty(0, int))


class TestAlternatives:
    def test_where_the_logits_are_honest_a_temperature_is_enough(self):
        logits, labels = honest_logits(4000)
        assert not any(other.better for other in alternatives(3 * logits, labels))

    def test_an_offset_needs_vector_scaling(self):
        logits, labels = honest_logits(4000)
        found = {other.name: other for other in alternatives(logits + np.array([1.5, 0]), labels)}
        assert found["vector scaling"].better
        assert found["isotonic regression"].better
        assert found["vector scaling"].gain_ci95[0] > 0.01

    def test_a_bent_curve_needs_isotonic_regression(self):
        logits, labels = honest_logits(8000)
        margin = logits[:, 0] - logits[:, 1]
        bent = np.stack([np.sign(margin) * margin**4 / 20, np.zeros_like(margin)], axis=1)
        found = {other.name: other for other in alternatives(bent, labels)}
        assert found["isotonic regression"].better
        assert found["isotonic regression"].gain > found["vector scaling"].gain

    def test_a_handful_of_photos_says_nothing(self):
        assert alternatives(*honest_logits(99)) == []
        assert alternatives(honest_logits(100)[0], np.zeros(100, int)) == []
        assert len(alternatives(*honest_logits(100))) == 2

    def test_the_interval_of_a_gain_is_that_of_a_mean_over_photos(self):
        logits, labels = honest_logits(4000, seed=6)
        bent = 3 * logits + np.array([2.0, 0])
        temperature = log_loss(softmax(bent, fit_temperature(bent, labels)), labels)
        gains = temperature - log_loss(_vector(bent, labels, bent), labels)
        found = alternatives(bent, labels)[0]
        low, high = found.gain_ci95
        assert found.gain == pytest.approx(gains.mean(), rel=0.05)
        assert (low + high) / 2 == pytest.approx(found.gain)
        assert (high - low) / 2 == pytest.approx(1.96 * gains.std() / 4000**0.5, rel=0.05)

    def test_the_same_seed_gives_the_same_folds_and_0_is_the_one_if_none_is_given(self):
        photos = honest_logits(500)
        assert alternatives(*photos) == alternatives(*photos, seed=0)
        assert alternatives(*photos) != alternatives(*photos, seed=1)

    def test_vector_scaling_finds_the_factor_and_the_offset_of_each_class(self):
        logits, labels = honest_logits(60_000, 3, seed=8)
        factor, offset = np.array([2.0, 0.5, 4.0]), np.array([1.0, -1.0, 0.0])
        new = honest_logits(500, 3, seed=9)[0]
        found = _vector((logits - offset) / factor, labels, (new - offset) / factor)
        assert np.abs(found - softmax(new)).max() < 0.03

    def test_isotonic_regression_leaves_a_photos_worth_of_doubt(self):
        raw = np.array([[1.0, 0, 0], [2, 0, 0], [0, 1, 0], [0, 2, 0], [0, 0, 1], [0, 0, 2]])
        labels = np.array([0, 0, 1, 1, 2, 2])
        new = np.array([[-9.0, 0, 0], [0, 9, 0], [0, 0, 1.5]])
        doubt = 1 / 8  # each class's curve is a step from 0 to 1: an eighth is left on both sides
        sure = (1 - doubt) / (1 + doubt)
        found = _isotonic(raw, labels, new)
        assert found[1:] == pytest.approx(
            np.array([[0, 1, 0], [0, 0, 1]]) * (sure - doubt / (1 + doubt)) + doubt / (1 + doubt)
        )
        assert found.sum(axis=1) == pytest.approx(1)


class TestFiguresAgainstAnIndependentLibrary:
    @pytest.mark.parametrize("classes", [2, 4])
    def test_calibration_errors(self, classes):
        logits, labels = honest_logits(3000, classes, seed=3)
        logits = 2 * logits
        metrics = measure(Predictions(tuple("abcd"[:classes]), labels, logits))
        p, y = torch.from_numpy(softmax(logits)), torch.from_numpy(labels)
        top = multiclass_calibration_error(p, y, classes, n_bins=15, norm="l1")
        assert metrics.ece == pytest.approx(float(top), abs=1e-6)
        each = [
            float(binary_calibration_error(p[:, i], (y == i).long(), n_bins=15))
            for i in range(classes)
        ]
        assert metrics.classwise_ece == pytest.approx(np.mean(each), abs=1e-6)

    def test_equal_mass_bins_hold_equally_many_photos(self):
        logits, labels = honest_logits(1500, seed=4)
        metrics = measure(Predictions(("a", "b"), labels, 3 * logits))
        confidence = softmax(3 * logits).max(axis=1)
        right = softmax(3 * logits).argmax(axis=1) == labels
        order = np.argsort(confidence, kind="stable")
        gaps = [abs(confidence[part].mean() - right[part].mean()) for part in np.split(order, 15)]
        assert metrics.ece_equal_mass == pytest.approx(np.mean(gaps), abs=1e-9)


class TestIntervals:
    def test_they_hold_the_figures_and_narrow_with_more_photos(self):
        widths = []
        for n in (400, 6400):
            logits, labels = honest_logits(n, seed=9)
            metrics = measure(Predictions(("a", "b"), labels, logits))
            for name in ("nll", "brier"):
                low, high = metrics.ci95[name]
                assert low < getattr(metrics, name) < high
            widths.append(metrics.ci95["nll"][1] - metrics.ci95["nll"][0])
        assert widths[1] == pytest.approx(widths[0] / 4, rel=0.35)

    def test_the_interval_of_the_loss_is_that_of_a_mean(self):
        logits, labels = honest_logits(2000, seed=2)
        metrics = measure(Predictions(("a", "b"), labels, logits))
        losses = log_loss(softmax(logits), labels)
        half = 1.96 * losses.std() / len(losses) ** 0.5
        low, high = metrics.ci95["nll"]
        assert (high - low) / 2 == pytest.approx(half, rel=0.1)


def test_a_reliability_diagram_tells_of_each_bin_how_many_how_sure_and_how_right():
    confidences = np.array([[0.95, 0.05], [0.97, 0.03], [0.06, 0.94], [0.6, 0.4]])
    low, high = reliability(confidences, np.array([0, 1, 1, 0]))
    assert (low.n, low.confidence, low.accuracy) == (1, 0.6, 1.0)
    assert (high.n, high.accuracy) == (3, 2 / 3)
    assert high.confidence == pytest.approx((0.95 + 0.97 + 0.94) / 3)
    assert high.ci95 == wilson(2, 3)


def test_a_reliability_diagram_has_every_photo_once():
    logits, labels = honest_logits(2000, seed=1)
    bins = reliability(softmax(logits), labels)
    assert sum(each.n for each in bins) == 2000
    inside = [each.ci95[0] <= each.confidence <= each.ci95[1] for each in bins]
    assert np.mean(inside) > 0.8  # honest confidences lie on the diagonal


def test_the_risk_coverage_curve_ends_at_the_error_rate_and_ties_count_together():
    confidences = np.array([[0.9, 0.1], [0.8, 0.2], [0.8, 0.2], [0.6, 0.4]])
    covered, risk = risk_coverage(confidences, np.array([0, 1, 0, 1]))
    assert covered.tolist() == [0.25, 0.5, 0.75, 1]
    assert risk.tolist() == pytest.approx([0, 1 / 3, 1 / 3, 0.5])
