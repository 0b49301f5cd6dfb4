"""The JavaScript module of the web page agrees with Python's softmax and format_percent."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from importlib.resources import files

import numpy as np
import pytest

from catordog.confidence import format_percent, softmax
from catordog.web.pages import render

NODE = shutil.which("node")
MODULE = files("catordog.web") / "static" / "softmax.js"
PROGRAM = """
import { readFileSync } from "node:fs";
import { pathToFileURL } from "node:url";
const { softmax, formatPercent } = await import(pathToFileURL(process.argv[1]));
const given = JSON.parse(readFileSync(0, "utf8"));
const rows = given.rows.map(([logits, temperature]) => softmax(logits, temperature));
console.log(JSON.stringify({ rows, texts: given.confidences.map(formatPercent) }));
"""

pytestmark = pytest.mark.skipif(NODE is None, reason="node is not installed")


def run(rows: list, confidences: list[float]) -> tuple[list[list[float]], list[str]]:
    """Softmax of rows of logits and temperatures, and confidences as text, in JavaScript."""
    assert NODE is not None
    ended = subprocess.run(
        [NODE, "--input-type=module", "-e", PROGRAM, str(MODULE)],
        input=json.dumps({"rows": rows, "confidences": confidences}),
        capture_output=True, text=True, encoding="utf-8", check=True, timeout=60,
    )  # fmt: skip
    found = json.loads(ended.stdout)
    return found["rows"], found["texts"]


def test_confidences_agree_with_python():
    random = np.random.default_rng(0)
    logits = [
        [16.917, 0.772], [1.004, 0.709], [0.0, 0.0], [5.0], [1e4, -1e4], [1e308, -1e308, 0.0],
        *(random.normal(0, 10**scale, 4).tolist() for scale in range(-3, 5)),
    ]  # fmt: skip
    rows = [(row, temperature) for row in logits for temperature in (0.01, 0.1, 1.0, 2.5, 100.0)]
    found, _ = run(rows, [])
    for row, (raw, temperature) in zip(found, rows, strict=True):
        assert row == pytest.approx(softmax(raw, temperature).tolist(), rel=1e-12, abs=1e-300)


def test_percentages_are_the_same_text_as_in_python():
    random = np.random.default_rng(1)
    small = 10 ** -random.uniform(0, 17, 500)
    edges = [0, 1, 0.9, 0.0095, 0.00949999, 0.005, 0.105, 0.115, 0.5732, 0.9989, 0.99904, 0.999]
    edges += [10.0**-digits for digits in range(1, 19)] + [
        1 - 10.0**-digits for digits in range(17)
    ]
    edges += [float(np.nextafter(1, 0)), float(np.nextafter(0, 1)), 9.7e-08, 1 - 9.7e-08]
    confidences = [*edges, *small.tolist(), *(1 - small).tolist(), *random.random(500).tolist()]
    _, texts = run([], confidences)
    assert texts == [format_percent(confidence) for confidence in confidences]


def test_no_confidence_reads_as_certain_anywhere_on_the_slider():
    """The slider multiplies a temperature by up to 100, or divides it."""
    page = render("index.html")
    slider = re.search(r'<input id="temperature"[^>]*>', page)
    assert slider, page
    low, high = (float(re.search(rf'{end}="([^"]+)"', slider[0])[1]) for end in ("min", "max"))
    factors = 10.0 ** np.linspace(low, high, 81)
    pairs = [[16.917, 0.772], [1.004, 0.709], [80.0, -80.0], [0.001, 0.0], [3e3, 1.0, 2.0]]
    rows = [(pair, own * factor) for pair in pairs for own in (0.3, 1.388, 7.0)
            for factor in factors.tolist()]  # fmt: skip
    found, _ = run(rows, [])
    _, texts = run([], [confidence for row in found for confidence in row])
    expected = [format_percent(p) for row in found for p in row]
    assert texts == expected
    assert not {"100 %", "0 %"} & set(texts)
    assert not any(text.startswith(("100.", "1e")) for text in texts)
    for row, (logits, temperature) in zip(found, rows, strict=True):
        assert row == pytest.approx(softmax(logits, temperature).tolist(), rel=1e-9, abs=1e-300)


@pytest.mark.parametrize("temperature", [1.0, 0.1, 0.01])
def test_no_confidence_reads_as_certain(temperature):
    (row,), _ = run([([16.917, 0.772], temperature)], [])
    _, texts = run([], row)
    assert texts[0].removeprefix("> ").startswith("99.99999")
    assert texts[1] not in ("0 %", "100 %")
