"""Draw the figures of README and docs.

python scripts/figures.py MODEL [FOLDER]

MODEL is a checkpoint of `catordog demo`. With - the figure of its predictions is left unchanged.
All pictures are synthetic, and all curves are computed here or read from docs/*.csv.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

import catordog
from catordog.commands.demo import MORPHED, NEW_SEED
from catordog.confidence import format_percent
from catordog.evaluation.curves import reliability
from catordog.photos import synthetic

if TYPE_CHECKING:
    import numpy.typing as npt
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CAT, DOG, GREY, RED = "#d9822b", "#2b6cb0", "#8a8a8a", "#b3262e"
EXAMPLES = {"16.917 / 0.772": (16.917, 0.772), "1.004 / 0.709": (1.004, 0.709)}


def predictions(model: str) -> Figure:
    """Predictions of the demo's network for new pictures, and for a cat that morphs into a dog."""
    classifier = catordog.load(model)
    pictures = [synthetic.draw(index, NEW_SEED, size=128).image for index in (0, 1)]
    pictures += [
        synthetic.picture(knob, np.random.default_rng((NEW_SEED, MORPHED)), 128)
        for knob in (0.0, 0.5, 0.6, 0.7, 1.0)
    ]
    results = classifier.predict(pictures)
    figure = _figure(12.6, 3.5)
    limit = 1.7 * max(abs(x) for result in results for x in result.logits.values())
    rows = figure.subplots(2, len(pictures), height_ratios=(3, 1.1))
    for column, (picture, result) in enumerate(zip(pictures, results, strict=True)):
        above, below = rows[0][column], rows[1][column]
        above.imshow(picture)
        above.set_title(result.in_words(), fontsize=10.5)
        above.set_axis_off()
        logits = [result.logits["cat"], result.logits["dog"]]
        bars = below.barh(["cat", "dog"], logits, color=[CAT, DOG])
        below.bar_label(bars, [f"{x:+.2f}" for x in logits], padding=2, fontsize=9)
        below.set_xlim(-limit, limit)
        below.axvline(0, color=GREY, linewidth=0.8)
        below.invert_yaxis()
        below.set_xticks([])
        below.spines[:].set_visible(False)
        below.tick_params(length=0)
        if column:
            below.set_yticks([])
    rows[1][0].set_xlabel("raw logits", color=GREY, loc="left")
    return figure


def logits() -> Figure:
    """Confidence as a function of the logit difference, which alone determines it."""
    figure, axes = _axes()
    margin = np.linspace(-18, 18, 721)
    dog = catordog.softmax(np.stack([margin, np.zeros_like(margin)], axis=1))[:, 0]
    axes.axhspan(0.2, 0.8, color=GREY, alpha=0.15, linewidth=0)
    axes.text(-17.5, 0.5, "not sure", color="#555555", va="center")
    axes.plot(margin, dog, color=DOG, linewidth=2)
    offsets = ((-3.4, -0.2), (2.2, -0.02))
    for (name, pair), offset in zip(EXAMPLES.items(), offsets, strict=True):
        x, y = pair[0] - pair[1], float(catordog.softmax(pair)[0])
        axes.plot(x, y, "o", color=CAT, markersize=8, zorder=3)
        axes.annotate(
            f"logits {name}\n{format_percent(y)} dog", (x, y), (x + offset[0], y + offset[1]),
            ha="center" if offset[0] < 0 else "left", va="center",
            arrowprops={"arrowstyle": "-", "color": GREY},
        )  # fmt: skip
    axes.set(
        xlabel="logit of dog − logit of cat",
        ylabel="confidence in dog",
        xlim=(-18, 18),
        ylim=(-0.03, 1.05),
    )
    return figure


def _figure(width: float, height: float) -> Figure:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _axes(height: float = 3.4) -> tuple[Figure, Axes]:
    figure = _figure(7.2, height)
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def activations() -> Figure:
    """Confidence when an activation is wrongly applied to the logits."""
    figure, axes = _axes()
    margin = np.linspace(-10, 10, 801)
    raw = np.stack([margin / 2, -margin / 2], axis=1)
    outputs = {
        "raw logits": raw,
        "after ReLU (both logits below 0)": np.maximum(raw - 6, 0),
        "after sigmoid": 1 / (1 + np.exp(-raw)),
        "after softmax": catordog.softmax(raw),
    }
    styles = ("-", ":", "--", "-.")
    colours = (DOG, GREY, CAT, RED)
    for (name, output), colour, style in zip(outputs.items(), colours, styles, strict=True):
        dog = catordog.softmax(output)[:, 0]
        axes.plot(margin, dog, style, color=colour, linewidth=2, label=name)
    axes.set(xlabel="logit of dog − logit of cat", ylabel="confidence in dog", ylim=(-0.03, 1.03))
    axes.legend(frameon=False)
    return figure


def loss() -> Figure:
    """Cross-entropy on raw logits, and on confidences that are mistaken for logits."""
    figure, axes = _axes()
    margin = np.linspace(-10, 6, 801)
    raw = np.stack([margin, np.zeros_like(margin)], axis=1)
    once = -np.log(catordog.softmax(raw)[:, 0])
    twice = -np.log(catordog.softmax(catordog.softmax(raw))[:, 0])
    axes.plot(margin, once, color=DOG, linewidth=2, label="on raw logits")
    axes.plot(margin, twice, "-.", color=RED, linewidth=2, label="after softmax")
    axes.set(
        xlabel="logit of the true class − the other logit", ylabel="cross-entropy loss", ylim=(0, 6)
    )
    axes.legend(frameon=False)
    return figure


