"""The cache of decoded photos is built once, resumed, and rebuilt when it is damaged."""

from __future__ import annotations

import io
import shutil
from dataclasses import replace

import numpy as np
import pytest

from catordog.errors import CatordogError, PhotoError
from catordog.photos import cache, decode
from catordog.photos.cache import cached_pixels
from catordog.photos.datasets import open_dataset
from catordog.photos.decode import DecodeRules
from catordog.photos.preprocess import Preprocess
from catordog.photos.reading import read_pixels
from conftest import jpeg, named, picture, save, write_folder

PREPROCESS = Preprocess(32, "squash")


@pytest.fixture
def pets(tmp_path, monkeypatch):
    monkeypatch.setenv("CATORDOG_DATA", str(tmp_path / "data"))
    files = named(40) | {"cat.90.jpg": b"", "dog.91.jpg": b"<html>", "dog.92.jpg": jpeg(1)[:500]}
    return write_folder(tmp_path / "pets", files)


def photos_of(folder):
    return list(open_dataset(str(folder)).photos)


def files_of(tmp_path, suffix=".u8"):
    return sorted((tmp_path / "data/cache").glob(f"*{suffix}"))


def test_it_gives_the_same_pixels_as_decoding_into_memory(pets, tmp_path):
    photos = photos_of(pets)
    memory, first, again = (
        read_pixels(photos, PREPROCESS),
        cached_pixels(photos, PREPROCESS),
        cached_pixels(photos, PREPROCESS),
    )
    for found in (first, again):
        assert np.array_equal(found.pixels, memory.pixels)
        assert found.photos == memory.photos
        assert list(map(str, found.failures)) == list(map(str, memory.failures))
    assert isinstance(again.pixels, np.memmap)
    assert len(files_of(tmp_path)) == 1
    assert {path.suffix for path in (tmp_path / "data/cache").iterdir()} == {
        ".u8",
        ".json",
        ".lock",
    }


def test_no_readable_photo_is_decoded_twice(pets, monkeypatch):
    photos = photos_of(pets)
    first = cached_pixels(photos, PREPROCESS)
    decoded_again = []
    load = Preprocess.load

    def watched(preprocess, photo):
        decoded_again.append(photo)
        return load(preprocess, photo)

    monkeypatch.setattr(Preprocess, "load", watched)
    again = cached_pixels(photos, PREPROCESS)
    assert sorted(x.path for x in decoded_again) == sorted(x.path for x in first.failures)
    assert list(map(str, again.failures)) == list(map(str, first.failures))


@pytest.mark.parametrize("interrupted", [False, True])
def test_a_photo_that_failed_is_tried_again_and_takes_its_row(
    pets, tmp_path, monkeypatch, interrupted
):
    photos = photos_of(pets)
    expected = read_pixels(photos, PREPROCESS)
    load = Preprocess.load

    def no_network(preprocess, photo):
        if photo.name in {"cat.3.jpg", "dog.5.jpg"}:
            raise PhotoError(photo.path, "Connection timed out")
        return load(preprocess, photo)

    def interrupt(done):
        if interrupted and done == 40:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Preprocess, "load", no_network)
        if interrupted:
            with pytest.raises(KeyboardInterrupt):
                cached_pixels(photos, PREPROCESS, progress=interrupt)
        assert len(cached_pixels(photos, PREPROCESS).failures) == 5
    for _ in range(2):
        found = cached_pixels(photos, PREPROCESS)
        assert np.array_equal(found.pixels, expected.pixels)
        assert found.photos == expected.photos
        assert len(found.failures) == 3
    assert len(files_of(tmp_path)) == 1


def test_photos_without_their_reader_are_decoded_after_it_is_installed(tmp_path, monkeypatch):
    pillow_heif = pytest.importorskip("pillow_heif")
    monkeypatch.setenv("CATORDOG_DATA", str(tmp_path / "data"))
    file = io.BytesIO()
    pillow_heif.from_pillow(picture(3)).save(file, quality=95)
    write_folder(tmp_path / "pets", named(4) | {"cat.9.heic": file.getvalue()})
    photos = photos_of(tmp_path / "pets")
    with monkeypatch.context() as patch:
        patch.setattr(decode, "_heif", lambda: False)
        (failure,) = cached_pixels(photos, PREPROCESS).failures
        assert "pip install" in failure.reason
    found = cached_pixels(photos, PREPROCESS)
    assert not found.failures
    assert len(found.photos) == 5


def test_another_version_of_a_library_that_decodes_makes_another_cache(pets, tmp_path, monkeypatch):
    cached_pixels(photos_of(pets), PREPROCESS)
    version = decode.features.version
    monkeypatch.setattr(
        decode.features, "version", lambda name: "99" if name == "pil" else version(name)
    )
    cached_pixels(photos_of(pets), PREPROCESS)
    assert len(files_of(tmp_path)) == 2


