"""How fast things are, as ratios of two ways that are measured side by side in one run.

python scripts/benchmark.py decode [--photos FOLDER]   # our decoding against bare Pillow
python scripts/benchmark.py list [--files 1000000]     # memory for a folder of a million files
python scripts/benchmark.py audit [--data D]           # an audit against reading the photos alone
python scripts/benchmark.py train [--data D]           # training against the usual script, and,
                    # where they are installed (pip install -e .[bench]), fastai and ultralytics;
                    # with --minutes 5 20 also the accuracy that each reaches in that time
python scripts/benchmark.py predict [--photos FOLDER]  # a folder's predictions against decoding it
python scripts/benchmark.py start [--photo FILE]       # one photo, from a cold start
python scripts/benchmark.py serve [--requests 10000]   # requests a second, waiting times, memory

Without --photos and --data the pictures are drawn ones. One machine's seconds say little about
another's, so the figures to quote are the ratios.
"""

from __future__ import annotations

import argparse
import importlib.util
import io
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from catordog.photos.synthetic import draw

Work = Callable[[], object]


def side_by_side(ours: Work, theirs: Work, rounds: int) -> tuple[float, float, list[float]]:
    """Time two pieces of work in turn.

    Returns:
        the median seconds of each, and in each round the speed of ours as a share of theirs.
    """
    times: tuple[list[float], list[float]] = ([], [])
    for number in range(rounds):
        for which in (0, 1) if number % 2 else (1, 0):
            start = time.perf_counter()
            (ours, theirs)[which]()
            times[which].append(time.perf_counter() - start)
    ratios = [b / a for a, b in zip(*times, strict=True)]
    return statistics.median(times[0]), statistics.median(times[1]), ratios


def show(what: str, count: int, ours: float, theirs: float, ratios: Sequence[float]) -> None:
    print(
        f"{what:<34} ours {1e6 * ours / count:>7.0f} µs, theirs {1e6 * theirs / count:>7.0f} µs "
        f"each; speed ours ÷ theirs {statistics.median(ratios):.3f} "
        f"({min(ratios):.3f} to {max(ratios):.3f})",
        flush=True,
    )


