"""Soak-test catordog for leaks: watch memory, open files and threads over a long run.

python scripts/soak.py predict [--photos 1000000] [--model M]    predict small pictures
python scripts/soak.py train [--epochs 200]                      train on a tiny dataset
python scripts/soak.py serve [--requests 10000] [--model M]      send requests to the HTTP API

Prints twelve samples, evenly spaced over the run. The exit code is 1 if work failed, or if memory
rose by more than 5 % + 16 MiB, or files or threads by more than 3, from the first third of the run
to the last. Needs /proc (Linux).
"""

from __future__ import annotations

import argparse
import concurrent.futures
import io
import os
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path

PICTURES = 200
"""Number of distinct pictures; all file names are hard links to these."""
SAMPLES = 12


@dataclass(frozen=True, slots=True)
class Sample:
    """Resources of a process at one moment.

    Attributes:
        seconds: since the watch began.
        memory: resident, in MiB.
        files: open file descriptors.
        threads: of the process.
    """

    seconds: float
    memory: float
    files: int
    threads: int


class Watch:
    """Samples a process twice a second until it ends or `report` is called."""

    def __init__(self, pid: int) -> None:
        self.samples: list[Sample] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(
            target=self._sample, args=(pid, time.monotonic()), daemon=True
        )
        self._thread.start()

    def _sample(self, pid: int, started: float) -> None:
        page = os.sysconf("SC_PAGE_SIZE") / 2**20
        while not self._stop.wait(0.5):
            try:
                resident = int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * page
                files = sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())
                threads = sum(1 for _ in Path(f"/proc/{pid}/task").iterdir())
            except OSError:
                return
            self.samples.append(Sample(time.monotonic() - started, resident, files, threads))

    def report(self, what: str) -> int:
        """Print the samples. Returns 1 if a resource grew, else 0."""
        self._stop.set()
        self._thread.join()
        samples = self.samples
        if len(samples) < SAMPLES:
            sys.exit(f"{what}: the run was too short to measure growth; give it more work")
        print(f"{what}\nseconds  memory MiB  files  threads")
        for row in range(SAMPLES):
            sample = samples[min(len(samples) - 1, row * len(samples) // (SAMPLES - 1))]
            print(
                f"{sample.seconds:7.0f}  {sample.memory:10.0f}  {sample.files:5}  "
                f"{sample.threads:7}"
            )
        third = len(samples) // 3

        def early_and_late(name: str) -> tuple[float, float]:
            values = [float(getattr(sample, name)) for sample in samples]
            # Skip the first tenth (start-up) and the last sample (shutdown).
            early = values[max(1, len(samples) // 10) : third + 1]
            return statistics.median(early), statistics.median(values[-third - 1 : -1])

        before, after = early_and_late("memory")
        grew = after > 1.05 * before + 16
        for name in ("files", "threads"):
            early, late = early_and_late(name)
            grew |= late > early + 3
        print(f"memory {before:.0f} to {after:.0f} MiB: {'grows' if grew else 'flat'}")
        return int(grew)


def predict(photos: int, model: str) -> int:
    """Run `catordog predict` on many small pictures."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        pictures = []
        for index in range(PICTURES):
            pictures.append(folder / f"{index}.jpg")
            pictures[-1].write_bytes(_jpeg(index, 48))
        for index in range(photos):
            subfolder = folder / "photos" / f"{index // 10_000}"
            if index % 10_000 == 0:
                subfolder.mkdir(parents=True)
            os.link(pictures[index % PICTURES], subfolder / f"{index}.jpg")
        words = ["predict", str(folder / "photos"), "--model", model, "--format", "csv"]
        out = folder / "rows.csv"
        started = time.monotonic()
        process = subprocess.Popen(
            [sys.executable, "-m", "catordog", *words, "--out", str(out)], stderr=subprocess.DEVNULL
        )
        watch = Watch(process.pid)
        code = process.wait()
        seconds = time.monotonic() - started
        rows = out.read_bytes().count(b"\n") - 1 if out.exists() else 0
        failed = code != 0 or rows != photos
        print(f"exit code {code}, {rows:,} rows, {photos / seconds:,.0f} photos/s")
        return watch.report(f"predict, {photos:,} photos") or int(failed)


def train(epochs: int) -> int:
    """Run `catordog train` for many epochs on a tiny dataset."""
    with tempfile.TemporaryDirectory() as folder:
        words = [
            *("train", "--data", "drawn:n=400,size=32", "--data.size", "32"),
            *("--model.network_args", "{widths: [8, 16], blocks: [1, 1]}"),
            *("--trainer.max_epochs", str(epochs), "--trainer.callbacks+"),
            "catordog.training.callbacks.MovingAverage",
        ]
        process = subprocess.Popen(
            [sys.executable, "-m", "catordog", *words],
            cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        watch = Watch(process.pid)
        code = process.wait()
        return watch.report(f"train, {epochs} epochs, exit code {code}") or int(code != 0)


def serve(requests: int, model: str) -> int:
    """Send many requests to `catordog serve` from eight threads."""
    words = ["serve", "--port", "0", "--rate", "0", "--model", model]
    process = subprocess.Popen(
        [sys.executable, "-m", "catordog", *words],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stderr is not None
    line = process.stderr.readline()  # printed once the server listens
    address = re.search(r"https?://\S+", line)
    if address is None:
        process.terminate()
        sys.exit(f"'catordog serve' printed no address: {line}{process.stderr.read()}")
    threading.Thread(target=process.stderr.read, daemon=True).start()  # a full pipe would block it
    bodies = [_jpeg(index, 200) for index in range(20)]

    def ask(index: int) -> bool:
        request = urllib.request.Request(
            f"{address[0]}/predict", bodies[index % 20], {"Content-Type": "image/jpeg"}
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            return bool(answer.status == 200)

    try:
        watch = Watch(process.pid)
        started = time.monotonic()
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            answered = sum(pool.map(ask, range(requests)))
        seconds = time.monotonic() - started
        print(f"{answered:,} of {requests:,} answered, {requests / seconds:.0f} requests/s")
        return watch.report(f"serve, {requests:,} requests") or int(answered != requests)
    finally:
        process.terminate()
        process.wait()


def _jpeg(index: int, size: int) -> bytes:
    from catordog.photos.synthetic import draw

    buffer = io.BytesIO()
    draw(index, 7, size=size).image.save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("work", choices=["predict", "train", "serve"])
    parser.add_argument("--photos", type=int, default=1_000_000, metavar="N", help="of predict")
    parser.add_argument("--epochs", type=int, default=200, metavar="N", help="of train")
    parser.add_argument("--requests", type=int, default=10_000, metavar="N", help="of serve")
    parser.add_argument("--model", default="bundled", metavar="M", help="of predict and serve")
    args = parser.parse_args()
    if args.work == "predict":
        return predict(args.photos, args.model)
    return train(args.epochs) if args.work == "train" else serve(args.requests, args.model)


if __name__ == "__main__":
    sys.exit(main())
