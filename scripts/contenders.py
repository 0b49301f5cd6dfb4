"""Train with one of the libraries that `benchmark.py train` compares.

python scripts/contenders.py NAME FOLDER [--minutes 5] [--size 64]

FOLDER has train/, val/ and test/, each with a folder per class. Without --minutes only the speed is
measured. The last line of stdout is a JSON object.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

STARTED = time.perf_counter()
Result = dict[str, Any]

STEPS = 12
"""Number of measured steps without --minutes, after as many warm-up steps."""


class PeakMemory:
    """The peak anonymous memory of this process, in bytes; memory-mapped files do not count."""

    def __init__(self) -> None:
        self.peak = 0
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        status = Path("/proc/self/status")
        while status.exists():
            for line in status.read_text().splitlines():
                if line.startswith("RssAnon:"):
                    self.peak = max(self.peak, 1024 * int(line.split()[1]))
            time.sleep(0.1)


def matmul_flops(dtype: Any, size: int = 2048, rounds: int = 10) -> float:
    """Floating-point operations per second of a large matrix multiplication."""
    import torch

    a = torch.randn(size, size).to(dtype)
    seconds = []
    for _ in range(rounds):
        start = time.perf_counter()
        a @ a
        seconds.append(time.perf_counter() - start)
    return float(2 * size**3 / statistics.median(seconds))


def catordog(args: argparse.Namespace) -> Result:
    """`catordog train`: a complete run, or two epochs under a profiler."""
    return _catordog_accuracy(args) if args.minutes else _catordog_speed(args)


def _catordog_accuracy(args: argparse.Namespace) -> Result:
    import subprocess

    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "CATORDOG_DATA": f"{folder}/data"}  # an empty cache
        program = [sys.executable, "-m", "catordog"]
        train = [*program, "train", "--config", _config(args)]
        data = ["--data", str(Path(args.folder).resolve())]
        start = time.perf_counter()
        subprocess.run([*train, *data], cwd=folder, env=environment, check=True, stdout=sys.stderr)
        seconds = time.perf_counter() - start
        model = next(Path(folder).glob("runs/*/version_0/checkpoints/best.ckpt"))
        file = Path(folder) / "evaluation.json"
        words = [*program, "evaluate", str(model), *data, "--split", "test"]
        subprocess.run(
            [*words, "--json", str(file)], env=environment, check=True, stdout=sys.stderr
        )
        return {"accuracy": json.loads(file.read_text())["accuracy"], "seconds": seconds}


def _config(args: argparse.Namespace) -> str:
    """The config as an absolute path; the name of one that ships with catordog stays as it is."""
    return str(Path(args.config).resolve()) if Path(args.config).exists() else args.config


def _catordog_speed(args: argparse.Namespace) -> Result:
    import torch
    from lightning.pytorch import Callback
    from lightning.pytorch.profilers import SimpleProfiler
    from torch.utils.flop_counter import FlopCounterMode

    from catordog.training.fit import prepare_process
    from catordog.training.lightning_cli import TrainCLI

    memory = PeakMemory()

    class Clock(Callback):
        """Records the seconds of each training epoch and the size of its photos."""

        def __init__(self) -> None:
            self.epochs: list[tuple[float, int]] = []
            self.start = 0.0
            self.size = 0

        def on_train_epoch_start(self, *_: Any) -> None:
            self.start = time.perf_counter()

        def on_train_batch_start(self, *arguments: Any) -> None:
            self.size = arguments[2][0].shape[-1]

        def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
            if trainer.is_last_batch:
                self.epochs.append((time.perf_counter() - self.start, self.size))

    prepare_process()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["CATORDOG_DATA"] = str(Path(folder) / "data")
        config = Path(_config(args))
        words = ["--data.source", str(Path(args.folder).resolve()), "--trainer.max_epochs", "2"]
        os.chdir(folder)
        words += ["--data.start_size", str(args.size), "--data.end_size", str(args.size)]
        cli = TrainCLI([config], words)
        clock, profiler = Clock(), SimpleProfiler()
        cli.trainer.callbacks.append(clock)
        cli.trainer.profiler = profiler
        half = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}
        dtype = half.get(str(cli.trainer.precision), torch.float32)
        peaks = [matmul_flops(dtype)], [matmul_flops(torch.float32)]
        cli.trainer.fit(cli.model, cli.datamodule)
        peaks[0].append(matmul_flops(dtype))
        peaks[1].append(matmul_flops(torch.float32))
    seconds, size = clock.epochs[-1]
    loader = cli.datamodule.train_dataloader()
    batch, photos = loader.batch_size, len(loader) * loader.batch_size
    with FlopCounterMode(display=False) as counter:
        cli.model.network.train()(torch.zeros(batch, 3, size, size)).sum().backward()
    flops = counter.get_total_flops() / batch * photos / seconds

    def spent(*names: str) -> float:
        return sum(
            sum(durations)
            for action, durations in profiler.recorded_durations.items()
            if any(action.endswith(name) for name in names)
        )

    epochs = sum(each for each, _ in clock.epochs)
    return {
        "photos_per_s": photos / seconds,
        "size": size,
        "gflops": flops / 1e9,
        "precision": str(dtype).removeprefix("torch."),
        "of_matmul": flops / statistics.mean(peaks[0]),
        "of_float32_matmul": flops / statistics.mean(peaks[1]),
        "waiting": spent("train_dataloader_next") / epochs,
        "augmenting": spent("PhotosDataModule.on_after_batch_transfer") / epochs,
        "peak_bytes": memory.peak,
    }


def usual(args: argparse.Namespace) -> Result:
    """A standard PyTorch script: ImageFolder, DataLoader, resnet18, SGD with a cosine schedule."""
    import torch
    import torch.nn.functional as F
    from torch.utils.data import DataLoader
    from torchvision import datasets, models
    from torchvision.transforms import v2

    memory = PeakMemory()
    torch.manual_seed(0)
    normalise = [
        v2.ToImage(),
        v2.ToDtype(torch.float32, scale=True),
        v2.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
    ]
    augment = v2.Compose([v2.RandomResizedCrop(args.size), v2.RandomHorizontalFlip(), *normalise])
    resize = v2.Compose([v2.Resize((args.size, args.size)), *normalise])
    root = Path(args.folder)
    train = DataLoader(
        datasets.ImageFolder(root / "train", augment),
        batch_size=64, shuffle=True, drop_last=True, num_workers=2, persistent_workers=True,
    )  # fmt: skip
    network = models.resnet18(num_classes=len(train.dataset.classes))
    optimizer = torch.optim.SGD(
        network.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=5e-4
    )

    def step(photos: Any, labels: Any, progress: float) -> None:
        """Take one step; `progress` is the elapsed fraction of the run, 0…1."""
        for group in optimizer.param_groups:
            group["lr"] = 0.1 * min(1.0, progress / 0.1) * 0.5 * (1 + math.cos(math.pi * progress))
        optimizer.zero_grad()
        F.cross_entropy(network(photos), labels).backward()
        optimizer.step()

    def batches() -> Iterator[Any]:
        while True:
            yield from train

    endless = batches()
    if not args.minutes:
        for _ in range(STEPS):
            step(*next(endless), 0.5)
        start = time.perf_counter()
        for _ in range(STEPS):
            step(*next(endless), 0.5)
        seconds = time.perf_counter() - start
        return {"photos_per_s": 64 * STEPS / seconds, "peak_bytes": memory.peak}
    budget = 60 * args.minutes
    while (spent := time.perf_counter() - STARTED) < budget:
        step(*next(endless), spent / budget)
    seconds = time.perf_counter() - STARTED
    correct = total = 0
    network.eval()
    with torch.inference_mode():
        held_out = datasets.ImageFolder(root / "test", resize)
        for photos, labels in DataLoader(held_out, batch_size=128, num_workers=2):
            correct += int((network(photos).argmax(1) == labels).sum())
            total += len(labels)
    return {"accuracy": correct / total, "seconds": seconds}


def fastai(args: argparse.Namespace) -> Result:
    """fastai: a vision_learner with resnet18, from scratch, with the one-cycle schedule."""
    from fastai.callback.schedule import Learner  # noqa: F401 - adds fit_one_cycle
    from fastai.vision.all import (
        Callback,
        ImageDataLoaders,
        Resize,
        accuracy,
        aug_transforms,
        resnet18,
        set_seed,
        vision_learner,
    )

    memory = PeakMemory()
    set_seed(0)
    root = Path(args.folder)
    loaders = ImageDataLoaders.from_folder(
        root, train="train", valid="val", item_tfms=Resize(args.size),
        batch_tfms=aug_transforms(size=args.size, min_scale=0.5), bs=64, num_workers=2, seed=0,
    )  # fmt: skip

    class Clock(Callback):  # type: ignore[misc]
        """Records when each step starts, and stops the first, short run."""

        def __init__(self) -> None:
            self.times: list[float] = []

        def before_batch(self) -> None:
            self.times.append(time.perf_counter())
            if self.training and len(self.times) > 2 * STEPS:
                from fastai.callback.core import CancelFitException

                raise CancelFitException

    with tempfile.TemporaryDirectory() as folder:
        learner = vision_learner(
            loaders, resnet18, pretrained=False, metrics=accuracy, path=Path(folder)
        )
        clock = Clock()
        with learner.no_bar(), _stdout_to_stderr():
            learner.fit_one_cycle(1 + 2 * STEPS // len(loaders.train), cbs=clock)
        speed = 64 * (STEPS - 1) / (clock.times[-2] - clock.times[-1 - STEPS])
        if not args.minutes:
            return {"photos_per_s": speed, "peak_bytes": memory.peak}
        left = 60 * args.minutes - (time.perf_counter() - STARTED)
        photos = len(loaders.train_ds) + 0.35 * len(loaders.valid_ds)
        epochs = max(1, int(left * speed / photos))
        learner = vision_learner(
            loaders, resnet18, pretrained=False, metrics=accuracy, path=Path(folder)
        )
        with learner.no_bar(), _stdout_to_stderr():
            learner.fit_one_cycle(epochs, 3e-3)
        seconds = time.perf_counter() - STARTED
        held_out = loaders.test_dl(sorted((root / "test").rglob("*.*")), with_labels=True)
        with learner.no_bar(), _stdout_to_stderr():
            metrics = learner.validate(dl=held_out)
        return {"accuracy": float(metrics[1]), "seconds": seconds, "epochs": epochs}


def ultralytics(args: argparse.Namespace) -> Result:
    """ultralytics: yolo11n-cls, from scratch, with its own time limit."""
    os.environ.setdefault("YOLO_OFFLINE", "true")
    from ultralytics import YOLO

    memory = PeakMemory()
    with tempfile.TemporaryDirectory() as folder, _stdout_to_stderr():
        model = YOLO("yolo11n-cls.yaml")
        common = {
            "data": str(Path(args.folder).resolve()), "imgsz": args.size, "device": "cpu",
            "workers": 2, "batch": 64, "project": folder, "plots": False, "verbose": False,
            "seed": 0,
        }  # fmt: skip
        times: list[float] = []

        def stop(trainer: Any) -> None:
            times.append(time.perf_counter())
            trainer.stop = len(times) > 2 * STEPS
            if trainer.stop:
                raise StopIteration

        if not args.minutes:
            model.add_callback("on_train_batch_end", stop)
            with suppress(StopIteration):
                model.train(epochs=1, **common)
            speed = 64 * STEPS / (times[-1] - times[-1 - STEPS])
            return {"photos_per_s": speed, "peak_bytes": memory.peak}
        left = 60 * args.minutes - (time.perf_counter() - STARTED)
        model.train(epochs=100, time=left / 3600, **common)
        seconds = time.perf_counter() - STARTED
        correct = total = 0
        best = YOLO(next(Path(folder).rglob("best.pt")))
        for photos in sorted((Path(args.folder) / "test").iterdir()):
            for result in best.predict(str(photos), imgsz=args.size, stream=True, verbose=False):
                correct += result.names[result.probs.top1] == photos.name
                total += 1
        return {"accuracy": correct / total, "seconds": seconds}


@contextmanager
def _stdout_to_stderr() -> Iterator[None]:
    """Send what a package prints to stderr: stdout is for the result."""
    stdout = sys.stdout
    sys.stdout = sys.stderr
    try:
        yield
    finally:
        sys.stdout = stdout


CONTENDERS: dict[str, Callable[[argparse.Namespace], Result]] = {
    "catordog": catordog,
    "usual": usual,
    "fastai": fastai,
    "ultralytics": ultralytics,
}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", choices=CONTENDERS)
    parser.add_argument("folder", help="a dataset with train/, val/ and test/")
    parser.add_argument(
        "--minutes", type=float, help="train for that long and report the test accuracy"
    )
    parser.add_argument("--size", type=int, default=64, help="of the photos, in pixels")
    parser.add_argument(
        "--config", default="configs/dogs-vs-cats-quick.yaml", help="of catordog only"
    )
    args = parser.parse_args()
    result = CONTENDERS[args.name](args)
    print(json.dumps({"name": args.name, "size": args.size, **result}), flush=True)
    os._exit(0)  # do not wait for the workers of a data loader that was abandoned


if __name__ == "__main__":
    sys.exit(main())
