"""Damage photos in thousands of ways, and see that each is either read or refused with a reason.

python scripts/fuzz.py [--photos FOLDER] [--each 3000] [--seed 0] [--formats JPEG PNG …]

Real photos (the drawn ones, if no folder is given) are saved in every format and colour mode, and
then damaged: bytes flipped, overwritten, cut out, repeated, swapped between files, sizes in headers
blown up, files cut short. Every format is decoded in a process of its own with a limit on its
memory, so that a crash, a hang or a bomb is seen and named, with the bytes that caused it.
"""

from __future__ import annotations

import argparse
import faulthandler
import io
import multiprocessing
import resource
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from catordog.errors import PhotoError
from catordog.photos.decode import DecodeRules, decode
from catordog.photos.synthetic import draw

MODES = {
    "JPEG": ["RGB", "L", "CMYK"],
    "PNG": ["RGB", "RGBA", "L", "LA", "P", "I;16", "1"],
    "GIF": ["P"],
    "WEBP": ["RGB", "RGBA"],
    "AVIF": ["RGB", "RGBA"],
    "BMP": ["RGB", "L", "P"],
    "TIFF": ["RGB", "CMYK", "L", "I;16", "1"],
}
OPTIONS: dict[str, list[dict[str, object]]] = {
    "JPEG": [{}, {"progressive": True}, {"quality": 95, "subsampling": 0}],
    "PNG": [{}, {"optimize": True}],
    "GIF": [{}, {"interlace": 0}],
    "WEBP": [{}, {"lossless": True}],
    "AVIF": [{"speed": 10}],
    "BMP": [{}],
    "TIFF": [{}, {"compression": "tiff_lzw"}, {"compression": "tiff_adobe_deflate"}],
}
SECONDS = 20.0
MEMORY = 4 * 2**30


def originals(form: str, photos: list[Path], count: int = 12) -> list[bytes]:
    """Whole files of a format, in all its modes."""
    files = []
    for index in range(count):
        if photos:
            with Image.open(photos[index % len(photos)]) as opened:
                image = opened.convert("RGB")
                image.thumbnail((160, 160))
        else:
            image = draw(index, 1, size=96).image
        for mode in MODES[form]:
            for options in OPTIONS[form]:
                if mode == "I;16":
                    grey = np.asarray(image.convert("L")).astype(np.uint16) * 257
                    changed = Image.fromarray(grey)
                else:
                    changed = image.convert(mode)
                packed = io.BytesIO()
                try:
                    changed.save(packed, form, exif=_exif(), **options)
                except (OSError, ValueError, KeyError):
                    continue  # not every mode goes with every option
                files.append(packed.getvalue())
    return files


def _exif() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


def damaged(files: list[bytes], count: int, seed: int) -> Iterator[bytes]:
    """Damage them, in `count` different ways."""
    random = np.random.default_rng(seed)
    for number in range(count):
        data = bytearray(files[int(random.integers(len(files)))])
        for _ in range(int(random.integers(1, 4))):
            size = len(data)
            if size < 16:
                break
            # Headers are where the interesting damage is.
            place = int(random.integers(min(size, 256) if random.random() < 0.5 else size))
            kind = number % 8
            if kind == 0:
                data[place] ^= 1 << int(random.integers(8))
            elif kind == 1:
                length = int(random.integers(1, 32))
                data[place : place + length] = random.bytes(length)
            elif kind == 2:
                del data[place:]
            elif kind == 3:
                del data[place : place + int(random.integers(1, 64))]
            elif kind == 4:
                piece = data[place : place + int(random.integers(1, 256))]
                data[place:place] = piece * int(random.integers(1, 8))
            elif kind == 5:
                other = files[int(random.integers(len(files)))]
                start = int(random.integers(len(other)))
                length = int(random.integers(1, 256))
                data[place : place + length] = other[start : start + length]
            elif kind == 6:
                extreme = (b"\xff\xff\xff\x7f", b"\xff\xff\xff\xff", b"\x00\x00\x00\x00",
                           b"\x7f\xff\xff\xff", b"\x00\x00\x01\x00")  # fmt: skip
                data[place : place + 4] = extreme[int(random.integers(len(extreme)))]
            else:
                data[place] = int(random.choice([0, 1, 127, 128, 254, 255]))
        yield bytes(data)


def fuzz(form: str, photos: list[Path], each: int, seed: int, found: Path) -> None:
    """Decode damaged files of one format; runs in a process of its own."""
    faulthandler.enable()
    warnings.filterwarnings("ignore", module=r"PIL\.")  # as the command line does
    files = originals(form, photos)
    decode(files[0])  # what is imported only now is not the photo's memory
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    outcomes: Counter[str] = Counter()
    slowest = 0.0
    for number, data in enumerate(damaged(files, each, seed)):
        current = found / f"{form}.bin"
        current.write_bytes(data)  # what a crash would leave behind
        start = time.monotonic()
        rules = DecodeRules(allow_truncated=number % 4 == 3, max_megapixels=50)
        try:
            image = decode(data, near=64 if number % 2 else None, rules=rules)
        except PhotoError as error:
            outcomes["refused"] += 1
            if not error.reason or "\n" in error.reason:
                raise AssertionError(f"no reason in one line: {error.reason!r}") from error
        else:
            outcomes["read"] += 1
            if image.mode != "RGB" or min(image.size) < 1:
                raise AssertionError(f"not an RGB picture: {image}")
        slowest = max(slowest, time.monotonic() - start)
        if slowest > SECONDS:
            raise AssertionError(f"took {slowest:.0f} s: {current}")
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(
        f"{form:<5} {each:>6,} damaged files: {outcomes['read']:>6,} read, "
        f"{outcomes['refused']:>6,} refused; slowest {1000 * slowest:>4.0f} ms; "
        f"memory + {(after - before) / 1024:.0f} MiB",
        flush=True,
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--photos", type=Path, help="a folder of photos to damage")
    parser.add_argument("--each", type=int, default=3000, help="damaged files of each format")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--formats", nargs="*", default=list(MODES))
    args = parser.parse_args()
    photos = sorted(args.photos.rglob("*.jpg")) if args.photos else []
    bad = 0
    with tempfile.TemporaryDirectory() as folder:
        for form in args.formats:
            process = multiprocessing.get_context("spawn").Process(
                target=fuzz, args=(form, photos, args.each, args.seed, Path(folder))
            )
            process.start()
            process.join(60 + args.each)
            if process.is_alive():
                process.kill()
            if process.exitcode != 0:
                bad += 1
                kept = Path(f"fuzz-{form}-{args.seed}.bin")
                kept.write_bytes((Path(folder) / f"{form}.bin").read_bytes())
                print(f"{form}: exit code {process.exitcode}; the file is {kept}", file=sys.stderr)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
