"""The page of `catordog audit --html`: what needs a person's attention, the worst first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from catordog.photos.splits import SplitFractions
from catordog.report.figures import bars_figure, svg
from catordog.report.page import render

if TYPE_CHECKING:
    from markupsafe import Markup

    from catordog.evaluation.audit import Audit
    from catordog.photos.findings import Findings


def audit_page(result: Audit) -> str:
    """The page as HTML."""
    found = result.findings
    leaked, copy_groups = found.leak(SplitFractions())
    lists: list[Sequence[object]] = [
        found.contradictions, result.suspects, result.ood, found.failures, found.suspicious,
        found.near_copies, found.exact_copies,
    ]  # fmt: skip
    return render(
        "audit.html",
        result=result,
        found=found,
        problems=sum(len(each) for each in lists),
        leaked=leaked,
        copy_groups=copy_groups,
        facts=found.to_dict(),
        figures=_histograms(found),
    )


def _histograms(found: Findings) -> dict[str, Markup]:
    """Of the size and of the aspect ratio of the readable photos."""
    readable = [facts for facts in found.facts if facts]
    sizes = np.array([min(facts.width, facts.height) for facts in readable])
    edges = [0, 32, 64, 128, 256, 512, 1024, 2048, 2**31]
    names = ["< 32", "32–63", "64–127", "128–255", "256–511", "512–1023", "1024–2047", "≥ 2048"]
    size = bars_figure(names, np.histogram(sizes, edges)[0].tolist(), "shorter side, pixels")
    ratios = np.array([facts.width / facts.height for facts in readable])
    ratio_edges = [0, 0.5, 0.7, 0.9, 1.1, 1.4, 2, np.inf]
    names = ["< 0.5", "0.5–0.7", "0.7–0.9", "0.9–1.1", "1.1–1.4", "1.4–2", "≥ 2"]
    counts = np.histogram(ratios, ratio_edges)[0].tolist()
    aspect_ratio = bars_figure(names, counts, "width divided by height")
    return {
        "size": svg(size, "histogram of the shorter side"),
        "aspect_ratio": svg(aspect_ratio, "histogram of the aspect ratio"),
    }
