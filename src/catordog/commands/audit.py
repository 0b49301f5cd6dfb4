"""`catordog audit`: find problems in a photo folder."""

from __future__ import annotations

import json
from pathlib import Path

from catordog.evaluation.audit import Audit, judge_labels
from catordog.files import write_text
from catordog.photos.datasets import open_data
from catordog.photos.decode import DEFAULT_RULES, DecodeRules
from catordog.photos.findings import audit as look
from catordog.report.audit_text import fix_list, report
from catordog.terminal import say


def run(
    data: str,
    model: str | None,
    html_file: str | None,
    json_file: str | None,
    fix_file: str | None,
    rules: DecodeRules = DEFAULT_RULES,
) -> int:
    """`catordog audit`. Returns 1 if a photo could not be read, else 0."""
    photo_set = open_data(data, rules=rules)
    classifier = None
    if model is not None:
        from catordog.model.classifier import load

        classifier = load(model)  # says what is wrong with it before any photo is read
    result = Audit(look(photo_set))
    if classifier is not None:
        result = judge_labels(result.findings, classifier, model or "")
    if json_file:
        text = json.dumps(result.to_dict(), indent=1, ensure_ascii=False, allow_nan=False)
        write_text(Path(json_file), text + "\n")
    if fix_file:
        write_text(Path(fix_file), fix_list(result))
    if html_file:
        from catordog.report.audit_page import audit_page

        write_text(Path(html_file), audit_page(result))
    print(report(result))
    for what, file in (("page", html_file), ("JSON", json_file), ("fix list", fix_file)):
        if file:
            say(f"{what}: {file}")
    return 1 if result.findings.unreadable else 0
