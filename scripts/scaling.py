"""Estimate how training scales: measured on this machine, and modelled for many GPUs.

python scripts/scaling.py                  measure 1 and 2 processes, then print the model
python scripts/scaling.py --model-only     print the model only

The model gives the time T(n) of one step on n GPUs with b photos each:

    T(n) = b / r  +  max(0, A(n) − o · b / r)  +  j · ln n
    A(n) = 2 (n − 1) / n · 4 P / w  +  2 log2(n) · l

b / r     compute time at r photos per second and GPU
A(n)      ring all-reduce of P gradients of 4 bytes each: every GPU sends and receives
          2 (n − 1) / n of them at w bytes per second, plus a latency of l seconds per round
o         fraction of the compute time that can overlap with the all-reduce: DDP sends the
          gradients of late layers while those of early layers are computed
j · ln n  waiting for the slowest GPU; its delay grows with the logarithm of n
"""

from __future__ import annotations

import argparse
import math
import os
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

TRAIN = [
    *("train", "--data", "drawn:n=2400,size=64", "--data.size", "64", "--trainer.max_epochs", "3"),
    *("--trainer.precision", "32", "--trainer.accelerator", "cpu", "--data.val", "0.02"),
    *("--trainer.callbacks+", "step_clock.StepClock", "--trainer.logger", "false"),
]


def step_seconds(processes: int, batch_size: int) -> float:
    """Train with that many single-threaded processes. Returns the median seconds per step."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "seconds"
        words = [*TRAIN, "--data.batch_size", str(batch_size), "--trainer.devices", str(processes)]
        paths = [str(Path(__file__).resolve().parent), os.environ.get("PYTHONPATH", "")]
        environment = {
            **os.environ,
            "STEP_CLOCK": str(file),
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        }
        ended = subprocess.run(
            [sys.executable, "-m", "catordog", *words], cwd=folder, env=environment, check=False,
            capture_output=True, text=True,
        )  # fmt: skip
        if ended.returncode:
            sys.exit(f"training with {processes} processes failed:\n{ended.stderr[-2000:]}")
        return float(file.read_text())


def measure() -> None:
    """Print the throughput of one process and of two."""
    runs = ((1, 64), (1, 128), (2, 128))
    seconds = [statistics.median(step_seconds(*run) for _ in range(3)) for run in runs]
    baseline = 64 / seconds[0]
    print("processes  photos per step  s per step  photos/s  efficiency")
    for (processes, batch_size), step in zip(runs, seconds, strict=True):
        rate = batch_size / step
        efficiency = rate / (baseline * processes)
        print(f"{processes:9}  {batch_size:15}  {step:10.3f}  {rate:8.0f}  {efficiency:10.2f}")


def _option(default: float, help_text: str) -> Any:
    return field(default=default, metadata={"help": help_text})


@dataclass(frozen=True)
class Cluster:
    """Parameters of the model; the letters are those of the module's docstring."""

    parameters: float = _option(25.6e6, "P: parameters of the network; the default is resnet50")
    photos: int = _option(256, "b: photos per GPU and step")
    rate: float = _option(
        2500.0, "r: photos per second on one GPU, forward and backward, at 224 px"
    )
    inside: float = _option(200e9, "w within a node, bytes per second")
    between: float = _option(40e9, "w between nodes, bytes per second: 80 %% of 400 Gbit/s")
    to_a_node: int = _option(8, "GPUs per node")
    latency: float = _option(20e-6, "l: seconds per round of the all-reduce")
    hidden: float = _option(0.5, "o: fraction of the compute time that hides communication, 0 to 1")
    jitter: float = _option(0.5e-3, "j: seconds")

    def step(self, gpus: int) -> tuple[float, float, float]:
        """Seconds of compute, of the all-reduce, and of the complete step."""
        compute = self.photos / self.rate
        if gpus == 1:
            return compute, 0.0, compute
        bandwidth = self.inside if gpus <= self.to_a_node else self.between
        volume = 2 * (gpus - 1) / gpus * 4 * self.parameters
        reduce = volume / bandwidth + 2 * math.log2(gpus) * self.latency
        exposed = max(0.0, reduce - self.hidden * compute)
        return compute, reduce, compute + exposed + self.jitter * math.log(gpus)


def print_model(cluster: Cluster) -> None:
    """Print the modelled throughput of 1 to 512 GPUs."""
    print("GPUs  photos per step  all-reduce  s per step   photos/s  efficiency  without overlap")
    for gpus in (1, 8, 16, 32, 64, 128, 256, 512):
        compute, reduce, step = cluster.step(gpus)
        rate = gpus * cluster.photos / step
        worst = compute / (compute + reduce + cluster.jitter * math.log(gpus))
        print(
            f"{gpus:4}  {gpus * cluster.photos:15,}  {1000 * reduce:7.1f} ms  {step:10.4f}  "
            f"{rate:9,.0f}  {rate / (gpus * cluster.rate):10.2f}  {worst:15.2f}"
        )


def main() -> None:
    """Measure, unless only the model is asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model-only", action="store_true", help="measure nothing")
    for each in fields(Cluster):
        parser.add_argument(
            f"--{each.name.replace('_', '-')}", type=type(each.default), default=each.default,
            metavar="X", help=f"{each.metadata['help']} (default: {each.default:g})",
        )  # fmt: skip
    given = vars(parser.parse_args())
    if not given.pop("model_only"):
        measure()
        print()
    print_model(Cluster(**given))


if __name__ == "__main__":
    main()
