"""Which photos to label next: doubtful and different ones, and an honest end."""

from __future__ import annotations

import numpy as np
import pytest

from catordog.model.active_learning import DOZEN, Round, learn_round, pays, propose


@pytest.fixture(scope="module")
def pool():
    """Three classes of 150, apart, in 40 directions; 30 more between the first two."""
    generator = np.random.default_rng(0)
    truth = np.repeat(np.arange(3), 150)
    centres = 3 * np.eye(3, 40)
    rows = centres[truth] + 0.3 * generator.normal(size=(450, 40))
    between = (centres[0] + centres[1]) / 2 + 0.3 * generator.normal(size=(30, 40))
    return np.concatenate([rows, between]), np.concatenate([truth, generator.integers(0, 2, 30)])


def logits_of(rows, labelled, truth):
    """By the similarity to the mean of each class, as a nearest-centroid classifier."""
    means = np.stack([
        rows[[i for i in labelled if truth[i] == label]].mean(axis=0) for label in range(3)
    ])  # fmt: skip
    return 2 * (rows @ means.T) - (means**2).sum(axis=1)


def test_the_first_photos_are_different_and_of_all_kinds(pool):
    rows, truth = pool
    first = propose(rows, [])
    assert len(first) == len(set(first)) == DOZEN
    assert set(truth[first]) == {0, 1, 2}
    again = propose(rows, first)
    assert not set(first) & set(again)


def test_photos_that_the_classifier_is_unsure_about_come_next(pool):
    rows, truth = pool
    labelled = [*range(10), *range(150, 160), *range(300, 310)]
    logits = logits_of(rows, labelled, truth)
    chosen = propose(rows, labelled, logits)
    assert sum(index >= 450 for index in chosen) >= 8
    assert not set(chosen) & set(labelled)


def test_of_many_copies_of_a_doubtful_photo_few_are_chosen(pool):
    rows, truth = pool
    copied = np.concatenate([rows[:450], np.repeat(rows[450:454], 20, axis=0)])
    labelled = [*range(10), *range(150, 160), *range(300, 310)]
    logits = logits_of(copied, labelled, truth)
    chosen = propose(copied, labelled, logits)
    kinds = {(index - 450) // 20 for index in chosen if index >= 450}
    assert kinds == {0, 1, 2, 3}
    assert sum(index >= 450 for index in chosen) <= 6


def test_the_same_seed_proposes_the_same_photos(pool):
    rows, truth = pool
    labelled = [0, 150, 300]
    logits = logits_of(rows, labelled, truth)
    for state in (None, logits):
        assert propose(rows, labelled, state, seed=3) == propose(rows, labelled, state, seed=3)


def test_what_is_left_is_proposed_even_if_it_is_less_than_a_dozen(pool):
    rows, _ = pool
    assert sorted(propose(rows, range(5, len(rows)))) == [0, 1, 2, 3, 4]
    assert propose(rows, range(len(rows))) == []


def test_identical_photos_can_be_proposed_too():
    rows = np.ones((40, 8))
    assert len(set(propose(rows, [0]))) == DOZEN
    assert len(set(propose(rows, [0, 1], np.zeros((40, 2))))) == DOZEN


def test_labels_pay_until_they_change_no_predictions_several_times_in_a_row():
    def rounds(*changed: float | None) -> list[Round]:
        return [Round(12 * n, None, (0, 1), 0.9, each) for n, each in enumerate(changed, 1)]

    assert pays([])
    assert pays(rounds(None, 0.0, 0.0))
    assert pays(rounds(None, 0.0, 0.0, 0.2))
    assert not pays(rounds(None, 0.3, 0.004, 0.0, 0.001))


def test_a_round_predicts_all_photos_and_reports_what_its_labels_have_changed(pool):
    rows, truth = pool
    concepts = rows[:, :12]
    labelled = [*range(4), *range(150, 154), *range(300, 304)]
    first, logits = learn_round(rows, concepts, labelled, truth[labelled], 3)
    assert logits.shape == (480, 3)
    assert (logits.argmax(axis=1) == truth)[:450].mean() > 0.95
    assert first.labels == 12
    assert first.changed is None
    assert first.interval[0] <= first.accuracy <= first.interval[1]
    assert 1 / 3 < first.expected <= 1
    labelled += propose(rows, labelled, logits)
    second, after = learn_round(
        rows, concepts, labelled, truth[labelled], 3, before=logits.argmax(axis=1)
    )
    assert second.labels == 24
    assert second.changed == (logits.argmax(axis=1) != after.argmax(axis=1)).mean()
