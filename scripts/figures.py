"""Draw the pictures of README and docs: python scripts/figures.py MODEL [FOLDER].

MODEL is a checkpoint of the demo; with - its pictures stay as they are. Everything shown is drawn
by catordog or measured here.
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

import catordog
from catordog.commands.demo import MORPHED, NEW_SEED
from catordog.confidence import format_percent
from catordog.evaluation.metrics import reliability
from catordog.photos import synthetic

CAT, DOG, GREY, RED = "#d9822b", "#2b6cb0", "#8a8a8a", "#b3262e"
EXAMPLES = {"16.917 / 0.772": (16.917, 0.772), "1.004 / 0.709": (1.004, 0.709)}


def predictions(model: str) -> Figure:
    """What the demo's network says of new pictures, and of one animal morphing."""
    classifier = catordog.load(model)
    pictures = [synthetic.draw(index, NEW_SEED, size=128).image for index in (0, 1)]
    pictures += [
        synthetic.picture(knob, np.random.default_rng((NEW_SEED, MORPHED)), 128)
        for knob in (0.0, 0.5, 0.6, 0.7, 1.0)
    ]
    results = classifier.predict(pictures)
    figure = Figure(figsize=(12.6, 3.5), layout="constrained")
    rows = figure.subplots(2, len(pictures), height_ratios=(3, 1.1))
    for column, (picture, result) in enumerate(zip(pictures, results, strict=True)):
        above, below = rows[0][column], rows[1][column]
        above.imshow(picture)
        above.set_title(result.in_words(), fontsize=10.5)
        above.set_axis_off()
        logits = [result.logits["cat"], result.logits["dog"]]
        bars = below.barh(["cat", "dog"], logits, color=[CAT, DOG])
        below.bar_label(bars, [f"{x:+.2f}" for x in logits], padding=2, fontsize=9)
        limit = 1.7 * max(abs(x) for r in results for x in r.logits.values())
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
    """From logits to confidence: only their difference counts."""
    figure, axes = _axes()
    margin = np.linspace(-18, 18, 721)
    dog = catordog.softmax(np.stack([margin, np.zeros_like(margin)], axis=1))[:, 0]
    axes.axhspan(0.2, 0.8, color=GREY, alpha=0.15, linewidth=0)
    axes.text(-17.5, 0.5, "not sure", color="#555555", va="center")
    axes.plot(margin, dog, color=DOG, linewidth=2)
    for (name, pair), shift in zip(EXAMPLES.items(), ((-3.4, -0.2), (2.2, -0.02)), strict=True):
        x, y = pair[0] - pair[1], float(catordog.softmax(pair)[0])
        axes.plot(x, y, "o", color=CAT, markersize=8, zorder=3)
        axes.annotate(
            f"logits {name}\n{format_percent(y)} dog", (x, y), (x + shift[0], y + shift[1]),
            ha="center" if shift[0] < 0 else "left", va="center",
            arrowprops={"arrowstyle": "-", "color": GREY},
        )  # fmt: skip
    axes.set(
        xlabel="logit of dog − logit of cat",
        ylabel="confidence in dog",
        xlim=(-18, 18),
        ylim=(-0.03, 1.05),
    )
    return figure


def _axes(height: float = 3.4) -> tuple[Figure, Any]:
    figure = Figure(figsize=(7.2, height), layout="constrained")
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def activations() -> Figure:
    """What an activation at the end does to the confidence."""
    figure, axes = _axes()
    margin = np.linspace(-10, 10, 801)
    raw = np.stack([margin / 2, -margin / 2], axis=1)
    ends = {
        "raw logits": raw,
        "after ReLU (both logits below 0)": np.maximum(raw - 6, 0),
        "after sigmoid": 1 / (1 + np.exp(-raw)),
        "after softmax": catordog.softmax(raw),
    }
    styles = ("-", ":", "--", "-.")
    for (name, end), colour, style in zip(ends.items(), (DOG, GREY, CAT, RED), styles, strict=True):
        dog = catordog.softmax(end)[:, 0]
        axes.plot(margin, dog, style, color=colour, linewidth=2, label=name)
    axes.set(xlabel="logit of dog − logit of cat", ylabel="confidence in dog", ylim=(-0.03, 1.03))
    axes.legend(frameon=False)
    return figure


