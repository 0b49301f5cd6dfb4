"""Trainings that `benchmark.py train` holds against each other, each in a process of its own.

python scripts/contenders.py NAME FOLDER [--minutes 5] [--size 64]

FOLDER has train/, val/ and test/, each with a folder for each class. Without --minutes a contender
only says how fast it is. The last line of stdout is JSON.
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

BEGUN = time.perf_counter()
Result = dict[str, Any]

STEPS = 12
"""Measured where only the speed is asked for, after as many to warm up."""


class Memory:
    """The most memory that this process held beyond files that it has mapped, in bytes."""

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


def matmul_flops(dtype: Any, side: int = 2048, rounds: int = 10) -> float:
    """Floating-point operations a second in a large matrix multiplication."""
    import torch

    a = torch.randn(side, side).to(dtype)
    seconds = []
    for _ in range(rounds):
        start = time.perf_counter()
        a @ a
        seconds.append(time.perf_counter() - start)
    return float(2 * side**3 / statistics.median(seconds))


def ours(args: argparse.Namespace) -> Result:
    """`catordog train`, whole or two epochs of it under a profiler."""
    if args.minutes:
        return _our_accuracy(args)
    return _our_speed(args)


def _our_accuracy(args: argparse.Namespace) -> Result:
    import subprocess

    with tempfile.TemporaryDirectory() as made:
        environment = {**os.environ, "CATORDOG_DATA": f"{made}/data"}  # decodes anew
        catordog = [sys.executable, "-m", "catordog"]
        train = [*catordog, "train", "--config", str(Path(args.config).resolve())]
        data = ["--data", str(Path(args.folder).resolve())]
        start = time.perf_counter()
        subprocess.run([*train, *data], cwd=made, env=environment, check=True, stdout=sys.stderr)
        seconds = time.perf_counter() - start
        model = next(Path(made).glob("runs/*/version_0/checkpoints/best.ckpt"))
        figures = Path(made) / "figures.json"
        words = [*catordog, "evaluate", str(model), *data, "--split", "test"]
        subprocess.run(
            [*words, "--json", str(figures)], env=environment, check=True, stdout=sys.stderr
        )
        return {"accuracy": json.loads(figures.read_text())["accuracy"], "seconds": seconds}


def _our_speed(args: argparse.Namespace) -> Result:
    import torch
    from lightning.pytorch import Callback
    from lightning.pytorch.profilers import SimpleProfiler
    from torch.utils.flop_counter import FlopCounterMode

    from catordog.training.fit import _calm, _parse

    memory = Memory()

    class Clock(Callback):
        """When each epoch's training begins and ends, and how large its photos are."""

        def __init__(self) -> None:
            self.epochs: list[tuple[float, int]] = []
            self.start = 0.0
            self.side = 0

        def on_train_epoch_start(self, *_: Any) -> None:
            self.start = time.perf_counter()

        def on_train_batch_start(self, *arguments: Any) -> None:
            self.side = arguments[2][0].shape[-1]

        def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
            if trainer.is_last_batch:
                self.epochs.append((time.perf_counter() - self.start, self.side))

    _calm()
    with tempfile.TemporaryDirectory() as made:
        os.environ["CATORDOG_DATA"] = str(Path(made) / "data")
        config, folder = str(Path(args.config).resolve()), str(Path(args.folder).resolve())
        os.chdir(made)
        words = ["--config", config, "--data", folder, "--trainer.max_epochs", "2"]
        words += ["--data.start_size", str(args.size), "--data.end_size", str(args.size)]
        cli = _parse(words)
        clock, profiler = Clock(), SimpleProfiler()
        cli.trainer.callbacks.append(clock)
        cli.trainer.profiler = profiler
        half = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}
        dtype = half.get(str(cli.trainer.precision), torch.float32)
        peaks = [matmul_flops(dtype)], [matmul_flops(torch.float32)]
        cli.trainer.fit(cli.model, cli.datamodule)
        peaks[0].append(matmul_flops(dtype))
        peaks[1].append(matmul_flops(torch.float32))
    seconds, side = clock.epochs[-1]
    loader = cli.datamodule.train_dataloader()
    batch, photos = loader.batch_size, len(loader) * loader.batch_size
    with FlopCounterMode(display=False) as counter:
        cli.model.network.train()(torch.zeros(batch, 3, side, side)).sum().backward()
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
        "side": side,
        "gflops": flops / 1e9,
        "precision": str(dtype).removeprefix("torch."),
        "of_matmul": flops / statistics.mean(peaks[0]),
        "of_float32_matmul": flops / statistics.mean(peaks[1]),
        "waiting": spent("train_dataloader_next") / epochs,
        "augmenting": spent("PhotosDataModule.on_after_batch_transfer") / epochs,
        "peak_bytes": memory.peak,
    }


