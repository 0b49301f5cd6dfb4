"""Runs that are killed, stopped, started twice, or out of disk: real processes and signals."""

from __future__ import annotations

import os
import random
import shlex
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

from conftest import jpeg, write_folder
from training.forks import Forks, Run

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no fork")

KILLS = 20
NETWORK = "training.test_never_loses_work.Forgetful"


class Forgetful(nn.Module):
    """A network with random draws of its own."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *(nn.Conv2d(3, 8, 3, 2), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.2)),
            nn.Conv2d(8, 16, 3, 2),
        )
        self.fc = nn.Linear(16, num_classes)

    def forward(self, photos):
        return self.fc(self.body(photos).relu().mean(dim=(2, 3)))


@pytest.fixture(scope="module")
def pets(tmp_path_factory) -> Path:
    files = {f"{('cat', 'dog')[i % 2]}/{i}.jpg": jpeg(i) for i in range(400)}
    return write_folder(tmp_path_factory.mktemp("pets") / "pets", files)


def words(pets: Path, *more: object) -> list[str]:
    """A run with all kinds of state: optimiser, schedule, average, norms, sizes, draws, dropout."""
    return [
        *("train", "--data", str(pets), "--data.size", "32", "--data.start_size", "16"),
        *("--data.batch_size", "16", "--model.network", NETWORK, "--model.optimizer", "muon"),
        *("--model.whiten", "true"),
        *("--trainer.callbacks+", "catordog.training.callbacks.MovingAverage"),
        *("--trainer.callbacks.norm_photos", "32"),
        *("--trainer.max_epochs", "4", "--save_every", "0.0005"),
        *map(str, more),
    ]


def state(folder: Path, version: int = 0, file: str = "last") -> dict[str, object]:
    path = folder / f"runs/run/version_{version}/checkpoints/{file}.ckpt"
    content = torch.load(path, weights_only=True)
    names = ("state_dict", "current_model_state", "optimizer_states", "lr_schedulers", "epoch")
    return {name: content[name] for name in names} | {"steps": content["global_step"]}


def same(one: object, other: object) -> bool:
    if isinstance(one, torch.Tensor):
        return isinstance(other, torch.Tensor) and torch.equal(one, other)
    if isinstance(one, dict):
        return (
            isinstance(other, dict)
            and one.keys() == other.keys()
            and all(same(one[key], other[key]) for key in one)
        )
    if isinstance(one, list):
        return isinstance(other, list) and all(map(same, one, other)) and len(one) == len(other)
    return one == other


@pytest.fixture(scope="module")
def undisturbed(forks, pets, tmp_path_factory) -> Path:
    """A run that is not interrupted."""
    folder = tmp_path_factory.mktemp("undisturbed")
    ended = forks.run(*words(pets), cwd=folder, CATORDOG_DATA=str(folder / "data"))
    assert ended.code == 0, ended.err
    return folder


class Lives:
    """One run, resumed by as many processes as it takes."""

    def __init__(self, forks: Forks, pets: Path, folder: Path) -> None:
        self.forks, self.pets, self.folder = forks, pets, folder
        self.kills = 0

    def start(self, *more: object) -> Run:
        command = words(self.pets, "--ckpt_path", "last", *more)
        return self.forks.start(*command, cwd=self.folder, CATORDOG_DATA=str(self.folder / "data"))

    def killed_after(self, seconds: float) -> int:
        """Killed at any moment: the time is random, and nothing is waited for."""
        life = self.start()
        time.sleep(seconds)
        return self.ended_by_kill(life)

    def killed_while(self, pattern: str) -> int:
        """Killed while there is such a file."""
        life = self.start()
        end = time.monotonic() + 120
        while life.poll() is None and not any(self.folder.glob(pattern)):
            assert time.monotonic() < end, f"no {pattern}: {life.err}"
        return self.ended_by_kill(life)

    def ended_by_kill(self, life: Run) -> int:
        code = life.kill()
        assert code in (0, -signal.SIGKILL), life.err
        self.kills += code != 0
        return code

    def steps(self) -> int:
        return int(state(self.folder)["steps"])


@pytest.mark.slow
def test_a_run_killed_while_it_saves_a_checkpoint_resumes_to_the_same_weights(
    forks, pets, undisturbed, tmp_path
):
    lives = Lives(forks, pets, tmp_path)
    lives.killed_while("runs/run/*/checkpoints/.last.ckpt.*")
    assert lives.start().wait() == 0
    for file in ("last", "best"):
        assert same(state(tmp_path, file=file), state(undisturbed, file=file))


@pytest.mark.slow
def test_a_run_killed_twenty_times_ends_with_the_weights_of_an_uninterrupted_one(
    forks, pets, undisturbed, tmp_path
):
    chance = random.Random(16.917 / 0.772)
    lives = Lives(forks, pets, tmp_path)
    lives.killed_while("data/cache/*.partial")
    while lives.kills < KILLS:
        if chance.random() < 0.3:
            ended = lives.killed_while("runs/run/*/checkpoints/.last.ckpt.*")
        else:
            ended = lives.killed_after(chance.uniform(0.1, 2.5))
        if ended == 0:
            # It finished before it was killed: start another run, until there are enough kills.
            assert same(state(tmp_path), state(undisturbed)), f"after {lives.kills} kills"
            shutil.rmtree(tmp_path / "runs")
    last = lives.start()
    assert last.wait() == 0, last.err
    for file in ("last", "best"):
        assert same(state(tmp_path, file=file), state(undisturbed, file=file))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_within_an_epoch_saves_a_checkpoint_and_tells_how_to_resume(
    forks, pets, undisturbed, tmp_path, number
):
    gate = "{class_path: training.callbacks.Gate, init_args: {epoch: 1, batch: 5}}"
    command = words(pets, "--save_every", "60", "--trainer.callbacks+", gate)
    env = {"CATORDOG_DATA": str(undisturbed / "data")}
    run = forks.start(*command, cwd=tmp_path, **env)
    run.wait_for_file(tmp_path / "waiting")
    run.send(number)
    run.wait_for("stopping after this step")
    (tmp_path / "go").touch()
    assert run.wait() == (130 if number == signal.SIGINT else os.EX_TEMPFAIL), run.err
    assert "Traceback" not in run.err
    assert "stopped; checkpoint runs/run/version_0/checkpoints/last.ckpt; resume with:" in run.err
    again = shlex.split(run.out)
    assert again[-2:] == ["--ckpt_path", "runs/run/version_0/checkpoints/last.ckpt"]
    resumed = forks.run(*again[1:], cwd=tmp_path, **env)
    assert resumed.code == 0, resumed.err
    assert same(state(tmp_path), state(undisturbed))


def corrupt(file: Path) -> None:
    """Change one byte in the middle of its largest part."""
    content = bytearray(file.read_bytes())
    with zipfile.ZipFile(file) as parts:
        part = max(parts.infolist(), key=lambda part: part.file_size)
    content[part.header_offset + 300] ^= 1
    file.write_bytes(content)


def test_if_the_last_checkpoint_is_damaged_the_previous_one_is_used(
    forks, pets, undisturbed, tmp_path
):
    shutil.copytree(undisturbed / "runs", tmp_path / "runs")
    corrupt(tmp_path / "runs/run/version_0/checkpoints/last.ckpt")
    run = forks.run(
        *words(pets, "--ckpt_path", "last"), cwd=tmp_path, CATORDOG_DATA=str(undisturbed / "data")
    )
    assert run.code == 0, run.err
    message = [line for line in run.err.splitlines() if "damaged" in line]
    assert len(message) == 1
    assert message[0].endswith("; resuming from previous.ckpt")
    assert same(state(tmp_path), state(undisturbed))


def test_if_both_checkpoints_are_damaged_the_error_is_one_line(forks, pets, undisturbed, tmp_path):
    shutil.copytree(undisturbed / "runs", tmp_path / "runs")
    for name in ("last", "previous"):
        corrupt(tmp_path / f"runs/run/version_0/checkpoints/{name}.ckpt")
    run = forks.run(*words(pets, "--ckpt_path", "last"), cwd=tmp_path)
    assert run.code == 2
    assert "previous.ckpt: damaged" in run.err
    assert len(run.err.splitlines()) == 1, run.err


def test_a_loss_that_is_not_finite_ends_the_run_and_names_the_last_good_checkpoint(
    forks, pets, undisturbed, tmp_path
):
    env = {"CATORDOG_DATA": str(undisturbed / "data")}
    options = words(pets, "--model.optimizer", "sgd")
    assert forks.run(*options, "--trainer.max_epochs", 1, cwd=tmp_path, **env).code == 0
    good = state(tmp_path)
    assert all(tensor.isfinite().all() for tensor in good["state_dict"].values())
    run = forks.run(*words(pets, "--model.lr", "1e18", "--model.optimizer", "sgd"), cwd=tmp_path,
                    **env)  # fmt: skip
    assert run.code == 2, run.err
    line = run.err.splitlines()[-1]
    assert "the loss is no longer finite (epoch 1, step" in line
    assert "probably because the learning rate is too high" in line
    assert "--model.lr 1e+17" in line
    for file in tmp_path.glob("runs/run/version_1/checkpoints/*.ckpt"):
        weights = torch.load(file, weights_only=True)["state_dict"]
        assert all(tensor.isfinite().all() for tensor in weights.values()), file
        assert str(file.relative_to(tmp_path)) in line or file.name != "last.ckpt"


@pytest.mark.slow
def test_two_runs_started_at_once_get_a_folder_each(forks, pets, undisturbed, tmp_path):
    env = {"CATORDOG_DATA": str(tmp_path / "data")}
    runs = [forks.start(*words(pets), cwd=tmp_path, name=f"run{i}", **env) for i in range(2)]
    assert [run.wait() for run in runs] == [0, 0], runs[0].err + runs[1].err
    for version in range(2):
        assert same(state(tmp_path, version), state(undisturbed))


@pytest.mark.slow
def test_a_running_run_cant_be_resumed_by_another_process(forks, pets, undisturbed, tmp_path):
    env = {"CATORDOG_DATA": str(undisturbed / "data")}
    first = forks.start(*words(pets), cwd=tmp_path, **env)
    first.wait_for("epoch   1/4")
    first.send(signal.SIGSTOP)  # or it might be over before the second has begun
    second = forks.start(*words(pets, "--ckpt_path", "last"), cwd=tmp_path, name="second", **env)
    code = second.wait()
    first.send(signal.SIGCONT)
    assert code == 2
    assert "runs/run/version_0 is being trained by another process" in second.err
    assert first.wait() == 0, first.err
    assert same(state(tmp_path), state(undisturbed))


@pytest.mark.slow
def test_last_means_the_newest_run_even_if_it_has_no_checkpoint_yet(
    forks, pets, undisturbed, tmp_path
):
    env = {"CATORDOG_DATA": str(undisturbed / "data")}
    shutil.copytree(undisturbed / "runs", tmp_path / "runs")
    (tmp_path / "runs/run/version_1").mkdir()
    run = forks.run(*words(pets, "--ckpt_path", "last"), cwd=tmp_path, **env)
    assert run.code == 0, run.err
    assert "no checkpoint in runs/run/version_1 yet; starting from the beginning" in run.err
    assert same(state(tmp_path, 1), state(undisturbed))


@pytest.mark.slow
def test_a_run_whose_photos_have_changed_reports_it_and_resumes(forks, undisturbed, tmp_path, pets):
    shutil.copytree(undisturbed / "runs", tmp_path / "runs")
    own = shutil.copytree(pets, tmp_path / "pets")
    write_folder(own, {f"cat/new{i}.jpg": jpeg(1000 + 2 * i) for i in range(40)})
    command = words(own, "--ckpt_path", "last", "--trainer.max_epochs", "5")
    run = forks.run(*command, cwd=tmp_path, CATORDOG_DATA=str(tmp_path / "data"))
    assert run.code == 0, run.err
    message = [line for line in run.err.splitlines() if "photos have changed" in line]
    assert len(message) == 1
    assert "epoch   5/5" in run.err
    assert "epoch   3/" not in run.err


def test_a_run_already_trained_past_max_epochs_is_one_line(forks, pets, undisturbed, tmp_path):
    shutil.copytree(undisturbed / "runs", tmp_path / "runs")
    command = words(pets, "--ckpt_path", "last", "--trainer.max_epochs", "2")
    run = forks.run(*command, cwd=tmp_path, CATORDOG_DATA=str(undisturbed / "data"))
    assert run.code == 2
    assert "is already trained past --trainer.max_epochs 2: give a higher one" in run.err
    assert len(run.err.splitlines()) == 1, run.err


def test_a_run_cant_be_resumed_with_other_classes(forks, undisturbed, tmp_path):
    shutil.copytree(undisturbed / "runs", tmp_path / "runs")
    files = {f"{('cat', 'hen')[i % 2]}/{i}.jpg": jpeg(i) for i in range(60)}
    own = write_folder(tmp_path / "pets", files)
    run = forks.run(*words(own, "--ckpt_path", "last"), cwd=tmp_path)
    assert run.code == 2
    assert "has the classes cat, hen, and this run was started with cat, dog" in run.err
    assert "Traceback" not in run.err


@pytest.fixture(scope="module")
def mounts() -> Iterator[Forks]:
    """Processes with a mount namespace of their own, for small disks."""
    found = shutil.which("unshare") and subprocess.run(
        ["unshare", "--map-root-user", "--mount", "mount", "-t", "tmpfs", "none", "/mnt"],
        check=False, capture_output=True,
    )  # fmt: skip
    if not found or found.returncode:
        pytest.skip("this machine does not allow user mounts")
    made = Forks(own_mounts=True)
    yield made
    made.close()


@pytest.mark.slow
def test_a_full_disk_ends_the_run_in_one_line_and_loses_no_checkpoint(
    mounts, pets, undisturbed, tmp_path
):
    disk = tmp_path / "disk"
    disk.mkdir()
    assert mounts.shell(f"mount -t tmpfs -o size=300k none {disk}") == 0
    env = {"CATORDOG_DATA": str(undisturbed / "data")}
    command = words(pets, "--trainer.max_epochs", "12")
    run = mounts.start(*command, cwd=disk, name="../log", **env)
    assert run.wait() == 2, run.err
    assert "Traceback" not in run.err
    line = run.err.splitlines()[-1]
    assert "No space left on device" in line, run.err
    assert mounts.shell(f"mkdir {tmp_path}/saved && cp -r {disk}/runs {tmp_path}/saved/") == 0
    last = tmp_path / "saved/runs/run/version_0/checkpoints/last.ckpt"
    assert last.is_file()
    assert torch.load(last, weights_only=True)["global_step"] > 0
    assert not [*last.parent.glob(".last.*")]
    assert mounts.shell(f"mount -o remount,size=100m {disk}") == 0
    again = mounts.start(*command, "--ckpt_path", "last", cwd=disk, name="../again", **env)
    assert again.wait() == 0, again.err


def test_a_read_only_folder_is_one_line_before_any_photo_is_read(mounts, pets, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    assert mounts.shell(f"mount -t tmpfs -o ro none {disk}") == 0
    run = mounts.start(*words(pets), cwd=disk, name="../log")
    assert run.wait() == 2
    assert run.err.splitlines()[-1].startswith(
        "catordog: error: can't write to runs/run (Read-only"
    )
    assert "reading" not in run.err
