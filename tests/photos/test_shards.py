"""Shards hold a dataset's photos, and are read in the same order by one process or by several."""

from __future__ import annotations

import json
import signal
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from catordog.cli import main
from catordog.errors import CatordogError, PhotoError
from catordog.photos import pack
from catordog.photos.datasets import open_dataset
from catordog.photos.findings import audit
from catordog.photos.shards import INDEX
from catordog.photos.splits import SPLITS, SplitFractions
from conftest import jpeg, picture, save, write_folder

FRACTIONS = SplitFractions()


@pytest.fixture(scope="module")
def pets(tmp_path_factory) -> Path:
    files = {f"{('cat', 'dog')[i % 2]}/{i}.jpg": jpeg(i) for i in range(300)}
    return write_folder(tmp_path_factory.mktemp("pets") / "pets", files)


@pytest.fixture(scope="module")
def packed(pets, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("packed") / "shards"
    assert main(["shard", "--data", str(pets), "--out", str(out), "--photos", "20"]) == 0
    return out


def content(data: str, split: str) -> Counter[tuple[int, int]]:
    return Counter(
        (photo.key(), photo.label) for photo in open_dataset(data).split(split, FRACTIONS)
    )


def test_they_hold_the_same_photos_in_the_same_splits_and_classes(pets, packed):
    assert open_dataset(str(packed)).classes == ("cat", "dog")
    for split in SPLITS:
        assert content(str(packed), split) == content(str(pets), split)
    picture = next(iter(open_dataset(str(packed)).photos))
    assert picture.image().size == (48, 48)


def test_photos_in_shards_are_not_misnamed_whatever_their_format(tmp_path):
    files = {f"{kind}/{i}.png": save(picture(2 * i + (kind == "dog")), "PNG")
             for kind in ("cat", "dog") for i in range(4)}  # fmt: skip
    pets = write_folder(tmp_path / "pets", files)
    assert main(["shard", "--data", str(pets), "--out", str(tmp_path / "shards")]) == 0
    assert audit(open_dataset(str(tmp_path / "shards"))).suspicious == []
    (pets / "cat/0.png").rename(pets / "cat/0.jpg")
    assert len(audit(open_dataset(str(pets))).suspicious) == 1


def test_every_full_shard_has_all_classes(packed):
    found = open_dataset(str(packed))
    by_shard: dict[str, Counter[int]] = {}
    for photo in found.photos:
        by_shard.setdefault(photo.name.partition("/")[0], Counter())[photo.label] += 1
    full = [counts for counts in by_shard.values() if counts.total() == 20]
    assert len(full) >= 12
    assert all(min(counts[0], counts[1]) >= 2 for counts in full)


def test_webdataset_reads_the_same_photos_and_labels(packed):
    webdataset = pytest.importorskip("webdataset")
    shards = sorted(map(str, packed.glob("train-*.tar")))
    stream = webdataset.WebDataset(shards, shardshuffle=False).to_tuple("jpg", "cls")
    theirs = [(data, int(label)) for data, label in stream]
    train = open_dataset(str(packed)).split("train", FRACTIONS)
    assert theirs == [(photo.read(), photo.label) for photo in train]


def test_interrupted_packing_is_resumed_and_gives_the_same_files(pets, packed, tmp_path):
    for name in ("train-00000.tar", "train-00000.npy", "val-00000.tar"):
        (tmp_path / name).write_bytes((packed / name).read_bytes())
    before = (tmp_path / "train-00000.tar").stat().st_mtime_ns
    assert main(["shard", "--data", str(pets), "--out", str(tmp_path), "--photos", "20"]) == 0
    assert (tmp_path / "train-00000.tar").stat().st_mtime_ns == before
    for file in packed.iterdir():
        assert (tmp_path / file.name).read_bytes() == file.read_bytes(), file.name


def test_unreadable_photos_are_left_out_and_listed(pets, tmp_path, capsys):
    copy = tmp_path / "pets"
    write_folder(copy, {f"{kind}/{i}.jpg": jpeg(2 * i + (kind == "dog")) for kind in ("cat", "dog")
                        for i in range(30)})  # fmt: skip
    (copy / "cat" / "gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
    assert main(["shard", "--data", str(copy), "--out", str(tmp_path / "out")]) == 1
    assert "gone.jpg" in capsys.readouterr().err
    assert "gone.jpg" in (tmp_path / "out" / "unreadable.txt").read_text()
    assert len(open_dataset(str(tmp_path / "out")).photos) == 60


def test_only_the_damaged_photos_of_a_damaged_shard_are_lost(packed, tmp_path):
    for file in packed.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    tar = tmp_path / "train-00001.tar"
    data = bytearray(tar.read_bytes())
    offset = int(np.load(tar.with_suffix(".npy"))["offset"][3])
    data[offset + 100] ^= 1
    tar.write_bytes(data)
    failures = []
    for photo in open_dataset(str(tmp_path)).photos:
        try:
            photo.image()
        except PhotoError as error:
            failures.append(str(error))
    assert len(failures) == 1
    assert "its shard is damaged" in failures[0]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda facts: facts.update(format=2), "format 2"),
        (lambda facts: facts["shards"][0].__setitem__(0, "../../x.tar"), "unusable shard name"),
        (lambda facts: facts["shards"][0].__setitem__(0, "gone.tar"), "No such file"),
        (lambda facts: facts["shards"][0].__setitem__(2, 7), "photos, not 7"),
        (
            lambda facts: facts["shards"][0].__setitem__(1, "all"),
            "unusable shard name or split: 'train-00000.tar', 'all'",
        ),
        (lambda facts: facts.update(classes=["cat"]), "a label without a class"),
        (lambda facts: facts.clear(), "('format')"),
    ],
)
def test_an_untrusted_index_is_checked(packed, tmp_path, change, says):
    for file in packed.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    facts = json.loads((packed / INDEX).read_text())
    change(facts)
    (tmp_path / INDEX).write_text(json.dumps(facts))
    with pytest.raises(CatordogError, match="unusable index of shards") as error:
        open_dataset(str(tmp_path))
    assert says in str(error.value)


