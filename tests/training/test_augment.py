from __future__ import annotations

import pytest
import torch

from catordog.errors import CatordogError
from catordog.training.augment import Augment

NOTHING = Augment(
    min_area=1, max_stretch=1, max_turn=0, flip=False, brightness=0, contrast=0, saturation=0
)


def photos(n: int = 8, size: int = 40) -> torch.Tensor:
    smooth = torch.rand(n, 3, 5, 5, generator=torch.Generator().manual_seed(0))
    large = torch.nn.functional.interpolate(smooth, size, mode="bilinear")
    return (large * 255).round().byte()


def test_the_result_has_the_requested_size_and_values_in_0_to_1():
    changed = Augment(erase=0.5)(photos(), 32, 1)
    assert changed.shape == (8, 3, 32, 32)
    assert changed.dtype == torch.float32
    assert changed.min() >= 0
    assert changed.max() <= 1


def test_the_same_seed_draws_the_same_changes():
    assert torch.equal(Augment()(photos(), 32, 7), Augment()(photos(), 32, 7))
    assert not torch.equal(Augment()(photos(), 32, 7), Augment()(photos(), 32, 8))


def test_the_global_random_state_is_left_alone():
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    Augment()(photos(), 32, 7)
    assert torch.rand(1) == expected


def test_every_photo_has_its_own_draw():
    same = photos(1).expand(16, -1, -1, -1)
    changed = Augment()(same, 32, 0)
    assert len({tuple(photo.flatten().tolist()) for photo in changed}) == 16


def test_with_all_changes_off_photos_are_unchanged():
    unchanged = NOTHING(photos(), 40, 0)
    assert torch.allclose(unchanged, photos().float() / 255, atol=1e-5)


def test_about_half_of_the_photos_are_flipped():
    same = photos(1).expand(400, -1, -1, -1)
    plain = same.float() / 255
    flip = Augment(min_area=1, max_stretch=1, max_turn=0, brightness=0, contrast=0, saturation=0)
    changed = flip(same, 40, 0)
    flipped = ((changed - plain.flip(3)).abs().amax(dim=(1, 2, 3)) < 1e-4).sum()
    unchanged = ((changed - plain).abs().amax(dim=(1, 2, 3)) < 1e-4).sum()
    assert flipped + unchanged == 400
    assert 150 < flipped < 250


def test_crops_are_rotated_and_stretched_within_their_bounds():
    """Red encodes the column of a pixel and green its row, so that crops show their position."""
    size, crop = 96, 32
    slope = torch.linspace(0, 255, size)
    position = torch.stack([slope.expand(size, size), slope[:, None].expand(size, size)])
    photo = torch.cat([position, torch.zeros(1, size, size)]).round().byte()
    only = Augment(min_area=0.3, max_stretch=1.5, max_turn=20, brightness=0, contrast=0,
                   saturation=0)  # fmt: skip
    colour = only(photo.expand(200, -1, -1, -1), crop, 5)[:, :2]
    was = (colour * (size - 1) + 0.5) * 2 / size - 1  # in −1…1 over the photo
    inner = slice(crop // 4, -crop // 4)  # a crop that is turned may see beyond the corners
    centres = ((2 * torch.arange(crop) + 1) / crop - 1)[inner]
    down, right = torch.meshgrid(centres, centres, indexing="ij")
    known = torch.stack([right.flatten(), down.flatten(), torch.ones(right.numel())], dim=1)
    seen = was[:, :, inner, inner].flatten(2).transpose(1, 2)
    found = torch.linalg.lstsq(known.expand(200, -1, -1), seen).solution  # [200, 3, 2]
    assert (known @ found - seen).abs().max() < 0.02  # straight lines stay straight
    across, along = found[:, 0], found[:, 1]
    assert ((across * along).sum(1).abs() < 0.01).all()  # and right angles right
    area = across[:, 0] * along[:, 1] - across[:, 1] * along[:, 0]
    assert 0.29 < area.abs().min() < 0.4
    assert 0.9 < area.abs().max() < 1.01
    assert 70 < (area < 0).sum() < 130  # flipped
    stretch = across.norm(dim=1) / along.norm(dim=1)
    assert 1 / 1.51 < stretch.min() < 0.75
    assert 1.33 < stretch.max() < 1.51
    angle = torch.atan2(-along[:, 0], along[:, 1]).rad2deg()
    assert 15 < angle.abs().max() < 20.5


def test_colour_changes_match_their_definitions():
    only = {"min_area": 1, "max_stretch": 1, "max_turn": 0, "flip": False}
    plain = photos().float() / 255 * 0.5 + 0.1
    data = (plain * 255).round().byte()
    grey = Augment(**only, brightness=0, contrast=0, saturation=1)(data, 40, 0)
    luma = torch.tensor([0.299, 0.587, 0.114])[:, None, None]
    # Saturation moves a colour towards or away from its own grey, and leaves that grey alone.
    before, after = ((x * luma).sum(1) for x in (data.float() / 255, grey))
    assert torch.allclose(before, after, atol=0.02)
    bright = Augment(**only, brightness=0.2, contrast=0, saturation=0)(data, 40, 0)
    ratio = bright.mean(dim=(1, 2, 3)) / (data.float() / 255).mean(dim=(1, 2, 3))
    assert (ratio > 0.79).all()
    assert (ratio < 1.21).all()
    assert ratio.std() > 0.01


def test_erasing_paints_rectangles():
    erased = Augment(min_area=1, max_stretch=1, max_turn=0, flip=False, brightness=0, contrast=0,
                     saturation=0, erase=1)(photos(), 40, 0)  # fmt: skip
    assert ((erased == 0.5).all(dim=1).flatten(1).float().mean(dim=1) > 0.005).all()


@pytest.mark.parametrize(
    "bad",
    [
        {"min_area": 0},
        {"max_stretch": 0.5},
        {"max_turn": 200},
        {"brightness": 2},
        {"max_area": 0.2},
    ],
)
def test_settings_out_of_range_are_refused(bad):
    with pytest.raises(CatordogError, match=r"augment"):
        Augment(**bad)


def test_crops_larger_than_the_photo_show_its_reflection():
    slope = torch.linspace(0, 255, 64).round().byte().expand(1, 3, 64, 64)

    def turns_back(augment: Augment) -> float:
        rows = [augment(slope, 64, seed)[0, 0, 32] for seed in range(40)]
        return sum(bool((row.diff() < -1e-3).any()) for row in rows) / len(rows)

    options = {"max_stretch": 1, "max_turn": 0, "flip": False,
               "brightness": 0, "contrast": 0, "saturation": 0}  # fmt: skip
    assert turns_back(Augment(min_area=0.5, **options)) == 0
    assert turns_back(Augment(min_area=1, max_area=4, **options)) > 0.8
