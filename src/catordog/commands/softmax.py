"""`catordog softmax`: turn raw logits into confidences, step by step."""

from __future__ import annotations

import argparse

DESCRIPTION = (
    """Turn raw logits into confidences, step by step. Try: catordog softmax 16.917 0.772"""
)

_NAMES = ("dog", "cat")
"""The default class names of two logits; more than two are numbered."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this command."""
    parser.add_argument(
        "logits", nargs="+", type=float, metavar="LOGIT", help="two or more raw logits"
    )
    parser.add_argument(
        "--temperature",
        type=float,
        default=1.0,
        metavar="T",
        help="divide the logits by this: above 1 softens, below 1 sharpens (default: 1)",
    )
    parser.add_argument("--names", nargs="+", metavar="NAME", help="class names (default: dog cat)")


def run(args: argparse.Namespace) -> int:
    """Print a row per logit: the logit, its exponential, the confidence. Returns 0."""
    import math

    from catordog.confidence.softmax import format_confidence, format_percent, softmax
    from catordog.confidence.verdict import judge
    from catordog.errors import CatordogError
    from catordog.terminal import table

    logits, temperature, names = args.logits, args.temperature, args.names
    if len(logits) < 2:
        raise CatordogError("softmax compares logits: give two or more, such as 16.917 0.772")
    if names is None:
        names = _NAMES if len(logits) == 2 else [f"class {n}" for n in range(1, len(logits) + 1)]
    if len(names) != len(logits):
        raise CatordogError(f"{len(logits)} logits need as many names; --names gives {len(names)}")
    confidences = softmax(logits, temperature)
    best = max(logits)
    opened, divided = ("", "") if temperature == 1 else ("(", f") / {temperature:g}")
    rows = [["class", "logit", f"e^({opened}logit − {best:g}{divided})", "confidence", ""]]
    for name, logit, confidence in zip(names, logits, confidences.tolist(), strict=True):
        power = math.exp((logit - best) / temperature)
        words = format_percent(confidence) if confidence >= 1e-4 else f"{confidence:.2g}"
        rows.append([name, f"{logit:g}", f"{power:.4g}", format_confidence(confidence), words])
    print(table(rows, frozenset({1, 2, 3})))
    verdict = judge(logits, tuple(names), temperature=temperature)
    print(f"in words: {verdict.in_words()}")
    return 0