def test_an_index_of_pickled_objects_is_refused(packed, tmp_path):
    for file in packed.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    np.save(tmp_path / "train-00000.npy", np.array([{}], object), allow_pickle=True)
    with pytest.raises(CatordogError, match="Python objects in dtype"):
        open_dataset(str(tmp_path))


def test_a_wrong_option_is_one_line_and_writes_nothing(packed, pets, capsys):
    for words, says in (
        (["--data", str(pets), "--out", str(packed)], "it has shards already"),
        (["--data", str(pets), "--out", str(packed / "new"), "--photos", "0"], "--photos 0"),
        (["--data", "nowhere", "--out", str(packed / "new")], "nowhere: no such file"),
    ):
        assert main(["shard", *words]) == 2
        error = capsys.readouterr().err
        assert says in error
        assert len(error.splitlines()) == 1
        assert not (packed / "new").exists()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no fork")
def test_two_processes_stopped_within_an_epoch_resume_and_end_with_the_weights_of_one(
    forks, packed, tmp_path
):
    from training.test_two_processes import close, run, start, words

    command = words(packed, "--data.workers", "1", "--trainer.max_epochs", "6")
    run(forks, 1, command, tmp_path / "one")
    pair = start(forks, 2, command, tmp_path / "two")
    pair[0].wait_for("epoch   2/6")
    pair[0].send(signal.SIGTERM)
    assert [each.wait() for each in pair] == [75, 75], pair[0].err
    run(forks, 2, [*command, "--ckpt_path", "last"], tmp_path / "two")
    assert close(tmp_path / "one", tmp_path / "two")
    assert not (tmp_path / "two/data/cache").exists()  # decoded photos aren't cached


def test_tars_of_others_are_not_replaced(pets, tmp_path, capsys):
    (tmp_path / "train-00000.tar").write_bytes(b"of others")
    assert main(["shard", "--data", str(pets), "--out", str(tmp_path)]) == 2
    assert "already holds train-00000.tar, which" in capsys.readouterr().err
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"of others"]


def test_a_tar_of_photos_that_have_changed_since_is_not_taken_for_the_new_one(
    pets, tmp_path, monkeypatch
):
    """The disk is full after the new index, and the old tar is as long as the new one."""
    assert main(["shard", "--data", str(pets), "--out", str(tmp_path)]) == 0
    (tmp_path / "shards.json").unlink()
    index = np.load(tmp_path / "train-00000.npy")
    index["key"] += 1
    np.save(tmp_path / "train-00000.npy", index)
    write = pack.write_bytes

    def full(path: Path, data: bytes) -> None:
        if path.suffix == ".tar":
            raise CatordogError("the disk is full")
        write(path, data)

    monkeypatch.setattr(pack, "write_bytes", full)
    assert main(["shard", "--data", str(pets), "--out", str(tmp_path)]) == 2
    assert not (tmp_path / "train-00000.tar").exists()
