"""Draw the pictures of README and docs: python scripts/figures.py MODEL [FOLDER].

MODEL is a checkpoint of the demo. Everything shown is drawn by catordog or measured here.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

import catordog
from catordog.confidence import percent
from catordog.demo import MORPHED, NEW_SEED
from catordog.photos import drawn

CAT, DOG, GREY = "#d9822b", "#2b6cb0", "#8a8a8a"
EXAMPLES = {"16.917 / 0.772": (16.917, 0.772), "1.004 / 0.709": (1.004, 0.709)}


def predictions(model: str) -> Figure:
    """What the demo's network says of new pictures, and of one animal morphing."""
    classifier = catordog.load(model)
    pictures = [drawn.draw(index, NEW_SEED, size=128).image for index in (0, 1)]
    pictures += [
        drawn.picture(knob, np.random.default_rng((NEW_SEED, MORPHED)), 128)
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
    figure = Figure(figsize=(7.2, 3.4), layout="constrained")
    axes = figure.add_subplot()
    margin = np.linspace(-18, 18, 721)
    dog = catordog.softmax(np.stack([margin, np.zeros_like(margin)], axis=1))[:, 0]
    axes.axhspan(0.2, 0.8, color=GREY, alpha=0.15, linewidth=0)
    axes.text(-17.5, 0.5, "not sure", color="#555555", va="center")
    axes.plot(margin, dog, color=DOG, linewidth=2)
    for (name, pair), shift in zip(EXAMPLES.items(), ((-3.4, -0.2), (2.2, -0.02)), strict=True):
        x, y = pair[0] - pair[1], float(catordog.softmax(pair)[0])
        axes.plot(x, y, "o", color=CAT, markersize=8, zorder=3)
        axes.annotate(
            f"logits {name}\n{percent(y)} dog", (x, y), (x + shift[0], y + shift[1]),
            ha="center" if shift[0] < 0 else "left", va="center",
            arrowprops={"arrowstyle": "-", "color": GREY},
        )  # fmt: skip
    axes.set(
        xlabel="logit of dog − logit of cat",
        ylabel="confidence in dog",
        xlim=(-18, 18),
        ylim=(-0.03, 1.05),
    )
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def main(model: str, folder: str = "docs/images") -> None:
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    for name, figure in (("predictions", predictions(model)), ("logits", logits())):
        figure.savefig(target / f"{name}.png", dpi=110, metadata={"Software": None})


if __name__ == "__main__":
    main(*sys.argv[1:])
