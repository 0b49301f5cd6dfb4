"""`catordog softmax`: the small table that turns any logits into confidences."""

from __future__ import annotations

import math
from collections.abc import Sequence

from catordog.confidence.softmax import honest, percent, softmax
from catordog.confidence.verdict import judge
from catordog.errors import CatordogError
from catordog.terminal import table

_NAMES = ("dog", "cat")
"""Of the two logits that the examples give; more than two are numbered."""


def run(logits: Sequence[float], temperature: float, names: Sequence[str] | None) -> int:
    """Print a row for each logit: the logit, its power of e, the confidence, in words.

    Raises:
        CatordogError: there are fewer than two logits, or not as many names.
    """
    if len(logits) < 2:
        raise CatordogError("softmax compares logits: give two or more, such as 16.917 0.772")
    if names is None:
        names = _NAMES if len(logits) == 2 else [f"class {n}" for n in range(1, len(logits) + 1)]
    if len(names) != len(logits):
        raise CatordogError(f"{len(logits)} logits need as many names; got {len(names)}")
    confidences = softmax(logits, temperature)
    best = max(logits)
    opened, divided = ("", "") if temperature == 1 else ("(", f") / {temperature:g}")
    rows = [["class", "logit", f"e^({opened}logit − {best:g}{divided})", "confidence", ""]]
    for name, logit, confidence in zip(names, logits, confidences.tolist(), strict=True):
        power = math.exp((logit - best) / temperature)
        words = percent(confidence) if confidence >= 1e-4 else f"{confidence:.2g}"
        rows.append([name, f"{logit:g}", f"{power:.4g}", honest(confidence), words])
    print(table(rows, frozenset({1, 2, 3})))
    verdict = judge(logits, tuple(names), temperature=temperature)
    print(f"in words: {verdict.in_words()}")
    return 0
