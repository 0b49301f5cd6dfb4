"""Pages escape what comes from outside, and their templates are part of the package."""

from __future__ import annotations

from importlib.resources import files

import pytest
from jinja2 import UndefinedError

from catordog.report.figures import bars_figure, svg
from catordog.report.page import render


def test_the_templates_are_in_the_package():
    names = {file.name for file in (files("catordog.report") / "templates").iterdir()}
    assert names == {"audit.html", "base.html", "comparison.html", "evaluation.html",
                     "macros.html", "style.css"}  # fmt: skip


def test_a_missing_value_is_an_error_and_not_an_empty_place():
    with pytest.raises(UndefinedError):
        render("comparison.html")


def test_a_figure_escapes_its_words():
    drawing = svg(bars_figure(["<b>"], [3], "<i>"), 'a "chart" of <b>')
    assert 'aria-label="a &#34;chart&#34; of &lt;b&gt;"' in drawing
    assert "<b>" not in drawing
    assert "<i>" not in drawing
    assert "&lt;b&gt;" in drawing


def test_a_name_with_dollar_signs_is_no_formula():
    assert "$\\frac$" in svg(bars_figure([r"$\frac$"], [3], "x"), "chart")


def test_two_figures_on_a_page_share_no_id():
    import re

    drawings = [svg(bars_figure(["a"], [n], "x"), f"chart {n}") for n in (1, 2)]
    ids = [set(re.findall(r'id="([^"]+)"', drawing)) for drawing in drawings]
    assert not ids[0] & ids[1]