def loss() -> Figure:
    """Cross-entropy of logits, and of what a softmax has made of them."""
    figure, axes = _axes()
    margin = np.linspace(-10, 6, 801)
    raw = np.stack([margin, np.zeros_like(margin)], axis=1)
    once = -np.log(catordog.softmax(raw)[:, 0])
    twice = -np.log(catordog.softmax(catordog.softmax(raw))[:, 0])
    axes.plot(margin, once, color=DOG, linewidth=2, label="on raw logits")
    axes.plot(margin, twice, "-.", color=RED, linewidth=2, label="after softmax")
    axes.set(xlabel="true class's logit − the other's", ylabel="cross-entropy loss", ylim=(0, 6))
    axes.legend(frameon=False)
    return figure


def temperature() -> Figure:
    """How a temperature bends the curve."""
    figure, axes = _axes()
    margin = np.linspace(-18, 18, 721)
    raw = np.stack([margin, np.zeros_like(margin)], axis=1)
    for t, shade in zip((0.5, 1, 2, 4), (1.0, 0.75, 0.5, 0.3), strict=True):
        dog = catordog.softmax(raw, t)[:, 0]
        axes.plot(margin, dog, color=DOG, alpha=shade, linewidth=2, label=f"temperature {t:g}")
    axes.set(xlabel="logit of dog − logit of cat", ylabel="confidence in dog")
    axes.legend(frameon=False)
    return figure


def simulated(n: int = 20_000, seed: int = 0) -> tuple[Any, Any]:
    """Logits whose softmax is the true chance of each label, and the labels."""
    generator = np.random.default_rng(seed)
    raw = generator.normal(0, 1.5, (n, 2))
    labels = (generator.random(n) > catordog.softmax(raw)[:, 0]).astype(int)
    return raw, labels


def reliability_of_simulated() -> Figure:
    """Honest logits, and the same three times as large."""
    figure, axes = _axes(3.8)
    raw, labels = simulated()
    axes.plot([0.5, 1], [0.5, 1], ":", color=GREY)
    for factor, name, colour, mark in (
        (1, "honest logits", DOG, "o-"),
        (3, "the same, three times as large", RED, "s-"),
    ):
        bins = reliability(catordog.softmax(factor * raw), labels)
        axes.plot(
            [b.confidence for b in bins], [b.accuracy for b in bins], mark, color=colour, label=name
        )
    axes.set(xlabel="confidence", ylabel="share that is right", xlim=(0.5, 1.01), ylim=(0.45, 1.01))
    axes.legend(frameon=False)
    return figure


def time_and_accuracy() -> Figure:
    """What training reaches in which time: docs/training-times.csv, as it was measured."""
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
        xscale="log", xlabel="minutes on two CPU cores", ylabel="accuracy on held-out photos, %"
    )
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.minorticks_off()
    axes.grid(axis="y", color=GREY, alpha=0.25)
    axes.set_xlim(3, 250)
    return figure


def main(model: str, folder: str = "docs/images") -> None:
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    figures = {
        "predictions": lambda: predictions(model),
        "logits": logits,
        "activations": activations,
        "loss": loss,
        "temperature": temperature,
        "reliability": reliability_of_simulated,
        "time": time_and_accuracy,
    }
    for name, draw in figures.items():
        if name == "predictions" and model == "-":
            continue
        figure = draw()
        figure.savefig(target / f"{name}.png", dpi=110, metadata={"Software": None})


if __name__ == "__main__":
    main(*sys.argv[1:])
