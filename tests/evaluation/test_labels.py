"""Wrong labels and out-of-distribution photos are found from features."""

from __future__ import annotations

import numpy as np
import pytest
from cleanlab.filter import find_label_issues

from catordog.evaluation import judging, labels
from catordog.evaluation.judging import rows_to_judge
from catordog.evaluation.labels import cross_validated, ood_scores, suspect_labels
from catordog.model.backbone import Backbone, rows_of
from model.tiny_backbone import FEATURES, write_backbone


@pytest.fixture(scope="module")
def features():
    """Three classes of 400, apart but touching; the first 20 of each have the next one's label."""
    random = np.random.default_rng(0)
    truth = np.repeat(np.arange(3), 400)
    points = (4 * np.eye(3, 16)[truth] + random.normal(size=(1200, 16))).astype(np.float32)
    labels = truth.copy()
    wrong = np.concatenate([np.arange(20) + start for start in (0, 400, 800)])
    labels[wrong] = (labels[wrong] + 1) % 3
    return points, labels, truth, set(wrong.tolist())


def test_planted_wrong_labels_come_first_with_the_right_suggestion(features):
    points, labels, truth, wrong = features
    confidences = cross_validated(points, labels, range(1200))
    assert np.allclose(confidences.sum(1), 1)
    suspects, estimate = suspect_labels(confidences, labels)
    first = suspects[: len(wrong)]
    assert len({suspect.index for suspect in first} & wrong) >= 0.9 * len(wrong)
    assert sum(suspect.suggested == truth[suspect.index] for suspect in first) >= 0.9 * len(wrong)
    assert [s.score for s in suspects] == sorted((s.score for s in suspects), reverse=True)
    assert 0.7 * len(wrong) <= estimate <= 1.5 * len(wrong)


def test_the_estimate_is_that_of_cleanlab(features):
    points, labels, *_ = features
    confidences = cross_validated(points, labels, range(1200))
    theirs = find_label_issues(labels, confidences, filter_by="confident_learning", n_jobs=1)
    assert suspect_labels(confidences, labels)[1] == theirs.sum()


def test_rows_of_many_photos_are_as_those_of_few_but_for_a_rotation(tmp_path):
    backbone = Backbone.read(write_backbone(tmp_path))
    random = np.random.default_rng(4)
    features = random.normal(2, 1, size=(80, FEATURES)).astype(np.float32)
    concepts = backbone.concepts(features)
    wide, many = rows_of(features, concepts), rows_to_judge(backbone, features, concepts)
    assert wide.shape[1] > many.shape[1] == FEATURES
    assert np.array_equal(rows_to_judge(backbone, features[:30], concepts[:30]),
                          rows_of(features[:30], concepts[:30]))  # fmt: skip
    wide, many = wide - wide.mean(axis=0), many - many.mean(axis=0)
    assert np.allclose(many @ many.T, wide @ wide.T, atol=1e-4)


def test_a_rare_class_is_not_given_up():
    """Of the rare class, the best possible classifier recognises 93 %."""
    random = np.random.default_rng(2)
    labels = np.array([0] * 1000 + [1] * 40)
    points = (3 * np.eye(2, 16)[labels] + random.normal(size=(1040, 16))).astype(np.float32)
    right = cross_validated(points, labels, range(1040)).argmax(axis=1) == labels
    assert right[labels == 1].mean() >= 0.7
    assert right[labels == 0].mean() >= 0.98


def test_copies_are_never_predicted_from_each_other():
    """Features are random, so only a classifier fitted on a copy can know the label."""
    random = np.random.default_rng(1)
    points = np.repeat(random.normal(size=(300, 600)), 2, axis=0).astype(np.float32)
    labels = np.repeat(random.integers(0, 2, 300), 2)
    together = cross_validated(points, labels, [i // 2 for i in range(600)])
    apart = cross_validated(points, labels, range(600))
    assert (together.argmax(1) == labels).mean() < 0.65
    assert (apart.argmax(1) == labels).mean() > 0.75


def test_the_same_seed_gives_the_same_confidences(features):
    points, labels, *_ = features
    one, two = (cross_validated(points, labels, range(1200), seed=5) for _ in range(2))
    assert np.array_equal(one, two)


def test_a_point_in_another_direction_has_the_highest_ood_score(features):
    points = np.concatenate([features[0], [np.full(16, -9, np.float32)]])
    scores = ood_scores(points)
    assert scores.argmax() == 1200
    assert (scores >= 0).all()
    assert (scores <= 2).all()


def test_the_ood_score_is_the_mean_cosine_distance_of_the_ten_nearest_neighbours():
    points = np.random.default_rng(3).normal(size=(40, 6)).astype(np.float32)
    rooted = np.sign(points) * np.sqrt(np.abs(points))
    unit = rooted / np.linalg.norm(rooted, axis=1, keepdims=True)
    distances = np.sort(1 - unit @ unit.T, axis=1)[:, 1:11]  # the first is itself
    assert ood_scores(points) == pytest.approx(distances.mean(axis=1), abs=1e-6)


def test_with_many_photos_the_seed_draws_the_neighbours(monkeypatch):
    monkeypatch.setattr(labels, "MOST_NEIGHBOURS", 30)
    points = np.random.default_rng(3).normal(size=(40, 6)).astype(np.float32)
    one, same, other = (ood_scores(points, seed) for seed in (0, 0, 1))
    assert np.array_equal(one, same)
    assert np.array_equal(one, ood_scores(points))
    assert not np.array_equal(one, other)
    monkeypatch.setattr(labels, "MOST_NEIGHBOURS", 40)
    assert (ood_scores(points) <= one + 1e-9).all()  # with all of them, the nearest are nearer


def test_every_photo_is_compared_with_its_nearest_neighbours_of_a_sample(monkeypatch):
    monkeypatch.setattr(labels, "MOST_NEIGHBOURS", 40)
    features = np.random.default_rng(0).normal(size=(60, 5)).astype(np.float32)
    unit = labels.signed_sqrt(features)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    sampled = np.random.default_rng(3).choice(60, 40, replace=False)
    found = labels.ood_scores(features, seed=3)
    for index in range(60):
        distances = 1 - unit[sampled[sampled != index]] @ unit[index]
        assert found[index] == pytest.approx(
            np.sort(distances)[: labels.NEIGHBOURS].mean(), abs=1e-5
        )


def test_copies_do_not_make_outliers_of_all_other_photos():
    scores = np.array([0.0] * 30 + [0.2, 0.3] * 10)
    assert judging._outliers(scores, range(50), (), 5, judging._median_deviation) == []
