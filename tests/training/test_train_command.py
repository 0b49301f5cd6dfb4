"""`catordog train` as a command and as a Python function: its options, help, and result."""

from __future__ import annotations

import inspect
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

import catordog
from catordog.cli import main
from catordog.commands.train import LIGHTNING_ROWS, RUN_ROWS, train
from catordog.errors import CatordogError
from catordog.training.augment import Augment
from catordog.training.datamodule import PhotosDataModule
from catordog.training.lightning_cli import TrainCLI
from catordog.training.module import ClassifierModule
from catordog.training.transfer import Transfer
from conftest import jpeg, write_folder

DATA = {"source": "drawn:n=200,size=32", "size": 32, "batch_size": 32}
MODEL = {"network_args": {"widths": [8, 16], "blocks": [1, 1]}, "lr": 0.05}


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


class TestHelp:
    def test_it_imports_nothing_heavy(self):
        code = (
            "import sys; from catordog.cli import main; code = main(['train', '--help']); "
            "heavy = {'torch', 'numpy', 'lightning', 'jsonargparse', 'yaml', 'rich'}; "
            "print(sorted(heavy & set(sys.modules)), file=sys.stderr); sys.exit(code)"
        )
        ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True,
                               check=False)  # fmt: skip
        assert ended.returncode == 0
        assert ended.stderr.strip() == "[]"

    @pytest.mark.parametrize(
        ("key", "words"),
        [(key, row[2]) for rows in (RUN_ROWS, *LIGHTNING_ROWS.values())
         for key, row in rows.items()],
    )  # fmt: skip
    def test_every_option_exists_and_its_default_is_the_one_in_the_help(self, parser, key, words):
        default = parser.get_defaults()[key]
        if found := re.search(r"\(default: ([\w.-]+)\)", words):
            assert found[1].removesuffix(".0") == str(default).lower().removesuffix(".0")

    @pytest.fixture(scope="class")
    def parser(self):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(TrainCLI, "before_instantiate_classes", lambda _: None)
            patch.setattr(TrainCLI, "instantiate_classes", lambda _: None)
            return TrainCLI([], []).parser

    def test_help_all_lists_every_option_of_lightning_cli(self, capsys):
        assert main(["train", "--help-all"]) == 0
        out = capsys.readouterr().out
        assert "Every option of catordog train" in out
        assert "the dataset: short for --data.source" in out
        for kind, group in (
            (ClassifierModule, "model"), (PhotosDataModule, "data"),
            (Transfer, "model.transfer"), (Augment, "data.augment"),
        ):  # fmt: skip
            linked = {"self", "classes", "seed"} | {
                {"model": "size", "data": "folds"}.get(group, "")
            }
            for name in set(inspect.signature(kind.__init__).parameters) - linked:
                assert f"--{group}.{name}" in out
        assert "--trainer.gradient_clip_val" in out


def printed_config(capsys, *words: object) -> dict:
    assert main(["train", *map(str, words), "--print_config"]) == 0
    return yaml.safe_load(capsys.readouterr().out)


class TestOptions:
    def test_options_override_configs_and_later_configs_override_earlier_ones(self, capsys):
        Path("a.yaml").write_text("{name: a, model: {lr: 0.1, momentum: 0.5}, save_every: 7}")
        Path("b.yaml").write_text("{name: b, model: {lr: 0.3}}")
        found = printed_config(
            capsys, "--model.momentum", 0.7, "-c", "a.yaml", "--config=b.yaml", "--exclude", "x.csv"
        )
        assert (found["name"], found["save_every"]) == ("b", 7)
        assert (found["model"]["lr"], found["model"]["momentum"]) == (0.3, 0.7)
        assert found["data"]["exclude"] == "x.csv"

    @pytest.mark.parametrize("words", [["--data", "pets"], ["--data=pets"], ["--data.source=pets"]])
    def test_data_is_short_for_data_source(self, capsys, words):
        assert printed_config(capsys, *words)["data"]["source"] == "pets"

    def test_short_options_of_all_commands_set_the_data(self, capsys):
        words = ["--allow-truncated", "--max-megapixels", 50, "--exclude=x.csv"]
        data = printed_config(capsys, *words)["data"]
        assert data["allow_truncated"] is True
        assert (data["max_megapixels"], data["exclude"]) == (50, "x.csv")

    def test_the_old_name_of_tta_flip_works_as_an_option_and_in_every_kind_of_config(self, capsys):
        Path("old.yaml").write_text("model: {mirror: true, lr: 0.1}")
        Path("dotted.yaml").write_text("model.mirror: true")
        Path("model.yaml").write_text("mirror: true")
        for words in (
            ["--model.mirror", "true"], ["--model.mirror=true"], ["--config", "old.yaml"],
            ["--config", "dotted.yaml"], ["--model", "model.yaml"], ["--model=model.yaml"],
        ):  # fmt: skip
            assert printed_config(capsys, *words)["model"]["tta_flip"] is True, words

    def test_a_relative_path_beats_a_config_of_the_package(self, capsys):
        Path("drawn.yaml").write_text("model: {lr: 0.007}")
        assert printed_config(capsys, "--config", "drawn.yaml")["model"]["lr"] == 0.007


