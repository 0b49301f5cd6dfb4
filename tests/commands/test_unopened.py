"""What may hold photos and can't be opened is named and counted by all commands that read it."""

from __future__ import annotations

import pytest

from catordog.cli import main
from catordog.photos.datasets import open_dataset
from catordog.training.datamodule import PhotosDataModule
from conftest import jpeg, write_zip
from model.small import write_checkpoint


@pytest.fixture(scope="module")
def pets(tmp_path_factory):
    """Photos of each split, and an archive that is no archive."""
    photos = {
        f"{split}/{('cat', 'dog')[i % 2]}/{i}.jpg": jpeg(i + 40 * number)
        for number, split in enumerate(("train", "val", "test"))
        for i in range(8)
    }
    folder = tmp_path_factory.mktemp("unopened")
    return write_zip(folder / "pets.zip", {**photos, "more.zip": b"PK\x03\x04 and no more"})


def test_a_dataset_knows_why_it_could_not_be_opened(pets):
    (error,) = open_dataset(str(pets)).unopened
    assert error.path == f"{pets}/more.zip"
    assert error.reason


@pytest.mark.parametrize(
    "words",
    [
        ["audit", "--data", "PETS"],
        ["evaluate", "bundled", "--data", "PETS"],
        ["calibrate", "MODEL", "--data", "PETS"],
        ["compare", "bundled", "MODEL", "--data", "PETS", "--split", "all"],
        ["teach", "PETS", "--out", "OUT.onnx"],
        ["shard", "--data", "PETS", "--out", "OUT"],
    ],
    ids=lambda words: words[0],
)
def test_it_is_named_and_the_exit_code_is_1(words, pets, tmp_path, capsys):
    model = write_checkpoint(tmp_path / "model.ckpt")
    paths = {"PETS": pets, "MODEL": model, "OUT": tmp_path / "out", "OUT.onnx": tmp_path / "o.onnx"}
    assert main([str(paths.get(word, word)) for word in words]) == 1
    printed = capsys.readouterr()
    listed = [file.read_text() for file in tmp_path.rglob("unreadable*.txt")]
    assert "more.zip" in "".join([printed.out, printed.err, *listed])
    if words[0] == "shard":
        assert "24 photos in 3 shards" in printed.err


def test_training_reports_it(pets):
    (error,) = PhotosDataModule(str(pets)).failures
    assert error.path == f"{pets}/more.zip"
