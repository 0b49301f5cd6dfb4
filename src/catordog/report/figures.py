"""The figures of an evaluation: for the page as SVG that follows its colours, and for TensorBoard.

Colours are those that colour-blind people can tell apart (Okabe and Ito 2008), and no figure needs
colour alone: lines differ in their dashes, and points in their marks.
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from catordog.confidence.softmax import softmax
from catordog.evaluation.metrics import COVERAGE_TARGETS, Bin, reliability, risk_coverage

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Logits = npt.NDArray[np.floating[Any]]
Labels = npt.NDArray[np.integer[Any]]

# Each becomes a colour of the page, light or dark.
_INK, _SOFT, _LINE, BLUE, ORANGE = "#1b1b1f", "#5d5d66", "#d9d9de", "#0072b2", "#b34700"
_ON_THE_PAGE = {
    _INK: "var(--ink)",
    _SOFT: "var(--soft)",
    _LINE: "var(--line)",
    BLUE: "var(--bar)",
    ORANGE: "var(--warn)",
}

WORKED_EXAMPLES = {"16.917 / 0.772": 16.917 - 0.772, "1.004 / 0.709": 1.004 - 0.709}
"""The two photos that the README begins with: differences of their logits."""


def figures_of(
    logits: Logits, labels: Labels, classes: tuple[str, ...], temperature: float
) -> dict[str, Figure]:
    """All figures that logits and labels make, by name.

    Args:
        logits: raw, `[N, C]`.
        labels: `[N]`.
        classes: names, in the order of the logits.
        temperature: of the model.
    """
    return {
        "reliability": reliability_figure(logits, labels, temperature),
        "logit margins": margins_figure(logits, labels, classes),
        "confidence": confidence_figure(logits, labels, temperature),
        "risk and coverage": risk_figure(logits, labels, temperature),
        "ROC": roc_figure(logits, labels, classes),
    }


def reliability_figure(logits: Logits, labels: Labels, temperature: float) -> Figure:
    """Confidence against the share that is right, before and after the temperature."""
    figure = _figure(7.4, 4.0)
    rows = figure.subplots(
        2, 2, height_ratios=(3, 1), sharex=True, gridspec_kw={"hspace": 0.08, "wspace": 0.08}
    )
    sides = [("before calibration", 1.0), (f"after (temperature {temperature:.2f})", temperature)]
    for column, (title, t) in enumerate(sides):
        bins = reliability(softmax(logits, t), labels)
        _reliability(rows[0][column], bins, logits.shape[1])
        rows[0][column].set_title(title, fontsize=10, color=_INK)
        below = rows[1][column]
        below.bar([b.confidence for b in bins], [b.n for b in bins], width=0.03, color=BLUE)
        below.set_yscale("symlog")
        _plain(below)
        below.set_xlabel("confidence")
        if column:
            rows[0][1].set_yticklabels([])
            below.set_yticklabels([])
    rows[0][0].set_ylabel("share that is right")
    rows[1][0].set_ylabel("photos")
    highest = max(rows[1][0].get_ylim()[1], rows[1][1].get_ylim()[1])
    for below in rows[1]:
        below.set_ylim(0, highest)
    return figure


def _reliability(axes: Axes, bins: Sequence[Bin], classes: int) -> None:
    _plain(axes)
    low = 1 / classes
    axes.plot([low, 1], [low, 1], ":", color=_SOFT, linewidth=1.2)
    x = [b.confidence for b in bins]
    y = np.array([b.accuracy for b in bins])
    ends = np.array([b.ci95 for b in bins]).T
    spread = np.maximum(np.stack([y - ends[0], ends[1] - y]), 0)
    axes.errorbar(x, y, yerr=spread, fmt="o-", color=BLUE, markersize=4, linewidth=1.5)
    axes.set_xlim(low - 0.02, 1.02)
    axes.set_ylim(min(low, float(ends[0].min())) - 0.02, 1.02)


def margins_figure(logits: Logits, labels: Labels, classes: tuple[str, ...]) -> Figure:
    """How far apart the logits are, by class; for more than two classes, of right and wrong."""
    figure = _figure(7.4, 3.2)
    axes = figure.add_subplot()
    _plain(axes)
    if len(classes) == 2:
        margin = logits[:, 1] - logits[:, 0]
        groups = {name: margin[labels == place] for place, name in enumerate(classes)}
        axes.set_xlabel(f"logit of {classes[1]} − logit of {classes[0]}")
    else:
        ranked = np.sort(logits, axis=1)
        margin = ranked[:, -1] - ranked[:, -2]
        right = logits.argmax(axis=1) == labels
        groups = {"right": margin[right], "wrong": margin[~right]}
        axes.set_xlabel("highest logit − second highest")
    edges = np.histogram_bin_edges(margin, 50).tolist()
    for (name, values), colour, hatch in zip(
        groups.items(), (ORANGE, BLUE), ("///", ""), strict=True
    ):
        _filled(axes, values, edges, colour, hatch, name)
    axes.set_ylabel("photos")
    top = 1.25 * axes.get_ylim()[1]
    axes.set_ylim(0, top)
    for (name, x), height in zip(WORKED_EXAMPLES.items(), (0.94, 0.87), strict=True):
        inside = edges[0] <= x <= edges[-1]
        where = x if inside else edges[-1]
        axes.axvline(where, color=_INK, linewidth=1, linestyle="--" if inside else ":")
        arrow = "" if inside else " →"
        axes.annotate(
            f"{name}{arrow}", (where, top * height), (-4, 0), textcoords="offset points",
            ha="right", fontsize=8, color=_INK,
        )  # fmt: skip
    _legend(axes)
    return figure


def confidence_figure(logits: Logits, labels: Labels, temperature: float) -> Figure:
    """How many photos get which confidence, right and wrong ones."""
    figure = _figure(7.4, 3.0)
    axes = figure.add_subplot()
    _plain(axes)
    confidences = softmax(logits, temperature)
    confidence, right = confidences.max(axis=1), confidences.argmax(axis=1) == labels
    edges = np.linspace(1 / logits.shape[1], 1, 26).tolist()
    for name, values, colour, hatch in (
        ("right", confidence[right], BLUE, ""),
        ("wrong", confidence[~right], ORANGE, "///"),
    ):
        _filled(axes, values, edges, colour, hatch, name)
    axes.set_yscale("symlog")
    axes.set(xlabel="confidence", ylabel="photos")
    _legend(axes)
    return figure


def risk_figure(logits: Logits, labels: Labels, temperature: float) -> Figure:
    """The error among the surest photos, as more and more of them are answered."""
    figure = _figure(7.4, 3.0)
    axes = figure.add_subplot()
    _plain(axes)
    covered, risk = risk_coverage(softmax(logits, temperature), labels)
    axes.plot(100 * covered, 100 * risk, color=BLUE, linewidth=1.8)
    for target, mark in zip(COVERAGE_TARGETS, ("o", "s", "^"), strict=True):
        reached = np.flatnonzero(risk <= 1 - target + 1e-12)
        if len(reached):
            x, y = 100 * covered[reached[-1]], 100 * risk[reached[-1]]
            axes.plot(x, y, mark, color=ORANGE, markersize=7)
            axes.annotate(
                f"{100 * target:g} % right on the surest {x:.0f} %", (x, y), (-6, 8),
                textcoords="offset points", ha="right", fontsize=8, color=_INK,
            )  # fmt: skip
    axes.set(xlabel="photos that are answered, the surest first, in %", ylabel="of them wrong, %")
    axes.set_xlim(0, 101)
    axes.set_ylim(bottom=0)
    return figure


def roc_figure(logits: Logits, labels: Labels, classes: tuple[str, ...]) -> Figure:
    """Found against falsely found, at every threshold; a curve for each class of more than two."""
    from sklearn.metrics import roc_curve

    figure = _figure(4.2, 3.6)
    axes = figure.add_subplot()
    _plain(axes)
    axes.plot([0, 1], [0, 1], ":", color=_SOFT, linewidth=1.2)
    places = [1] if len(classes) == 2 else range(len(classes))
    styles = ("-", "--", "-.", ":")
    for order, place in enumerate(places):
        there = labels == place
        if there.all() or not there.any():
            continue
        score = logits[:, place] - np.delete(logits, place, axis=1).max(axis=1)
        false, true, _ = roc_curve(there, score)
        colour = (BLUE, ORANGE)[order % 2]
        axes.plot(false, true, styles[order // 2 % 4], color=colour, label=classes[place])
    axes.set(xlabel="falsely found", ylabel="found")
    _legend(axes, "lower right")
    return figure


def corruption_figure(
    kinds: Sequence[str], accuracy: npt.NDArray[np.float64], ece: npt.NDArray[np.float64]
) -> Figure:
    """What damage does to accuracy and to calibration.

    Args:
        kinds: of damage.
        accuracy: `[K, D + 1]`, at no damage and each degree.
        ece: the same, of the calibration error.
    """
    figure = _figure(7.4, 3.0)
    left, right = figure.subplots(1, 2)
    for axes, values, title in ((left, accuracy, "accuracy, %"), (right, ece, "ECE, %")):
        _plain(axes)
        for place, kind in enumerate(kinds):
            axes.plot(
                100 * values[place], ("o-", "s--", "^:")[place % 3],
                color=(BLUE, ORANGE, _INK)[place % 3], label=kind,
            )  # fmt: skip
        axes.set_title(title, fontsize=10, color=_INK)
        axes.set_xticks(range(accuracy.shape[1]), ["none", *map(str, range(1, accuracy.shape[1]))])
        axes.set_xlabel("damage")
    _legend(left)
    return figure


def truth_figure(true: npt.NDArray[np.float64], said: npt.NDArray[np.float64]) -> Figure:
    """Confidence against the true probability, which is known for drawn pictures.

    Args:
        true: `[N]`.
        said: `[N]`.
    """
    figure = _figure(4.6, 4.0)
    axes = figure.add_subplot()
    _plain(axes)
    axes.plot([0, 1], [0, 1], ":", color=_SOFT, linewidth=1.2)
    axes.plot(true, said, ".", color=BLUE, markersize=3, alpha=0.35)
    places = np.minimum((true * 10).astype(int), 9)
    used = np.unique(places)
    axes.plot(
        [true[places == place].mean() for place in used],
        [said[places == place].mean() for place in used],
        "s-", color=ORANGE, markersize=5, label="mean",
    )  # fmt: skip
    axes.set(xlabel="true probability of dog", ylabel="confidence in dog")
    _legend(axes, "upper left")
    return figure


def svg(figure: Figure, alt: str) -> str:
    """A figure as SVG for a page: it takes the page's colours, and says what it shows."""
    import matplotlib as mpl

    packed = io.StringIO()
    # Names within a figure must not meet those of another on the same page.
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": alt}):
        figure.savefig(packed, format="svg", transparent=True, metadata={"Date": None})
    text = packed.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    # Several figures on a page all have a figure_1; only what is referred to needs its name.
    text = re.sub(r'<g id="[^"]*"', "<g", text)
    for colour, variable in _ON_THE_PAGE.items():
        text = text.replace(colour, variable)
    from html import escape

    return text.replace("<svg", f'<svg class="plot" role="img" aria-label="{escape(alt)}"', 1)


def _figure(width: float, height: float) -> Figure:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _plain(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(_LINE)
    axes.tick_params(colors=_SOFT, labelsize=8)
    axes.xaxis.label.set_color(_SOFT)
    axes.yaxis.label.set_color(_SOFT)
    axes.grid(color=_LINE, linewidth=0.5, alpha=0.6)
    axes.set_axisbelow(True)


def _legend(axes: Axes, where: Literal["best", "upper left", "lower right"] = "best") -> None:
    axes.legend(frameon=False, fontsize=9, labelcolor=_INK, loc=where)


def _filled(
    axes: Axes, values: Logits, edges: Sequence[float], colour: str, hatch: str, label: str
) -> None:
    """A histogram that others can be seen through."""
    axes.hist(
        values, edges, histtype="stepfilled", facecolor=(colour, 0.3), edgecolor=colour,
        hatch=hatch, linewidth=1.2, label=label,
    )  # fmt: skip
