"""Benchmark catordog against a baseline that runs in the same process, in alternation.

python scripts/benchmark.py decode [--photos FOLDER]   # the decoder vs. bare Pillow
python scripts/benchmark.py list [--files 1000000]     # memory to list a folder of a million files
python scripts/benchmark.py audit [--data D]           # an audit vs. decoding the same photos
python scripts/benchmark.py train [--data D]           # training vs. a standard PyTorch script and,
                    # if installed (pip install -e .[bench]), fastai and ultralytics;
                    # --minutes 5 20 also reports the accuracy that each reaches in that time
python scripts/benchmark.py busy                       # training steps beside another training
python scripts/benchmark.py predict [--photos FOLDER]  # predicting a folder vs. decoding it
python scripts/benchmark.py start [--photo FILE]       # one photo, from a cold start
python scripts/benchmark.py page [--photos FOLDER]     # the one-file page vs. predicting
python scripts/benchmark.py review [--data D]          # scrolling through 1,000 thumbnails
python scripts/benchmark.py serve [--requests 10000]   # requests per second, latency, memory

Without --photos and --data the pictures are synthetic. Seconds depend on the machine, so quote the
ratios.
"""

from __future__ import annotations

import argparse
import importlib.util
import io
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from PIL import Image

Work = Callable[[], object]


def alternate(ours: Work, baseline: Work, rounds: int) -> tuple[float, float, list[float]]:
    """Time two functions in alternation.

    Returns:
        The median seconds of each, and for every round the speed of ours divided by the baseline's.
    """
    times: tuple[list[float], list[float]] = ([], [])
    for number in range(rounds):
        for which in (0, 1) if number % 2 else (1, 0):
            start = time.perf_counter()
            (ours, baseline)[which]()
            times[which].append(time.perf_counter() - start)
    ratios = [theirs / mine for mine, theirs in zip(*times, strict=True)]
    return statistics.median(times[0]), statistics.median(times[1]), ratios


def show(what: str, count: int, ours: float, baseline: float, ratios: Sequence[float]) -> None:
    print(
        f"{what:<34} catordog {1e6 * ours / count:>7.0f} µs, baseline "
        f"{1e6 * baseline / count:>7.0f} µs per photo; relative speed "
        f"{statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})",
        flush=True,
    )


