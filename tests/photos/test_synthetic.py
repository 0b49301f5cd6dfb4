from __future__ import annotations

import numpy as np
import pytest
import torch

from catordog.photos.synthetic import draw, label_of, picture, probability_of_dog


def pixels(index: int, seed: int = 0, **options):
    return np.asarray(draw(index, seed, **options).image)


def test_a_picture_is_a_function_of_seed_and_index():
    assert (pixels(5) == pixels(5)).all()
    assert (pixels(5) != pixels(6)).any()
    assert (pixels(5) != pixels(5, seed=1)).any()


def test_a_picture_does_not_depend_on_those_drawn_before_it():
    forward = [pixels(index) for index in range(6)]
    backward = [pixels(index) for index in reversed(range(6))]
    assert all((one == other).all() for one, other in zip(forward, reversed(backward), strict=True))


def test_the_label_is_the_same_without_drawing_the_picture():
    for index in range(60):
        drawing = draw(index, 3, morph=0.7)
        assert (drawing.label, drawing.knob) == label_of(index, 3, 0.7)


def test_cats_and_dogs_come_in_equal_numbers():
    assert sum(label_of(index)[0] for index in range(1000)) == 500


def test_any_size_can_be_drawn():
    for size in (16, 33, 64, 200):
        assert draw(0, size=size).image.size == (size, size)


def test_the_true_probability_rises_from_cat_to_dog_and_is_one_half_in_the_middle():
    knobs = np.linspace(0, 1, 101)
    p = np.array([probability_of_dog(knob) for knob in knobs])
    assert (p[0], p[50], p[100]) == pytest.approx((0, 0.5, 1))
    assert (np.diff(p) > 0).all()


def test_labels_have_the_frequency_that_the_knob_gives():
    drawn = [label_of(index, 1, morph=1.0) for index in range(20_000)]
    knobs = np.array([knob for _, knob in drawn])
    labels = np.array([label for label, _ in drawn])
    for low in np.arange(0, 1, 0.1):
        inside = (knobs >= low) & (knobs < low + 0.1)
        expected = np.mean([probability_of_dog(knob) for knob in knobs[inside]])
        spread = 4 * np.sqrt(max(expected * (1 - expected), 0.005) / inside.sum())
        assert labels[inside].mean() == pytest.approx(expected, abs=spread)


def test_morph_is_the_fraction_of_pictures_between_cat_and_dog():
    between = [0 < label_of(index, 0, 0.3)[1] < 1 for index in range(5000)]
    assert np.mean(between) == pytest.approx(0.3, abs=0.03)


def test_a_small_change_of_the_knob_is_a_small_change_of_the_picture():
    steps = [
        np.asarray(picture(knob, np.random.default_rng(4), 64), dtype=float)
        for knob in (0.0, 0.1, 0.5, 1.0)
    ]
    near, far = (np.abs(steps[0] - other).mean() for other in (steps[1], steps[3]))
    assert 0 < near < far


@pytest.mark.slow
def test_a_linear_model_on_pixels_stays_below_75_percent():
    """Logistic regression on 4,000 pictures: its best accuracy on held-out ones."""
    n = 4000
    all_pixels = np.stack([pixels(index, size=32).ravel() for index in range(n + 1000)])
    x = torch.from_numpy(all_pixels.astype(np.float32) / 255 - 0.5)
    y = torch.tensor([index % 2 for index in range(len(x))])
    x = (x - x[:n].mean(0)) / x[:n].std(0)
    torch.manual_seed(0)
    best = 0.0
    for decay in (0.03, 0.3, 3.0):
        model = torch.nn.Linear(x.shape[1], 2)
        optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4, weight_decay=decay)
        for _ in range(12):
            for batch in torch.randperm(n).split(100):
                loss = torch.nn.functional.cross_entropy(model(x[batch]), y[batch])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            right = (model(x[n:]).argmax(1) == y[n:]).float().mean().item()
            best = max(best, right)
    assert 0.5 < best < 0.75
