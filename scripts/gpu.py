"""Measure training on one GPU, in a visit of ten minutes.

python scripts/gpu.py --data D [--minutes 10] [--checks NAME ...] [--json F] [--dry-run]
python scripts/gpu.py --data D --pack OUT.zip [--megabytes 60]

The checks run in the order of the table CHECKS; one that no time is left for is skipped and named.
--pack makes a smaller copy of a dataset to take along: the same photos and splits at 160 pixels.
--dry-run runs the same commands on the CPU, on a few synthetic pictures, to find mistakes before
the visit. Everything is written to a temporary folder. Every result is one line on stdout; a failed
check is reported, the others go on, and the exit code is 1.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SCRIPTS = Path(__file__).resolve().parent
TARGETS = (0.93, 0.96, 0.978)
"""Validation accuracies whose times are reported."""

TINY = (
    *("--data.size", "32", "--data.batch_size", "32", "--data.start_size", "32"),
    *("--data.end_size", "32", "--model.network_args", '{"widths": [8, 16], "blocks": [1, 1]}'),
)
"""Options of a small network on small pictures."""

PICTURES = "drawn:n=256,size=32"
"""What it learns."""


class CheckError(Exception):
    """A check did not end as it should."""


class OutOfTimeError(CheckError):
    """The visit has ended first."""


@dataclass
class Visit:
    """One run of this script.

    Attributes:
        data: as `--data` of `catordog train`.
        folder: for everything that is written.
        deadline: on the clock of `time.monotonic`.
        dry: on the CPU, in small.
    """

    data: str
    folder: Path
    deadline: float
    dry: bool
    results: dict[str, Any] = field(default_factory=dict)

    @property
    def seconds_left(self) -> float:
        """Until the end of the visit."""
        return self.deadline - time.monotonic()

    @property
    def device(self) -> list[str]:
        """Options that choose the device."""
        return ["--trainer.accelerator", "cpu" if self.dry else "gpu", "--trainer.devices", "1"]

    def small(self, name: str, *words: str) -> list[str]:
        """A training run of a small network on a few synthetic pictures, in the folder `name`."""
        return [
            *("-m", "catordog", "train", "--config", "drawn.yaml", "--data", PICTURES),
            *("--name", name, "--compile", "false", *TINY, *self.device, *words),
        ]

    def command(self, name: str, config: str, *words: str) -> list[str]:
        """A training run with a config, in the folder `name`."""
        tiny = [*TINY, "--trainer.max_epochs", "2"] if self.dry else []
        data = PICTURES if self.dry else self.data
        return [
            *("-m", "catordog", "train", "--config", config, "--data", data, "--name", name),
            *self.device,
            *tiny,
            *words,
        ]

    def run(
        self,
        command: Sequence[str],
        launcher: Sequence[str] = (sys.executable,),
        *,
        stop_after: str | None = None,
        **environment: str,
    ) -> int:
        """Run a command in the folder, with the callbacks of this folder at hand.

        Args:
            command: words after the launcher.
            launcher: what starts Python.
            stop_after: send SIGTERM once this file has grown by a line.
            environment: further variables.

        Returns:
            The exit code.

        Raises:
            CheckError: it has failed, or has not ended in time.
        """
        paths = [str(SCRIPTS), str(SCRIPTS.parent / "src"), os.environ.get("PYTHONPATH", "")]
        variables = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(filter(None, paths)),
            "CATORDOG_DATA": str(self.folder / "data"),
            **environment,
        }
        log = self.folder / "log.txt"
        with log.open("w", encoding="utf-8") as file:
            process = subprocess.Popen(
                [*launcher, *command], cwd=self.folder, env=variables, stdout=file, stderr=file
            )
            while process.poll() is None:
                time.sleep(0.2)
                if stop_after is not None and Path(stop_after).exists():
                    process.send_signal(signal.SIGTERM)
                    stop_after = None
                if self.seconds_left < 0:
                    process.kill()
                    process.wait()
                    raise OutOfTimeError("not done within the visit")
        if process.returncode not in (0, 75):
            raise CheckError(f"exit code {process.returncode}: {log.read_text()[-1500:]}")
        return process.returncode

    def best(self, name: str, version: int = 0) -> Path:
        """The best checkpoint of a run."""
        return self.folder / "runs" / name / f"version_{version}" / "checkpoints" / "best.ckpt"

    def weights(self, path: Path) -> dict[str, Any]:
        """The weights in a checkpoint."""
        import torch

        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)[
            "state_dict"
        ]
        return state


def pack(data: str, out: Path, megabytes: float) -> None:
    """Write a dataset as a zip of small WebP files, with the splits of `data`.

    Args:
        data: as `--data` of `catordog train`.
        out: the zip.
        megabytes: the most it may have; the quality is chosen by it.
    """
    import io
    import zipfile

    from catordog.photos.datasets import open_dataset
    from catordog.photos.splits import SplitFractions

    dataset = open_dataset(data)

    def packed(index: int, quality: int) -> bytes:
        image = dataset.photos[index].image(near=160)
        image.thumbnail((160, 160))
        file = io.BytesIO()
        image.save(file, "WEBP", quality=quality)
        return file.getvalue()

    total = len(dataset.photos)
    sample = range(0, total, max(1, total // 200))
    quality = 90
    while quality > 10 and (
        sum(len(packed(index, quality)) + 150 for index in sample) / len(sample) * total
        > 0.97e6 * megabytes
    ):
        quality -= 5
    with zipfile.ZipFile(out, "w") as archive:
        for index, split in enumerate(dataset.splits(SplitFractions())):
            photo = dataset.photos[index]
            assert photo.label is not None
            name = f"{split}/{dataset.classes[photo.label]}/{index:06}.webp"
            archive.writestr(name, packed(index, quality))
    print(f"{out}: {total:,} photos, quality {quality}, {out.stat().st_size / 1e6:.1f} MB")


def hardware(visit: Visit) -> str:
    """What it runs on, and how fast it multiplies matrices of 8,192 in bfloat16."""
    import torch

    if visit.dry:
        return "CPU (dry run)"
    size, rounds = 8192, 20
    a = torch.randn(size, size, device="cuda", dtype=torch.bfloat16)
    for _ in range(3):
        a @ a
    torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(rounds):
        a @ a
    torch.cuda.synchronize()
    flops = 2 * size**3 * rounds / (time.perf_counter() - start)
    visit.results["bf16_flops"] = flops
    name = torch.cuda.get_device_name()
    return f"{name}, {flops / 1e12:.0f} TFLOP/s in bfloat16, torch {torch.__version__}"


def speed(visit: Visit) -> str:
    """Photos per second of the network of `dogs-vs-cats-best.yaml`, compiled and not."""
    import torch
    import torch.nn.functional as F
    from torch.utils.flop_counter import FlopCounterMode

    from catordog.model.networks import build_network

    device = "cpu" if visit.dry else "cuda"
    size, batch, rounds = (32, 16, 2) if visit.dry else (128, 512, 30)
    arguments = {"widths": (8, 16), "blocks": (1, 1)} if visit.dry else {"blocks": (1, 2, 2, 2)}
    lines = []
    for compiled in (False, True):
        network = build_network("residual", 2, arguments).to(device)
        network = network.to(memory_format=torch.channels_last)
        inputs = torch.randn(batch, 3, size, size, device=device)
        inputs = inputs.to(memory_format=torch.channels_last)
        labels = torch.randint(2, (batch,), device=device)
        with FlopCounterMode(display=False) as counter:
            network(inputs).sum().backward()
        if compiled:
            network.compile()

        def step(network: Any = network, inputs: Any = inputs, labels: Any = labels) -> None:
            with torch.autocast(device, torch.bfloat16):
                loss = F.cross_entropy(network(inputs).float(), labels)
            loss.backward()
            if device == "cuda":
                torch.cuda.synchronize()

        for _ in range(3):
            step()
        start = time.perf_counter()
        for _ in range(rounds):
            step()
        per_second = batch * rounds / (time.perf_counter() - start)
        flops = counter.get_total_flops() / batch * per_second
        name = "compiled" if compiled else "as it is"
        visit.results[f"photos_per_s {name}"] = per_second
        peak = visit.results.get("bf16_flops")
        share = f" ({flops / peak:.1%} of the matrix product)" if peak else ""
        lines.append(f"{name} {per_second:,.0f} photos/s{share}")
    return f"forward and backward at {size} px: " + "; ".join(lines)


def recipe(config: str, *words: str) -> Callable[[Visit], str]:
    """A check that trains with a config, and reports when it reached which accuracy."""

    def check(visit: Visit) -> str:
        name = "-".join([Path(config).stem, *(word.strip("-") for word in words)])
        clock = visit.folder / f"{name}.jsonl"
        start = time.monotonic()
        options = [*words, "--trainer.callbacks+", "step_clock.AccuracyClock"]
        ended = ""
        try:
            visit.run(visit.command(name, config, *options), ACCURACY_CLOCK=str(clock))
        except OutOfTimeError:
            if not clock.exists():
                raise
            ended = "; not done within the visit"
        total = time.monotonic() - start
        rows = [json.loads(line) for line in clock.read_text().splitlines()]
        found = {
            f"{target:.1%}": next((s for s, accuracy in rows if accuracy >= target), None)
            for target in TARGETS
        }
        best = max(accuracy for _, accuracy in rows)
        visit.results[name] = {"seconds": total, "accuracy": best, "seconds_to": found}
        times = ", ".join(
            f"{target} after {seconds:.0f} s" for target, seconds in found.items() if seconds
        )
        return (
            f"{best:.2%} on validation photos in {total:.0f} s in all"
            f"{'; ' if times else ''}{times}{ended}"
        )

    return check


def agreement(visit: Visit) -> str:
    """Four steps of SGD in float32 on the CPU and on the GPU: how far do the weights differ?

    Muon is no measure of it: it enlarges directions that hardly have a gradient, and with them what
    rounding adds.
    """
    common = ["--trainer.precision", "32", "--trainer.max_epochs", "1", "--model.optimizer", "sgd"]
    common += ["--trainer.limit_train_batches", "4"]
    runs = {"agree-here": [], "agree-cpu": ["--trainer.accelerator", "cpu"]}
    for name, words in runs.items():
        visit.run(visit.small(name, *common, *words), NVIDIA_TF32_OVERRIDE="0")
    here, cpu = (visit.weights(visit.best(name)) for name in runs)
    most = max(float((here[key].float() - cpu[key].float()).abs().max()) for key in here)
    visit.results["agreement"] = most
    if most > 1e-3:
        raise CheckError(f"weights differ by up to {most:.2g} after four steps")
    return f"weights differ by at most {most:.1e} after four steps of SGD in float32"


def one_process(visit: Visit) -> str:
    """DDP with one process trains the same network as without."""
    words = ["--trainer.precision", "32", "--trainer.max_epochs", "1"]
    visit.run(visit.small("plain", *words))
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "1"]
    visit.run(visit.small("ddp", *words), launcher)
    plain, ddp = (visit.weights(visit.best(name)) for name in ("plain", "ddp"))
    most = max(float((plain[key].float() - ddp[key].float()).abs().max()) for key in plain)
    visit.results["ddp"] = most
    if most > 1e-4:
        raise CheckError(f"weights differ by up to {most:.2g}")
    return f"weights differ by at most {most:.1e}"


def resume(visit: Visit) -> str:
    """A run that was stopped and resumed ends with bit-identical weights."""
    import torch

    words = ["--trainer.max_epochs", "4"]
    words += ["--trainer.callbacks+", "step_clock.AccuracyClock"]
    clock = visit.folder / "resume.jsonl"
    visit.run(visit.small("whole", *words), ACCURACY_CLOCK=str(clock))
    clock.unlink()
    command = visit.small("stopped", *words)
    code = visit.run(command, stop_after=str(clock), ACCURACY_CLOCK=str(clock))
    if code != 75:
        raise CheckError(f"the run was not stopped in time (exit code {code})")
    visit.run([*command, "--ckpt_path", "last"], ACCURACY_CLOCK=str(clock))
    whole, resumed = (visit.weights(visit.best(name)) for name in ("whole", "stopped"))
    same = all(torch.equal(whole[key], resumed[key]) for key in whole)
    visit.results["resume"] = same
    if not same:
        raise CheckError("the weights differ")
    return "bit-identical weights after SIGTERM and --ckpt_path last"


def sweep(visit: Visit) -> str:
    """Learning rates around that of the best recipe, in runs of a quarter of its epochs."""
    rows = []
    for rate in ("0.035", "0.05", "0.07"):
        for decay in ("0.01", "0.02", "0.04"):
            if visit.seconds_left < 60:
                break
            name = f"sweep-{rate}-{decay}"
            clock = visit.folder / f"{name}.jsonl"
            words = ["--model.lr", rate, "--model.weight_decay", decay]
            words += ["--trainer.callbacks+", "step_clock.AccuracyClock"]
            words += [] if visit.dry else ["--trainer.max_epochs", "17"]
            visit.run(
                visit.command(name, "dogs-vs-cats-best.yaml", *words), ACCURACY_CLOCK=str(clock)
            )
            best = max(json.loads(line)[1] for line in clock.read_text().splitlines())
            rows.append((best, rate, decay))
            if visit.dry:
                break
    visit.results["sweep"] = rows
    if not rows:
        raise CheckError("no time left")
    best, rate, decay = max(rows)
    return f"{len(rows)} runs; best {best:.2%} with --model.lr {rate} --model.weight_decay {decay}"


CHECKS: dict[str, tuple[Callable[[Visit], str], float]] = {
    "hardware": (hardware, 20),
    "speed": (speed, 60),
    "quick recipe": (recipe("dogs-vs-cats-quick.yaml"), 60),
    "quick recipe, not compiled": (recipe("dogs-vs-cats-quick.yaml", "--compile", "false"), 60),
    "CPU and GPU agree": (agreement, 40),
    "DDP with one process": (one_process, 40),
    "exact resume": (resume, 60),
    "best recipe": (recipe("dogs-vs-cats-best.yaml"), 200),
    "best recipe, not compiled": (recipe("dogs-vs-cats-best.yaml", "--compile", "false"), 200),
    "sweep": (sweep, 120),
}
"""Each check, and how many seconds must be left to begin it."""


def _absolute(name: str) -> str:
    """A path that stays valid in another folder; names such as `drawn` stay as they are."""
    return str(Path(name).resolve()) if Path(name).exists() else name


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", metavar="D", help="Kaggle's photos, as for 'catordog train'")
    parser.add_argument("--minutes", type=float, default=10, help="of the visit (default: 10)")
    parser.add_argument(
        "--checks", nargs="+", choices=CHECKS, default=list(CHECKS), metavar="NAME",
        help="only these: " + ", ".join(CHECKS),
    )  # fmt: skip
    parser.add_argument("--json", type=Path, metavar="F", help="write the figures as JSON")
    parser.add_argument("--pack", type=Path, metavar="OUT.zip", help="only copy the dataset")
    parser.add_argument("--megabytes", type=float, default=60, help="of the copy (default: 60)")
    parser.add_argument("--dry-run", action="store_true", help="small, and on the CPU")
    args = parser.parse_args()
    if not (args.data or args.dry_run):
        parser.error("--data D is needed, except for --dry-run")
    if args.pack:
        pack(args.data, args.pack, args.megabytes)
        return 0
    import torch

    if not args.dry_run and not torch.cuda.is_available():
        parser.error("no GPU is here: try --dry-run")
    failed = False
    data = "drawn:n=256,size=32" if args.dry_run else _absolute(args.data)
    with tempfile.TemporaryDirectory() as folder:
        deadline = time.monotonic() + (1800 if args.dry_run else 60 * args.minutes)
        visit = Visit(data, Path(folder), deadline, args.dry_run)
        for name, (check, needed) in CHECKS.items():
            if name not in args.checks:
                continue
            if visit.seconds_left < needed:
                print(f"{name}: skipped, {visit.seconds_left:.0f} s left", flush=True)
                continue
            try:
                print(f"{name}: {check(visit)}", flush=True)
            except Exception as error:  # the others go on, whatever it is
                failed = True
                print(f"{name}: FAILED: {error or type(error).__name__}", flush=True)
            if args.json:
                args.json.write_text(json.dumps(visit.results, indent=1), encoding="utf-8")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
