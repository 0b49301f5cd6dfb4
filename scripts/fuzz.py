"""Fuzz the photo decoder: every corrupted file must be read, or refused with a reason.

python scripts/fuzz.py [--photos FOLDER] [--each 3000] [--seed 0] [--formats JPEG PNG …]

Photos (synthetic pictures if no folder is given) are saved in every format and colour mode, and
then corrupted: bytes are flipped, overwritten, removed, repeated or swapped between files, sizes
in headers are inflated, and files are truncated. Each format is decoded in a process of its own
with a memory limit. A crash, a hang or a decompression bomb is reported together with the file
that caused it; the exit code is then 1.
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
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL import Image

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
MAX_SECONDS = 20.0
"""Time allowed for one file."""
MAX_MEMORY = 4 * 2**30
"""Address space allowed for one format's process, in bytes."""


def valid_files(form: str, photos: list[Path], count: int = 12) -> list[bytes]:
    """Encode pictures in one format, in all its colour modes and with all its options."""
    import numpy as np
    from PIL import Image

    from catordog.photos.synthetic import draw

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
                    converted = Image.fromarray(grey)
                else:
                    converted = image.convert(mode)
                buffer = io.BytesIO()
                try:
                    converted.save(buffer, form, exif=_rotated(), **options)
                except (OSError, ValueError, KeyError):
                    continue  # not every mode supports every option
                files.append(buffer.getvalue())
    return files


def _rotated() -> Image.Exif:
    from PIL import Image

    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: rotate by 90°
    return exif


def corrupted(files: list[bytes], count: int, seed: int) -> Iterator[bytes]:
    """Yield `count` corrupted files; the same seed gives the same ones."""
    import numpy as np

    random = np.random.default_rng(seed)
    for number in range(count):
        data = bytearray(files[int(random.integers(len(files)))])
        for _ in range(int(random.integers(1, 4))):
            size = len(data)
            if size < 16:
                break
            # Half of the corruptions hit the header, where they confuse a decoder most.
            at = int(random.integers(min(size, 256) if random.random() < 0.5 else size))
            kind = number % 8
            if kind == 0:
                data[at] ^= 1 << int(random.integers(8))
            elif kind == 1:
                length = int(random.integers(1, 32))
                data[at : at + length] = random.bytes(length)
            elif kind == 2:
                del data[at:]
            elif kind == 3:
                del data[at : at + int(random.integers(1, 64))]
            elif kind == 4:
                piece = data[at : at + int(random.integers(1, 256))]
                data[at:at] = piece * int(random.integers(1, 8))
            elif kind == 5:
                other = files[int(random.integers(len(files)))]
                start = int(random.integers(len(other)))
                length = int(random.integers(1, 256))
                data[at : at + length] = other[start : start + length]
            elif kind == 6:
                extreme = (b"\xff\xff\xff\x7f", b"\xff\xff\xff\xff", b"\x00\x00\x00\x00",
                           b"\x7f\xff\xff\xff", b"\x00\x00\x01\x00")  # fmt: skip
                data[at : at + 4] = extreme[int(random.integers(len(extreme)))]
            else:
                data[at] = int(random.choice([0, 1, 127, 128, 254, 255]))
        yield bytes(data)


def fuzz(form: str, photos: list[Path], each: int, seed: int, folder: Path) -> None:
    """Decode corrupted files of one format, and print a summary line.

    Runs in a process of its own. The file that is being decoded lies in `folder`.

    Raises:
        AssertionError: a file was neither read nor refused as promised, or took too long.
    """
    from catordog.errors import PhotoError
    from catordog.photos.decode import DecodeRules, decode

    faulthandler.enable()
    warnings.filterwarnings("ignore", module=r"PIL\.")  # as the command line does
    files = valid_files(form, photos)
    decode(files[0])  # so that lazy imports do not count as memory of a photo
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY, MAX_MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    outcomes: Counter[str] = Counter()
    slowest = 0.0
    current = folder / f"{form}.bin"
    for number, data in enumerate(corrupted(files, each, seed)):
        current.write_bytes(data)  # survives a crash
        start = time.monotonic()
        rules = DecodeRules(allow_truncated=number % 4 == 3, max_megapixels=50)
        try:
            image = decode(data, near=64 if number % 2 else None, rules=rules)
        except PhotoError as error:
            outcomes["refused"] += 1
            if not error.reason or "\n" in error.reason:
                raise AssertionError(f"the reason is not one line: {error.reason!r}") from error
        else:
            outcomes["read"] += 1
            if image.mode != "RGB" or min(image.size) < 1:
                raise AssertionError(f"not an RGB image: {image}")
        slowest = max(slowest, time.monotonic() - start)
        if slowest > MAX_SECONDS:
            raise AssertionError(f"decoding took {slowest:.0f} s: {current}")
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(
        f"{form:<5} {each:>6,} corrupted files: {outcomes['read']:>6,} read, "
        f"{outcomes['refused']:>6,} refused; slowest {1000 * slowest:>4.0f} ms; "
        f"memory + {(after - before) / 1024:.0f} MiB",
        flush=True,
    )


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--photos", type=Path, metavar="FOLDER", help="JPEG photos to corrupt")
    parser.add_argument(
        "--each", type=int, default=3000, metavar="N", help="corrupted files per format"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N")
    parser.add_argument(
        "--formats", nargs="*", choices=MODES, default=list(MODES), metavar="FORMAT",
        help=f"any of {', '.join(MODES)} (default: all)",
    )  # fmt: skip
    args = parser.parse_args()
    photos = sorted(args.photos.rglob("*.jpg")) if args.photos else []
    if args.photos and not photos:
        parser.error(f"--photos {args.photos}: no *.jpg files in it")
    failed = 0
    with tempfile.TemporaryDirectory() as folder:
        for form in args.formats:
            process = multiprocessing.get_context("spawn").Process(
                target=fuzz, args=(form, photos, args.each, args.seed, Path(folder))
            )
            process.start()
            process.join(60 + args.each)
            if process.is_alive():
                process.kill()
                process.join()
            if process.exitcode != 0:
                failed += 1
                culprit = Path(f"fuzz-{form}-{args.seed}.bin")
                culprit.write_bytes((Path(folder) / f"{form}.bin").read_bytes())
                print(
                    f"{form}: exit code {process.exitcode}; the file is {culprit}", file=sys.stderr
                )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
