"""`catordog demo`: train, evaluate and predict on synthetic pictures, with commands to copy."""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess  # runs this program's own commands  # nosec B404
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from catordog.errors import CatordogError
from catordog.outputs import check_folder
from catordog.terminal import info

if TYPE_CHECKING:
    from PIL import Image

DESCRIPTION = """Train a network on synthetic pictures, evaluate it, and predict new pictures.
It takes about a minute and needs no data. Each step is a command to copy."""

NEW_SEED = 20_000  # no picture of this seed is in the training data
MORPHED = 10  # index of the animal that morphs from cat to dog


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this command."""
    parser.add_argument(
        "--out", default="demo", metavar="DIR", help="folder for the pictures (default: demo)"
    )


def run(args: argparse.Namespace) -> int:
    """Train, evaluate and predict. Returns the exit code."""
    check_folder("--out", args.out)
    folder = Path(args.out)
    pictures = draw_new_pictures(folder)
    _step("1. Train a small network on synthetic cats and dogs")
    evaluate = _train("--config", "drawn.yaml")
    checkpoint = Path(evaluate[2])

    _step("2. Evaluate it on held-out pictures")
    _catordog(*evaluate[1:])

    _step("3. Predict new pictures; the last seven morph from cat to dog")
    _catordog("predict", *map(str, pictures), "--model", str(checkpoint))

    _step("Done. The results")
    for name, value in (
        ("checkpoint", str(checkpoint)),
        ("TensorBoard", f"tensorboard --logdir {checkpoint.parents[2]}"),
        ("pictures", f"{folder}/ (overview: {folder / 'contact-sheet.png'})"),
        ("your photos", f"catordog predict PHOTOS --model {checkpoint}"),
    ):
        print(f"{name:<12} {value}")
    return 0


def draw_new_pictures(folder: Path) -> list[Path]:
    """Draw pictures that the training data does not have, and a contact sheet of many more.

    Returns:
        The pictures: cats and dogs, then one animal that morphs from cat to dog.

    Raises:
        CatordogError: they can't be written, or would replace pictures of others.
    """
    import numpy as np

    from catordog.files import write_bytes
    from catordog.photos import synthetic
    from catordog.report.pictures import check_replaceable, to_png

    drawn = {}
    for index in range(4):
        drawing = synthetic.draw(index, NEW_SEED, size=128)
        drawn[folder / f"{synthetic.CLASSES[drawing.label]}-{index}.png"] = drawing.image
    for step in range(7):
        generator = np.random.default_rng((NEW_SEED, MORPHED))
        drawn[folder / f"morph-{step}-of-6.png"] = synthetic.picture(step / 6, generator, 128)
    pictures = list(drawn)
    drawn[folder / "contact-sheet.png"] = contact_sheet(rows=7)
    for path in drawn:
        check_replaceable("--out", path, "demo")
    for path, image in drawn.items():
        write_bytes(path, to_png(image, "demo"))
    return pictures


def contact_sheet(rows: int, columns: int = 12, size: int = 96) -> Image.Image:
    """Draw rows of cats and dogs, and below them one animal that morphs from cat to dog."""
    import numpy as np
    from PIL import Image

    from catordog.photos import synthetic

    sheet = Image.new("RGB", (columns * (size + 2), (rows + 1) * (size + 2)), "white")
    for index in range(rows * columns):
        x, y = index % columns, index // columns
        picture = synthetic.draw(index, NEW_SEED, size=size).image
        sheet.paste(picture, (x * (size + 2), y * (size + 2)))
    for x in range(columns):
        generator = np.random.default_rng((NEW_SEED, MORPHED))
        picture = synthetic.picture(x / (columns - 1), generator, size)
        sheet.paste(picture, (x * (size + 2), rows * (size + 2)))
    return sheet


def _step(title: str) -> None:
    info()
    info(f"── {title} " + "─" * max(0, 76 - len(title)))


def _train(*options: str) -> list[str]:
    """Run `catordog train`, and return the words of the evaluate command that it prints."""
    line = _catordog("train", *options, stdout=subprocess.PIPE)
    print(line, end="", flush=True)
    return shlex.split(line)


def _catordog(*words: str, stdout: int | None = None) -> str:
    """Print a command, run it in a process of its own, and return its output."""
    info(f"$ {shlex.join(['catordog', *words])}")
    ended = subprocess.run(  # this Python, our own arguments, no shell  # nosec B603
        [sys.executable, "-m", "catordog", *words],
        stdout=stdout,
        encoding="utf-8",
        errors="surrogateescape",
        env=os.environ if stdout is None else {**os.environ, "PYTHONIOENCODING": "utf-8"},
        check=False,
    )
    if ended.returncode:
        raise CatordogError(
            f"'catordog {words[0]}' failed with exit code {ended.returncode}; see its output above"
        )
    return ended.stdout or ""
