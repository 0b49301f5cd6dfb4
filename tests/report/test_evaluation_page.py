"""The page of `catordog evaluate --html`, in a real browser where there is one."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from catordog.cli import main
from catordog.evaluation.metrics import METRICS
from catordog.photos.corruptions import CORRUPTIONS, SEVERITIES, corrupt
from catordog.photos.synthetic import draw
from catordog.report.shown import EXPLAINED

BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
in_a_browser = pytest.mark.skipif(BROWSER is None, reason="no Chromium is installed")


@pytest.fixture(scope="module")
def evaluated(drawn_run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    page, figures = folder / "report.html", folder / "figures.json"
    words = ["evaluate", str(drawn_run.checkpoint), "--data", "drawn:n=3000,seed=9,morph=0.6"]
    assert main([*words, "--html", str(page), "--json", str(figures)]) == 0
    return page, json.loads(figures.read_text())


def browse(page, *options: str) -> str:
    words = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
             f"--user-data-dir={page.parent / 'profile'}", *options, page.as_uri()]  # fmt: skip
    ended = subprocess.run(words, capture_output=True, text=True, timeout=120, check=True)
    return ended.stdout


class Reader(HTMLParser):
    """Collects the requests of a page, its ids, and its pictures without a description."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []
        self.silent: list[str] = []
        self.ids: list[str] = []

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        for name in ("src", "href", "xlink:href"):
            if name in found:
                self.asked.append(found[name])
        if "id" in found:
            self.ids.append(found["id"])
        if tag == "img" and not found.get("alt"):
            self.silent.append(tag)
        if tag == "svg" and not found.get("aria-label"):
            self.silent.append(tag)


def test_it_is_self_contained_and_every_picture_has_a_description(evaluated):
    reader = Reader()
    reader.feed(evaluated[0].read_text("utf-8"))
    assert not reader.silent
    assert all(asked.startswith(("data:", "#")) for asked in reader.asked)
    assert len(reader.ids) == len(set(reader.ids))  # figures don't use each other's parts


def test_the_verdict_comes_first_and_each_section_is_explained(evaluated):
    text = evaluated[0].read_text("utf-8")
    verdict = text.index("of the predictions are right</b>")
    assert verdict < text.index("Its confidence is") < text.index("<svg")
    sections = re.findall(
        r'<section id="([^"]+)"><h2>[^<]+</h2>\s*<p class="soft">([^<]+)</p>', text
    )
    names = "reliability margins confidence risk roc confusion mistakes unsure ood robustness truth"
    assert [*names.split(), "metrics"] == [name for name, _ in sections]
    assert all(len(words) > 10 for _, words in sections)


def test_the_table_of_contents_links_to_every_section(evaluated):
    text = evaluated[0].read_text("utf-8")
    links = re.findall(r'<a href="#([^"]+)">', text)
    assert links == re.findall(r'<section id="([^"]+)">', text)


def test_every_metric_is_in_the_table(evaluated):
    text = evaluated[0].read_text("utf-8")
    for metric in METRICS:
        assert f"<td>{metric.title}</td>" in text
        assert metric.format(evaluated[1][metric.name]) in text


def test_synthetic_pictures_are_compared_with_their_true_probability(evaluated):
    error = evaluated[1]["truth"]
    assert 0 < error < 0.2  # a constant confidence of one half is 0.35 off


def test_the_first_mistakes_have_a_heat_map(evaluated):
    page = evaluated[0].read_text("utf-8")
    mistakes = page[page.index('<section id="mistakes">') : page.index('<section id="unsure">')]
    maps = mistakes.count('alt="the regions that are evidence for ')
    assert maps == min(EXPLAINED, mistakes.count("<figure>"))
    assert maps > 0


def test_corruptions_are_measured_and_cost_accuracy(evaluated):
    found = evaluated[1]["damage"]
    assert found["n"] == 400
    for kind in CORRUPTIONS:
        assert len(found[kind]["accuracy"]) == len(SEVERITIES) + 1
    assert found["noise"]["accuracy"][3] < found["noise"]["accuracy"][0]


@pytest.mark.parametrize("kind", CORRUPTIONS)
def test_a_higher_severity_is_further_from_the_photo(kind):
    pixels = np.asarray(draw(3, size=96).image)
    distance = [
        np.abs(corrupt(pixels, kind, severity).astype(float) - pixels).mean()
        for severity in SEVERITIES
    ]
    assert 0 < distance[0] < distance[1] < distance[2]
    assert (corrupt(pixels, kind, 2, seed=5) == corrupt(pixels, kind, 2, seed=5)).all()


@in_a_browser
def test_nothing_is_wider_than_a_phone(evaluated):
    """At the width of a phone, the right margin of the page stays empty."""
    page = evaluated[0]
    for width, name in ((390, "phone"), (1200, "desk")):
        file = page.parent / f"{name}.png"
        browse(page, f"--window-size={width},4000", f"--screenshot={file}")
        pixels = np.asarray(Image.open(file).convert("L"), dtype=int)
        assert pixels.shape == (4000, width)
        margin = pixels[:, -8:]
        assert margin.max() - margin.min() < 8, name
        assert pixels.std() > 20  # and something is drawn


@in_a_browser
def test_it_follows_a_dark_screen(evaluated):
    page = evaluated[0]
    light, dark = page.parent / "light.png", page.parent / "dark.png"
    browse(page, "--window-size=800,1200", f"--screenshot={light}")
    browse(
        page, "--window-size=800,1200", f"--screenshot={dark}",
        "--blink-settings=preferredColorScheme=0",
    )  # fmt: skip
    means = [np.asarray(Image.open(file).convert("L")).mean() for file in (light, dark)]
    assert means[0] > 200
    assert means[1] < 80


@in_a_browser
def test_it_prints(evaluated):
    page = evaluated[0]
    file = page.parent / "report.pdf"
    browse(page, f"--print-to-pdf={file}")
    assert file.read_bytes().startswith(b"%PDF")
    assert file.stat().st_size > 20_000
