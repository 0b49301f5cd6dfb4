"""`catordog demo`: the whole job on drawn pictures, each step a command that you can copy."""

from __future__ import annotations

import shlex
import subprocess  # runs this program's own commands  # nosec B404
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from catordog.errors import CatordogError
from catordog.photos import synthetic as drawn
from catordog.terminal import say

NEW_SEED = 20_000  # pictures of this series are in no training run of the demo
MORPHED = 10  # the picture of it that turns from cat to dog


def run(out: str) -> int:
    """Train, evaluate and predict; the pictures go to `out`. Returns the exit code."""
    folder = Path(out)
    pictures = draw_new_pictures(folder)
    _step("1. Train a small network on drawn cats and dogs")
    evaluate = _train("--config", "drawn.yaml")
    checkpoint = Path(evaluate[2])

    _step("2. Evaluate it on held-out pictures")
    _catordog(*evaluate[1:])

    _step("3. Predict new pictures; the knob turns from cat to dog in the last seven")
    _catordog("predict", *map(str, pictures), "--model", str(checkpoint))

    _step("Done. What there is now")
    for name, value in (
        ("checkpoint", str(checkpoint)),
        ("TensorBoard", f"tensorboard --logdir {checkpoint.parents[2]}"),
        ("pictures", f"{folder}/ (all at a glance: {folder / 'contact-sheet.png'})"),
        ("your photos", f"catordog predict PHOTOS --model {checkpoint}"),
    ):
        print(f"{name:<12} {value}")
    return 0


def draw_new_pictures(folder: Path) -> list[Path]:
    """Draw a few pictures that no training has seen, and a contact sheet of many more."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CatordogError(f"can't make the folder {folder}: {error.strerror}") from None
    pictures = []
    for index in range(4):
        drawing = drawn.draw(index, NEW_SEED, size=128)
        pictures.append(folder / f"{drawn.CLASSES[drawing.label]}-{index}.png")
        drawing.image.save(pictures[-1])
    for step in range(7):
        knob = step / 6
        pictures.append(folder / f"morph-{step}-of-6.png")
        drawn.picture(knob, np.random.default_rng((NEW_SEED, MORPHED)), 128).save(pictures[-1])
    contact_sheet(rows=7).save(folder / "contact-sheet.png")
    return pictures


def contact_sheet(rows: int, columns: int = 12, size: int = 96) -> Image.Image:
    """Rows of drawn cats and dogs, and below them one animal morphing from cat to dog."""
    sheet = Image.new("RGB", (columns * (size + 2), (rows + 1) * (size + 2)), "white")
    for place in range(rows * columns):
        x, y = place % columns, place // columns
        picture = drawn.draw(place, NEW_SEED, size=size).image
        sheet.paste(picture, (x * (size + 2), y * (size + 2)))
    for x in range(columns):
        generator = np.random.default_rng((NEW_SEED, MORPHED))
        picture = drawn.picture(x / (columns - 1), generator, size)
        sheet.paste(picture, (x * (size + 2), rows * (size + 2)))
    return sheet


def _step(title: str) -> None:
    say()
    say(f"── {title} " + "─" * max(0, 76 - len(title)))


def _train(*options: str) -> list[str]:
    """Run `catordog train`, and return the words of the command that evaluates what it has made."""
    line = _catordog("train", *options, stdout=subprocess.PIPE)
    print(line, end="", flush=True)
    return shlex.split(line)


def _catordog(*words: str, stdout: int | None = None) -> str:
    """Run a command as a user would."""
    say(f"$ {shlex.join(['catordog', *words])}")
    ended = subprocess.run(  # this Python, words of ours, no shell  # nosec B603
        [sys.executable, "-m", "catordog", *words], stdout=stdout, encoding="utf-8", check=False
    )
    if ended.returncode:
        raise CatordogError(
            f"'catordog {words[0]}' ended with exit code {ended.returncode}; its words are above"
        )
    return ended.stdout or ""
