"""Finders, the overfitting check, class imbalance, and streaming."""

from __future__ import annotations

import pickle
import re
import shlex
import types

import numpy as np
import pytest
import torch

from catordog.cli import main
from catordog.errors import CatordogError
from catordog.photos.synthetic import draw, label_of
from catordog.training.datamodule import PhotosDataModule
from catordog.training.find import _ratios_kept
from catordog.training.module import ClassifierModule
from catordog.training.samplers import BalancedSampler, EpochShuffle, RankSampler, ShardShuffle
from conftest import jpeg, named, write_folder, write_zip
from training.callbacks import Recorder

TINY = [
    *("--data.size", "32", "--data.batch_size", "32", "--model.lr", "0.05"),
    *("--model.network_args", "{widths: [8, 16], blocks: [1, 1]}"),
]
RABBITS = "drawn:n=1800,size=32,animals=3"


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CATORDOG_DATA", str(tmp_path / "data"))


def run(*words: object) -> int:
    return main(["train", *map(str, words)])


def accuracies(err: str, what: str = "accuracy") -> list[float]:
    return [float(value) for value in re.findall(rf"val loss [\d.]+  {what} ([\d.]+)", err)]


class TestThreeClasses:
    """The number of classes comes from the data."""

    def test_a_third_animal_is_drawn(self):
        assert [label_of(index, animals=3)[0] for index in range(6)] == [0, 1, 2, 0, 1, 2]
        assert draw(2, animals=3).probability == 0
        pixels = np.asarray(draw(2, animals=3).image)
        assert (pixels != np.asarray(draw(2).image)).any()
        assert (np.asarray(draw(0, animals=3).image) == np.asarray(draw(0).image)).all()

    @pytest.mark.slow
    def test_a_network_learns_three_animals(self, capsys, tmp_path):
        words = ["--data", "drawn:n=2400,size=32,animals=3", "--data.size", 32]
        words += ["--data.batch_size", 64, "--trainer.max_epochs", 5]
        words += ["--model.optimizer", "muon", "--model.lr", 0.05]
        words += ["--model.network_args", "{widths: [16, 32, 64], blocks: [1, 1, 1]}"]
        assert run(*words) == 0
        out, err = capsys.readouterr()
        assert accuracies(err)[-1] > 0.8
        assert main(shlex.split(out)[1:]) == 0
        out, _ = capsys.readouterr()
        assert all(name in out for name in ("cat", "dog", "rabbit"))

    def test_a_rabbit_does_not_morph(self, capsys):
        assert run("--data", "drawn:animals=3,morph=0.5") == 2
        assert "rabbits can't be morphed" in capsys.readouterr().err


