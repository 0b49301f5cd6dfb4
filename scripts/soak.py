"""Does anything grow? Long work under watch: memory, open files and threads, start to end.

python scripts/soak.py predict [--photos 1000000] [--model M]    predictions of small pictures
python scripts/soak.py train [--epochs 200]                      epochs on a tiny data set
python scripts/soak.py serve [--requests 10000]                  requests to the page's API

Each prints a curve of twelve rows, and ends with 1 if memory rose by more than 5 % + 16 MiB, or
files or threads by more than 3, between the first third of the time and the last.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import io
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from catordog.photos.synthetic import draw

PICTURES = 200
"""Different ones; a million names are links to them."""


@dataclass(frozen=True, slots=True)
class Sample:
    """What a process holds at a moment."""

    seconds: float
    memory: float
    """Resident, in MiB."""
    files: int
    threads: int


class Watch:
    """Looks at a process twice a second, until it ends or the watch does."""

    def __init__(self, pid: int) -> None:
        self.samples: list[Sample] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(
            target=self._look, args=(pid, time.monotonic()), daemon=True
        )
        self._thread.start()

    def _look(self, pid: int, begun: float) -> None:
        page = os.sysconf("SC_PAGE_SIZE") / 2**20
        while not self._stop.wait(0.5):
            try:
                resident = int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * page
                files = sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())
                threads = sum(1 for _ in Path(f"/proc/{pid}/task").iterdir())
            except OSError:
                return
            self.samples.append(Sample(time.monotonic() - begun, resident, files, threads))

    def report(self, what: str) -> int:
        """Print the curve. Returns 1 if something grew, else 0."""
        self._stop.set()
        self._thread.join()
        seen = self.samples
        if len(seen) < 12:
            sys.exit(f"{what}: over too soon to say anything")
        print(f"{what}\nseconds  memory MiB  files  threads")
        for place in range(12):
            sample = seen[min(len(seen) - 1, place * len(seen) // 11)]
            print(
                f"{sample.seconds:7.0f}  {sample.memory:10.0f}  {sample.files:5}  "
                f"{sample.threads:7}"
            )
        third = len(seen) // 3

        def rise(name: str) -> tuple[float, float]:
            values = [float(getattr(sample, name)) for sample in seen]
            # The first tenth is start-up; the last moment is the end.
            early = values[max(1, len(seen) // 10) : third + 1]
            return statistics.median(early), statistics.median(values[-third - 1 : -1])

        before, after = rise("memory")
        grew = after > 1.05 * before + 16
        for name in ("files", "threads"):
            one, other = rise(name)
            grew |= other > one + 3
        print(f"memory {before:.0f} to {after:.0f} MiB: {'it grows' if grew else 'flat'}")
        return int(grew)


def predict(photos: int, model: str) -> int:
    """Predict many small pictures, as a user would."""
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        pictures = []
        for index in range(PICTURES):
            file = folder / f"{index}.jpg"
            draw(index, 7, size=48).image.save(file, quality=90)
            pictures.append(file)
        for index in range(photos):
            place = folder / "photos" / f"{index // 10_000}"
            if index % 10_000 == 0:
                place.mkdir(parents=True)
            os.link(pictures[index % PICTURES], place / f"{index}.jpg")
        words = ["predict", str(folder / "photos"), "--model", model, "--format", "csv"]
        out = folder / "rows.csv"
        begun = time.monotonic()
        process = subprocess.Popen(
            [sys.executable, "-m", "catordog", *words, "--out", str(out)], stderr=subprocess.DEVNULL
        )
        watch = Watch(process.pid)
        code = process.wait()
        seconds = time.monotonic() - begun
        rows = out.read_bytes().count(b"\n") - 1 if out.exists() else 0
        lost = code != 0 or rows != photos
        print(f"exit code {code}, {rows:,} rows, {photos / seconds:,.0f} photos a second")
        return watch.report(f"predict, {photos:,} photos") or int(lost)


def train(epochs: int) -> int:
    """Train on a tiny data set for many epochs."""
    with tempfile.TemporaryDirectory() as made:
        words = [
            *("train", "--data", "drawn:n=400,size=32", "--data.size", "32"),
            *("--model.network_args", "{widths: [8, 16], blocks: [1, 1]}"),
            *("--trainer.max_epochs", str(epochs), "--trainer.callbacks+"),
            "catordog.training.callbacks.MovingAverage",
        ]
        process = subprocess.Popen(
            [sys.executable, "-m", "catordog", *words],
            cwd=made, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        watch = Watch(process.pid)
        code = process.wait()
        return watch.report(f"train, {epochs} epochs, exit code {code}") or int(code != 0)


def serve(requests: int, model: str) -> int:
    """Ask the HTTP API many times, eight at once."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = ["serve", "--port", str(port), "--rate", "0", "--model", model]
    process = subprocess.Popen(
        [sys.executable, "-m", "catordog", *words],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    address = f"http://127.0.0.1:{port}"
    bodies = [_jpeg(draw(index, 7, size=200).image) for index in range(20)]

    def ask(index: int) -> bool:
        request = urllib.request.Request(
            f"{address}/predict", bodies[index % 20], {"Content-Type": "image/jpeg"}
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            return bool(answer.status == 200)

    try:
        for _ in range(200):
            try:
                urllib.request.urlopen(f"{address}/healthz", timeout=1)
                break
            except OSError:
                time.sleep(0.1)
        watch = Watch(process.pid)
        begun = time.monotonic()
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            answered = sum(pool.map(ask, range(requests)))
        seconds = time.monotonic() - begun
        print(f"{answered:,} of {requests:,} answered, {requests / seconds:.0f} a second")
        return watch.report(f"serve, {requests:,} requests") or int(answered != requests)
    finally:
        process.terminate()
        process.wait()


def _jpeg(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "JPEG")
    return file.getvalue()


def main() -> int:
    """One kind of long work."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("work", choices=["predict", "train", "serve"])
    parser.add_argument("--photos", type=int, default=1_000_000)
    parser.add_argument("--epochs", type=int, default=200)
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--model", default="bundled")
    given = parser.parse_args()
    if given.work == "predict":
        return predict(given.photos, given.model)
    return train(given.epochs) if given.work == "train" else serve(given.requests, given.model)


if __name__ == "__main__":
    sys.exit(main())