def synthetic_jpeg(index: int, size: tuple[int, int], seed: int = 5) -> bytes:
    from catordog.photos.synthetic import draw

    buffer = io.BytesIO()
    draw(index, seed, size=256).image.resize(size).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def photo_files(folder: Path | None, most: int = 300) -> list[bytes]:
    """JPEG files: at most `most` of a folder, evenly spaced, or 100 synthetic ones."""
    if folder is None:
        return [synthetic_jpeg(index, (400, 400), seed=0) for index in range(100)]
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() == ".jpg")
    return [path.read_bytes() for path in paths[:: max(1, len(paths) // most)][:most]]


def bare_pillow(data: bytes, near: int | None) -> Image.Image:
    """Decode with the fewest Pillow calls that give an RGB image."""
    from PIL import Image

    with Image.open(io.BytesIO(data)) as image:
        if near is not None:
            image.draft(None, (2 * near, 2 * near))
        return image.convert("RGB")


def benchmark_decode(args: argparse.Namespace) -> None:
    """Decode photos: catordog vs. bare Pillow with the same draft setting."""
    from catordog.photos.decode import decode

    files = photo_files(args.photos)
    for near in (None, 224, 96, 64):
        ours, baseline, ratios = alternate(
            lambda near=near: [decode(data, near=near) for data in files],
            lambda near=near: [bare_pillow(data, near) for data in files],
            args.rounds,
        )
        what = "decode at full size" if near is None else f"decode for {near} pixels"
        show(f"{what}, {len(files)} photos", len(files), ours, baseline, ratios)


LISTING = """
import resource, sys, time
from catordog.photos.datasets import open_dataset
start = time.perf_counter()
dataset = open_dataset(sys.argv[1])
seconds = time.perf_counter() - start
print(len(dataset.photos), seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def benchmark_list(args: argparse.Namespace) -> None:
    """List a folder of a million files: time, and memory beyond that for two files."""
    with tempfile.TemporaryDirectory(dir=args.at) as parent:
        peaks = []
        for number in (2, args.files):
            root = Path(parent) / str(number)
            for index in range(number):
                folder = root / ("cat", "dog")[index % 2] / f"{index // 20_000:04}"
                if index % 20_000 < 2:
                    folder.mkdir(parents=True)
                os.close(os.open(folder / f"IMG_{index:08}.jpg", os.O_CREAT | os.O_WRONLY))
            ended = subprocess.run(
                [sys.executable, "-c", LISTING, str(root)],
                capture_output=True, text=True, check=True,
            )  # fmt: skip
            count, seconds, kilobytes = ended.stdout.split()
            peaks.append(float(kilobytes) / 1000)
            print(
                f"listed {int(count):>9,} files in {float(seconds):6.1f} s, peak {peaks[-1]:.0f} "
                f"MB, {len(ended.stderr.splitlines())} lines of progress"
            )
        print(f"memory beyond that for two files: {peaks[1] - peaks[0]:.0f} MB")


def benchmark_audit(args: argparse.Namespace) -> None:
    """Audit photos without a model vs. decoding them in as many threads."""
    from catordog.photos.datasets import open_dataset
    from catordog.photos.findings import audit
    from catordog.photos.parallel import in_parallel

    dataset = open_dataset(args.data)

    def audit_anew() -> None:
        with tempfile.TemporaryDirectory() as folder:
            os.environ["CATORDOG_DATA"] = folder  # which has no cache
            audit(dataset)

    ours, baseline, ratios = alternate(
        audit_anew,
        lambda: sum(1 for _ in in_parallel(lambda photo: photo.image(near=32), dataset.photos)),
        args.rounds,
    )
    count = len(dataset.photos)
    show(f"audit, {count:,} photos", count, ours, baseline, ratios)
    print(f"the audit took {ours:.1f} s on {os.cpu_count()} cores")


def benchmark_train(args: argparse.Namespace) -> None:
    """Train: photos/s, FLOP/s, data waiting time, memory; and accuracy after --minutes."""
    installed = [name for name in ("fastai", "ultralytics") if importlib.util.find_spec(name)]
    for name in {"fastai", "ultralytics"} - {*installed}:
        print(f"{name} is not installed: pip install -e .[bench]", file=sys.stderr)
    names = ["catordog", "usual", *installed]
    chosen = [name for name in names if not args.only or name in args.only]
    if not chosen:
        sys.exit(f"--only {' '.join(args.only)}: none is available; choose of {', '.join(names)}")
    with tempfile.TemporaryDirectory(dir=args.at) as parent:
        folder = Path(parent) / "photos"
        write_splits(args.data, folder)
        if "catordog" in chosen:
            for size in args.sizes:
                show_training(run_contender("catordog", folder, size=size))
        for name in chosen[chosen[0] == "catordog" :]:
            for size in (*args.sizes, 224) if name == "usual" else args.sizes[:1]:
                result = run_contender(name, folder, size=size)
                print(
                    f"{name:<12} {size:>3} px: {result['photos_per_s']:>6.1f} photos/s, "
                    f"{result['peak_bytes'] / 2**30:.2f} GiB in its main process",
                    flush=True,
                )
        for minutes in args.minutes:
            for name in chosen:
                config = args.configs[min(args.minutes.index(minutes), len(args.configs) - 1)]
                size = 64 if name != "usual" else 128  # resnet18 halves its input five times
                result = run_contender(name, folder, size=size, minutes=minutes, config=config)
                print(
                    f"{name:<12} {minutes:g} minutes: accuracy {result['accuracy']:.4f} on the "
                    f"test split after {result['seconds'] / 60:.1f} min",
                    flush=True,
                )


_STEPS = """
import statistics, sys, time
import catordog
import torch
from catordog.model.networks import build_network
network = build_network("residual", 2).to(memory_format=torch.channels_last).train()
photos = torch.randn(64, 3, 64, 64).to(memory_format=torch.channels_last)
seconds = []
for _ in range(int(sys.argv[1])):
    start = time.perf_counter()
    network(photos).square().mean().backward()
    seconds.append(time.perf_counter() - start)
print(statistics.median(seconds) / len(photos))
"""

_GOMP_TURNS = "300000"
"""How often threads of GNU's OpenMP check what they wait for before they sleep, by default (its
manual, GOMP_SPINCOUNT)."""


def benchmark_busy(args: argparse.Namespace) -> None:
    """Training steps on all cores: alone, and beside training on one core."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("OMP_", "GOMP_"))}

    def step(environment: dict[str, str]) -> float:
        ended = subprocess.run(
            [sys.executable, "-c", _STEPS, "12"], env=environment,
            stdout=subprocess.PIPE, text=True, check=True,
        )  # fmt: skip
        return float(ended.stdout)

    for what in ("alone", "beside another"):
        with ExitStack() as stack:
            if what != "alone":
                busy = subprocess.Popen(
                    [sys.executable, "-c", _STEPS, "1000000"], env={**kept, "OMP_NUM_THREADS": "1"},
                    start_new_session=True,  # scheduled as another program of the desktop is
                )  # fmt: skip
                stack.callback(busy.kill)
                time.sleep(20)  # it has started
            times = [
                (step(kept), step({**kept, "GOMP_SPINCOUNT": _GOMP_TURNS}))
                for _ in range(args.rounds)
            ]
        ours, usual = (statistics.median(column) for column in zip(*times, strict=True))
        show(f"training {what}", 1, ours, usual, [theirs / mine for mine, theirs in times])


def benchmark_predict(args: argparse.Namespace) -> None:
    """Predict a folder vs. decoding its photos in as many threads."""
    if "OPENBLAS_NUM_THREADS" not in os.environ:  # as in `catordog predict`; read when numpy loads
        os.execve(
            sys.executable, [sys.executable, *sys.argv], {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
        )
    import catordog
    from catordog.model.predict import VerdictRules, predictions
    from catordog.photos.inputs import Inputs
    from catordog.photos.parallel import in_parallel

    with tempfile.TemporaryDirectory() as temporary:
        folder = args.photos or Path(temporary)
        if not args.photos:
            for index in range(60):
                (folder / f"{index}.jpg").write_bytes(synthetic_jpeg(index, (4000, 3000)))
        inputs = Inputs([str(folder)])
        classifier = catordog.load(args.model)

        def ours() -> None:
            for _ in predictions(classifier, inputs, VerdictRules()):
                pass

        def baseline() -> None:
            for _ in in_parallel(classifier.model.preprocess.load, inputs):
                pass

        show("predict", inputs.count(), *alternate(ours, baseline, args.rounds))


def benchmark_start(args: argparse.Namespace) -> None:
    """Predict one photo from a cold start vs. Python that only imports numpy: seconds."""
    with tempfile.TemporaryDirectory() as temporary:
        photo = args.photo or Path(temporary) / "photo.jpg"
        if not args.photo:
            photo.write_bytes(synthetic_jpeg(1, (640, 480)))

        def process(*words: str) -> Work:
            return lambda: subprocess.run([sys.executable, *words], check=True, capture_output=True)

        ours = process("-m", "catordog", "predict", str(photo))
        first, second, _ = alternate(ours, process("-c", "import numpy"), args.rounds)
        print(f"predict one photo: {first:.2f} s; import numpy only: {second:.2f} s")


def benchmark_page(args: argparse.Namespace) -> None:
    """Open the one-file page in Chromium, and predict photos one by one, there and in Python."""
    from playwright.sync_api import expect, sync_playwright

    import catordog

    with tempfile.TemporaryDirectory() as temporary, sync_playwright() as playwright:
        folder = args.photos or Path(temporary)
        if not args.photos:
            for index in range(50):
                (folder / f"{index}.jpg").write_bytes(synthetic_jpeg(index, (500, 375)))
        photos = sorted(path for path in folder.rglob("*") if path.suffix.lower() == ".jpg")
        photos = photos[:: max(1, len(photos) // 50)][:50]
        page_file = Path(temporary) / "page.html"
        subprocess.run(
            [sys.executable, "-m", "catordog", "export", "--out", str(page_file)], check=True
        )
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"))
        classifier, first, ours, baseline = catordog.load(), [], [], []
        for _ in range(args.rounds):
            page, start = browser.new_page(), time.perf_counter()
            page.goto(page_file.as_uri())
            page.set_input_files("#files", photos[:1])
            expect(page.locator("#csv")).to_be_enabled(timeout=60_000)
            first.append(time.perf_counter() - start)
            start = time.perf_counter()
            page.set_input_files("#files", photos)
            expect(page.get_by_text(f"{len(photos) + 1} photos:")).to_be_visible(timeout=600_000)
            ours.append(time.perf_counter() - start)
            page.close()
            start = time.perf_counter()
            for photo in photos:
                classifier.logits(photo)
            baseline.append(time.perf_counter() - start)
        ratios = [there / here for here, there in zip(ours, baseline, strict=True)]
        print(f"the first verdict after {statistics.median(first):.2f} s")
        show("the page", len(photos), statistics.median(ours), statistics.median(baseline), ratios)


_SCROLL = """async () => {
  const main = document.querySelector("main"), times = [];
  main.scrollTop = 0;
  let last = await new Promise(requestAnimationFrame);
  while (main.scrollTop + main.clientHeight < main.scrollHeight - 2) {
    main.scrollTop += 120;
    const now = await new Promise(requestAnimationFrame);
    times.push(now - last);
    last = now;
  }
  return times;
}"""
_WORK = {"TaskDuration": "all", "ScriptDuration": "scripts", "LayoutDuration": "layout"}


def benchmark_review(args: argparse.Namespace) -> None:
    """Scroll through the thumbnails of `catordog review` in Chromium, twice."""
    from playwright.sync_api import sync_playwright

    with (
        tempfile.TemporaryDirectory() as temporary,
        ExitStack() as cleanup,
        sync_playwright() as playwright,
    ):
        words = ["--data", args.data, "--decisions", f"{temporary}/decisions.jsonl", "--port", "0"]
        process = subprocess.Popen(
            [sys.executable, "-m", "catordog", "review", *words], stderr=subprocess.PIPE, text=True
        )
        cleanup.callback(process.terminate)
        assert process.stderr is not None
        url = next(found[0] for line in process.stderr if (found := re.match(r"http\S+", line)))
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"))
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        page.set_default_timeout(600_000)
        devtools = page.context.new_cdp_session(page)
        devtools.send("Performance.enable", {"timeDomain": "threadTicks"})

        def seconds_of_work() -> dict[str, float]:
            metrics = devtools.send("Performance.getMetrics")["metrics"]
            return {each["name"]: each["value"] for each in metrics if each["name"] in _WORK}

        page.goto(url)
        page.locator("[data-queue=all]").click()
        for photos in (500, 1000):
            page.wait_for_function(f"() => document.querySelectorAll('.cell').length >= {photos}")
            page.evaluate("() => (document.querySelector('main').scrollTop = 1e9)")
        for _ in range(2):
            before = seconds_of_work()
            times = sorted(page.evaluate(_SCROLL))
            after = seconds_of_work()
            work = [
                f"{words} {1000 * (after[name] - before[name]) / len(times):.1f} ms"
                for name, words in _WORK.items()
            ]
            print(
                f"{len(times)} frames: median {statistics.median(times):.0f} ms, 95th percentile "
                f"{times[int(0.95 * len(times))]:.0f} ms; CPU time a frame: {', '.join(work)}"
            )
        browser.close()


def benchmark_serve(args: argparse.Namespace) -> None:
    """Send requests to `catordog serve` from 1, 8 and 64 clients; then watch its memory."""
    import asyncio

    import httpx

    photos = [synthetic_jpeg(index, (640, 480)) for index in range(32)]
    server = subprocess.Popen(
        [sys.executable, "-m", "catordog", "serve", "--port", "0", "--rate", "0"],
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert server.stderr is not None
    line = server.stderr.readline()
    address = re.search(r"https?://\S+", line)
    if address is None:
        server.terminate()
        sys.exit(f"'catordog serve' printed no address: {line}{server.stderr.read()}")

    def usage() -> tuple[float, int, int]:
        """Memory in MB, open files and threads of the server."""
        status = Path(f"/proc/{server.pid}/status").read_text()
        values = dict(line.split(":", 1) for line in status.splitlines())
        files = len(list(Path(f"/proc/{server.pid}/fd").iterdir()))
        return int(values["RssAnon"].split()[0]) / 1024, files, int(values["Threads"])

    async def load(clients: int, requests: int) -> tuple[float, list[float], int]:
        """Total seconds, sorted latencies in seconds, and the number of failed requests."""
        numbers, latencies, failed = iter(range(requests)), [], 0

        async def one(client: httpx.AsyncClient) -> None:
            nonlocal failed
            for number in numbers:
                start = time.perf_counter()
                answer = await client.post(
                    f"{address[0]}/predict", content=photos[number % len(photos)]
                )
                latencies.append(time.perf_counter() - start)
                failed += answer.status_code != 200 or answer.json()["label"] is None

        start = time.perf_counter()
        async with httpx.AsyncClient(timeout=60, limits=httpx.Limits(max_connections=64)) as client:
            await asyncio.gather(*(one(client) for _ in range(clients)))
        return time.perf_counter() - start, sorted(latencies), failed

    try:
        asyncio.run(load(8, 64))  # warm-up
        for clients in (1, 8, 64):
            seconds, latencies, failed = asyncio.run(load(clients, args.each))
            p50, p99 = latencies[len(latencies) // 2], latencies[int(0.99 * len(latencies))]
            print(
                f"{clients:>2} clients: {len(latencies) / seconds:>5.0f} requests/s, p50 "
                f"{1000 * p50:>4.0f} ms, p99 {1000 * p99:>4.0f} ms, {failed} failed",
                flush=True,
            )
        step = max(1, args.requests // 5)
        for done in range(0, args.requests + 1, step):
            megabytes, files, threads = usage()
            print(f"after {done:>6,} more: {megabytes:.0f} MB, {files} files, {threads} threads")
            if done < args.requests:
                asyncio.run(load(16, step))
    finally:
        server.terminate()
        server.wait()


def show_training(result: dict[str, Any]) -> None:
    print(
        f"catordog     {result['size']:>3} px: {result['photos_per_s']:>6.1f} photos/s, "
        f"{result['peak_bytes'] / 2**30:.2f} GiB; {result['gflops']:.0f} GFLOP/s in "
        f"{result['precision']}: {result['of_matmul']:.2f} of a large {result['precision']} matrix "
        f"multiplication, {result['of_float32_matmul']:.2f} of a float32 one; "
        f"{result['waiting']:.1%} of the time waiting for data, {result['augmenting']:.1%} "
        "augmenting",
        flush=True,
    )


def write_splits(data: str, folder: Path) -> None:
    """Write a dataset as files: train/, val/ and test/, each with a folder per class."""
    from catordog.photos.datasets import open_dataset
    from catordog.photos.splits import SPLITS, SplitFractions

    dataset = open_dataset(data)
    for split in SPLITS:
        for number, photo in enumerate(dataset.split(split, SplitFractions(0.1, 0.2))):
            label = dataset.classes[photo.label]
            file = folder / split / label / f"{number:06}{photo.suffix}"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(photo.read())


def run_contender(name: str, folder: Path, **options: Any) -> dict[str, Any]:
    """Run contenders.py in a process of its own. Returns the JSON object that it prints."""
    script = Path(__file__).with_name("contenders.py")
    words = [word for key, value in options.items() for word in (f"--{key}", str(value))]
    ended = subprocess.run(
        [sys.executable, str(script), name, str(folder), *words],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if ended.returncode:
        sys.exit(f"{name} failed:\n{ended.stderr[-3000:]}")
    result: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])
    return result


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True, metavar="BENCHMARK")

    def add(name: str, run: Callable[[argparse.Namespace], None]) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=run.__doc__, description=run.__doc__)
        command.set_defaults(run=run)
        return command

    command = add("decode", benchmark_decode)
    command.add_argument("--photos", type=Path, help="a folder of JPEGs")
    command.add_argument("--rounds", type=int, default=9)
    command = add("list", benchmark_list)
    command.add_argument("--files", type=int, default=1_000_000)
    command.add_argument("--at", type=Path, help="parent of the temporary folder")
    command = add("audit", benchmark_audit)
    command.add_argument("--data", default="drawn:n=2000,size=200")
    command.add_argument("--rounds", type=int, default=3)
    command = add("train", benchmark_train)
    command.add_argument("--data", default="drawn:n=4000,size=200")
    command.add_argument("--sizes", type=int, nargs="+", default=[64, 128], help="in pixels")
    command.add_argument("--minutes", type=float, nargs="*", default=[], help="for example 5 20")
    command.add_argument(
        "--configs", nargs="+", help="configs of catordog, one for each of --minutes",
        default=["configs/dogs-vs-cats-quick.yaml", "configs/dogs-vs-cats.yaml"],
    )  # fmt: skip
    command.add_argument("--only", nargs="+", help="for example catordog fastai")
    command.add_argument("--at", type=Path, help="parent of the temporary folder")
    command = add("busy", benchmark_busy)
    command.add_argument("--rounds", type=int, default=3)
    command = add("predict", benchmark_predict)
    command.add_argument("--photos", type=Path, help="default: synthetic photos of 12 megapixels")
    command.add_argument("--model", help="default: the model that ships with the package")
    command.add_argument("--rounds", type=int, default=3)
    command = add("start", benchmark_start)
    command.add_argument("--photo", type=Path)
    command.add_argument("--rounds", type=int, default=9)
    command = add("page", benchmark_page)
    command.add_argument("--photos", type=Path, help="a folder of JPEGs")
    command.add_argument("--rounds", type=int, default=3)
    command = add("review", benchmark_review)
    command.add_argument("--data", default="drawn:n=1000,size=200", help="1,000 photos or more")
    command = add("serve", benchmark_serve)
    command.add_argument(
        "--each", type=int, default=640, help="requests for each number of clients"
    )
    command.add_argument("--requests", type=int, default=10_000, help="for the memory")
    args = parser.parse_args()
    args.run(args)
    return 0


if __name__ == "__main__":
    sys.exit(main())
