"""A photo is the same thing in a dataset, in a folder or archive to predict, and in memory."""

from __future__ import annotations

import io
import pickle

import numpy as np
import pytest
from PIL import Image

from catordog.errors import CatordogError, PhotoError
from catordog.photos.datasets import open_dataset
from catordog.photos.decode import DecodeRules
from catordog.photos.inputs import Inputs, PhotosByLocation
from catordog.photos.photo import Photo
from catordog.photos.preprocess import Preprocess
from conftest import jpeg, named, save, write_folder, write_zip

PREPROCESS = Preprocess(32)


def test_the_same_file_gives_the_same_bytes_pixels_and_key_wherever_it_is(tmp_path):
    files = named(6)
    folder = write_folder(tmp_path / "pets", files)
    archive = write_zip(tmp_path / "pets.zip", files)
    file = folder / "cat.0.jpg"
    photos = [
        next(photo for photo in open_dataset(str(folder)).photos if photo.name == file.name),
        next(photo for photo in Inputs([str(folder)]) if photo.name == file.name),
        next(photo for photo in Inputs([str(archive)]) if photo.name == file.name),
        *Inputs([str(file)]),
        Photo.from_file(file),
        Photo.from_bytes(files[file.name], str(file)),
    ]
    assert {photo.read() for photo in photos} == {files[file.name]}
    assert len({photo.key() for photo in photos}) == 1
    assert len({PREPROCESS.load(photo).tobytes() for photo in photos}) == 1
    assert [photo.file for photo in photos] == [file, file, None, file, file, None]
    assert [photo.path for photo in photos] == [
        str(file), str(file), f"{archive}/{file.name}", *[str(file)] * 3,
    ]  # fmt: skip
    assert [photo.label for photo in photos] == [0, *[None] * 5]


def test_it_is_decoded_near_the_input_size_and_resized(tmp_path):
    large = Image.new("RGB", (1600, 800), (200, 40, 30))
    photo = Photo.from_bytes(save(large, "JPEG"), "large.jpg")
    assert photo.image(near=32).size == (200, 100)
    assert photo.image().size == (1600, 800)
    expected = PREPROCESS.pixels(photo.image(near=32))
    assert np.array_equal(PREPROCESS.load(photo), expected)
    assert expected.shape == (32, 32, 3)


@pytest.mark.parametrize("kind", ["dataset", "inputs", "file", "bytes"])
def test_its_decoding_rules_travel_with_it(tmp_path, kind):
    rules = DecodeRules(max_megapixels=1e-3)
    folder = write_folder(tmp_path / "pets", named(2))
    file = folder / "cat.0.jpg"
    photo = {
        "dataset": lambda: open_dataset(str(folder), rules=rules).photos[0],
        "inputs": lambda: next(iter(Inputs([str(folder)], rules))),
        "file": lambda: Photo.from_file(file, rules),
        "bytes": lambda: Photo.from_bytes(file.read_bytes(), str(file), rules),
    }[kind]()
    with pytest.raises(PhotoError, match=r"more than the limit of 0\.001 megapixels") as error:
        PREPROCESS.load(photo)
    assert error.value.path == str(file)


def test_it_can_be_sent_to_another_process(tmp_path):
    archive = write_zip(tmp_path / "pets.zip", named(2))
    for photo in (*Inputs([str(archive)]), *open_dataset(str(archive)).photos):
        assert pickle.loads(pickle.dumps(photo)).read() == photo.read()


def test_a_location_opens_the_photo_that_it_names(tmp_path):
    folder = write_folder(tmp_path / "photos", {"a/1.jpg": jpeg(1), "odd name": jpeg(2)})
    archive = write_zip(tmp_path / "more.zip", named(4))
    inputs = Inputs([str(folder), str(folder / "odd name"), str(archive)])
    opened = PhotosByLocation()
    found = [opened.photo(root, name) for root, name, _ in inputs.locations()]
    assert [photo.read() for photo in found] == [photo.read() for photo in inputs]
    assert [photo.path for photo in found] == [path for _, _, path in inputs.locations()]
    assert inputs.count() == len(found) == 6


def test_a_synthetic_picture_reads_as_the_png_of_what_it_shows():
    photo = open_dataset("drawn:n=4,size=32").photos[1]
    assert (photo.path, photo.suffix, photo.file) == ("drawn/dog.1.png", ".png", None)
    assert Image.open(io.BytesIO(photo.read())).tobytes() == photo.image().tobytes()


def test_a_gone_file_is_an_error_of_this_photo(tmp_path):
    with pytest.raises(PhotoError, match=r"gone\.jpg: No such file"):
        Photo.from_file(tmp_path / "gone.jpg").image()


def test_a_path_that_matches_nothing_or_a_folder_without_photos_is_refused(tmp_path):
    with pytest.raises(CatordogError, match=r"gone\.jpg: no such file or folder"):
        Inputs([str(tmp_path / "gone.jpg")])
    with pytest.raises(CatordogError, match=r"\*\.jpg: nothing matches it"):
        Inputs([str(tmp_path / "*.jpg")])
    write_folder(tmp_path / "notes", {"a.txt": b"x"})
    with pytest.raises(CatordogError, match="notes: no photos in it"):
        Inputs([str(tmp_path / "notes")]).count()
