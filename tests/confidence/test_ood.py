"""Out-of-distribution detection from features."""

from __future__ import annotations

import json

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from catordog.confidence.ood import OodDetector, fit_ood
from catordog.confidence.verdict import judge
from catordog.errors import CatordogError

LEVELS = 1 - np.linspace(1, 0, 1025) ** 3

D, WEIGHTS = 40, np.random.default_rng(99).normal(0, 0.5, (40, 2))


def photos(n: int, seed: int):
    """Rectified features of two classes, with the logits that a last layer makes of them."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, 2, n)
    centres = np.random.default_rng(5).gamma(2, 1, (2, D))
    shared = np.random.default_rng(6).normal(0, 1, (8, D))
    features = centres[labels] + 0.4 * generator.normal(0, 1, (n, 8)) @ shared
    features = np.maximum(features + 0.2 * generator.normal(0, 1, (n, D)), 0)
    return features.astype(np.float32), (features @ WEIGHTS).astype(np.float32), labels


def other_photos(n: int, seed: int):
    """The same features without any class's pattern."""
    generator = np.random.default_rng(seed)
    features = np.maximum(generator.normal(1.5, 1.0, (n, D)), 0)
    return features.astype(np.float32), (features @ WEIGHTS).astype(np.float32)


@pytest.fixture(scope="module")
def detector() -> OodDetector:
    return fit_ood(photos(1500, 0)[0])


def test_new_photos_of_the_classes_score_like_those_of_validation(detector):
    scores = detector.scores(photos(4000, 1)[0])
    assert ((scores >= 0) & (scores <= 1)).all()
    for accept in (0.5, 0.9, 0.95, 0.99, 0.999):
        assert (scores > accept).mean() == pytest.approx(1 - accept, abs=0.03)


def test_photos_of_no_class_score_higher(detector):
    known = detector.scores(photos(1000, 2)[0])
    other = detector.scores(other_photos(1000, 3)[0])
    labels = np.arange(2000) >= 1000
    assert roc_auc_score(labels, np.concatenate([known, other])) > 0.99


def test_neither_overrules_the_most_confident_class():
    sure = judge([9.0, 0.0], ("cat", "dog"), ood_score=0.991)
    assert sure.verdict == "neither"
    assert sure.in_words() == "neither (cat 99.98 %)"
    assert judge([9.0, 0.0], ("cat", "dog"), ood_score=0.99).verdict == "cat"
    assert judge([9.0, 0.0], ("cat", "dog"), ood_score=1.0, accept=1.0).verdict == "cat"


def test_it_is_stored_as_plain_data_with_one_byte_per_number(detector):
    text = json.dumps(detector.to_dict(), allow_nan=False)
    back = OodDetector.from_dict(json.loads(text))
    assert np.allclose(back.bank, detector.bank, atol=1e-6)
    assert np.array_equal(back.distances, detector.distances)
    assert back.to_dict() == detector.to_dict()
    assert len(text) < 1.5 * detector.bank.size + 30 * detector.distances.size


@pytest.mark.parametrize(
    "change",
    [
        {"distances": [0.0] * 512},
        {"distances": [[0.0] * 513]},
        {"distances": 0.0},
        {"distances": [float("nan")] * 513},
        {"step": float("inf")},
        {"bank": ""},
        {"bank": "not base64!"},
        {"photos": 0},
        {"photos": -1},
        {"photos": 7919},
    ],
)
def test_damaged_values_are_refused(detector, change):
    with pytest.raises(ValueError, match=r"ood|base64|data characters"):
        OodDetector.from_dict({**detector.to_dict(), **change})


def test_features_of_another_network_are_refused(detector):
    with pytest.raises(CatordogError, match="features"):
        detector.scores(np.zeros((1, D + 1), np.float32))


def test_too_few_photos_are_refused():
    with pytest.raises(CatordogError, match="too few"):
        fit_ood(photos(30, 0)[0])


def test_the_same_photos_give_the_same_detector():
    assert fit_ood(photos(300, 4)[0]) == fit_ood(photos(300, 4)[0])


