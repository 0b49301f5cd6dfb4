"""`catordog compare`: several models on the same held-out photos."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from catordog.evaluation.compare import compare
from catordog.files import write_text
from catordog.photos.decode import DEFAULT_RULES, DecodeRules
from catordog.photos.splits import Split
from catordog.report.comparison_text import report
from catordog.terminal import say


def run(
    models: Sequence[str],
    data: str,
    split: str,
    json_file: str | None,
    html_file: str | None,
    exclude: str | None = None,
    rules: DecodeRules = DEFAULT_RULES,
) -> int:
    """`catordog compare`. Returns 1 if a photo could not be read, else 0."""
    which: Split | Literal["all"] = split  # type: ignore[assignment]  # the parser has checked it
    result = compare(models, data, which, exclude=exclude, rules=rules)
    if json_file:
        write_text(Path(json_file), json.dumps(result.to_dict(), indent=2, allow_nan=False) + "\n")
    if html_file:
        from catordog.report.comparison_page import comparison_page

        write_text(Path(html_file), comparison_page(result))
    print(report(result))
    failures = result.results[0].failures
    for failure in failures:
        say(f"can't be read: {failure}")
    return 1 if failures else 0
