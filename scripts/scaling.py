"""How training scales: measured on this machine with 1 and 2 processes, and a model for many GPUs.

python scripts/scaling.py                  both measured, and the model's table
python scripts/scaling.py --model-only     the table alone

The model of a step of n GPUs, each with b photos:

    T(n) = b / r  +  max(0, A(n) − o · b / r)  +  j · ln n
    A(n) = 2 (n − 1) / n · 4 P / w  +  2 log2(n) · l

b / r     computing, at r photos a second on one GPU
A(n)      an all-reduce of the gradients of P parameters, 4 bytes each: every GPU sends and
          receives 2 (n − 1) / n of them (a ring), at w bytes a second, l seconds to each round
o         the share of computing that it hides behind: gradients of late layers travel while those
          of early ones are computed (two thirds of a step are backward; DDP sends in buckets)
j · ln n  waiting for the slowest of n, whose lateness grows with the logarithm of n
"""

from __future__ import annotations

import argparse
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import lightning as L

TRAIN = [
    *("train", "--data", "drawn:n=2400,size=64", "--data.size", "64", "--trainer.max_epochs", "3"),
    *("--trainer.precision", "32", "--trainer.accelerator", "cpu", "--data.val", "0.02"),
    *("--trainer.callbacks+", "scaling.Clock", "--trainer.logger", "false"),
]


class Clock(L.Callback):
    """Writes down when each step ended."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def on_train_batch_end(self, *_: object) -> None:
        """A step has ended."""
        self.times.append(time.perf_counter())

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write the median."""
        del pl_module
        steps = [later - one for one, later in zip(self.times, self.times[1:], strict=False)]
        if trainer.is_global_zero:
            Path(os.environ["CLOCK"]).write_text(str(statistics.median(steps)))


def seconds_to_a_step(processes: int, batch: int) -> float:
    """Train with so many processes of one thread each; a step's median time."""
    with tempfile.TemporaryDirectory() as made:
        clock = Path(made) / "clock"
        words = [*TRAIN, "--data.batch_size", str(batch), "--trainer.devices", str(processes)]
        environment = {
            **os.environ,
            "CLOCK": str(clock),
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": str(Path(__file__).parent),
        }
        subprocess.run(
            [sys.executable, "-m", "catordog", *words], cwd=made, env=environment, check=True,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        return float(clock.read_text())


def measure() -> None:
    """Print the rates of one process and of two."""
    one, two, whole = (
        statistics.median(seconds_to_a_step(*each) for _ in range(3))
        for each in ((1, 64), (2, 128), (1, 128))
    )
    print("processes  photos a step  s a step  photos/s  efficiency")
    for processes, batch, seconds in ((1, 64, one), (1, 128, whole), (2, 128, two)):
        rate = batch / seconds
        efficiency = rate / (64 / one * processes)
        print(f"{processes:9}  {batch:13}  {seconds:8.3f}  {rate:8.0f}  {efficiency:10.2f}")


@dataclass(frozen=True)
class Cluster:
    """What the model reckons with."""

    parameters: float = 25.6e6
    """P: of resnet50."""
    photos: int = 256
    """b: of a step, to each GPU."""
    rate: float = 2500
    """r: photos a second on one GPU, forward and backward, at 224 px."""
    inside: float = 200e9
    """w within a node, bytes a second."""
    between: float = 40e9
    """w between nodes, bytes a second: 400 Gbit/s, four fifths of them."""
    to_a_node: int = 8
    latency: float = 20e-6
    """l, seconds."""
    hidden: float = 0.5
    """o."""
    jitter: float = 0.5e-3
    """j, seconds."""

    def step(self, gpus: int) -> tuple[float, float, float]:
        """Seconds of computing, of an all-reduce, and of the whole step."""
        computing = self.photos / self.rate
        if gpus == 1:
            return computing, 0.0, computing
        width = self.inside if gpus <= self.to_a_node else self.between
        volume = 2 * (gpus - 1) / gpus * 4 * self.parameters
        reduce = volume / width + 2 * math.log2(gpus) * self.latency
        seen = max(0.0, reduce - self.hidden * computing)
        return computing, reduce, computing + seen + self.jitter * math.log(gpus)


def model(cluster: Cluster) -> None:
    """Print what the model expects of 1 to 512 GPUs."""
    print("GPUs  photos a step  all-reduce  s a step   photos/s  efficiency  the same, all waiting")
    for gpus in (1, 8, 16, 32, 64, 128, 256, 512):
        computing, reduce, step = cluster.step(gpus)
        rate = gpus * cluster.photos / step
        worst = computing / (computing + reduce + cluster.jitter * math.log(gpus))
        print(
            f"{gpus:4}  {gpus * cluster.photos:13,}  {1000 * reduce:7.1f} ms  {step:8.4f}  "
            f"{rate:9,.0f}  {rate / (gpus * cluster.rate):10.2f}  {worst:21.2f}"
        )


def main() -> None:
    """Measure, unless only the model is asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model-only", action="store_true")
    for name, value in vars(Cluster()).items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(value), default=value)
    given = vars(parser.parse_args())
    if not given.pop("model_only"):
        measure()
        print()
    model(Cluster(**given))


if __name__ == "__main__":
    main()
