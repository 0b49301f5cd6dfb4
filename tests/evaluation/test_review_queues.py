"""The queues of a review, and the estimate of how many wrong labels are left."""

from __future__ import annotations

import numpy as np
import pytest

from catordog.confidence.verdict import judge
from catordog.evaluation.labels_left import labels_left
from catordog.evaluation.neighbours import Neighbours
from catordog.evaluation.review import (
    Item,
    first_queues,
    least_sure,
    most_doubtful,
    places_of,
    queues_of_findings,
    with_rejected,
)
from catordog.photos.datasets import open_dataset
from catordog.photos.findings import audit
from conftest import named, picture, save, write_folder


def names(dataset, items: list[Item]) -> list[str]:
    return [dataset.photos.names[item.index] for item in items]


def test_the_random_order_survives_new_photos(tmp_path):
    folder = write_folder(tmp_path / "pets", named(40))
    before = open_dataset(str(folder))
    order = names(before, first_queues(before.photos)["random"])
    assert order != sorted(order)
    assert sorted(order) == sorted(before.photos.names)
    write_folder(folder, {"cat.99.jpg": b"new", "a dog.1.jpg": b"new"})
    after = open_dataset(str(folder))
    longer = names(after, first_queues(after.photos)["random"])
    assert [name for name in longer if name in set(order)] == order


def test_a_group_of_copies_comes_once_and_contradictions_are_no_copies(tmp_path):
    one, two = picture(1, (200, 160)), picture(2, (200, 160))
    files = {
        "cat/a.png": save(one, "PNG"),
        "cat/b.png": save(one, "PNG"),
        "cat/c.jpg": save(one, "JPEG", quality=90),
        "cat/d.png": save(two, "PNG"),
        "dog/e.png": save(two, "PNG"),
        "dog/f.png": save(picture(3), "PNG"),
        "dog/g.png": b"nothing",
    }
    dataset = open_dataset(str(write_folder(tmp_path / "pets", files)))
    queues = queues_of_findings(audit(dataset))
    assert sorted(names(dataset, queues["copies"])) == ["cat/a.png", "cat/b.png", "cat/c.jpg"]
    assert {item.group for item in queues["copies"]} == {0}
    assert sorted(names(dataset, queues["contradictions"])) == ["cat/d.png", "dog/e.png"]
    assert names(dataset, queues["unreadable"]) == ["dog/g.png"]
    assert queues["unreadable"][0].reason


def test_the_least_sure_come_first_and_photos_of_neither_class_have_their_own_queue():
    sure, unsure = judge([9.0, 0.0], ("cat", "dog")), judge([0.1, 0.0], ("cat", "dog"))
    other = judge([0.0, 0.0], ("cat", "dog"), ood_score=1.0)
    predictions = {5: sure, 7: unsure, 9: other}
    assert [item.index for item in least_sure(predictions)] == [7, 5]
    known = [Item(1, "far away")]
    assert [item.index for item in with_rejected(known, predictions)] == [1, 9]
    assert [item.index for item in with_rejected([Item(9)], predictions)] == [9]


def test_the_most_doubtful_photos_come_in_turn_and_once_and_groups_stay_together():
    queues = {
        "suspects": [Item(1, suggested="cat"), Item(2), Item(5)],
        "contradictions": [Item(3, group=0), Item(4, group=0), Item(5, group=1), Item(6, group=1)],
        "neither": [Item(2), Item(7)],
        "copies": [Item(8, group=0), Item(9, group=0)],
    }
    found = most_doubtful(queues)
    assert [item.index for item in found] == [1, 3, 4, 2, 5, 6, 7]
    assert [len(place) for place in places_of(found)] == [1, 2, 1, 2, 1]
    assert most_doubtful({}) == []


class TestLabelsLeft:
    def test_a_few_judged_photos_give_no_estimate(self):
        found = labels_left(range(1000), [], dict.fromkeys(range(12), False))
        assert (found.left, found.missing, found.enough) == (None, 8, False)

    def test_all_judged_leaves_none(self):
        judged = {index: index < 3 for index in range(50)}
        found = labels_left(range(50), [1, 2, 0], judged)
        assert (found.found, found.left, found.low, found.high) == (3, 0, 0, 0)
        assert found.enough

    def test_a_gap_ends_the_sample_and_a_skipped_photo_does_not(self):
        judged = dict.fromkeys([*range(30), *range(31, 60)], False)
        assert labels_left(range(1000), [], judged).sampled == 30
        assert labels_left(range(1000), [], judged, passed={30}).sampled == 59

    def test_judging_out_of_order_can_not_bias_the_sample(self):
        """Someone who picks wrong labels from the end of the order, as in a grid."""
        judged = dict.fromkeys(range(100), False) | dict.fromkeys(range(500, 600), True)
        found = labels_left(range(1000), [], judged)
        assert found.left == 0
        assert found.high < 40

    def test_it_is_enough_when_suspects_run_dry_and_the_sample_is_large(self):
        order, suspects = list(range(2000)), list(range(1500, 1700))
        judged = dict.fromkeys(range(100), False)
        judged |= {index: index < 1520 for index in range(1500, 1560)}
        assert not labels_left(order, suspects, judged).enough  # 10 of the last 50 were wrong
        judged |= dict.fromkeys(range(1560, 1600), False)
        assert labels_left(order, suspects, judged).enough
        for index in range(90, 100):
            del judged[index]
        assert not labels_left(order, suspects, judged).enough

    @pytest.mark.parametrize(("judged_ranks", "sample"), [(0, 100), (60, 100), (200, 300)])
    def test_the_interval_holds_the_truth_at_least_as_often_as_it_says(self, judged_ranks, sample):
        generator = np.random.default_rng(1)
        inside = 0
        for _ in range(200):
            n = 3000
            wrong = generator.random(n) < 0.04
            score = generator.random(n) + 1.2 * wrong * (generator.random(n) < 0.9)
            suspects = np.argsort(-score)[:400].tolist()
            order = generator.permutation(n).tolist()
            judged = {i: bool(wrong[i]) for i in [*order[:sample], *suspects[:judged_ranks]]}
            found = labels_left(order, suspects, judged)
            left = int(wrong.sum()) - found.found
            inside += found.low <= left <= found.high
        assert inside >= 0.93 * 200


def test_neighbours_are_the_photos_with_the_most_similar_features():
    generator = np.random.default_rng(3)
    features = generator.standard_normal((5000, 16)).astype(np.float32)
    features[4321] = 3 * features[10]  # the same direction
    found = Neighbours(list(range(100, 5100)), features)
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    best = [row + 100 for row in np.argsort(-(unit @ unit[10])).tolist() if row != 10][:4]
    nearest = [index for index, _ in found.of(110, 4)]
    assert nearest[0] == 4421
    assert set(nearest) == set(best)
    assert found.of(3, 3) == []
