"""What cross-validation says of a taught layer is what new photos say."""

from __future__ import annotations

import numpy as np

from catordog.confidence.softmax import softmax
from catordog.model.linear_head import learn, typical_direction


def photos(n, classes, seed, apart=1.0, width=60):
    """Features and concepts of n photos of each class."""
    centres = np.random.default_rng(99).normal(size=(classes, width))
    generator = np.random.default_rng(seed)
    labels = np.repeat(np.arange(classes), n)
    features = np.abs(apart * centres[labels] + generator.normal(size=(len(labels), width)))
    concepts = features @ np.random.default_rng(5).normal(size=(width, 30))
    return features.astype(np.float32), concepts.astype(np.float32), labels


def test_the_accuracy_on_new_photos_is_within_the_interval():
    inside = 0
    for seed in range(10):
        features, concepts, labels = photos(12, 3, seed, apart=1.2)
        learned = learn(features, concepts, labels, 3)
        new, new_concepts, new_labels = photos(300, 3, 1000 + seed, apart=1.2)
        predicted = learned.head.logits(new, new_concepts).argmax(axis=1)
        low, high = learned.interval
        inside += low <= (predicted == new_labels).mean() <= high
    assert inside >= 9


def test_labels_at_random_are_not_learnt_by_heart():
    features, concepts, _ = photos(60, 2, 0, apart=0)
    labels = np.random.default_rng(1).integers(0, 2, 120)
    learned = learn(features, concepts, labels, 2)
    low, high = learned.interval
    assert low < 0.5 < high
    # Overconfident logits would be worse than no answer at all.
    confidences = softmax(learned.logits, learned.temperature)
    assert -np.log(confidences[np.arange(120), labels]).mean() < 0.75


def test_copies_of_a_photo_do_not_make_the_accuracy_look_better():
    features, concepts, _ = photos(20, 2, 0, apart=0)
    labels = np.random.default_rng(1).integers(0, 2, 40)
    twice = [np.concatenate([x, x]) for x in (features, concepts, labels)]
    groups = np.tile(np.arange(40), 2)
    aware, unaware = learn(*twice, 2, groups), learn(*twice, 2)
    assert aware.interval[0] < 0.5
    assert unaware.accuracy > 0.9  # what the groups prevent


def test_a_class_of_one_photo_is_learnt_but_not_tested():
    features, concepts, labels = photos(8, 3, 0, apart=3)
    kept = np.r_[:16, 16]  # one photo of the last class
    learned = learn(features[kept], concepts[kept], labels[kept], 3)
    assert 16 not in learned.tested
    assert len(learned.tested) == 16
    predicted = learned.head.logits(features[16:], concepts[16:]).argmax(axis=1)
    assert (predicted == 2).mean() > 0.5


def test_one_photo_a_class_gives_no_accuracy():
    features, concepts, labels = photos(1, 3, 0)
    learned = learn(features, concepts, labels, 3)
    assert learned.accuracy is None
    assert learned.interval == (0, 1)
    assert len(learned.nonconformity) == 0
    assert learned.expected_with(2) is None


def test_one_photo_a_class_gives_confidences_that_are_better_than_none():
    for seed in range(5):
        features, concepts, labels = photos(1, 10, seed, apart=1.5)
        learned = learn(features, concepts, labels, 10)
        new, new_concepts, new_labels = photos(30, 10, 1000 + seed, apart=1.5)
        confidences = softmax(learned.head.logits(new, new_concepts), learned.temperature)
        assert (confidences.argmax(axis=1) == new_labels).mean() > 0.3
        loss = -np.log(confidences[np.arange(300), new_labels]).mean()
        assert loss < np.log(10)


def test_features_that_vary_within_the_classes_count_less():
    def noisy(n, seed):
        features, concepts, labels = photos(n, 2, seed, apart=0.6)
        noise = np.random.default_rng([seed, 1]).normal(0, 8, (len(labels), 30))
        return np.concatenate([features, np.abs(noise)], axis=1), concepts[:, :2], labels

    features, concepts, labels = noisy(40, 2)
    new, new_concepts, new_labels = noisy(500, 102)
    learned = learn(features, 0.01 * concepts, labels, 2)
    predicted = learned.head.logits(new, 0.01 * new_concepts).argmax(axis=1)
    assert (predicted == new_labels).mean() > 0.66


def test_the_learning_curve_rises_and_more_photos_never_hurt():
    features, concepts, labels = photos(40, 3, 0, apart=0.8)
    learned = learn(features, concepts, labels, 3)
    first, second = learned.curve
    assert first.photos < second.photos < 40
    assert first.accuracy < second.accuracy
    assert learned.accuracy <= learned.expected_with(2) <= 1


def test_the_layer_of_a_single_class_gives_its_photos_a_logit_of_about_1():
    features, concepts, _ = photos(20, 1, 0, apart=2)
    logits = typical_direction(features, concepts).logits(features, concepts)
    assert logits.shape == (20, 1)
    assert abs(logits.mean() - 1) < 1e-6
