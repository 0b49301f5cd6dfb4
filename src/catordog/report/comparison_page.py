"""The page of `catordog compare --html`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from catordog.report.comparison_text import (
    answer,
    disagreement,
    sentence,
    short_names,
    summary,
)
from catordog.report.figures import margins_figure, reliability_figure, svg
from catordog.report.page import render

if TYPE_CHECKING:
    from catordog.evaluation.compare import Comparison


def comparison_page(result: Comparison) -> str:
    """The page as HTML."""
    names = short_names(len(result.results))
    named = list(zip(names, result.results, strict=True))
    return render(
        "comparison.html",
        result=result,
        first=result.results[0],
        models=[[name, one.model] for name, one in named],
        named=named,
        sentences=[sentence(pair, names) for pair in result.pairs],
        summary=summary(result, names),
        figures={
            name: {
                "reliability": svg(
                    reliability_figure(one),
                    f"reliability diagram of model {name}: calibration error "
                    f"{100 * one.metrics.ece:.1f} %",
                ),
                "margins": svg(
                    margins_figure(one), f"histogram of the margins of the logits of model {name}"
                ),
            }
            for name, one in named
        },
        disagreement=disagreement(result, names),
        answers=lambda index: [f"{name}: {answer(one, index)}" for name, one in named],
    )