def unit(features):
    rows = np.sqrt(features.astype(np.float64))
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_distances_are_those_from_the_nearest_other_photo():
    features = photos(1234, 4)[0]
    fitted = fit_ood(features)
    assert fitted.bank.shape == (1000, D)
    assert fitted.bank.dtype == fitted.distances.dtype == np.float32
    near = unit(features) @ fitted.bank.T
    near[near.argmax(axis=0), np.arange(1000)] = -1  # itself: a thousand of them are neighbours
    expected = np.quantile(1 - near.max(axis=1), 1 - np.linspace(1, 0, 1025) ** 3)
    assert fitted.distances == pytest.approx(expected, abs=1e-6)
    assert len(fitted.distances) == 1025


def test_features_are_kept_in_255_steps():
    fitted = fit_ood(photos(60, 4)[0])
    exact = unit(photos(60, 4)[0])
    step = exact.max() / 127
    assert np.abs(fitted.bank - exact).max() == pytest.approx(step / 2, rel=0.05)
    assert np.unique(fitted.bank).size <= 255


def test_a_scoresr_as_far_as_half_of_the_photos_has_half_of_them_nearer():
    distances = np.linspace(0, 1, 513, dtype=np.float32)
    known = OodDetector(np.array([[1.0, 0.0]], np.float32), distances)
    right_angle = known.scores(np.array([[0.0, 4.0], [4.0, 0.0]], np.float32))
    assert right_angle.tolist() == [1.0, 1 / 513]
    assert known.scores(np.zeros((1, 2), np.float32)).tolist() == [1.0]  # like none of them


def test_the_upper_tail_of_the_distances_is_resolved_finely():
    tail = 1e-4  # the fraction of calibration photos that are further away
    bank = np.array([[1.0, 0.0]], np.float32)
    known = OodDetector(bank, np.quantile(np.linspace(0, 1, 10_001), LEVELS).astype(np.float32))
    for accept in (0.95, 0.99, 0.999):
        for further in (-0.1, 0.1):
            distance = 1 - (1 - accept) * (1 - further)
            angle = np.arccos(1 - distance)
            turned = np.array([[np.cos(angle) ** 2, np.sin(angle) ** 2]])  # roots are taken later
            assert (known.scores(turned)[0] > accept) == (further > 0), (accept, further)
    assert LEVELS[-2] > 1 - tail


def test_detectors_of_older_files_give_the_scores_that_they_gave():
    features = photos(700, 4)[0]
    even = np.quantile(1 - (unit(features) @ fit_ood(features).bank.T).max(1), np.arange(513) / 512)
    old = {**fit_ood(features).to_dict(), "distances": even.astype(np.float32).tolist()}
    known, others = OodDetector.from_dict(old), photos(500, 5)[0]
    nearest = (unit(others).astype(np.float32) @ known.bank.T).max(axis=1)
    ranks = np.searchsorted(known.distances, 1 - nearest, side="right")
    assert known.scores(others) == pytest.approx(ranks / 513, abs=2 / 513)
    assert set(known.scores(others)) <= {rank / 513 for rank in range(514)}


def test_fifty_photos_are_enough_and_one_is_enough_to_be_read():
    assert fit_ood(photos(50, 4)[0]).bank.shape == (50, D)
    one = OodDetector(np.array([[1.0, 0.0]], np.float32), np.zeros(513, np.float32))
    assert OodDetector.from_dict(one.to_dict()) == one
    nothing = OodDetector(np.zeros((1, 2), np.float32), np.zeros(513, np.float32))
    assert OodDetector.from_dict(nothing.to_dict()) == nothing


def test_the_seed_chooses_the_neighbours():
    features = photos(1100, 4)[0]
    assert fit_ood(features) == fit_ood(features, seed=0)
    assert fit_ood(features) != fit_ood(features, seed=1)
    assert fit_ood(features) != "anything else"
    assert len({fit_ood(features), fit_ood(features, seed=0)}) == 1


def test_letters_that_are_not_base64_are_refused(detector):
    values = detector.to_dict()
    with pytest.raises(ValueError, match="base64"):
        OodDetector.from_dict({**values, "bank": "*" + values["bank"]})


def test_copies_are_no_neighbours_of_one_another():
    """As in validation photos, since copies are in one split."""
    once = photos(300, 0)[0]
    twice = fit_ood(np.tile(once, (2, 1)), groups=np.tile(np.arange(300), 2))
    new = photos(2000, 1)[0]
    assert (twice.scores(new) <= 0.99).mean() > 0.97
    assert np.allclose(twice.distances, fit_ood(once).distances, atol=0.01)
    with pytest.raises(CatordogError, match="too few"):
        fit_ood(np.tile(once[:3], (200, 1)), groups=np.tile(np.arange(3), 200))
