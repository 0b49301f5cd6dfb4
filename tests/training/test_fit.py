"""Training runs, from the command to the checkpoint."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torchvision
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

from catordog.cli import main
from catordog.training.module import ClassifierModule
from conftest import jpeg, named, write_folder
from training.callbacks import Recorder

SMALL = [
    *("--data", "drawn:n=400,size=32", "--data.size", "32", "--data.batch_size", "32"),
    *("--model.network_args", "{widths: [8, 16], blocks: [1, 1]}", "--model.lr", "0.05"),
]


def run(*words: str) -> int:
    return main(["train", *words])


def weights(folder: Path, version: int = 0, file: str = "last") -> dict[str, torch.Tensor]:
    path = folder / f"runs/run/version_{version}/checkpoints/{file}.ckpt"
    return torch.load(path, weights_only=True)["state_dict"]


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    """Every run writes below the folder that it is started in."""
    monkeypatch.chdir(tmp_path)


class TestTheDemosRun:
    """The training run of `make demo`."""

    def test_validation_loss_falls_and_accuracy_passes_95_percent(self, drawn_run):
        lines = re.findall(r"val loss ([\d.]+)\s+accuracy ([\d.]+)", drawn_run.ended.err)
        losses = [float(loss) for loss, _ in lines]
        assert losses[-1] < 0.5 * losses[0]
        assert float(lines[-1][1]) > 0.95

    def test_stdout_is_one_command_to_copy(self, drawn_run):
        assert re.fullmatch(
            r"catordog evaluate runs/drawn/version_0/checkpoints/best\.ckpt --data drawn "
            r"--split test\n",
            drawn_run.ended.out,
        )

    def test_the_best_and_the_last_two_checkpoints_are_kept(self, drawn_run):
        folder = drawn_run.checkpoint.parent
        assert {path.name for path in folder.iterdir()} == {
            "best.ckpt",
            "last.ckpt",
            "previous.ckpt",
        }

    def test_a_line_per_epoch_and_no_progress_bar_without_a_terminal(self, drawn_run):
        assert len(re.findall(r"^epoch +\d+/\d+ ", drawn_run.ended.err, re.MULTILINE)) == 4
        assert "\x1b" not in drawn_run.ended.err
        assert "Warning" not in drawn_run.ended.err

    def test_tensorboard_has_curves_photos_graph_confusion_and_hyperparameters(self, drawn_run):
        board = EventAccumulator(str(drawn_run.checkpoint.parents[1]), {"images": 0, "scalars": 0})
        board.Reload()
        tags = board.Tags()
        scalars = {"train/loss_step", "train/loss_epoch", "train/accuracy", "val/loss",
                   "val/accuracy", "learning rate/pg1", "hparams/val/loss"}  # fmt: skip
        assert scalars <= set(tags["scalars"]), tags["scalars"]
        assert {"training photos", "confusion matrix"} <= set(tags["images"])
        assert {"validation/reliability", "validation/logit margins"} <= set(tags["images"])
        assert len(board.Images("training photos")) == 4
        assert tags["graph"]
        hparams = board.summary_metadata["_hparams_/session_start_info"]
        assert b"residual" in hparams.plugin_data.content
        rates = [point.value for point in board.Scalars("learning rate/pg1")]
        assert rates[0] < max(rates) > rates[-1]  # warm-up, then decay

    def test_the_settings_of_the_run_are_saved_in_its_folder(self, drawn_run):
        assert "min_area: 0.7" in (drawn_run.checkpoint.parents[1] / "config.yaml").read_text()


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(tmp_path):
    for seed in ("1", "1", "2"):
        assert run(*SMALL, "--trainer.max_epochs", "2", "--seed_everything", seed) == 0
    first, again, other = (weights(tmp_path, version) for version in range(3))
    assert same(first, again)
    assert not same(first, other)


def test_the_last_checkpoint_is_of_the_last_epoch_even_if_that_was_not_the_best(
    tmp_path, monkeypatch
):
    def worse_and_worse(module, batch, batch_idx):
        module.log("val/loss", float(module.current_epoch), batch_size=len(batch[1]))
        module.val_accuracy(module(batch[0]), batch[1])
        module.log("val/accuracy", module.val_accuracy)
        module.confusion(module(batch[0]), batch[1])

    monkeypatch.setattr(ClassifierModule, "validation_step", worse_and_worse)
    assert run(*SMALL, "--trainer.max_epochs", "3") == 0
    found = tmp_path / "runs/run/version_0/checkpoints"
    epochs = {
        name: torch.load(found / f"{name}.ckpt", weights_only=True)["epoch"]
        for name in ("best", "last")
    }
    assert epochs == {"best": 0, "last": 2}


@pytest.mark.slow
def test_resnet18_by_name_trains_on_a_folder_of_photos(tmp_path, capsys):
    write_folder(tmp_path / "pets", {f"{k}/{i}.jpg": jpeg(2 * i + (k == "dog")) for k in
                                     ("cat", "dog") for i in range(30)})  # fmt: skip
    code = run("--data", "pets", "--data.size", "32", "--data.batch_size", "16",
               "--model.network", "resnet18", "--trainer.max_epochs", "1")  # fmt: skip
    assert code == 0
    assert "60 photos (30 cat, 30 dog)" in capsys.readouterr().err
    assert "network.layer4.1.bn2.weight" in weights(tmp_path)


@pytest.mark.slow
def test_training_starts_from_pretrained_weights(tmp_path):
    torch.manual_seed(0)
    source = torchvision.models.resnet18(weights=None, num_classes=2)
    torch.save(source.state_dict(), tmp_path / "w.pth")
    run("--data", "drawn:n=60", "--data.size", "32", "--model.network", "resnet18",
        "--model.weights", "w.pth", "--model.lr", "1e-9", "--trainer.max_epochs", "1")  # fmt: skip
    assert torch.allclose(weights(tmp_path)["network.conv1.weight"], source.conv1.weight)


class Tiny(nn.Module):
    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.body = nn.Conv2d(3, 4, 3, 2)
        self.fc = nn.Linear(4, num_classes)

    def forward(self, photos):
        return self.fc(self.body(photos).relu().mean(dim=(2, 3)))


class TinyWithSoftmax(Tiny):
    def forward(self, photos):
        return super().forward(photos).softmax(dim=1)


def test_a_custom_network_is_given_by_its_class_path(tmp_path):
    assert run("--data", "drawn:n=80", "--data.size", "32", "--trainer.max_epochs", "1",
               "--model.network", "training.test_fit.Tiny") == 0  # fmt: skip
    assert "network.fc.weight" in weights(tmp_path)


def test_a_network_that_ends_in_softmax_never_starts(capsys):
    code = run("--data", "drawn:n=80", "--data.size", "32", "--trainer.max_epochs", "1",
               "--model.network", "training.test_fit.TinyWithSoftmax")  # fmt: skip
    err = capsys.readouterr().err.strip().splitlines()
    assert code == 2
    assert "not raw logits: a softmax hidden in forward()" in err[-1]


def test_three_classes_train_like_two(tmp_path, catordog):
    files = {f"{k}/{i}.jpg": jpeg(3 * i + n) for n, k in enumerate(("cat", "dog", "hare"))
             for i in range(30)}  # fmt: skip
    write_folder(tmp_path / "zoo", files)
    options = ["--data", "zoo", *SMALL[2:], "--trainer.max_epochs", "1"]
    assert run(*options) == 0
    assert weights(tmp_path)["network.head.weight"].shape[0] == 3


def test_broken_photos_stop_neither_training_nor_evaluation(tmp_path, capsys):
    files = named(190)
    broken = [
        b"",
        b"<html>no photo</html>",
        jpeg(1)[:700],
        b"\xff\xd8\xff\xe0 garbage",
        b"\0" * 4096,
    ]
    files |= {
        f"{('cat', 'dog')[i % 2]}.{900 + i}.jpg": broken[i % 5] + bytes(i // 5) for i in range(10)
    }
    write_folder(tmp_path / "pets", files)
    assert run("--data", "pets", *SMALL[2:], "--trainer.max_epochs", "1") == 1
    err = capsys.readouterr().err
    run_folder = tmp_path / "runs/run/version_0"
    met = (run_folder / "unreadable.txt").read_text("utf-8").splitlines()
    assert 7 <= len(met) <= 10  # training never opens the test photos
    assert f"{len(met)} photos could not be read" in err
    best = str(run_folder / "checkpoints/best.ckpt")
    assert main(["evaluate", best, "--data", "pets", "--split", "all"]) == 1
    assert "190 photos" in capsys.readouterr().out
    listed = (run_folder / "unreadable-all.txt").read_text("utf-8").splitlines()
    assert len(listed) == 10
    assert set(met) <= set(listed)
    assert any(line.endswith("cat.900.jpg: empty file") for line in listed)
    assert any("dog.901.jpg: not a photo (it is an HTML page)" in line for line in listed)


def test_excluded_photos_are_not_trained_on_and_accuracy_is_shown_with_and_without_them(
    tmp_path, capsys
):
    write_folder(tmp_path / "pets", named(120))
    rows = ["path", *(f"pets/{name}.{i}.jpg" for i in range(20) for name in ("cat", "dog"))]
    (tmp_path / "fix.csv").write_text("\n".join(rows), "utf-8")
    options = ["--data", "pets", *SMALL[2:], "--trainer.max_epochs", "1"]
    assert run(*options, "--exclude", "fix.csv") == 0
    output = capsys.readouterr()
    assert "40 excluded" in output.err
    assert re.search(
        r"accuracy on validation photos: [01]\.\d{4} without the excluded ones, [01]\.\d{4} with",
        output.err,
    )
    assert "--exclude fix.csv" in output.out
    assert run(*options) == 0
    assert not same(weights(tmp_path), weights(tmp_path, 1))  # excluded photos are not trained on


def test_relabelled_photos_are_trained_with_their_new_labels_and_both_accuracies_are_shown(
    tmp_path, capsys
):
    write_folder(tmp_path / "pets", named(120))
    (tmp_path / "fix.csv").write_text("path,label\n" + "".join(
        f"pets/{name}.{i}.jpg,{other}\n" for i in range(59)
        for name, other in (("cat", "dog"), ("dog", "cat"))
    ), "utf-8")  # fmt: skip
    options = ["--data", "pets", *SMALL[2:], "--trainer.max_epochs", "1"]
    assert run(*options, "--decisions", "fix.csv") == 0
    output = capsys.readouterr()
    assert "118 relabelled" in output.err
    found = re.search(r"photos: ([01]\.\d{4}) with the decisions, ([01]\.\d{4}) with", output.err)
    assert float(found[1]) + float(found[2]) == pytest.approx(1, abs=0.1)
    assert "--decisions fix.csv" in output.out


def test_the_config_can_be_printed_and_used_again(tmp_path, capsys):
    assert run("--config", "drawn.yaml", "--model.lr", "0.123", "--print_config") == 0
    printed = capsys.readouterr().out
    assert "lr: 0.123" in printed
    assert "source: drawn" in printed


def test_photos_grow_from_start_size_to_end_size(tmp_path):
    sizes = ["--data.size", "64", "--data.start_size", "16", "--data.end_size", "48"]
    recorder = ["--trainer.callbacks+", "training.callbacks.Recorder"]
    assert run(*SMALL, *sizes, *recorder, "--trainer.max_epochs", "3") == 0
    assert list(dict.fromkeys(Recorder.sizes)) == [(0, 16), (1, 16), (2, 32)]


def one_class(folder: Path) -> list[str]:
    write_folder(folder / "data", {"cat/1.jpg": jpeg(0), "cat/2.jpg": jpeg(2)})
    return ["--data", "data"]


def no_labels(folder: Path) -> list[str]:
    write_folder(folder / "data", {"a.jpg": jpeg(0), "b.jpg": jpeg(2)})
    return ["--data", "data"]


def empty(folder: Path) -> list[str]:
    (folder / "data").mkdir()
    return ["--data", "data"]


def no_dog_to_validate(folder: Path) -> list[str]:
    files = {"train/cat/1.jpg": jpeg(0), "train/dog/1.jpg": jpeg(1), "val/cat/1.jpg": jpeg(2)}
    write_folder(folder / "data", files)
    return ["--data", "data"]


def unknown_key(folder: Path) -> list[str]:
    (folder / "my.yaml").write_text("model:\n  learning_rate: 3\n")
    return ["--config", "my.yaml"]


def wrong_value(folder: Path) -> list[str]:
    (folder / "my.yaml").write_text("model:\n  lr: fast\n")
    return ["--config", "my.yaml"]


def not_yaml(folder: Path) -> list[str]:
    (folder / "my.yaml").write_text("model: [\n")
    return ["--config", "my.yaml"]


def truncated_checkpoint(folder: Path) -> list[str]:
    (folder / "half.ckpt").write_bytes(b"PK\x03\x04 and no more")
    return ["--data", "drawn:n=50", "--ckpt_path", "half.ckpt"]


BAD: list[tuple[Callable[[Path], list[str]], str]] = [
    (lambda _: ["--data", "nowhere"], "nowhere: no such file or folder"),
    (empty, "data: no photos in it"),
    (one_class, "one class, 'cat'"),
    (no_labels, "2 photos but no labels"),
    (no_dog_to_validate, "the val split has no photo of dog"),
    (unknown_key, "my.yaml: model.learning_rate: no such option"),
    (wrong_value, "my.yaml: model.lr fast: expected a number"),
    (not_yaml, "my.yaml"),
    (lambda _: ["--config", "nowhere.yaml"], "nowhere.yaml: no such file; catordog has"),
    (lambda _: ["--model.lr", "fast"], "--model.lr fast: expected a number"),
    (lambda _: ["--find", "speed"], "--find speed: expected lr or batch_size"),
    (lambda _: ["--trainer.max_epochs", "few"], "max_epochs few: expected a whole number"),
    (lambda _: ["--trainer.callbacks", "foo"], "trainer.callbacks"),
    (lambda _: ["--model.lr", "-1"], "lr > 0"),
    (lambda _: ["--data.size", "5"], "8…2048"),
    (lambda _: ["--data.val", "0.9"], "nothing to train on"),
    (lambda _: ["--model.network", "resnet19"], "unknown network"),
    (lambda _: ["--model.network", "squeezenet1_1"], "ReLU"),
    (lambda _: ["--no_such_option", "1"], "--no_such_option: no such option"),
    (lambda _: ["--data.balance", "both"], "--data.balance both: expected no, sampler or loss"),
    (lambda _: ["--ckpt_path", "nowhere.ckpt"], "no such file"),
    (truncated_checkpoint, "half.ckpt: not a complete checkpoint"),
]


@pytest.mark.parametrize(("words", "message"), BAD)
def test_bad_input_is_one_clear_line_and_exit_code_2(tmp_path, capsys, words, message):
    code = run(*words(tmp_path))
    out, err = capsys.readouterr()
    assert code == 2, err
    assert out == ""
    assert "Traceback" not in err
    errors = [line for line in err.splitlines() if "error" in line]
    assert len(errors) == 1, err
    assert message in errors[0]
    assert len(errors[0]) < 700
