"""`catordog review --apply`: decisions become a new folder tree, and nothing else changes."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from pathlib import Path

import pytest

from catordog.cli import main
from catordog.photos.decisions import Decision, DecisionLog
from conftest import jpeg, named, picture, save, write_folder, write_zip


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    """Six cats and six dogs, with two different photos of the same name below `cat`."""
    files = {f"{name[:3]}/{name}": data for name, data in named(12).items()}
    files["cat/deep/cat.1.jpg"] = jpeg(70)
    return write_folder(tmp_path / "pets", files)


@pytest.fixture
def decisions(tmp_path: Path) -> Path:
    log = DecisionLog(tmp_path / "pets-decisions.jsonl")
    log.append(
        Decision("cat/cat.0.jpg", "relabel", "dog", "cat"),
        Decision("dog/dog.0.jpg", "leave_out", None, "dog"),
        Decision("dog/dog.1.jpg", "leave_out", None, "dog"),
        Decision("dog/dog.1.jpg", "clear", None, "dog"),
        Decision("cat/cat.1.jpg", "keep", "cat", "cat"),
        Decision("cat/cat.2.jpg", "skip", None, "cat"),
    )
    return log.path


def tree(root: Path) -> dict[str, bytes]:
    files = (path for path in root.rglob("*") if path.is_file())
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in files}


def test_every_photo_is_in_the_folder_of_its_class_and_the_data_stay(
    pets, decisions, tmp_path, capsys
):
    before, out = tree(pets), tmp_path / "clean"
    assert main(["review", "--apply", "--data", str(pets), "--out", str(out)]) == 0
    shown = capsys.readouterr().out
    assert "12 photos (6 cat, 6 dog); 1 relabelled, 1 left out" in shown
    assert tree(pets) == before
    after = tree(out)
    assert after["dog/cat.0.jpg"] == before["cat/cat.0.jpg"]
    assert "dog/dog.0.jpg" not in after
    assert after["dog/dog.1.jpg"] == before["dog/dog.1.jpg"]
    same_name = {after["cat/cat.1.jpg"], after["cat/cat.1 (2).jpg"]}
    assert same_name == {before["cat/cat.1.jpg"], before["cat/deep/cat.1.jpg"]}
    assert len(after) == 12


@pytest.mark.parametrize("form", ["zip", "tar"])
def test_an_archive_is_applied_as_a_folder_is(pets, decisions, tmp_path, form):
    archive = shutil.make_archive(str(tmp_path / "packed"), form, pets)
    words = ["review", "--apply", "--decisions", str(decisions), "--link"]
    assert main([*words, "--data", archive, "--out", str(tmp_path / "one")]) == 0
    assert main([*words, "--data", str(pets), "--out", str(tmp_path / "two")]) == 0
    one, two = tree(tmp_path / "one"), tree(tmp_path / "two")
    assert sorted(one.values()) == sorted(two.values())
    assert set(one) == set(two)


def test_links_share_the_file(pets, decisions, tmp_path):
    out = tmp_path / "clean"
    words = ["--data", str(pets), "--decisions", str(decisions), "--out", str(out), "--link"]
    assert main(["review", "--apply", *words]) == 0
    assert (out / "dog/cat.0.jpg").samefile(pets / "cat/cat.0.jpg")


def test_the_splits_of_a_dataset_stay(tmp_path):
    files = {f"{split}/{name[:3]}/{name}": data for split in ("train", "test")
             for name, data in named(4).items()}  # fmt: skip
    pets = write_folder(tmp_path / "pets", files)
    DecisionLog(tmp_path / "d.jsonl").append(
        Decision("test/cat/cat.0.jpg", "relabel", "dog", "cat")
    )
    words = ["--data", str(pets), "--decisions", str(tmp_path / "d.jsonl")]
    assert main(["review", "--apply", *words, "--out", str(tmp_path / "clean")]) == 0
    assert "test/dog/cat.0.jpg" in tree(tmp_path / "clean")
    assert "train/cat/cat.0.jpg" in tree(tmp_path / "clean")


def test_a_photo_that_is_gone_is_named_and_the_others_are_copied(pets, decisions, tmp_path, capsys):
    (pets / "cat/cat.3.jpg").unlink()
    (pets / "cat/cat.3.jpg").symlink_to("nowhere.jpg")
    words = ["--data", str(pets), "--decisions", str(decisions), "--out", str(tmp_path / "clean")]
    assert main(["review", "--apply", *words]) == 1
    err = capsys.readouterr().err
    assert "cat.3.jpg" in err
    assert "1 photo was not copied" in err
    assert len(tree(tmp_path / "clean")) == 11


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such names")
def test_classes_whose_folders_would_have_one_name_stay_apart(tmp_path, capsys):
    files = {f"{name}/{i}.jpg": jpeg(10 * n + i) for n, name in enumerate(("a:b", "a?b", "dog"))
             for i in range(3)}  # fmt: skip
    pets = write_folder(tmp_path / "pets", files)
    DecisionLog(tmp_path / "d.jsonl").append(Decision("dog/0.jpg", "relabel", "a?b", "dog"))
    words = ["--data", str(pets), "--decisions", str(tmp_path / "d.jsonl")]
    assert main(["review", "--apply", *words, "--out", str(tmp_path / "clean")]) == 0
    after = tree(tmp_path / "clean")
    assert Counter(Path(path).parent.name for path in after) == {"a_b": 3, "a_b (2)": 4, "dog": 2}
    assert after["a_b/0.jpg"] == files["a:b/0.jpg"]
    assert "class a?b is in the folder 'a_b (2)'" in capsys.readouterr().err


def test_a_copy_that_is_interrupted_leaves_no_part_and_says_what_to_do(
    pets, decisions, tmp_path, capsys, monkeypatch
):
    change, calls, out = os.utime, [], tmp_path / "clean"

    def interrupted(*words, **options) -> None:
        calls.append(words)
        if len(calls) == 3:
            raise KeyboardInterrupt
        change(*words, **options)

    words = ["review", "--apply", "--data", str(pets), "--out", str(out)]
    with monkeypatch.context() as patch:
        patch.setattr(os, "utime", interrupted)
        assert main(words) == 130
    assert f"{out} is incomplete: remove it before you apply again" in capsys.readouterr().err
    assert [name for name in tree(out) if not name.endswith(".jpg")] == []
    assert len(tree(out)) == 2
    shutil.rmtree(out)
    assert main(words) == 0


def test_a_name_that_cannot_be_written_is_named_and_the_others_are_copied(
    pets, decisions, tmp_path, capsys
):
    """Numbered and legacy names fit; a path that is longer than any can be does not."""
    write_folder(pets, {f"dog/{'x' * 240}.jpg": jpeg(90)})
    out = tmp_path
    while len(str(out)) < 3900:
        out /= "d" * min(200, 3900 - len(str(out)))
    words = ["review", "--apply", "--data", str(pets), "--out", str(out)]
    assert main(words) == 1
    shown, err = capsys.readouterr()
    assert "12 photos (6 cat, 6 dog)" in shown
    assert "xxx.jpg: can't be put into" in err
    assert "1 photo was not copied" in err
    assert len(tree(out)) == 12


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--apply"], "--apply needs --out DIR"),
        (["--out", "x"], "--out needs --apply"),
        (["--link"], "--link needs --apply"),
        (["--apply", "--out", "{pets}"], "exists and is not empty: give a new folder"),
        (["--apply", "--out", "{pets}/new"], "is within --data"),
        (["--apply", "--out", "new", "--decisions", "none.jsonl"], "no such file"),
        (["--decisions", "{pets}"], "say with --decisions F where to store decisions"),
        (["--decisions", "fixes.csv"], "a review stores JSON Lines, and can't continue a table"),
        (["--apply", "--out", "new", "--unlabelled", "more"], "--apply --data more applies the"),
        (["--port", "99999"], "is not a port"),
        (["--decisions", "{elsewhere}"], "none of its 1 paths is in"),
    ],
)
def test_a_wrong_option_is_refused_in_a_line_before_any_work(
    pets, decisions, tmp_path, capsys, words, message
):
    elsewhere = tmp_path / "elsewhere.jsonl"
    DecisionLog(elsewhere).append(Decision("birds/1.jpg", "keep"))
    before = tree(tmp_path)
    given = [word.format(pets=pets, elsewhere=elsewhere) for word in words]
    assert main(["review", "--data", str(pets), *given]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert len(err.splitlines()) == 1
    assert tree(tmp_path) == before


def test_a_photo_without_a_suffix_gets_one_and_a_lost_folder_is_reported(tmp_path, capsys):
    files = {"a.jpg": jpeg(0), "b": save(picture(1), "PNG"), "c.jpg": jpeg(1), "d": jpeg(3)}
    folder = write_folder(tmp_path / "pets", files)
    (folder / "labels.csv").write_text("path,label\na.jpg,cat\nb,cat\nc.jpg,dog\nd,dog\n")
    kept = (Decision(name, "keep", "cat", "cat") for name in ("a.jpg", "cat.0.jpg"))
    DecisionLog(tmp_path / "d.jsonl").append(*kept)
    words = ["review", "--apply", "--decisions", str(tmp_path / "d.jsonl"), "--out"]
    out = tmp_path / "out"
    assert main([*words, str(out), "--data", str(folder / "labels.csv")]) == 0
    assert sorted(tree(out)) == ["cat/a.jpg", "cat/b.png", "dog/c.jpg", "dog/d.jpg"]
    packed = write_zip(tmp_path / "a.zip", {**named(4), "more.zip": b"PK\x03\x04"})
    assert main([*words, str(tmp_path / "new"), "--data", str(packed)]) == 1
    assert "not copied: " in capsys.readouterr().err