def temperature() -> Figure:
    """Confidence as a function of the logit difference, at four temperatures."""
    figure, axes = _axes()
    margin = np.linspace(-18, 18, 721)
    raw = np.stack([margin, np.zeros_like(margin)], axis=1)
    for t, shade in zip((0.5, 1, 2, 4), (1.0, 0.75, 0.5, 0.3), strict=True):
        dog = catordog.softmax(raw, t)[:, 0]
        axes.plot(margin, dog, color=DOG, alpha=shade, linewidth=2, label=f"temperature {t:g}")
    axes.set(xlabel="logit of dog − logit of cat", ylabel="confidence in dog")
    axes.legend(frameon=False)
    return figure


def simulated(
    n: int = 20_000, seed: int = 0
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """Perfectly calibrated logits `[n, 2]` and labels `[n]` drawn with their softmax."""
    generator = np.random.default_rng(seed)
    raw = generator.normal(0, 1.5, (n, 2))
    labels = (generator.random(n) > catordog.softmax(raw)[:, 0]).astype(np.int64)
    return raw, labels


def reliability_of_simulated() -> Figure:
    """Reliability diagrams of calibrated logits, and of the same logits multiplied by three."""
    figure, axes = _axes(3.8)
    raw, labels = simulated()
    axes.plot([0.5, 1], [0.5, 1], ":", color=GREY)
    for factor, name, colour, style in (
        (1, "calibrated logits", DOG, "o-"),
        (3, "the same logits × 3", RED, "s-"),
    ):
        bins = reliability(catordog.softmax(factor * raw), labels)
        confidence, accuracy = [b.confidence for b in bins], [b.accuracy for b in bins]
        axes.plot(confidence, accuracy, style, color=colour, label=name)
    axes.set(xlabel="confidence", ylabel="accuracy", xlim=(0.5, 1.01), ylim=(0.45, 1.01))
    axes.legend(frameon=False)
    return figure


def time_and_accuracy() -> Figure:
    """Accuracy against training time, as recorded in docs/training-times.csv."""
    with (Path(__file__).parents[1] / "docs/training-times.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    figure, axes = _axes(3.8)
    styles = {"catordog": (DOG, "o-"), "fastai": (CAT, "s--"), "ultralytics": (RED, "D--"),
              "standard PyTorch script": (GREY, "^--")}  # fmt: skip
    for who, (colour, style) in styles.items():
        points = sorted(
            (float(row["minutes"]), float(row["accuracy"])) for row in rows if row["who"] == who
        )
        if not points:
            continue
        minutes, accuracy = zip(*points, strict=True)
        axes.plot(minutes, accuracy, style, color=colour, linewidth=1.5, markersize=5)
        axes.annotate(
            who, points[-1], (8, 0), textcoords="offset points", color=colour, va="center"
        )
    ticks = (2, 5, 10, 20, 50, 100)
    axes.set(
        xscale="log",
        xlabel="minutes on two CPU cores (the first two of catordog: on one, of half the speed)",
        ylabel="accuracy on held-out photos, %",
    )
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.minorticks_off()
    axes.grid(axis="y", color=GREY, alpha=0.25)
    axes.set_xlim(3, 250)
    return figure


def few_photos() -> Figure:
    """Accuracy against photos a class, as recorded in docs/few-photos.csv."""
    with (Path(__file__).parents[1] / "docs/few-photos.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    figure, axes = _axes(3.8)
    styles = {"catordog teach": (DOG, "o-"), "finetune.yaml": (CAT, "s--"),
              "from scratch": (GREY, "^--")}  # fmt: skip
    for who, (colour, style) in styles.items():
        points = sorted(
            (int(row["photos"]), float(row["accuracy"])) for row in rows if row["who"] == who
        )
        photos, accuracy = zip(*points, strict=True)
        axes.plot(photos, accuracy, style, color=colour, linewidth=1.5, markersize=5)
        first = who == "catordog teach"  # its last point is beside those of another line
        axes.annotate(
            who,
            points[0] if first else points[-1],
            (10, -2) if first else (8, 0),
            textcoords="offset points",
            color=colour,
            va="center",
        )
    ticks = (1, 2, 5, 10, 20, 50, 100, 200, 1000, 7000)
    axes.set(xscale="log", xlabel="photos of each class", ylabel="accuracy on new photos, %")
    axes.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
    axes.minorticks_off()
    axes.grid(axis="y", color=GREY, alpha=0.25)
    axes.set_xlim(0.9, 60_000)
    return figure


FIGURES = {
    "logits": logits,
    "activations": activations,
    "loss": loss,
    "temperature": temperature,
    "reliability": reliability_of_simulated,
    "time": time_and_accuracy,
    "few-photos": few_photos,
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", metavar="MODEL", help="a checkpoint of 'catordog demo', or -")
    parser.add_argument("folder", metavar="FOLDER", nargs="?", type=Path, default="docs/images")
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    figures = {name: draw() for name, draw in FIGURES.items()}
    if args.model != "-":
        figures["predictions"] = predictions(args.model)
    for name, figure in figures.items():
        figure.savefig(args.folder / f"{name}.png", dpi=110, metadata={"Software": None})


if __name__ == "__main__":
    main()
