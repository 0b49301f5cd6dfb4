"""The page of `catordog evaluate --html`: read in a minute, the verdict first."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from catordog.confidence.softmax import format_confidence
from catordog.errors import PhotoError
from catordog.photos.preprocess import thumbnail
from catordog.report.figures import (
    confidence_figure,
    corruption_figure,
    margins_figure,
    reliability_figure,
    risk_figure,
    roc_figure,
    svg,
    truth_figure,
)
from catordog.report.page import address, escape, figure, page, section, table, thumbnail_of

if TYPE_CHECKING:
    from PIL.Image import Image

    from catordog.evaluation.evaluate import Evaluation, Truth
    from catordog.evaluation.ood import OodResult
    from catordog.evaluation.robustness import Robustness
    from catordog.photos.photo import Photo

SHOWN = 24
"""Thumbnails in a section."""

EXPLAINED = 12
"""Mistakes with a map of where the network looked: each takes more than a hundred looks."""

BELIEVABLE, ROUGH = 0.02, 0.05
"""Calibration errors up to which confidences can be believed, and roughly believed."""


def evaluation_page(
    result: Evaluation,
    threshold: float,
    damage: Robustness | None = None,
    truth: Truth | None = None,
    neither: OodResult | None = None,
    looked: Callable[[Photo, int], Image] | None = None,
) -> str:
    """The whole page.

    Args:
        result: the evaluation.
        threshold: below this confidence the model says `not sure`, 0…1.
        damage: what damage does, if it was measured.
        truth: true probabilities, where the data know them.
        neither: how well it tells photos of no class, if that was measured.
        looked: draws where the network looked on a photo, for a class.
    """
    sections = [
        (anchor, title, section(anchor, title, words, body))
        for anchor, title, words, body in _sections(result, damage, truth, neither, looked)
        if body
    ]
    links = "".join(f'<a href="#{anchor}">{escape(title)}</a>' for anchor, title, _ in sections)
    return page(
        f"Evaluation of {result.model}",
        [
            f"<p>{escape(result.data)}, {result.split} split: {result.metrics.n:,} photos"
            + (f", {len(result.failures):,} more unreadable" if result.failures else "")
            + ".</p>",
            *(f'<p class="verdict">{line}</p>' for line in verdict(result, threshold)),
            f"<nav>{links}</nav>",
            *(text for _, _, text in sections),
        ],
    )


def verdict(result: Evaluation, threshold: float) -> list[str]:
    """Three sentences: how accurate, how believable, how often not sure (HTML)."""
    metrics = result.metrics
    low, high = metrics.accuracy_ci95
    confidence = result.confidences.max(axis=1)
    right = result.logits.argmax(axis=1) == result.labels
    gap = float(confidence.mean() - right.mean())
    size = f"{100 * metrics.ece:.1f} points"
    if metrics.ece <= BELIEVABLE:
        believe = f"<b>Its confidences can be believed</b>: on average they are {size} off."
    else:
        way = "more" if gap > 0 else "less"
        how = "roughly be believed" if metrics.ece <= ROUGH else "not be believed"
        believe = (
            f"<b>Its confidences can {how}</b>: on average they are {size} off, and it promises "
            f"{way} than it keeps."
        )
    sure = confidence >= threshold
    share = f"{100 * float((~sure).mean()):.1f} %"
    rest = (
        f", and is right on {100 * float(right[sure].mean()):.1f} % of the others"
        if any(sure)
        else ""
    )
    return [
        f"<b>{100 * metrics.accuracy:.1f} % are right</b> ({100 * low:.1f} to {100 * high:.1f} %).",
        believe,
        f"<b>It is not sure of {share}</b> (confidence below {100 * threshold:g} %){rest}.",
    ]


def _sections(
    result: Evaluation,
    damage: Robustness | None,
    truth: Truth | None,
    neither: OodResult | None,
    looked: Callable[[Photo, int], Image] | None,
) -> list[tuple[str, str, str, list[str]]]:
    """Anchor, title, how to read it, and what it shows."""
    logits, labels, classes = result.logits, result.labels, result.classes
    temperature, metrics = result.temperature, result.metrics
    confidence = result.confidences.max(axis=1)
    margin = np.sort(logits, axis=1)
    sure_first = np.argsort(-(margin[:, -1] - margin[:, -2]), kind="stable")
    wrong = logits.argmax(axis=1) != labels
    mistakes = [int(place) for place in sure_first if wrong[place]]
    return [
        ("reliability", "Can its confidence be believed?",
         "Each dot is a group of photos of about the same confidence. On the dotted line, of "
         "photos that get 90 %, nine in ten are right; below it, the model promises too much. Bars "
         "are 95 % intervals; below, how many photos there are, on a scale of powers of ten.",
         [svg(reliability_figure(logits, labels, temperature),
              f"reliability diagram: calibration error {100 * metrics.ece:.1f} %")]),
        ("margins", "How far apart are its logits?",
         "The difference of two logits is all that confidence is made from: 0 is a guess, and the "
         "further from it, the surer. The lines mark the two photos of the README.",
         [svg(margins_figure(logits, labels, classes), "histogram of logit margins by class")]),
        ("confidence", "How sure is it?",
         "Photos by their confidence. Wrong ones should lie to the left.",
         [svg(confidence_figure(logits, labels, temperature),
              "histogram of confidence, of right and wrong photos")]),
        ("risk", "What if it answers only when it is sure?",
         "From left to right, more and more photos are answered, the surest first; the curve is "
         f"the share of them that is wrong. The area below it is {metrics.aurc:.4f}; 0 is perfect.",
         [svg(risk_figure(logits, labels, temperature), "risk-coverage curve"),
          *_promises(result)]),
        ("roc", "How well does it tell them apart?",
         "Every threshold at once: the closer to the upper left, the better. The area is "
         + ("unknown here." if metrics.auroc is None else f"{metrics.auroc:.4f}; 0.5 is a guess."),
         [svg(roc_figure(logits, labels, classes), "ROC curve")]),
        ("confusion", "What does it take for what?",
         "Rows are what the photos show, columns what the model said.",
         [table([["", *(f"said {name}" for name in classes)],
                 *([true, *(f"{metrics.confusion[true][said]:,}" for said in classes)]
                   for true in classes)], frozenset(range(1, len(classes) + 1)))]),
        ("mistakes", "Its most confident mistakes",
         "Look at them: many are labels that are wrong, or photos of both, or of neither."
         + (" Below the first ones: what spoke for the wrong answer (orange), and what against it "
            "(purple)." if looked else ""),
         _photos(result, mistakes[:SHOWN], confidence, looked)),
        ("unsure", "The photos that it is least sure of", "Would you know?",
         _photos(result, [int(place) for place in sure_first[::-1][:SHOWN]], confidence)),
        ("neither", "The strangest photos",
         "Those least like the photos that it knows: perhaps they show none of the classes. "
         + (f"Of {neither.n:,} photos that show none, {100 * neither.false_accept:.1f} % are taken "
            f"for one; the area under the curve is {neither.auroc:.4f}." if neither else ""),
         [] if result.ood_score is None else
         _photos(result, np.argsort(-result.ood_score, kind="stable")[:SHOWN].tolist(),
                 confidence)),
        ("damage", "What if photos are worse?",
         "The same photos, blurred, noisy, or saved as poor JPEGs, in three degrees. The left "
         "shows what becomes of accuracy, the right what becomes of the confidence's truth."
         + (f" Measured on {damage.n:,} of them." if damage else ""),
         [svg(corruption_figure(damage.kinds, damage.accuracy, damage.ece),
              "accuracy and calibration error by damage")] if damage else []),
        ("truth", "Against the truth",
         "These pictures are drawn; between cat and dog the probability of each label is known. "
         + (f"The confidence is {100 * truth.error:.1f} points off on average." if truth else ""),
         [svg(truth_figure(truth.true, truth.said), "confidence against true probability")]
         if truth else []),
        ("figures", "All figures", "With 95 % intervals.", [_figures(result)]),
    ]  # fmt: skip


def _promises(result: Evaluation) -> list[str]:
    if not result.promises:
        return []
    rows = [["promised at most", "wrong or missed", "one answer", "not sure", "neither"]]
    rows += [
        [
            f"{100 * promise.error_rate:g} %",
            *(
                f"{100 * share:.1f} %"
                for share in (promise.missed, promise.answered, promise.not_sure, promise.neither)
            ),
        ]
        for promise in result.promises
    ]
    words = (
        "With <code>--error-rate</code> you name the share of errors that you can live with, and "
        "it says “not sure” as often as it takes:"
    )
    return [f"<p>{words}</p>", table(rows, frozenset(range(5)))]


def _figures(result: Evaluation) -> str:
    metrics, before = result.metrics, result.uncalibrated or result.metrics
    names = {
        "nll": "loss (negative log-likelihood)",
        "brier": "Brier score",
        "ece": "ECE, equal-width bins",
        "ece_equal_mass": "ECE, equal-mass bins",
        "classwise_ece": "classwise ECE",
    }
    rows = [["", "before calibration", "after", "95 % interval"]]
    for name, words in names.items():
        low, high = metrics.ci95[name]
        values: Sequence[Any] = (getattr(before, name), getattr(metrics, name))
        rows.append([words, *(f"{value:.4f}" for value in values), f"{low:.4f} to {high:.4f}"])
    return table(rows, frozenset({1, 2, 3}))


def _photos(
    result: Evaluation,
    places: Sequence[int],
    confidence: Any,
    looked: Callable[[Photo, int], Image] | None = None,
) -> list[str]:
    shown = []
    for number, place in enumerate(places):
        photo = result.photos[place]
        answer = int(result.logits[place].argmax())
        said = result.classes[answer]
        true = result.classes[int(result.labels[place])]
        logits = ", ".join(
            f"{name} {value:.2f}"
            for name, value in zip(result.classes, result.logits[place].tolist(), strict=True)
        )
        shown.append(
            figure(
                thumbnail_of(photo),
                f"a photo of class {true}, taken for {said}",
                [
                    f"{said} {format_confidence(float(confidence[place]))}",
                    f"label {true}",
                    f"logits {logits}",
                    photo.name,
                ],
                _heat(looked, photo, answer, said) if looked and number < EXPLAINED else None,
            )
        )
    return [f'<div class="grid">{"".join(shown)}</div>'] if shown else []


def _heat(
    looked: Callable[[Photo, int], Image], photo: Photo, label: int, said: str
) -> tuple[str, str] | None:
    try:
        return address(thumbnail(looked(photo, label))), f"where the network saw a {said} on it"
    except PhotoError:
        return None
