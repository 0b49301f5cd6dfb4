"""`catordog train --folds`: every photo is predicted by a network that has not seen it."""

from __future__ import annotations

import csv
import shlex
import signal
from pathlib import Path

import lightning as L
import numpy as np
import pytest

import catordog
from catordog.cli import main
from catordog.commands.train import _ends_without_model
from catordog.photos.datasets import open_dataset
from catordog.photos.splits import folds_of
from conftest import jpeg, write_folder

TINY = [
    *("--data", "drawn:n=60,size=32", "--data.size", "32", "--data.batch_size", "16"),
    *("--model.network_args", "{widths: [8, 16], blocks: [1, 1]}", "--model.lr", "0.05"),
    *("--trainer.max_epochs", "2", "--folds", "3"),
]
RUN = Path("runs/run/version_0")


class StopInSecondFold(L.Callback):
    """Ctrl-C when the second epoch of the second fold begins."""

    def on_train_epoch_start(self, trainer, pl_module):
        if "fold_2" in trainer.default_root_dir and trainer.current_epoch == 1:
            signal.raise_signal(signal.SIGINT)


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run, and what it printed."""
    folder = tmp_path_factory.mktemp("folds")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        result = catordog.train(
            data={"source": "drawn:n=60,size=32", "size": 32, "batch_size": 16},
            model={"network_args": {"widths": [8, 16], "blocks": [1, 1]}, "lr": 0.05},
            trainer={"max_epochs": 2},
            folds=3,
        )
    return folder, result


def rows(run: Path) -> list[dict[str, str]]:
    with (run / "out-of-fold.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_every_photo_has_logits_of_a_network_that_has_not_seen_it(finished):
    folder, result = finished
    found = rows(folder / RUN)
    assert len(found) == len({row["path"] for row in found}) == 60
    assert result.exit_code == 0
    right = [row["label"] == row["predicted"] for row in found]
    assert result.accuracy == pytest.approx(np.mean(right))
    names = [set(np.load(folder / RUN / f"fold_{k}/logits.npz")["names"]) for k in (1, 2, 3)]
    assert [len(each) for each in names] == [20, 20, 20]
    assert len(set.union(*names)) == 60


def test_the_average_is_one_calibrated_file_whose_logits_are_the_mean(finished):
    folder, result = finished
    average = catordog.load(folder / result.checkpoint)
    photo = open_dataset("drawn:n=60,size=32").photos[0].image()
    members = [
        catordog.load(folder / RUN / f"fold_{k}/version_0/checkpoints/last.ckpt") for k in (1, 2, 3)
    ]
    mean = np.mean([member.logits(photo) for member in members], axis=0)
    np.testing.assert_allclose(average.logits(photo), mean, atol=1e-5)
    assert len(average.model.nonconformity) == 60
    assert average.model.temperature == result.temperature != 1
    assert average.model.ood is not None
    assert average.predict(photo, error_rate=0.2).label in ("cat", "dog")


def test_it_can_be_exported(finished, tmp_path):
    folder, result = finished
    checkpoint = folder / result.checkpoint
    out = tmp_path / "m.onnx"
    assert main(["export", str(checkpoint), "--out", str(out)]) == 0
    photo = open_dataset("drawn:n=60,size=32").photos[3].image()
    logits = [catordog.load(path).logits(photo) for path in (out, checkpoint)]
    np.testing.assert_allclose(*logits, atol=1e-4)


def test_a_stopped_run_resumes_in_its_fold_and_repeats_no_other(capsys):
    stop = ["--trainer.callbacks+", "commands.test_train_folds.StopInSecondFold"]
    assert main(["train", *TINY, *stop]) == 130
    command = shlex.split(capsys.readouterr().out)
    assert command[-2:] == ["--ckpt_path", "last"]
    first = RUN / "fold_1/version_0/checkpoints/last.ckpt"
    before = first.stat().st_mtime_ns
    assert not (RUN / "fold_2/logits.npz").exists()
    # A resumed run has the callbacks of its run, unless others are given.
    assert main(["train", *TINY, "--ckpt_path", "last", "--trainer.callbacks", "null"]) == 0
    out, err = capsys.readouterr()
    assert "fold 1 of 3: finished before" in err
    assert f"resuming from {RUN}/fold_2/version_0/checkpoints/last.ckpt" in err
    assert first.stat().st_mtime_ns == before
    assert len(rows(RUN)) == 60
    assert shlex.split(out)[:2] == ["catordog", "export"]
    assert [path.name for path in RUN.parent.iterdir()] == ["version_0"]


@pytest.mark.slow
def test_a_run_resumes_without_its_options_and_ends_like_an_uninterrupted_one(finished):
    folder, _ = finished
    stop = ["--trainer.callbacks+", "commands.test_train_folds.StopInSecondFold"]
    assert main(["train", *TINY, *stop]) == 130
    words = ["--folds", "3", "--ckpt_path", "last", "--trainer.callbacks", "null"]
    assert main(["train", *words]) == 0
    whole, resumed = rows(folder / RUN), rows(RUN)
    assert [row["logit_cat"] for row in whole] == [row["logit_cat"] for row in resumed]


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--folds", "1"], "--folds 1: give a number of folds"),
        (["--folds", "x"], "--folds x: give a number of folds"),
        (["--folds", "40"], "30 different photos of cat for 40 folds"),
        (["--folds", "3", "--ckpt_path", "some.ckpt"], "with --folds, give 'last'"),
        (["--folds", "3", "--trainer.devices", "2"], "in one process"),
    ],
)
def test_what_can_not_work_is_refused_and_leaves_no_folder(words, reason, capsys):
    assert main(["train", *TINY[:-2], *words]) == 2
    assert reason in capsys.readouterr().err
    assert not [path for path in Path("runs").rglob("*") if path.is_file()]


def test_runs_with_and_without_folds_are_told_apart(capsys, finished, monkeypatch):
    monkeypatch.chdir(finished[0])
    assert main(["train", "--ckpt_path", "last", *TINY[:-2]]) == 2
    assert "was started with --folds: give that, too" in capsys.readouterr().err
    assert main(["train", "--ckpt_path", "last", *TINY[:-2], "--folds", "4"]) == 2
    assert "was started with 3" in capsys.readouterr().err


class TestFolds:
    def test_copies_share_a_fold_and_each_class_is_spread_evenly(self):
        keys = [*range(100, 130)]
        labels = [index % 2 for index in range(30)]
        groups = [0, 1, 0, *range(3, 30)]
        folds, different = folds_of(keys, labels, 5, groups)
        assert folds[0] == folds[2]
        assert dict(different) == {0: 14, 1: 15}
        for label in (0, 1):
            counts = np.bincount([f for f, own in zip(folds, labels, strict=True) if own == label])
            assert counts.max() - counts.min() <= 2

    def test_the_order_of_photos_does_not_matter_and_unreadable_ones_have_no_fold(self):
        keys = [7, 3, None, 9, 1]
        folds, _ = folds_of(keys, [0] * 5, 2)
        back, _ = folds_of(keys[::-1], [0] * 5, 2)
        assert folds == back[::-1]
        assert folds[2] is None

    def test_own_test_photos_are_in_no_fold(self, tmp_path):
        files = {
            f"{split}/{name}/{i}.jpg": jpeg(2 * (i + 50 * (split == "test")) + k, size=32)
            for split, n in (("train", 8), ("test", 3))
            for k, name in enumerate(("cat", "dog"))
            for i in range(n)
        }
        data = open_dataset(str(write_folder(tmp_path / "pets", files)))
        splits = data.with_fold(4, 1).photos.own_splits
        assert [splits.count(split) for split in ("train", "val", "test")] == [12, 4, 6]
        assert all(
            (split == "test") == name.startswith("test/")
            for split, name in zip(splits, data.photos.names, strict=True)
        )


@pytest.mark.parametrize(
    ("given", "tries"),
    [
        ({"find": None, "trainer.fast_dev_run": False}, False),
        ({"trainer.fast_dev_run": "false"}, False),
        ({"trainer.fast_dev_run": "true"}, True),
        ({"trainer.fast_dev_run": 2}, True),
        ({"trainer.fast_dev_run": "no"}, False),
        ({"find": ["lr"]}, True),
        ({"find": "lr"}, True),
        ({"print_config": None}, True),
        ({}, False),
    ],
)
def test_folds_are_trained_unless_something_is_tried_out(given, tries):
    assert _ends_without_model(given) == tries
