"""Several processes train one network, started as torchrun and SLURM start them, on gloo."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import lightning as L
import pytest
import torch
from torch import nn

from conftest import ROOT, jpeg, write_folder
from training.forks import Forks, Run

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no fork")

PHOTOS = 303  # not a multiple of the batch size


class Plain(nn.Module):
    """A network without batch norms, whose statistics are per process."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3, 2), nn.ReLU(), nn.Conv2d(8, 16, 3, 2))
        self.fc = nn.Linear(16, num_classes)

    def forward(self, photos):
        return self.fc(self.body(photos).relu().mean(dim=(2, 3)))


class Witness(L.Callback):
    """Records which photos this process sees, by the brightness of each."""

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self._note(trainer, "train", batch)

    def on_validation_batch_end(self, trainer, pl_module, outputs, batch, *_):
        self._note(trainer, "val", batch)

    def _note(self, trainer, what, batch):
        seen = [round(float(photo.double().sum()), 3) for photo in batch[0]]
        with Path(f"seen-{trainer.global_rank}.jsonl").open("a") as file:
            print(json.dumps([what, trainer.current_epoch, seen]), file=file)


UNCHANGED = [
    *("--data.augment.min_area", "1", "--data.augment.max_stretch", "1"),
    *("--data.augment.max_turn", "0", "--data.augment.flip", "false"),
    *("--data.augment.brightness", "0", "--data.augment.contrast", "0"),
    *("--data.augment.saturation", "0"),
]


@pytest.fixture(scope="module")
def pets(tmp_path_factory) -> Path:
    files = {f"{('cat', 'dog')[i % 2]}/{i}.jpg": jpeg(i) for i in range(PHOTOS)}
    return write_folder(tmp_path_factory.mktemp("pets") / "pets", files)


def words(pets: Path, *more: object) -> list[str]:
    return [
        *("train", "--data", str(pets), "--data.size", "32", "--data.batch_size", "32"),
        *("--model.network", "training.test_two_processes.Plain", "--model.lr", "0.05"),
        *("--trainer.max_epochs", "8", "--trainer.precision", "32", "--save_every", "60"),
        *("--trainer.accelerator", "cpu"),
        *map(str, more),
    ]