class TestFinders:
    @pytest.mark.slow
    def test_the_learning_rate_that_is_found_trains(self, capsys, tmp_path, catordog):
        words = ["--data", RABBITS, "--data.size", 32, "--data.batch_size", 32]
        words += ["--trainer.max_epochs", 3]
        ended = catordog("train", *words, "--find", "lr", cwd=tmp_path)
        assert ended.code == 0, ended.err
        assert "\r" not in ended.err
        assert (tmp_path / "runs/run/lr.png").read_bytes().startswith(b"\x89PNG")
        assert not list((tmp_path / "runs/run").glob("version_*/checkpoints/*"))
        command = shlex.split(ended.out)
        assert "--find" not in command
        assert command[-2] == "--model.lr"
        assert 1e-3 < float(command[-1]) < 5
        assert main(command[1:]) == 0
        assert accuracies(capsys.readouterr().err)[-1] > 0.45  # of three classes

    def test_the_learning_rates_of_all_layers_keep_their_ratios(self, monkeypatch):
        """The finder would make them equal, whatever `head_lr`, `first_lr` and `other_lr` say."""
        layer = torch.nn.Linear(1, 1)
        groups = [{"params": [layer.weight], "lr": 0.5}, {"params": [layer.bias]}]
        optimizer = torch.optim.SGD(groups, lr=0.05)
        monkeypatch.setattr("catordog.training.module.build_optimizer", lambda *_: optimizer)
        module = ClassifierModule(["cat", "dog"], 32, lr=0.05)
        module.trainer = types.SimpleNamespace(estimated_stepping_batches=10, max_epochs=1)
        with _ratios_kept(module):
            module.configure_optimizers()
        for group in optimizer.param_groups:
            group["lr"] = 0.001
        before = [parameter.item() for parameter in layer.parameters()]
        for parameter in layer.parameters():
            parameter.grad = torch.ones_like(parameter)
        optimizer.step()
        moved = [was - now.item() for was, now in zip(before, layer.parameters(), strict=True)]
        assert moved == [pytest.approx(0.01, rel=1e-3), pytest.approx(0.001, rel=1e-3)]

    @pytest.mark.slow
    def test_the_batch_size_finder_stops_at_half_of_the_photos(self, capsys):
        assert run("--data", "drawn:n=300,size=32", *TINY, "--find", "batch_size") == 0
        assert capsys.readouterr().out.endswith("--data.batch_size 64\n")

    def test_too_few_photos_for_a_finder_are_named(self, capsys):
        assert run("--data", "drawn:n=100,size=32", *TINY, "--find", "lr") == 2
        assert "smaller --data.batch_size" in capsys.readouterr().err


@pytest.mark.slow
def test_the_network_can_overfit_one_batch(capsys):
    words = ["--trainer.overfit_batches", 1, "--trainer.max_epochs", 40]
    words += ["--model.optimizer", "muon"]
    assert run("--data", RABBITS, *TINY, *words) == 0
    err = capsys.readouterr().err
    assert float(re.findall(r"train loss [\d.]+  accuracy ([\d.]+)", err)[-1]) == 1.0


class TestImbalance:
    """Nine cats to a dog."""

    @pytest.fixture
    def pets(self, tmp_path):
        cats = {f"cat/{i}.jpg": jpeg(2 * i) for i in range(270)}
        dogs = {f"dog/{i}.jpg": jpeg(2 * i + 1) for i in range(30)}
        return write_folder(tmp_path / "pets", cats | dogs)

    def test_the_sampler_shows_each_class_equally_often(self):
        labels = np.array([0] * 90 + [1] * 10)
        order = BalancedSampler(labels, seed=3)
        first, again = list(order), list(order)
        assert first == again
        assert len(first) == 100
        assert np.bincount(labels[first]).tolist() == [50, 50]
        assert set(first) >= set(range(90, 100))  # each rare photo
        order.set_epoch(1)
        assert list(order) != first

    def test_weights_make_the_classes_count_the_same(self, pets, capsys):
        data = PhotosDataModule(str(pets), size=32, balance="loss", test=0.0)
        data.setup("fit")
        weights, labels = data.class_weights, data._train.labels
        counts = np.bincount(labels)
        assert weights.tolist() == pytest.approx((counts.sum() / (2 * counts)).tolist())
        assert "class weights: cat 0.5" in capsys.readouterr().err

    @pytest.mark.parametrize("balance", ["no", "sampler", "loss"])
    def test_each_way_changes_what_is_trained(self, pets, balance):
        words = ["--data.balance", balance, "--trainer.max_epochs", 1]
        recorder = ["--trainer.callbacks+", "training.callbacks.Recorder"]
        assert run("--data", pets, *TINY, *words, *recorder) == 0
        dogs = np.mean(Recorder.labels)
        assert dogs == pytest.approx(0.5 if balance == "sampler" else 0.1, abs=0.06)
        (weights,) = Recorder.class_weights
        if balance == "loss":
            assert weights == pytest.approx([0.55, 5], rel=0.1)
        else:
            assert weights is None


