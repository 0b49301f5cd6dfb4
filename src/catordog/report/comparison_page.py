"""The page of `catordog compare --html`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from catordog.report.figures import margins_figure, reliability_figure, svg
from catordog.report.page import escape, figure, page, section, table, thumbnail_of

if TYPE_CHECKING:
    from catordog.evaluation.compare import Comparison

SHOWN = 48
"""Thumbnails of disagreements."""


def comparison_page(result: Comparison) -> str:
    """The whole page."""
    from catordog.report.comparison_text import sentence, short_names, summary, where

    first = result.results[0]
    models = [one.model for one in result.results]
    names = short_names(models)
    body = [
        f"<p>{escape(first.data)}, {first.split} split: {first.metrics.n:,} photos that each model "
        "has seen for the first time.</p>",
        *(f'<p class="verdict">{escape(sentence(pair, names))}.</p>' for pair in result.pairs),
        table(*summary(result, names)),
    ]
    for name, one in zip(names, result.results, strict=True):
        logits, labels, temperature = one.logits, one.labels, one.temperature
        body.append(
            section(
                f"model-{name}",
                f"{name}: {one.model}",
                "Each dot is a group of photos of about the same confidence; on the dotted line it "
                "is true. Below: the difference of the logits that it is made from.",
                [
                    svg(
                        reliability_figure(logits, labels, temperature),
                        f"reliability of {name}: calibration error {100 * one.metrics.ece:.1f} %",
                    ),
                    svg(
                        margins_figure(logits, labels, one.classes),
                        f"histogram of logit margins of {name}",
                    ),
                ],
            )
        )
    if result.disagreements:
        shown = "".join(_photo(result, place, names) for place in result.disagreements[:SHOWN])
        words = where(result, names)
        words = words[0].upper() + words[1:] + ". The surest of them first."
        body.append(
            section(
                "disagreements", "Where they disagree", words, [f'<div class="grid">{shown}</div>']
            )
        )
    return page(f"{len(models)} models on {first.data}", body)


def _photo(result: Comparison, place: int, names: list[str]) -> str:
    from catordog.report.comparison_text import answer

    first = result.results[0]
    label = first.classes[int(first.labels[place])]
    photo = first.photos[place]
    pairs = zip(names, result.results, strict=True)
    answers = [f"{name}: {answer(one, place)}" for name, one in pairs]
    return figure(thumbnail_of(photo), f"a photo of class {label}", [label, *answers, photo.name])