def photo_files(folder: Path | None, most: int = 300) -> list[bytes]:
    """Real photos; drawn ones where there are none."""
    if folder is not None:
        paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() == ".jpg")
        return [path.read_bytes() for path in paths[:: max(1, len(paths) // most)][:most]]

    files = []
    for index in range(100):
        packed = io.BytesIO()
        draw(index, 0, size=400).image.save(packed, "JPEG", quality=90)
        files.append(packed.getvalue())
    return files


def bare(data: bytes, near: int | None) -> Image.Image:
    """What Pillow needs to be told at the least."""
    with Image.open(io.BytesIO(data)) as image:
        if near is not None:
            image.draft(None, (2 * near, 2 * near))
        return image.convert("RGB")


def decoding(args: argparse.Namespace) -> None:
    """Our one decoding path ÷ bare Pillow with the same draft setting."""
    from catordog.photos.decode import decode

    files = photo_files(args.photos)
    for near in (None, 224, 96, 64):
        ours, theirs, ratios = side_by_side(
            lambda near=near: [decode(data, near=near) for data in files],
            lambda near=near: [bare(data, near) for data in files],
            args.rounds,
        )
        what = "decoding, whole" if near is None else f"decoding for {near} pixels"
        show(f"{what}, {len(files)} photos", len(files), ours, theirs, ratios)


LISTING = """
import resource, sys, time
from catordog.photos.datasets import open_dataset
start = time.perf_counter()
found = open_dataset(sys.argv[1])
seconds = time.perf_counter() - start
print(len(found.photos), seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def listing(args: argparse.Namespace) -> None:
    """Memory and time to list a folder of a million files, beyond one with two."""
    with tempfile.TemporaryDirectory(dir=args.at) as made:
        results = []
        for number in (2, args.files):
            root = Path(made) / str(number)
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
            results.append(float(kilobytes) / 1000)
            print(
                f"listing {int(count):>9,} files: {float(seconds):6.1f} s, "
                f"{results[-1]:.0f} MB at most; lines of progress: {len(ended.stderr.splitlines())}"
            )
        print(f"memory beyond that for two files: {results[1] - results[0]:.0f} MB")


def auditing(args: argparse.Namespace) -> None:
    """An audit without a model ÷ reading and decoding the same photos on as many threads."""
    from catordog.photos.datasets import open_dataset
    from catordog.photos.findings import audit
    from catordog.photos.parallel import in_parallel

    found = open_dataset(args.data)
    ours, theirs, ratios = side_by_side(
        lambda: audit(found),
        lambda: sum(1 for _ in in_parallel(lambda photo: photo.image(near=32), found.photos)),
        args.rounds,
    )
    show(f"audit, {len(found.photos):,} photos", len(found.photos), ours, theirs, ratios)
    print(f"an audit took {ours:.1f} s, on {os.cpu_count()} cores")


def training(args: argparse.Namespace) -> None:
    """Photos/s, FLOP/s, waiting, memory; and accuracy after --minutes, on the same photos."""
    there = [name for name in ("fastai", "ultralytics") if importlib.util.find_spec(name)]
    for name in {"fastai", "ultralytics"} - {*there}:
        print(f"{name} is not installed: pip install -e .[bench]", file=sys.stderr)
    names = ["catordog", "usual", *there]
    chosen = [name for name in names if not args.only or name in args.only]
    with tempfile.TemporaryDirectory(dir=args.at) as made:
        folder = Path(made) / "photos"
        write_splits(args.data, folder)
        if "catordog" in chosen:
            for size in args.sizes:
                show_training(contend("catordog", folder, size=size))
        for name in chosen[chosen[0] == "catordog" :]:
            for size in (*args.sizes, 224) if name == "usual" else args.sizes[:1]:
                found = contend(name, folder, size=size)
                print(
                    f"{name:<12} {size:>3} px: {found['photos_per_s']:>6.1f} photos/s, "
                    f"{found['peak_bytes'] / 2**30:.2f} GiB in its main process",
                    flush=True,
                )
        for minutes in args.minutes:
            for name in chosen:
                config = args.configs[min(args.minutes.index(minutes), len(args.configs) - 1)]
                size = 64 if name != "usual" else 128  # the usual script halves its photos 5 times
                found = contend(name, folder, size=size, minutes=minutes, config=config)
                print(
                    f"{name:<12} {minutes:g} minutes: accuracy {found['accuracy']:.4f} on the test "
                    f"photos after {found['seconds'] / 60:.1f} min",
                    flush=True,
                )


def predicting(args: argparse.Namespace) -> None:
    """Predictions of a folder against decoding its photos alone, in as many threads."""
    if "OPENBLAS_NUM_THREADS" not in os.environ:  # as `catordog predict` has it; read at start
        os.execve(
            sys.executable, [sys.executable, *sys.argv], {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
        )
    import catordog
    from catordog.model.predict import VerdictRules, predictions
    from catordog.photos.inputs import Inputs
    from catordog.photos.parallel import in_parallel

    with tempfile.TemporaryDirectory() as made:
        folder = args.photos or Path(made)
        if not args.photos:
            for number in range(60):
                large = draw(number, 5, size=256).image.resize((4000, 3000))
                large.save(folder / f"{number}.jpg", quality=90)
        inputs = Inputs([str(folder)])
        classifier = catordog.load(args.model)
        preprocess = classifier.model.preprocess

        def ours() -> None:
            for _ in predictions(classifier, inputs, VerdictRules()):
                pass

        def theirs() -> None:
            for _ in in_parallel(preprocess.load, inputs):
                pass

        show("predict", inputs.count(), *side_by_side(ours, theirs, args.rounds))


def starting(args: argparse.Namespace) -> None:
    """Seconds from a cold start to one photo's answer, beside Python that imports numpy alone."""
    with tempfile.TemporaryDirectory() as made:
        photo = args.photo or Path(made) / "photo.jpg"
        if not args.photo:
            draw(1, 5, size=256).image.resize((640, 480)).save(photo)

        def process(*words: str) -> Work:
            return lambda: subprocess.run([sys.executable, *words], check=True, capture_output=True)

        ours = process("-m", "catordog", "predict", str(photo))
        first, second, _ = side_by_side(ours, process("-c", "import numpy"), args.rounds)
        print(f"predict one photo: {first:.2f} s; import numpy alone: {second:.2f} s")


def serving(args: argparse.Namespace) -> None:
    """Requests to `catordog serve` from 1, 8 and 64 clients, and its memory over many."""
    import asyncio

    import httpx

    photos = []
    for number in range(32):
        packed = io.BytesIO()
        draw(number, 5, size=256).image.resize((640, 480)).save(packed, "JPEG", quality=90)
        photos.append(packed.getvalue())
    server = subprocess.Popen(
        [sys.executable, "-m", "catordog", "serve", "--port", "0", "--rate", "0"],
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert server.stderr is not None
    url = server.stderr.readline().split()[0]

    def held() -> tuple[float, int, int]:
        """Megabytes, open files and threads of the server."""
        status = Path(f"/proc/{server.pid}/status").read_text()
        values = dict(line.split(":", 1) for line in status.splitlines())
        files = len(list(Path(f"/proc/{server.pid}/fd").iterdir()))
        return int(values["RssAnon"].split()[0]) / 1024, files, int(values["Threads"])

    async def crowd(clients: int, requests: int) -> tuple[float, list[float], int]:
        left, times, lost = iter(range(requests)), [], 0

        async def one(client: httpx.AsyncClient) -> None:
            nonlocal lost
            for number in left:
                begun = time.perf_counter()
                answer = await client.post(url + "/predict", content=photos[number % len(photos)])
                times.append(time.perf_counter() - begun)
                lost += answer.status_code != 200 or answer.json()["label"] is None

        begun = time.perf_counter()
        async with httpx.AsyncClient(timeout=60, limits=httpx.Limits(max_connections=64)) as client:
            await asyncio.gather(*(one(client) for _ in range(clients)))
        return time.perf_counter() - begun, sorted(times), lost

    try:
        asyncio.run(crowd(8, 64))
        for clients in (1, 8, 64):
            seconds, times, lost = asyncio.run(crowd(clients, args.each))
            middle, slow = times[len(times) // 2], times[int(0.99 * len(times))]
            print(
                f"{clients:>2} clients: {len(times) / seconds:>5.0f} requests/s, p50 "
                f"{1000 * middle:>4.0f} ms, p99 {1000 * slow:>4.0f} ms, {lost} lost",
                flush=True,
            )
        for done in range(0, args.requests + 1, max(1, args.requests // 5)):
            megabytes, opened, threads = held()
            print(f"after {done:>6,} more: {megabytes:.0f} MB, {opened} files, {threads} threads")
            if done < args.requests:
                asyncio.run(crowd(16, max(1, args.requests // 5)))
    finally:
        server.terminate()


def show_training(found: dict[str, Any]) -> None:
    print(
        f"catordog     {found['side']:>3} px: {found['photos_per_s']:>6.1f} photos/s, "
        f"{found['peak_bytes'] / 2**30:.2f} GiB; {found['gflops']:.0f} GFLOP/s in "
        f"{found['precision']}: {found['of_matmul']:.2f} of a large {found['precision']} matrix "
        f"multiplication, {found['of_float32_matmul']:.2f} of a float32 one; waiting for data "
        f"{found['waiting']:.1%} and augmenting {found['augmenting']:.1%} of the time",
        flush=True,
    )


def write_splits(data: str, folder: Path) -> None:
    """The photos of a data set as files: train/, val/ and test/, a folder for each class."""
    from catordog.photos.datasets import open_dataset
    from catordog.photos.splits import SPLITS, SplitFractions

    found = open_dataset(data)
    for split in SPLITS:
        for number, photo in enumerate(found.split(split, SplitFractions(0.1, 0.2))):
            file = folder / split / found.classes[photo.label] / f"{number:06}{photo.suffix}"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(photo.read())


def contend(name: str, folder: Path, **options: Any) -> dict[str, Any]:
    """Run one contender in a process of its own, and read the figures that it prints."""
    script = Path(__file__).with_name("contenders.py")
    words = [word for key, value in options.items() for word in (f"--{key}", str(value))]
    ended = subprocess.run(
        [sys.executable, str(script), name, str(folder), *words],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if ended.returncode:
        sys.exit(f"{name} failed:\n{ended.stderr[-3000:]}")
    figures: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])
    return figures


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    uses = parser.add_subparsers(required=True)
    use = uses.add_parser("decode", help=decoding.__doc__)
    use.add_argument("--photos", type=Path, help="a folder of JPEGs")
    use.add_argument("--rounds", type=int, default=9)
    use.set_defaults(run=decoding)
    use = uses.add_parser("list", help=listing.__doc__)
    use.add_argument("--files", type=int, default=1_000_000)
    use.add_argument("--at", type=Path, help="a folder to make the files in")
    use.set_defaults(run=listing)
    use = uses.add_parser("audit", help=auditing.__doc__)
    use.add_argument("--data", default="drawn:n=2000,size=200")
    use.add_argument("--rounds", type=int, default=3)
    use.set_defaults(run=auditing)
    use = uses.add_parser("train", help=training.__doc__)
    use.add_argument("--data", default="drawn:n=4000,size=200")
    use.add_argument("--sizes", type=int, nargs="+", default=[64, 128], help="in pixels")
    use.add_argument("--minutes", type=float, nargs="*", default=[], help="such as 5 20")
    use.add_argument(
        "--configs",
        nargs="+",
        default=["configs/dogs-vs-cats-quick.yaml", "configs/dogs-vs-cats.yaml"],
        help="catordog's for each of the minutes",
    )
    use.add_argument("--only", nargs="+", help="such as catordog fastai")
    use.add_argument("--at", type=Path, help="a folder for the photos as files")
    use.set_defaults(run=training)
    use = uses.add_parser("predict", help=predicting.__doc__)
    use.add_argument("--photos", type=Path, help="a folder; else drawn ones of 12 megapixels")
    use.add_argument("--model", help="default: the model that comes with the package")
    use.add_argument("--rounds", type=int, default=3)
    use.set_defaults(run=predicting)
    use = uses.add_parser("start", help=starting.__doc__)
    use.add_argument("--photo", type=Path)
    use.add_argument("--rounds", type=int, default=9)
    use.set_defaults(run=starting)
    use = uses.add_parser("serve", help=serving.__doc__)
    use.add_argument("--each", type=int, default=640, help="requests from each crowd")
    use.add_argument("--requests", type=int, default=10_000, help="for the memory")
    use.set_defaults(run=serving)
    args = parser.parse_args()
    args.run(args)
    return 0


if __name__ == "__main__":
    sys.exit(main())
