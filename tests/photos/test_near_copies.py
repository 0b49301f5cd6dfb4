"""Perceptual hashes agree with imagehash's, and find the copies that people see."""

from __future__ import annotations

import io

import imagehash
import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

from catordog.photos import near_copies
from catordog.photos.near_copies import (
    HASH_BYTES,
    Hashes,
    grey_thumbnail,
    groups_of_pairs,
    hashes_of_thumbnails,
    similar_pairs,
)
from conftest import picture, save

SIZE = (256, 192)


def hashes(*images: Image.Image) -> Hashes:
    return hashes_of_thumbnails(np.stack([grey_thumbnail(image) for image in images]))


def compressed(image: Image.Image, quality: int) -> Image.Image:
    return Image.open(io.BytesIO(save(image, "JPEG", quality=quality)))


@pytest.mark.parametrize("seed", range(5))
def test_the_hash_equals_the_phash_of_the_imagehash_library_bit_for_bit(seed):
    image = picture(seed, SIZE)
    theirs = imagehash.phash(image, hash_size=16, highfreq_factor=2).hash
    mirrored = imagehash.phash(
        ImageOps.mirror(image.convert("L").resize((32, 32), Image.Resampling.LANCZOS)), 16, 2
    ).hash
    ours = hashes(image)
    assert np.array_equal(np.unpackbits(ours.plain[0]).reshape(16, 16), theirs)
    assert np.array_equal(np.unpackbits(ours.mirrored[0]).reshape(16, 16), mirrored)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda image: compressed(image, 40), id="compressed"),
        pytest.param(lambda image: image.resize((120, 90)), id="smaller"),
        pytest.param(lambda image: image.resize((200, 200)), id="squashed"),
        pytest.param(ImageOps.mirror, id="mirrored"),
        pytest.param(ImageOps.grayscale, id="grey"),
        pytest.param(lambda image: ImageEnhance.Brightness(image).enhance(1.2), id="brighter"),
    ],
)
def test_a_changed_copy_is_a_near_copy_and_another_picture_is_not(change):
    images = [picture(seed, SIZE) for seed in range(8)]
    found = list(similar_pairs(hashes(*images, change(images[3]))))
    assert set(found) == {(3, 8)}


def test_blank_pictures_are_no_near_copies():
    assert not list(similar_pairs(hashes(*[Image.new("RGB", (64, 64), "teal")] * 2)))


def test_nearly_all_pairs_of_an_exhaustive_comparison_are_found_and_no_others(monkeypatch):
    random = np.random.default_rng(0)
    centres = random.integers(0, 256, (40, HASH_BYTES), dtype=np.uint8)
    noise = np.packbits(random.random((400, 8 * HASH_BYTES)) < 0.06, axis=1)
    plain = centres[np.arange(400) % 40] ^ noise
    mirrored = random.integers(0, 256, plain.shape, dtype=np.uint8)
    distance = np.bitwise_count(plain[:, None] ^ plain[None]).sum(-1)
    other = np.bitwise_count(plain[:, None] ^ mirrored[None]).sum(-1)
    rows, columns = np.nonzero(np.triu((distance <= 52) | (other <= 52), 1))
    everything = set(zip(rows.tolist(), columns.tolist(), strict=True))
    found = set(similar_pairs(Hashes(plain, mirrored)))
    assert found <= everything
    assert len(found) > 0.99 * len(everything)
    monkeypatch.setattr(near_copies, "_FEW", 0)  # by bands, as larger datasets are compared
    assert set(similar_pairs(Hashes(plain, mirrored))) == found


def test_photos_linked_by_pairs_form_one_group():
    assert groups_of_pairs(6, [(0, 3), (3, 5), (1, 2)]) == [0, 1, 1, 0, 4, 0]