def test_another_colour_of_padding_makes_another_cache(pets, tmp_path):
    write_folder(pets, {"dog.77.jpg": save(picture(1, (64, 20)), "PNG")})
    photos = photos_of(pets)
    pad = Preprocess(32, "pad")
    black = replace(pad, mean=(0.0, 0.0, 0.0))
    for preprocess in (pad, black, pad):
        expected = read_pixels(photos, preprocess).pixels
        assert np.array_equal(cached_pixels(photos, preprocess).pixels, expected)
    assert len(files_of(tmp_path)) == 2
    for resize in ("squash", "crop"):  # these don't pad
        cached_pixels(photos, Preprocess(32, resize))
        cached_pixels(photos, Preprocess(32, resize, mean=(0.0, 0.0, 0.0)))
    assert len(files_of(tmp_path)) == 4


def test_moved_photos_find_their_cache_again(pets, tmp_path):
    cached_pixels(photos_of(pets), PREPROCESS)
    pets.rename(tmp_path / "elsewhere")
    moved = cached_pixels(photos_of(tmp_path / "elsewhere"), PREPROCESS)
    assert len(files_of(tmp_path)) == 1
    assert all("elsewhere" in failure.path for failure in moved.failures)


def test_other_contents_sizes_and_rules_make_other_caches(pets, tmp_path):
    cached_pixels(photos_of(pets), PREPROCESS)
    cached_pixels(photos_of(pets), replace(PREPROCESS, size=40))
    cached_pixels(photos_of(pets), replace(PREPROCESS, resize="crop"))
    cached_pixels(photos_of(pets), PREPROCESS, DecodeRules(allow_truncated=True))
    (pets / "cat.0.jpg").write_bytes(jpeg(2))
    cached_pixels(photos_of(pets), PREPROCESS)
    assert len(files_of(tmp_path)) == 5


@pytest.mark.parametrize("stop", [1, 7, 30, 41])
def test_an_interrupted_build_is_resumed_where_it_stopped(pets, tmp_path, stop):
    photos = photos_of(pets)

    def interrupt(done):
        if done == stop:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cached_pixels(photos, PREPROCESS, progress=interrupt)
    assert not files_of(tmp_path)
    seen: list[int] = []
    found = cached_pixels(photos, PREPROCESS, progress=seen.append)
    assert seen == list(range(stop + 1, len(photos) + 1))
    memory = read_pixels(photos, PREPROCESS)
    assert np.array_equal(found.pixels, memory.pixels)
    assert list(map(str, found.failures)) == list(map(str, memory.failures))


def test_a_half_written_row_is_decoded_again(pets, tmp_path):
    photos = photos_of(pets)

    def interrupt(done):
        if done == 20:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cached_pixels(photos, PREPROCESS, progress=interrupt)
    (partial,) = files_of(tmp_path, ".partial")
    partial.write_bytes(partial.read_bytes()[:-100])
    found = cached_pixels(photos, PREPROCESS)
    assert np.array_equal(found.pixels, read_pixels(photos, PREPROCESS).pixels)


@pytest.mark.parametrize("damage", ["short", "no facts", "wrong facts"])
def test_a_damaged_cache_is_rebuilt(pets, tmp_path, damage):
    photos = photos_of(pets)
    complete = np.array(cached_pixels(photos, PREPROCESS).pixels)
    (rows,), (facts,) = files_of(tmp_path), files_of(tmp_path, ".json")
    if damage == "short":
        rows.write_bytes(rows.read_bytes()[:-1])
    elif damage == "no facts":
        facts.unlink()
    else:
        facts.write_text('{"failures": [[0, "x"]]}')
    assert np.array_equal(cached_pixels(photos, PREPROCESS).pixels, complete)


def test_a_full_disk_is_reported_before_anything_is_decoded(pets, monkeypatch):
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(cache.shutil, "disk_usage", lambda _: usage._replace(free=1000))
    monkeypatch.setattr(Preprocess, "load", lambda *_: pytest.fail("decoded"))
    with pytest.raises(CatordogError, match=r"GiB left: make room, .*--data\.cache false"):
        cached_pixels(photos_of(pets), PREPROCESS)


def test_a_folder_that_cannot_be_written_is_named(pets, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("CATORDOG_DATA", str(tmp_path / "file"))
    with pytest.raises(CatordogError, match="can't write the decoded photos"):
        cached_pixels(photos_of(pets), PREPROCESS)


def test_no_file_is_left_behind_if_no_photo_is_readable(tmp_path, monkeypatch):
    monkeypatch.setenv("CATORDOG_DATA", str(tmp_path / "data"))
    write_folder(tmp_path / "pets", {"cat.1.jpg": b"no", "dog.1.jpg": b"photo"})
    with pytest.raises(CatordogError, match="none of the 2 photos"):
        cached_pixels(photos_of(tmp_path / "pets"), PREPROCESS)
    assert not files_of(tmp_path, ".partial")


def test_a_cache_in_a_folder_that_cannot_be_written_is_read(pets, monkeypatch):
    import filelock

    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    first = cached_pixels(photos_of(pets), PREPROCESS)
    monkeypatch.setattr(filelock, "FileLock", refuse)
    again = cached_pixels(photos_of(pets), PREPROCESS)
    assert np.array_equal(again.pixels, first.pixels)
    assert len(again.failures) == 3
