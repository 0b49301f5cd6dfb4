"""Predictions: the label, confidences and verdict that follow from raw logits."""

from __future__ import annotations

import base64
import math
from dataclasses import dataclass, field
from html import escape
from typing import Any

import numpy as np
import numpy.typing as npt

from catordog.confidence.conformal import prediction_set
from catordog.confidence.ood import ACCEPT
from catordog.confidence.softmax import format_percent, softmax
from catordog.errors import CatordogError

NOT_SURE = "not sure"
NEITHER = "neither"

_OUTSIDE = math.log(0.05) / math.log(0.97)
"""a of `one_class_confidence`."""

DEFAULT_THRESHOLD = 0.8
"""Below this confidence the verdict is `not sure`."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """A classifier's prediction for one photo.

    Attributes:
        label: the class with the highest logit.
        confidence: its softmax, 0…1; for a model of one class see `one_class_confidence`.
        confidences: of every class, in class order, with a sum of 1 unless there is one class.
        logits: raw, of every class.
        verdict: the label (see `class_verdict`); `not sure` where the confidence is below the
            threshold; `neither` where the photo is out-of-distribution: it shows none of the
            classes.
        ood_score: see `OodDetector.scores`, 0…1; None where the model has no ood detector.
        also: other classes that the photo shows beside the label, in class order; None where the
            model can't tell: it has no regional evidence.
        picture: a thumbnail as a JPEG file, for notebooks; None elsewhere.
    """

    label: str
    confidence: float
    confidences: dict[str, float]
    logits: dict[str, float]
    verdict: str
    ood_score: float | None = None
    also: tuple[str, ...] | None = None
    picture: bytes | None = field(default=None, repr=False, compare=False)

    def in_words(self) -> str:
        """The verdict as text: `dog 99.99 %`, or `not sure (dog 57 %)`.

        >>> Prediction("dog", 0.5732, {}, {}, "not sure").in_words()
        'not sure (dog 57 %)'
        >>> Prediction("dog", 0.9999, {}, {}, "neither").in_words()
        'neither (dog 99.99 %)'
        >>> Prediction("dog", 0.9101, {}, {}, "dog", also=("cat",)).in_words()
        'dog 91 %, also cat'
        """
        # No article: a class can have any name.
        text = ", also ".join(
            [f"{self.label} {format_percent(self.confidence)}", *(self.also or ())]
        )
        return text if self.verdict == self.label else f"{self.verdict} ({text})"

    def _repr_html_(self) -> str:
        """The photo with a bar per class beside it, for notebooks."""
        rows = "".join(
            f"<tr><td>{escape(name)}</td><td style='width:10em'><div style='background:#2b6cb0;"
            f"height:.8em;width:{100 * confidence:.2f}%'></div></td>"
            f"<td>{format_percent(confidence)}</td>"
            f"<td style='opacity:.7'>logit {self.logits[name]:.3f}</td></tr>"
            for name, confidence in self.confidences.items()
        )
        image = ""
        if self.picture is not None:
            data = base64.b64encode(self.picture).decode()
            image = f"<img src='data:image/jpeg;base64,{data}' alt='' style='max-height:8em'>"
        return (
            f"<div style='display:flex;gap:1em;align-items:center'>{image}<div><b>"
            f"{escape(self.in_words())}</b><table>{rows}</table></div></div>"
        )

    def to_dict(self) -> dict[str, Any]:
        """The keys of `catordog predict --format jsonl`, except `path` and `error`.

        `also` is there only where the photo shows another class, too.
        """
        also = {"also": list(self.also)} if self.also else {}
        return {
            "label": self.label,
            "confidence": self.confidence,
            "confidences": self.confidences,
            "logits": self.logits,
            "verdict": self.verdict,
            **also,
        }


def judge(
    logits: npt.ArrayLike,
    classes: tuple[str, ...],
    *,
    temperature: float = 1.0,
    threshold: float = DEFAULT_THRESHOLD,
    quantile: float | None = None,
    ood_score: float | None = None,
    accept: float = ACCEPT,
    regions: npt.ArrayLike | None = None,
) -> Prediction:
    """Make a prediction from the raw logits `[C]` of one photo.

    Args:
        logits: raw logits, one for each class.
        classes: their names, in the same order.
        temperature: see `softmax`.
        threshold: below this confidence the verdict is `not sure`, 0…1.
        quantile: decide by the prediction set instead, 0…1 (see `conformal.quantile`): the verdict
            is its only class; `not sure` for several classes, `neither` for none.
        ood_score: see `OodDetector.scores`, 0…1.
        accept: true-accept rate, 0…1: for a higher `ood_score` the verdict is `neither`, whatever
            the confidence.
        regions: regional evidence of each class, `[C]`, above 0 where the photo shows it; None: the
            model has none.

    >>> judge([0.709, 1.004], ("cat", "dog")).in_words()
    'not sure (dog 57 %)'
    """
    raw = np.asarray(logits, dtype=np.float64)
    confidences = softmax(raw, temperature)
    if len(classes) == 1 and ood_score is not None:  # softmax of one logit is always 1
        confidences = np.array([one_class_confidence(ood_score)])
    # By the logits, which have an order also where float64 rounds two confidences to one number.
    best = int(raw.argmax())
    confidence = float(confidences[best])
    answer = class_verdict(classes[best])
    verdict = answer if confidence >= threshold else NOT_SURE
    if quantile is not None:
        possible = int(prediction_set(confidences, quantile).sum())
        verdict = NEITHER if not possible else answer if possible == 1 else NOT_SURE
    if ood_score is not None and ood_score > accept:
        verdict = NEITHER
    also = None if regions is None else () if verdict == NEITHER else _also(regions, classes, best)
    return Prediction(
        label=classes[best],
        confidence=confidence,
        confidences=dict(zip(classes, confidences.tolist(), strict=True)),
        logits=dict(zip(classes, raw.tolist(), strict=True)),
        verdict=verdict,
        ood_score=ood_score,
        also=also,
    )


def _also(regions: npt.ArrayLike, classes: tuple[str, ...], best: int) -> tuple[str, ...]:
    """The other classes that a photo shows, if it shows the one with the highest logit."""
    shown = np.asarray(regions, dtype=np.float64) > 0
    # Where not even the label has evidence, that of another class means a wrong label, not two.
    if not shown[best]:
        return ()
    return tuple(name for i, name in enumerate(classes) if shown[i] and i != best)


def one_class_confidence(ood_score: float) -> float:
    """The confidence that a photo shows the only class of a model, from its ood score.

    Among photos of the class, ood scores are uniform in 0…1. Of other photos, 1 % are taken for as
    typical as these, and the rest for those of a density `a·uᵃ⁻¹`, of which 5 % lie below 0.97: an
    assumption. Where every second photo shows the class, Bayes' rule gives the confidence.

    Args:
        ood_score: u, 0…1.

    Returns:
        In 0.01…0.99.

    >>> [round(one_class_confidence(u), 2) for u in (0.5, 0.9, 0.954, 1.0)]
    [0.99, 0.99, 0.5, 0.01]
    """
    outside: float = 0.01 + 0.99 * _OUTSIDE * ood_score ** (_OUTSIDE - 1)
    return 1 / (1 + outside)


def class_verdict(label: str) -> str:
    """The verdict for a class: its name.

    New datasets can't have a class called `neither` or `not sure`. A model file that has one keeps
    it apart from the verdict of that name, in rows as well as in folders.

    >>> class_verdict("dog"), class_verdict("neither")
    ('dog', 'class neither')
    """
    return f"class {label}" if label in {NOT_SURE, NEITHER} else label


def check_rules(threshold: float | None, error_rate: float | None, accept: float | None) -> None:
    """Check the options that decide verdicts; None stands for a default.

    Raises:
        CatordogError: a value is out of its range, or two of them contradict each other.
    """
    if threshold is not None and not 0 <= threshold <= 1:
        raise CatordogError(f"--threshold {threshold} is not a confidence within 0…1")
    if accept is not None and not 0 < accept <= 1:
        raise CatordogError(f"--accept {accept} is not a fraction within 0…1")
    if threshold is not None and error_rate is not None:
        raise CatordogError("--threshold and --error-rate both decide the verdict: give one")
