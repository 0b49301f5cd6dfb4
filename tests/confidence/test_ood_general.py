"""The ood detector beside a general backbone."""

from __future__ import annotations

import json

import numpy as np
import pytest

from catordog.confidence.ood_general import GeneralOodDetector, fit_general_ood, own_distances
from catordog.errors import CatordogError


def photos(n, seed, shown=(0, 1)):
    """Features and concepts of photos that show one of these concepts each."""
    generator = np.random.default_rng(seed)
    concepts = generator.normal(size=(n, 20))
    own = np.array(shown)[generator.integers(0, len(shown), n)]
    concepts[np.arange(n), own] += 6
    mixing = np.random.default_rng(3).normal(size=(20, 30))
    features = np.maximum(concepts @ mixing + generator.normal(size=(n, 30)), 0)
    return features.astype(np.float32), concepts.astype(np.float32)


@pytest.mark.parametrize("bank", [True, False])
@pytest.mark.parametrize("n", [30, 100])
def test_photos_of_the_set_are_accepted_and_others_rejected(bank, n):
    detector = fit_general_ood(*photos(n, 0), bank=bank)
    own = detector.scores(*photos(500, 1))
    others = detector.scores(*photos(500, 2, shown=(7, 8, 9)))
    assert (own <= 0.99).mean() > (0.95 if n == 100 else 0.9)
    assert (others > 0.99).mean() > 0.9
    assert 0 <= own.min() <= own.max() <= 1


def test_the_score_is_about_the_fraction_of_photos_that_are_nearer():
    scores = fit_general_ood(*photos(200, 0)).scores(*photos(1000, 1))
    for level in (0.25, 0.5, 0.75):
        assert abs((scores <= level).mean() - level) < 0.1


@pytest.mark.parametrize("bank", [True, False])
def test_a_model_file_keeps_the_scores(bank):
    detector = fit_general_ood(*photos(40, 0), bank=bank)
    again = GeneralOodDetector.from_dict(json.loads(json.dumps(detector.to_dict())))
    assert again == detector
    new = photos(50, 1)
    assert np.allclose(again.scores(*new), detector.scores(*new), atol=1e-4)


def test_copies_are_no_neighbours_of_one_another():
    features, concepts = photos(30, 0)
    doubled = np.concatenate([features, features]), np.concatenate([concepts, concepts])
    groups = np.tile(np.arange(30), 2)
    new = photos(200, 1)
    aware = fit_general_ood(*doubled, groups).scores(*new)
    unaware = fit_general_ood(*doubled).scores(*new)
    assert (aware <= 0.95).mean() > (unaware <= 0.95).mean()


@pytest.mark.parametrize("copies", [1, 3])
def test_photos_in_the_set_that_show_something_else_are_the_farthest_and_so_are_their_copies(
    copies,
):
    own, others = photos(100, 0), photos(4, 2, shown=(7, 8, 9))
    features, concepts = (
        np.concatenate([a, *[b] * copies]) for a, b in zip(own, others, strict=True)
    )
    groups = np.concatenate([np.arange(100), *[np.arange(100, 104)] * copies])
    distances = own_distances(features, concepts, groups)
    assert distances[100:].min() > distances[:100].max()


def test_what_everyday_photos_show_too_says_little_of_a_photo():
    own = photos(20, 0, shown=(0, 1, 7))  # everyday photos show concept 7, too
    everyday = np.full(20, 0.01)
    everyday[7] = 0.6
    informed, uninformed = (
        fit_general_ood(*own, background=background) for background in (everyday, None)
    )
    others = photos(500, 2, shown=(7, 8, 9))
    assert informed.scores(*others).mean() > uninformed.scores(*others).mean()
    assert informed.weights[[0, 1]].min() > informed.weights[7]
    assert (informed.scores(*photos(500, 1)) <= 0.99).mean() > 0.9


def test_two_photos_are_too_few():
    assert fit_general_ood(*photos(2, 0)) is None


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("weights", ""), ("bank", "AAAA"), ("photos", -1), ("step", float("nan")), ("body", [0.0]),
        ("tail", 0), ("tail_from", 1.5), ("concepts", [0.0]), ("neighbours", [0, float("inf")]),
    ],
)  # fmt: skip
def test_a_damaged_detector_is_refused(key, value):
    values = fit_general_ood(*photos(30, 0)).to_dict() | {key: value}
    with pytest.raises((ValueError, TypeError)):
        GeneralOodDetector.from_dict(values)


def test_other_features_are_refused():
    detector = fit_general_ood(*photos(30, 0))
    features, concepts = photos(3, 1)
    with pytest.raises(CatordogError, match="takes 30 features and 20 concepts"):
        detector.scores(features[:, :5], concepts)