class TestStreaming:
    """`--data.cache false` decodes in DataLoader's workers and caches nothing."""

    @pytest.mark.slow
    def test_it_gives_the_same_weights_as_the_cache(self, tmp_path):
        pets = write_zip(tmp_path / "pets.zip", named(120))
        words = ["--data", pets, *TINY, "--trainer.max_epochs", 2]
        assert run(*words) == 0
        assert run(*words, "--data.cache", "false", "--data.workers", 2) == 0
        one, other = (
            torch.load(
                tmp_path / f"runs/run/version_{version}/checkpoints/last.ckpt", weights_only=True
            )["state_dict"]
            for version in (0, 1)
        )
        assert all(torch.equal(one[key], other[key]) for key in one)

    def test_nothing_is_cached(self, tmp_path):
        pets = write_folder(tmp_path / "pets", named(80))
        words = ["--data", pets, *TINY, "--trainer.max_epochs", 1, "--data.cache", "false"]
        assert run(*words) == 0
        assert not list((tmp_path / "data").rglob("pixels-*"))

    def test_unreadable_photos_are_reported_once_and_skipped(self, tmp_path, capsys):
        broken = {f"cat.{900 + i}.jpg": jpeg(i)[:200] for i in range(3)}
        pets = write_folder(tmp_path / "pets", named(80) | broken)
        words = ["--data", pets, *TINY, "--trainer.max_epochs", 2, "--data.cache", "false"]
        assert run(*words, "--data.test", 0) == 1
        err = capsys.readouterr().err
        named_once = [line for line in err.splitlines() if re.search(r"cat\.90\d\.jpg", line)]
        assert len(named_once) == 3
        assert "3 photos could not be read" in err

    def test_nothing_readable_is_one_clear_line(self, tmp_path, capsys):
        names = {
            f"{kind}.{i}.jpg": jpeg(i)[: 150 + i] for kind in ("cat", "dog") for i in range(60)
        }
        pets = write_folder(tmp_path / "pets", names)
        assert run("--data", pets, *TINY, "--data.cache", "false", "--data.val", 0.3) == 2
        assert "could be read" in capsys.readouterr().err

    def test_the_dataset_can_be_pickled_for_workers(self, tmp_path):
        """Spawned workers get the dataset as a pickle."""
        pets = write_zip(tmp_path / "pets.zip", named(60))
        data = PhotosDataModule(str(pets), size=32, cache=False)
        data.setup("fit")
        unpickled = pickle.loads(pickle.dumps(data._train))
        assert torch.equal(unpickled.__getitems__([0, 3])[0], data._train.__getitems__([0, 3])[0])

    def test_a_negative_number_of_workers_is_refused(self):
        with pytest.raises(CatordogError, match="workers"):
            PhotosDataModule("drawn", workers=-1)


class TestSamplers:
    @pytest.mark.parametrize(
        "order",
        [
            EpochShuffle(100, seed=1),
            ShardShuffle([f"shard{i // 7}" for i in range(100)], seed=1),
        ],
    )
    def test_each_epoch_has_every_photo_once_in_an_order_of_its_own(self, order):
        first, again = list(order), list(order)
        order.set_epoch(1)
        second = list(order)
        assert first == again != second
        assert sorted(first) == sorted(second) == list(range(100))

    def test_repeat_keeps_the_order_of_the_first_epoch(self):
        order = EpochShuffle(100, seed=1, repeat=True)
        first = list(order)
        order.set_epoch(1)
        assert list(order) == first

    def test_ranks_divide_each_batch_and_resume_within_an_epoch(self):
        ranks = [
            RankSampler(EpochShuffle(100, seed=1), rank, 2, 8, batches_done=lambda: 0)
            for rank in range(2)
        ]
        first, second = ([*rank] for rank in ranks)
        assert len(first) == len(ranks[0]) == 48
        in_order = list(EpochShuffle(100, seed=1))
        assert [i for pair in zip(first, second, strict=True) for i in pair] == in_order[:96]
        resumed = RankSampler(EpochShuffle(100, seed=1), 0, 2, 8, batches_done=lambda: 2)
        assert [*resumed] == first[16:]