def start(forks: Forks, n: int, command: list[str], cwd: Path, **env: str) -> list[Run]:
    """Start n processes with the environment that torchrun gives them."""
    cwd.mkdir(exist_ok=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = {
        **env,
        "CATORDOG_DATA": str(cwd / "data"),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port,
        "WORLD_SIZE": str(n),
        "LOCAL_WORLD_SIZE": str(n),
        "TORCHELASTIC_RUN_ID": "test",
        "OMP_NUM_THREADS": "1",
    }
    return [
        forks.start(
            *command, cwd=cwd, name=f"rank{rank}", RANK=str(rank), LOCAL_RANK=str(rank), **shared
        )
        for rank in range(n)
    ]


def run(forks: Forks, n: int, command: list[str], cwd: Path) -> Run:
    """Run n processes to their end; returns the first."""
    if n == 1:
        cwd.mkdir(exist_ok=True)
        one = forks.start(*command, cwd=cwd, CATORDOG_DATA=str(cwd / "data"))
        assert one.wait() == 0, one.err
        return one
    runs = start(forks, n, command, cwd)
    codes = [each.wait() for each in runs]
    assert set(codes) == {0}, [each.err for each in runs]
    return runs[0]


def last(folder: Path) -> dict[str, torch.Tensor]:
    return torch.load(folder / "runs/run/version_0/checkpoints/last.ckpt", weights_only=True)


def close(one: Path, other: Path) -> bool:
    pairs = zip(last(one)["state_dict"].values(), last(other)["state_dict"].values(), strict=True)
    return all(torch.allclose(a, b, rtol=1e-3, atol=1e-4) for a, b in pairs)


def figures(run: Run) -> list[list[float]]:
    """Of each epoch: training loss and accuracy, validation loss and accuracy."""
    lines = re.findall(r"loss ([\d.]+)  accuracy ([\d.]+)  \| val loss ([\d.]+)  accuracy ([\d.]+)",
                       run.err)  # fmt: skip
    return [[float(value) for value in line] for line in lines]


@pytest.fixture(scope="module")
def alone(forks, pets, tmp_path_factory) -> tuple[Path, Run]:
    folder = tmp_path_factory.mktemp("alone")
    return folder, run(forks, 1, words(pets), folder)


@pytest.fixture(scope="module")
def together(forks, pets, tmp_path_factory) -> tuple[Path, Run]:
    folder = tmp_path_factory.mktemp("together")
    return folder, run(forks, 2, words(pets), folder)


@pytest.mark.slow
def test_two_processes_train_the_network_that_one_trains(alone, together):
    assert close(alone[0], together[0])
    assert len(figures(alone[1])) == 8
    for one, two in zip(figures(alone[1]), figures(together[1]), strict=True):
        assert one == pytest.approx(two, abs=2e-4)  # 31 validation photos, 15 and 16 of them


@pytest.mark.slow
def test_calibration_uses_the_validation_photos_of_all_processes(alone, together):
    best = "runs/run/version_0/checkpoints/best.ckpt"
    found = [
        torch.load(folder / best, weights_only=True)["catordog"]
        for folder in (alone[0], together[0])
    ]
    assert found[0]["temperature"] == pytest.approx(found[1]["temperature"], rel=1e-2)
    assert len(found[0]["nonconformity"]) == len(found[1]["nonconformity"])


@pytest.mark.slow
def test_only_the_first_process_prints(together):
    folder, first = together
    assert len(re.findall(r"^epoch", first.err, re.MULTILINE)) == 8
    assert first.out.startswith("catordog evaluate ")
    assert (folder / "rank1.err").read_text() == ""
    assert (folder / "rank1.out").read_text() == ""
    assert [path.name for path in (folder / "runs/run").iterdir()] == ["version_0"]


@pytest.mark.slow
def test_each_photo_is_seen_once_per_epoch_by_one_process(forks, pets, tmp_path):
    command = words(pets, *UNCHANGED, "--trainer.max_epochs", "2", "--trainer.callbacks+",
                    "training.test_two_processes.Witness")  # fmt: skip
    run(forks, 2, command, tmp_path)
    seen: dict[tuple[str, int], list[list[float]]] = {}
    for rank in range(2):
        by_epoch: dict[tuple[str, int], list[float]] = {}
        for line in (tmp_path / f"seen-{rank}.jsonl").read_text().splitlines():
            what, epoch, photos = json.loads(line)
            by_epoch.setdefault((what, epoch), []).extend(photos)
        for key, photos in by_epoch.items():
            seen.setdefault(key, []).append(photos)
    content = last(tmp_path)["PhotosDataModule"]
    for (what, _), (first, second) in seen.items():
        assert len({*first, *second}) == len(first) + len(second)
        if what == "train":
            assert len(first) == len(second) == content["photos"] // 32 * 16
        else:
            assert abs(len(first) - len(second)) <= 1
    both = {key: sorted(by_epoch[0] + by_epoch[1]) for key, by_epoch in seen.items()}
    assert both["val", 0] == both["val", 1]
    assert both["train", 0] != both["train", 1]


@pytest.mark.slow
def test_a_run_resumes_with_another_number_of_processes(forks, pets, alone, tmp_path):
    gate = ("--trainer.callbacks+", "training.callbacks.Gate")
    runs = start(forks, 2, words(pets, *gate), tmp_path)
    runs[0].wait_for("epoch   2/8")
    runs[1].send(signal.SIGUSR1)  # all stop, whichever process gets it
    (tmp_path / "go").touch()
    assert [each.wait() for each in runs] == [os.EX_TEMPFAIL] * 2, runs[0].err
    assert "epoch   8/8" not in runs[0].err
    run(forks, 1, words(pets, "--ckpt_path", "last"), tmp_path)
    assert close(alone[0], tmp_path)


@pytest.mark.slow
def test_slurm_starts_processes_with_the_same_command(forks, pets, alone, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = {
        "CATORDOG_DATA": str(tmp_path / "data"), "MASTER_PORT": port, "SLURM_NODELIST": "127.0.0.1",
        "SLURM_JOB_ID": "7", "SLURM_JOB_NAME": "catordog", "SLURM_NTASKS": "2", "SLURM_NNODES": "1",
        "SLURM_NTASKS_PER_NODE": "2", "SLURM_NODEID": "0", "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    runs = [
        forks.start(*words(pets), cwd=tmp_path, name=f"rank{rank}", SLURM_PROCID=str(rank),
                    SLURM_LOCALID=str(rank), **shared)
        for rank in range(2)
    ]  # fmt: skip
    assert [each.wait() for each in runs] == [0, 0], runs[0].err + runs[1].err
    assert close(alone[0], tmp_path)
    assert (tmp_path / "rank1.err").read_text() == ""


@pytest.mark.parametrize(("code", "requeued"), [(75, True), (0, False), (1, False), (2, False)])
def test_the_slurm_script_requeues_itself_only_after_a_signal(tmp_path, code, requeued):
    for name, text in {
        "srun": f'echo "$@" > {tmp_path}/ran; exit {code}',
        "scontrol": f'[ "$1" = show ] && echo node1 || echo "$@" >> {tmp_path}/asked',
    }.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)
    ended = subprocess.run(
        ["bash", ROOT / "scripts/train.slurm", "--config", "cluster.yaml"], check=False,
        env={"PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_JOB_ID": "7",
             "SLURM_NTASKS_PER_NODE": "8", "SLURM_NNODES": "2", "SLURM_CPUS_PER_TASK": "4",
             "SLURM_JOB_NODELIST": "node[1-2]"},
    )  # fmt: skip
    assert ended.returncode == code
    assert "catordog train --config cluster.yaml" in (tmp_path / "ran").read_text()
    assert (tmp_path / "asked").exists() == requeued
    if requeued:
        assert (tmp_path / "asked").read_text() == "requeue 7\n"


@pytest.mark.parametrize(("restarts", "resumes"), [(None, False), ("0", False), ("1", True)])
def test_only_a_requeued_slurm_job_resumes(tmp_path, restarts, resumes):
    for name in ("srun", "scontrol"):
        (tmp_path / name).write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/{name}.txt\n')
        (tmp_path / name).chmod(0o755)
    subprocess.run(
        ["bash", ROOT / "scripts/train.slurm", "--config", "cluster.yaml"], check=False,
        env={"PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_JOB_ID": "7",
             "SLURM_NTASKS_PER_NODE": "8", "SLURM_NNODES": "2", "SLURM_CPUS_PER_TASK": "4",
             "SLURM_JOB_NODELIST": "node[1-2]"}
        | ({"SLURM_RESTART_COUNT": restarts} if restarts else {}),
    )  # fmt: skip
    assert ("--ckpt_path last" in (tmp_path / "srun.txt").read_text()) == resumes


def test_a_batch_that_cant_be_divided_is_one_line(forks, pets, tmp_path):
    runs = start(forks, 2, words(pets, "--data.batch_size", "33"), tmp_path)
    assert [each.wait() for each in runs] == [2, 2]
    line = runs[0].err.splitlines()[-1]
    assert "data.batch_size = 33 photos can't be divided among 2 processes" in line


@pytest.mark.slow
def test_when_one_process_is_killed_all_end(pets, tmp_path):
    command = words(pets, "--trainer.max_epochs", "2000", "--trainer.devices", "2")
    process = subprocess.Popen(
        [sys.executable, "-m", "catordog", *command],
        cwd=tmp_path, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT / "tests"), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    for line in process.stderr:
        if line.startswith("epoch   2/"):
            break
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    os.kill(int(children[0]), signal.SIGKILL)
    _, err = process.communicate(timeout=60)
    assert process.returncode != 0
    assert "Traceback" not in err, err
    assert last(tmp_path)["epoch"] >= 1