class TestInPython:
    def test_it_trains_calibrates_and_returns_what_the_checkpoint_says(self):
        Path("old.yaml").write_text("model: {mirror: true}")  # as config.yaml of older runs
        result = train("old.yaml", DATA, model=MODEL, trainer={"max_epochs": 2}, name="pets")
        assert result.exit_code == 0
        assert result.checkpoint == Path("runs/pets/version_0/checkpoints/best.ckpt")
        assert result.model == catordog.load(result.checkpoint).model
        assert result.model.tta_flip
        assert result.temperature == result.model.temperature != 1
        assert 0 <= result.accuracy <= 1
        assert 0 < result.loss < 1
        assert result.unreadable == ()

    @pytest.mark.slow
    def test_the_config_of_a_run_trains_the_same_weights_again(self):
        train(data=DATA, model=MODEL, trainer={"max_epochs": 1})
        again = train("runs/run/version_0/config.yaml", name="again")
        one, other = (
            torch.load(path, weights_only=True)["state_dict"]
            for path in ("runs/run/version_0/checkpoints/best.ckpt", again.checkpoint)
        )
        assert all(torch.equal(one[name], other[name]) for name in one)

    @pytest.mark.slow
    def test_it_can_find_a_batch_size(self):
        result = train(data=DATA, model=MODEL, find="batch_size")
        assert result.found == "--data.batch_size 64"
        assert result.checkpoint is None

    def test_a_wrong_setting_is_a_catordog_error(self):
        with pytest.raises(CatordogError, match=r"--model\.lr fast: expected a number"):
            train(data="drawn:n=60", model={"lr": "fast"})


class TestTheNextCommand:
    """The command that train prints works as it is."""

    @staticmethod
    def evaluated(capsys, *words: str) -> list[str]:
        options = ["--data.size", "32", "--data.batch_size", "8", "--trainer.max_epochs", "1",
                   "--model.network_args", "{widths: [8, 16], blocks: [1, 1]}"]  # fmt: skip
        assert main(["train", *words, *options]) == 0
        command = shlex.split(capsys.readouterr().out)
        assert main(command[1:]) == 0
        return command

    def test_without_test_photos_it_evaluates_on_validation_photos(self, capsys):
        command = self.evaluated(capsys, "--data", "drawn:n=100,size=32", "--data.test", "0")
        assert command[-2:] == ["--split", "val"]

    def test_a_dataset_of_train_and_validation_is_evaluated_on_validation_photos(self, capsys):
        write_folder(Path("pets"), {
            f"{split}/{('cat', 'dog')[i % 2]}/{i}.jpg": jpeg(i + start)
            for split, start, n in (("train", 0, 24), ("val", 100, 12)) for i in range(n)
        })  # fmt: skip
        assert self.evaluated(capsys, "--data", "pets")[-2:] == ["--split", "val"]

    def test_a_class_without_test_photos_is_evaluated_on_validation_photos(self, capsys):
        write_folder(Path("pets"), {
            f"{split}/{('cat', 'dog')[i % 2]}/{i}.jpg": jpeg(i + start)
            for split, start, n in (("train", 0, 24), ("val", 100, 12), ("test", 200, 1))
            for i in range(n)
        })  # fmt: skip
        assert self.evaluated(capsys, "--data", "pets")[-2:] == ["--split", "val"]

    def test_photos_are_decoded_as_in_training(self, capsys):
        data = ["--data", "drawn:n=100,size=32", "--max-megapixels", "50", "--allow-truncated"]
        command = self.evaluated(capsys, *data)
        assert command[-3:] == ["--allow-truncated", "--max-megapixels", "50"]

    def test_errors_of_train_name_no_option_that_train_lacks(self, capsys):
        write_folder(Path("pets"), {
            f"{('val', 'test')[i // 4]}/{('cat', 'dog')[i % 2]}/{i}.jpg": jpeg(i) for i in range(8)
        })  # fmt: skip
        assert main(["train", "--data", "pets", "--trainer.fast_dev_run", "true"]) == 2
        err = capsys.readouterr().err
        assert "pets has no train photos: add some, or a folder for this split" in err
        assert "--split" not in err


