"""Draw the figures of an evaluation, for pages (as SVG in the page's colours) and TensorBoard.

The colours can be told apart by colour-blind people (Okabe and Ito 2008), and no figure needs
colour alone: lines differ in their dashes, points in their markers, bars in their hatches.
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
from markupsafe import Markup

from catordog.escaping import printable
from catordog.evaluation.curves import COVERAGE_TARGETS, Bin, reliability, risk_coverage
from catordog.evaluation.predictions import Floats, Predictions

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from catordog.evaluation.evaluate import Truth
    from catordog.evaluation.robustness import Robustness

# Each becomes a colour of the page, which differs between light and dark mode.
_INK, _SOFT, _LINE, BLUE, ORANGE = "#1b1b1f", "#5d5d66", "#d9d9de", "#0072b2", "#b34700"
_ON_THE_PAGE = {
    _INK: "var(--ink)",
    _SOFT: "var(--soft)",
    _LINE: "var(--line)",
    BLUE: "var(--bar)",
    ORANGE: "var(--warn)",
}

WORKED_EXAMPLES = {"16.917 / 0.772": 16.917 - 0.772, "1.004 / 0.709": 1.004 - 0.709}
"""The two photos at the beginning of the README: the margins of their logits."""


def figures_of(found: Predictions) -> dict[str, Figure]:
    """All figures that predictions and labels give, by name.

    >>> logits, labels = np.array([[2.0, 0], [0, 1]]), np.array([0, 1])
    >>> list(figures_of(Predictions(("cat", "dog"), labels, logits)))
    ['reliability', 'logit margins', 'confidence', 'risk and coverage', 'ROC']
    """
    return {
        "reliability": reliability_figure(found),
        "logit margins": margins_figure(found),
        "confidence": confidence_figure(found),
        "risk and coverage": risk_figure(found),
        "ROC": roc_figure(found),
    }


def reliability_figure(found: Predictions) -> Figure:
    """Accuracy by confidence, before and after calibration, above histograms of confidence."""
    figure = _figure(6.6, 4.2)
    rows = figure.subplots(2, 2, height_ratios=(3, 1), sharex=True, sharey="row")
    titles = ("before calibration", f"after calibration (temperature {found.temperature:.2f})")
    for column, (title, each) in enumerate(zip(titles, (found.uncalibrated, found), strict=True)):
        bins = reliability(each.confidences, each.labels)
        above, below = rows[0][column], rows[1][column]
        _reliability(above, bins, len(found.classes))
        above.set_title(title, fontsize=10, color=_INK)
        width = 0.8 / 15
        below.bar([b.confidence for b in bins], [b.n for b in bins], width=width, color=BLUE)
        below.set_yscale("symlog")
        _plain(below)
        below.set_xlabel("confidence")
    rows[0][0].set_ylabel("accuracy")
    rows[1][0].set_ylabel("photos")
    return figure


def _reliability(axes: Axes, bins: Sequence[Bin], classes: int) -> None:
    _plain(axes)
    low = 1 / classes
    axes.plot([low, 1], [low, 1], ":", color=_SOFT, linewidth=1.2)
    x = [b.confidence for b in bins]
    y = np.array([b.accuracy for b in bins])
    ends = np.array([b.ci95 for b in bins]).T
    errors = np.maximum(np.stack([y - ends[0], ends[1] - y]), 0)
    axes.errorbar(x, y, yerr=errors, fmt="o-", color=BLUE, markersize=4, linewidth=1.5)
    axes.set_xlim(low - 0.04, 1.04)
    axes.set_ylim(min(low, float(ends[0].min())) - 0.02, 1.02)


def margins_figure(found: Predictions) -> Figure:
    """Margins of the logits by class; with more than two classes, of right and wrong photos."""
    figure = _figure(6.6, 3.2)
    axes = figure.add_subplot()
    _plain(axes)
    classes, logits = found.classes, found.logits
    if len(classes) == 2:
        margin = logits[:, 1] - logits[:, 0]
        groups = {name: margin[found.labels == label] for label, name in enumerate(classes)}
        axes.set_xlabel(f"logit of {_literal(classes[1])} − logit of {_literal(classes[0])}")
    else:
        ranked = np.sort(logits, axis=1)
        margin = ranked[:, -1] - ranked[:, -2]
        groups = {"right": margin[found.correct], "wrong": margin[~found.correct]}
        axes.set_xlabel("highest logit − second highest logit")
    edges = np.histogram_bin_edges(margin, 50).tolist()
    for (name, values), colour, hatch in zip(
        groups.items(), (ORANGE, BLUE), ("///", ""), strict=True
    ):
        _histogram(axes, values, edges, colour, hatch, name)
    axes.set_ylabel("photos")
    top = 1.3 * axes.get_ylim()[1]
    axes.set_ylim(0, top)
    for (name, x), height in zip(WORKED_EXAMPLES.items(), (0.94, 0.86), strict=True):
        inside = edges[0] <= x <= edges[-1]
        position = x if inside else edges[-1]
        axes.axvline(position, color=_INK, linewidth=1, linestyle="--" if inside else ":")
        arrow = "" if inside else " →"
        axes.annotate(
            f"{name}{arrow}", (position, top * height), (-4, 0), textcoords="offset points",
            ha="right", fontsize=8, color=_INK,
        )  # fmt: skip
    _legend(axes, "upper left")
    return figure


def confidence_figure(found: Predictions) -> Figure:
    """Histograms of the confidence, of right and of wrong photos."""
    figure = _figure(6.6, 3.0)
    axes = figure.add_subplot()
    _plain(axes)
    edges = np.linspace(1 / len(found.classes), 1, 26).tolist()
    for name, values, colour, hatch in (
        ("right", found.confidence[found.correct], BLUE, ""),
        ("wrong", found.confidence[~found.correct], ORANGE, "///"),
    ):
        _histogram(axes, values, edges, colour, hatch, name)
    axes.set_yscale("symlog")
    axes.set(xlabel="confidence", ylabel="photos")
    _legend(axes, "upper left")
    return figure


def risk_figure(found: Predictions) -> Figure:
    """The error rate among the most confident photos, as more and more of them are answered."""
    figure = _figure(6.6, 3.0)
    axes = figure.add_subplot()
    _plain(axes)
    coverage, risk = risk_coverage(found.confidences, found.labels)
    axes.plot(100 * coverage, 100 * risk, color=BLUE, linewidth=1.8)
    for target, marker in zip(COVERAGE_TARGETS, ("o", "s", "^"), strict=True):
        reached = np.flatnonzero(risk <= 1 - target + 1e-12)
        if len(reached):
            x, y = 100 * coverage[reached[-1]], 100 * risk[reached[-1]]
            label = f"{100 * target:g} % right on the most confident {x:.0f} %"
            axes.plot(x, y, marker, color=ORANGE, markersize=7, label=label)
    axes.set(xlabel="coverage: photos answered, the most confident first, %", ylabel="errors, %")
    axes.set_xlim(0, 101)
    axes.set_ylim(bottom=0)
    axes.margins(y=0.15)
    _legend(axes)
    return figure


def roc_figure(found: Predictions) -> Figure:
    """ROC curve of the second class; with more than two classes, a curve for each of them."""
    from sklearn.metrics import roc_curve

    figure = _figure(4.4, 3.6)
    axes = figure.add_subplot()
    _plain(axes)
    axes.plot([0, 1], [0, 1], ":", color=_SOFT, linewidth=1.2)
    classes = [1] if len(found.classes) == 2 else range(len(found.classes))
    styles = ("-", "--", "-.", ":")
    for number, label in enumerate(classes):
        positive = found.labels == label
        if positive.all() or not positive.any():
            continue
        score = found.logits[:, label] - np.delete(found.logits, label, axis=1).max(axis=1)
        false, true, _ = roc_curve(positive, score)
        colour = (BLUE, ORANGE)[number % 2]
        axes.plot(
            false, true, styles[number // 2 % 4], color=colour, label=_literal(found.classes[label])
        )
    axes.set(xlabel="false-positive rate", ylabel="true-positive rate")
    _legend(axes, "lower right")
    return figure


def corruption_figure(result: Robustness) -> Figure:
    """Accuracy and calibration error by the severity of a corruption."""
    figure = _figure(6.6, 3.0)
    left, right = figure.subplots(1, 2)
    severities = result.accuracy.shape[1]
    panels = ((left, result.accuracy, "accuracy, %"), (right, result.ece, "ECE, %"))
    for axes, values, title in panels:
        _plain(axes)
        for number, kind in enumerate(result.kinds):
            axes.plot(
                100 * values[number], ("o-", "s--", "^:")[number % 3],
                color=(BLUE, ORANGE, _INK)[number % 3], label=kind,
            )  # fmt: skip
        axes.set_title(title, fontsize=10, color=_INK)
        axes.set_xticks(range(severities), ["none", *map(str, range(1, severities))])
        axes.set_xlabel("severity")
    _legend(left)
    return figure


def truth_figure(truth: Truth, name: str) -> Figure:
    """Confidence by true probability, photo by photo and on average.

    Args:
        truth: of synthetic pictures.
        name: of the second class, whose probability it is.
    """
    figure = _figure(4.6, 4.0)
    axes = figure.add_subplot()
    _plain(axes)
    axes.plot([0, 1], [0, 1], ":", color=_SOFT, linewidth=1.2)
    axes.plot(truth.probability, truth.confidence, ".", color=BLUE, markersize=3, alpha=0.35)
    bins = np.minimum((truth.probability * 10).astype(int), 9)
    used = np.unique(bins)
    axes.plot(
        [truth.probability[bins == number].mean() for number in used],
        [truth.confidence[bins == number].mean() for number in used],
        "s-", color=ORANGE, markersize=5, label="mean",
    )  # fmt: skip
    axes.set(
        xlabel=f"true probability of {_literal(name)}", ylabel=f"confidence in {_literal(name)}"
    )
    _legend(axes, "upper left")
    return figure


def bars_figure(names: Sequence[str], counts: Sequence[int], xlabel: str) -> Figure:
    """A bar chart with the count above each bar."""
    figure = _figure(6.6, 2.4)
    axes = figure.add_subplot()
    _plain(axes)
    bars = axes.bar(list(map(_literal, names)), counts, color=BLUE, width=0.75)
    axes.bar_label(bars, [f"{count:,}" for count in counts], fontsize=8, color=_SOFT, padding=2)
    axes.set(xlabel=xlabel, ylabel="photos")
    axes.margins(y=0.15)
    axes.grid(axis="x", visible=False)
    return figure


def svg(figure: Figure, alt: str) -> Markup:
    """A figure as SVG for a page: it takes the page's colours, and `alt` describes it.

    The text stays text, so a reader can select and search it.
    """
    import matplotlib as mpl

    buffer = io.StringIO()
    # The salt keeps the ids of clip paths and markers apart from those of other figures.
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": alt}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    # Groups have ids such as figure_1 in every figure, and nothing refers to them.
    text = re.sub(r'<g id="[^"]*"', "<g", text)
    for colour, variable in _ON_THE_PAGE.items():
        text = text.replace(colour, variable)
    attributes = Markup('<svg class="plot" role="img" aria-label="{}"').format(alt)
    return Markup(text.replace("<svg", attributes, 1))  # SVG that matplotlib has written  # nosec B704


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
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False, fontsize=9, labelcolor=_INK, loc=where)


_LONGEST = 32
"""Letters of a name in a figure, whose axes would collapse beside a longer one."""


def _literal(text: str) -> str:
    """A name that matplotlib can draw: on one line, not too long, and no formula like $x$."""
    shown = printable(text)
    if len(shown) > _LONGEST:
        shown = shown[: _LONGEST - 1] + "…"
    return shown.replace("$", r"\$")


def _histogram(
    axes: Axes, values: Floats, edges: Sequence[float], colour: str, hatch: str, label: str
) -> None:
    """A histogram through which another one can be seen: hatched, or else lightly filled."""
    axes.hist(
        values, edges, histtype="stepfilled", facecolor="none" if hatch else (colour, 0.3),
        edgecolor=colour, hatch=hatch, linewidth=1.2, label=_literal(label),
    )  # fmt: skip
