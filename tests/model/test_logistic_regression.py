"""Logistic regression finds the optimum that scikit-learn finds."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from catordog.model.logistic_regression import Span, fit


def photos(n, width, classes, seed=0):
    generator = np.random.default_rng(seed)
    labels = np.arange(n) % classes
    centres = generator.normal(size=(classes, width))
    return centres[labels] + 2 * generator.normal(size=(n, width)) + 3, labels


@pytest.mark.parametrize(("n", "width"), [(40, 300), (300, 20)])
@pytest.mark.parametrize("classes", [2, 5])
@pytest.mark.parametrize("strength", [0.01, 1.0])
def test_the_optimum_is_that_of_scikit_learn(n, width, classes, strength):
    rows, labels = photos(n, width, classes)
    span = Span.of(rows)
    fits = fit(span.coordinates, labels, classes, strength)
    ours = (rows - span.mean) @ span.basis @ fits.weights[0] + fits.biases[0]
    # For two classes scikit-learn has one logit, whose weights are the difference of ours.
    factor = 2 if classes == 2 else 1
    other = LogisticRegression(C=factor / strength, tol=1e-9, max_iter=10_000).fit(rows, labels)
    theirs = other.decision_function(rows)
    found = ours[:, 1] - ours[:, 0] if classes == 2 else ours - ours.mean(axis=1, keepdims=True)
    expected = theirs if classes == 2 else theirs - theirs.mean(axis=1, keepdims=True)
    assert np.abs(found - expected).max() < 1e-4 * max(1, np.abs(expected).max())


def test_fits_on_parts_are_those_of_these_parts_alone():
    rows, labels = photos(60, 200, 3)
    span = Span.of(rows)
    used = np.arange(60)[None] % 4 != np.arange(4)[:, None]
    together = fit(span.coordinates, labels, 3, 0.1, used).logits(span.coordinates)
    for index, part in enumerate(used):
        alone = Span.of(rows[part])
        fits = fit(alone.coordinates, labels[part], 3, 0.1)
        expected = (rows - alone.mean) @ alone.basis @ fits.weights[0] + fits.biases[0]
        assert np.allclose(together[index], expected, atol=2e-3)


def test_photos_that_are_all_the_same_have_finite_logits():
    rows = np.ones((6, 10))
    span = Span.of(rows)
    logits = fit(span.coordinates, np.arange(6) % 2, 2, 0.1).logits(span.coordinates)
    assert np.isfinite(logits).all()
    assert np.abs(logits).max() < 1e-6