@pytest.mark.slow
def test_the_installed_command_finds_a_network_in_the_working_folder():
    Path("mine.py").write_text(NETWORK)
    code = (  # as a console script, whose sys.path lacks the working folder
        "import sys; sys.path = [path for path in sys.path if path]; "
        "from catordog.cli import entry; entry()"
    )

    def command(*words: str) -> subprocess.CompletedProcess[str]:
        start = [sys.executable, "-c", code, *words]
        return subprocess.run(start, capture_output=True, text=True, check=False)

    ended = command("train", "--data", "drawn:n=100,size=32", "--data.size", "32",
                    "--model.network", "mine.MyNet", "--trainer.max_epochs", "1")  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    again = command(*shlex.split(ended.stdout)[1:])
    assert again.returncode == 0, again.stderr
    assert "accuracy" in again.stdout


NETWORK = """
from torch import nn


class MyNet(nn.Sequential):
    def __init__(self, num_classes):
        super().__init__(nn.Conv2d(3, 4, 5, 4), nn.Flatten(), nn.LazyLinear(num_classes))
        self[2] = nn.Linear(4 * 7 * 7, num_classes)
"""


class TestFewPhotos:
    """A network from scratch on few photos: the command says beforehand what to do instead."""

    @pytest.fixture
    def pets(self, tmp_path):
        return write_folder(
            tmp_path / "my pets",
            {f"{('cat', 'dog')[i % 2]}/{i}.jpg": jpeg(i, size=32) for i in range(40)},
        )

    def said(self, pets, *words):
        tiny = ["--data.size", "32", "--data.batch_size", "8", "--data.cache", "false",
                "--data.workers", "0", "--trainer.max_epochs", "1"]  # fmt: skip
        assert main(["train", "--data", str(pets), *tiny, *words]) == 0

    def test_it_names_both_commands_in_one_line_before_the_first_epoch(self, pets, capsys):
        args = "{widths: [8, 16], blocks: [1, 1]}"
        self.said(pets, "--model.network_args", args)
        lines = capsys.readouterr().err.splitlines()
        (line,) = [each for each in lines if "few for a network from scratch" in each]
        assert line.startswith("40 photos are few")
        assert f"catordog teach {shlex.quote(str(pets))}" in line
        assert f"--config finetune.yaml --data {shlex.quote(str(pets))}" in line
        assert lines.index(line) < next(i for i, each in enumerate(lines) if "epoch" in each)

    @pytest.mark.parametrize(
        "words",
        [["--model.network", "lite2"],
         ["--model.transfer.head_epochs", "1",
          "--model.network_args", "{widths: [8, 16], blocks: [1, 1]}"]],
    )  # fmt: skip
    def test_pretrained_and_frozen_networks_are_left_alone(self, pets, capsys, words):
        self.said(pets, *words)
        assert "few for a network" not in capsys.readouterr().err

    @pytest.mark.parametrize("name", ["not sure", "Neither"])
    def test_a_class_that_is_called_like_a_verdict_is_refused(self, pets, capsys, name):
        (pets / "dog").rename(pets / name)
        assert main(["train", "--data", str(pets)]) == 2
        assert "is a verdict, as 'not sure' and 'neither' are" in capsys.readouterr().err
