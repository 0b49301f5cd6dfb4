"""What an audit needs of each photo is read once, and cached by content."""

from __future__ import annotations

import io
import zlib
from dataclasses import astuple
from pathlib import Path

import pytest

from catordog.errors import PhotoError
from catordog.photos import facts
from catordog.photos.datasets import open_dataset
from catordog.photos.decode import DecodeRules
from catordog.photos.facts import facts_of
from catordog.photos.splits import content_key_of
from catordog.photos.synthetic import draw
from conftest import named, write_folder


@pytest.fixture
def pets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Photos, a copy, and a file that is no photo; with an empty cache."""
    monkeypatch.setenv("CATORDOG_DATA", str(tmp_path / "data"))
    files = {f"{name[:3]}/{name}": data for name, data in named(6).items()}
    files["cat/copy.jpg"] = files["cat/cat.1.jpg"]
    files["dog/broken.jpg"] = b"no photo"
    return write_folder(tmp_path / "pets", files)


def found_in(folder: Path, **options) -> dict[str, object]:
    """The facts of each photo, as plain values; the reason of an unreadable one."""
    photos = open_dataset(str(folder), **options).photos
    return {
        name: one.reason if isinstance(one, PhotoError) else [*map(repr, astuple(one))]
        for name, one in zip(photos.names, facts_of(photos), strict=True)
    }


def read_again(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the photos that are read from now on."""
    names: list[str] = []

    def examine(photo):
        names.append(photo.name)
        return original(photo)

    original = facts._examine
    monkeypatch.setattr(facts, "_examine", examine)
    return names


def test_the_second_time_only_unreadable_photos_are_read(pets, monkeypatch):
    first = found_in(pets)
    assert first["cat/copy.jpg"] == first["cat/cat.1.jpg"] != first["cat/cat.2.jpg"]
    assert "not a photo" in str(first["dog/broken.jpg"])
    names = read_again(monkeypatch)
    assert found_in(pets) == first
    assert names == ["dog/broken.jpg"]


def test_a_photo_that_is_replaced_or_moved_is_known_by_its_content(pets, monkeypatch):
    first = found_in(pets)
    broken, moved = pets / "dog" / "broken.jpg", pets / "dog" / "moved.jpg"
    broken.write_bytes((pets / "cat" / "cat.0.jpg").read_bytes())
    (pets / "dog" / "dog.1.jpg").rename(moved)
    names = read_again(monkeypatch)
    second = found_in(pets)
    assert second["dog/broken.jpg"] == first["cat/cat.0.jpg"]
    assert second["dog/moved.jpg"] == first["dog/dog.1.jpg"]
    assert names == []


def with_crc32(data: bytes, crc32: int) -> bytes:
    """The data and four more bytes, so that it has this CRC-32."""
    table = [zlib.crc32(bytes([i])) ^ zlib.crc32(b"\0") for i in range(256)]  # of one byte
    step_of = {value >> 24: i for i, value in enumerate(table)}
    state, steps = crc32 ^ 0xFFFFFFFF, []
    for _ in range(4):
        steps.append(step_of[state >> 24])
        state = (state ^ table[steps[-1]]) << 8 & 0xFFFFFFFF
    state = zlib.crc32(data) ^ 0xFFFFFFFF
    for step in reversed(steps):
        data += bytes([(state ^ step) & 0xFF])
        state = state >> 8 ^ table[step]
    return data


@pytest.mark.parametrize("known", ["none", "one", "both"])
def test_different_files_with_one_content_key_are_told_apart(pets, known):
    files = []
    for index in (100, 101):
        packed = io.BytesIO()
        draw(index, size=64).image.save(packed, "BMP")
        files.append(packed.getvalue() + b"end.")
    files[1] = with_crc32(files[1][:-4], zlib.crc32(files[0]))
    assert content_key_of(files[0]) == content_key_of(files[1])
    (pets / "cat" / "100.bmp").write_bytes(files[0])
    if known == "one":
        found_in(pets)
    (pets / "dog" / "101.bmp").write_bytes(files[1])
    (pets / "dog" / "copy.bmp").write_bytes(files[1])
    if known == "both":
        found_in(pets)
    first, second = found_in(pets), found_in(pets)
    assert first == second
    assert first["cat/100.bmp"] != first["dog/101.bmp"] == first["dog/copy.bmp"]


def test_other_rules_of_decoding_have_another_cache(pets):
    found_in(pets)
    strict = found_in(pets, rules=DecodeRules(max_megapixels=1e-6))
    assert all("megapixel" in str(each) or "not a photo" in str(each) for each in strict.values())


def test_a_damaged_cache_is_read_anew(pets, tmp_path):
    first = found_in(pets)
    (file,) = (tmp_path / "data" / "cache").glob("facts-*.npy")
    for content in (b"", b"no array", file.read_bytes()[:-7]):
        file.write_bytes(content)
        assert found_in(pets) == first
    assert file.stat().st_size > 100


def test_pictures_that_are_drawn_are_not_cached(pets, tmp_path):
    small, large = (found_in(f"drawn:n=4,size={size}") for size in (16, 32))
    assert small != large
    assert not (tmp_path / "data" / "cache").exists()
