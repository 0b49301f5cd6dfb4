"""Refuse class names that can't be told from a verdict, or can't be printed on one line."""

from __future__ import annotations

from collections.abc import Iterable

from catordog.errors import CatordogError
from catordog.escaping import printable

VERDICTS = ("not sure", "neither")
"""The verdicts besides class names, as in `confidence.verdict`, which `photos` doesn't import."""


def check_class_names(what: str, classes: Iterable[str]) -> None:
    """Check the names of the classes of a dataset or a network.

    Args:
        what: has these classes; it starts the error.
        classes: names of classes.

    Raises:
        CatordogError: a name is empty, repeated, a verdict, or has control characters.
    """
    seen: set[str] = set()
    for name in classes:
        if name.strip().casefold() in VERDICTS:
            reason = f"is a verdict, as {' and '.join(map(repr, VERDICTS))} are"
        elif not name.strip():
            reason = "is empty"
        elif printable(name) != name:
            reason = "has a line break or another control character"
        elif name in seen:
            reason = "is there twice"
        else:
            seen.add(name)
            continue
        raise CatordogError(
            f"{what}: the class name '{printable(name)}' {reason}: rename its folder or label"
        )