def usual(args: argparse.Namespace) -> Result:
    """The script that everybody writes: ImageFolder, DataLoader, resnet18, SGD."""
    import torch
    import torch.nn.functional as F
    from torch.utils.data import DataLoader
    from torchvision import datasets, models
    from torchvision.transforms import v2

    memory = Memory()
    torch.manual_seed(0)
    end = [
        v2.ToImage(),
        v2.ToDtype(torch.float32, scale=True),
        v2.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
    ]
    change = v2.Compose([v2.RandomResizedCrop(args.size), v2.RandomHorizontalFlip(), *end])
    keep = v2.Compose([v2.Resize((args.size, args.size)), *end])
    root = Path(args.folder)
    train = DataLoader(
        datasets.ImageFolder(root / "train", change),
        batch_size=64, shuffle=True, drop_last=True, num_workers=2, persistent_workers=True,
    )  # fmt: skip
    network = models.resnet18(num_classes=len(train.dataset.classes))
    optimizer = torch.optim.SGD(
        network.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=5e-4
    )

    def step(photos: Any, labels: Any, share: float) -> None:
        for group in optimizer.param_groups:
            group["lr"] = 0.1 * min(1.0, share / 0.1) * 0.5 * (1 + math.cos(math.pi * share))
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
    while (spent := time.perf_counter() - BEGUN) < budget:
        step(*next(endless), spent / budget)
    seconds = time.perf_counter() - BEGUN
    right = total = 0
    network.eval()
    with torch.inference_mode():
        held_out = datasets.ImageFolder(root / "test", keep)
        for photos, labels in DataLoader(held_out, batch_size=128, num_workers=2):
            right += int((network(photos).argmax(1) == labels).sum())
            total += len(labels)
    return {"accuracy": right / total, "seconds": seconds}


def fastai(args: argparse.Namespace) -> Result:
    """A vision_learner of fastai with resnet18, from scratch, on one cycle."""
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

    memory = Memory()
    set_seed(0)
    root = Path(args.folder)
    loaders = ImageDataLoaders.from_folder(
        root, train="train", valid="val", item_tfms=Resize(args.size),
        batch_tfms=aug_transforms(size=args.size, min_scale=0.5), bs=64, num_workers=2, seed=0,
    )  # fmt: skip

    class Clock(Callback):  # type: ignore[misc]
        """Seconds for a step, and a stop after some of them."""

        def __init__(self) -> None:
            self.times: list[float] = []

        def before_batch(self) -> None:
            self.times.append(time.perf_counter())
            if self.training and len(self.times) > 2 * STEPS:
                from fastai.callback.core import CancelFitException

                raise CancelFitException

    with tempfile.TemporaryDirectory() as made:
        learner = vision_learner(
            loaders, resnet18, pretrained=False, metrics=accuracy, path=Path(made)
        )
        clock = Clock()
        with learner.no_bar(), _out_of_the_way():
            learner.fit_one_cycle(1, cbs=clock)
        speed = 64 * (STEPS - 1) / (clock.times[-2] - clock.times[-1 - STEPS])
        if not args.minutes:
            return {"photos_per_s": speed, "peak_bytes": memory.peak}
        left = 60 * args.minutes - (time.perf_counter() - BEGUN)
        photos = len(loaders.train_ds) + 0.35 * len(loaders.valid_ds)
        epochs = max(1, int(left * speed / photos))
        learner = vision_learner(
            loaders, resnet18, pretrained=False, metrics=accuracy, path=Path(made)
        )
        with learner.no_bar(), _out_of_the_way():
            learner.fit_one_cycle(epochs, 3e-3)
        seconds = time.perf_counter() - BEGUN
        held_out = loaders.test_dl(sorted((root / "test").rglob("*.*")), with_labels=True)
        with learner.no_bar(), _out_of_the_way():
            found = learner.validate(dl=held_out)
        return {"accuracy": float(found[1]), "seconds": seconds, "epochs": epochs}


def ultralytics(args: argparse.Namespace) -> Result:
    """The yolo11n-cls of ultralytics, from scratch, with its own time limit."""
    os.environ.setdefault("YOLO_OFFLINE", "true")
    from ultralytics import YOLO

    memory = Memory()
    with tempfile.TemporaryDirectory() as made, _out_of_the_way():
        model = YOLO("yolo11n-cls.yaml")
        common = {
            "data": str(Path(args.folder).resolve()), "imgsz": args.size, "device": "cpu",
            "workers": 2, "batch": 64, "project": made, "plots": False, "verbose": False, "seed": 0,
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
        left = 60 * args.minutes - (time.perf_counter() - BEGUN)
        model.train(epochs=100, time=left / 3600, **common)
        seconds = time.perf_counter() - BEGUN
        right = total = 0
        best = YOLO(next(Path(made).rglob("best.pt")))
        for kind in sorted(path for path in (Path(args.folder) / "test").iterdir()):
            for found in best.predict(str(kind), imgsz=args.size, stream=True, verbose=False):
                right += found.names[found.probs.top1] == kind.name
                total += 1
        return {"accuracy": right / total, "seconds": seconds}


@contextmanager
def _out_of_the_way() -> Iterator[None]:
    """What a package prints goes to stderr."""
    kept = sys.stdout
    sys.stdout = sys.stderr
    try:
        yield
    finally:
        sys.stdout = kept


CONTENDERS: dict[str, Callable[[argparse.Namespace], Result]] = {
    "catordog": ours,
    "usual": usual,
    "fastai": fastai,
    "ultralytics": ultralytics,
}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", choices=CONTENDERS)
    parser.add_argument("folder")
    parser.add_argument("--minutes", type=float)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--config", default="configs/dogs-vs-cats-quick.yaml")
    args = parser.parse_args()
    result = CONTENDERS[args.name](args)
    print(json.dumps({"name": args.name, "size": args.size, **result}), flush=True)
    sys.stdout.flush()
    os._exit(0)  # workers of a loader that was left in the middle


if __name__ == "__main__":
    sys.exit(main())
