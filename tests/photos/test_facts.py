"""What an audit needs of each photo is read once, and cached by content."""

from __future__ import annotations

from dataclasses import astuple
from pathlib import Path

import pytest

from catordog.errors import PhotoError
from catordog.photos import facts
from catordog.photos.datasets import open_dataset
from catordog.photos.decode import DecodeRules
from catordog.photos.facts import facts_of
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
