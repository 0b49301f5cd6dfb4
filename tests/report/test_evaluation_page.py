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
from catordog.photos.corruptions import CORRUPTIONS, SEVERITIES, corrupt
from catordog.photos.synthetic import draw

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
    """Collects what a page asks for, and what its pictures say to those who can't see them."""

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


def test_it_is_self_contained_and_every_picture_has_words(evaluated):
    reader = Reader()
    reader.feed(evaluated[0].read_text("utf-8"))
    assert not reader.silent
    assert all(asked.startswith(("data:", "#")) for asked in reader.asked)
    assert len(reader.ids) == len(set(reader.ids))  # figures don't take each other's parts


def test_the_verdict_comes_first_and_each_figure_has_a_sentence(evaluated):
    text = evaluated[0].read_text("utf-8")
    verdict = text.index("are right</b>")
    assert verdict < text.index("<svg")
    assert text.index("confidences can") < text.index("<svg")
    sections = re.findall(r'<section id="([^"]+)"><h2>[^<]+</h2><p class="soft">([^<]+)</p>', text)
    names = "reliability margins confidence risk roc confusion mistakes unsure neither damage truth"
    assert {*names.split(), "figures"} == {name for name, _ in sections}
    assert all(len(words) > 10 for _, words in sections)


def test_drawn_pictures_are_held_against_the_truth(evaluated):
    error = evaluated[1]["truth"]
    assert 0 < error < 0.2  # a network that says one half to all is 0.35 off


def test_below_the_first_mistakes_is_where_the_network_looked(evaluated):
    page = evaluated[0].read_text("utf-8")
    mistakes = page[page.index('<section id="mistakes">') : page.index('<section id="unsure">')]
    looked = mistakes.count('alt="where the network saw a ')
    assert looked == min(12, mistakes.count("<figure>"))
    assert looked > 0


def test_damage_is_measured_and_costs_accuracy(evaluated):
    found = evaluated[1]["damage"]
    assert found["n"] == 400
    for kind in CORRUPTIONS:
        assert len(found[kind]["accuracy"]) == len(SEVERITIES) + 1
    assert found["noise"]["accuracy"][3] < found["noise"]["accuracy"][0]


@pytest.mark.parametrize("kind", CORRUPTIONS)
def test_more_damage_is_further_from_the_photo(kind):
    pixels = np.asarray(draw(3, size=96).image)
    distance = [
        np.abs(corrupt(pixels, kind, degree).astype(float) - pixels).mean() for degree in SEVERITIES
    ]
    assert 0 < distance[0] < distance[1] < distance[2]
    assert (corrupt(pixels, kind, 2, seed=5) == corrupt(pixels, kind, 2, seed=5)).all()


@in_a_browser
def test_nothing_is_wider_than_a_phone(evaluated):
    """The browser draws the page at a phone's width, and its right margin stays empty."""
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
    # A browser without a setting of the system's is told by its own: 1 is dark.
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
