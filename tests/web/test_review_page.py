"""`catordog review` as a process: its page in a real browser, and decisions that survive a kill."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from catordog.photos.decisions import read_decisions
from conftest import named, wait_until, write_folder

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)


class Review:
    """A process of `catordog review` on some photos, which can be killed and started again."""

    def __init__(self, data: Path, *words: str) -> None:
        self.data, self.words = data, words
        self.file = data.with_name(f"{data.name}-decisions.jsonl")
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "catordog", "review", "--data", str(self.data), "--port", "0",
             *self.words],
            stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        lines = []
        for line in self.process.stderr:
            lines.append(line)
            if found := re.match(r"(http://127\.0\.0\.1:\d+/[\w-]{32}/)", line):
                self.url = found[1]
                return
        raise AssertionError("".join(lines))

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(20)

    def actions(self) -> list[tuple[str, str]]:
        """Path and action of every decision, in their order."""
        if not self.file.exists():
            return []
        rows = map(json.loads, self.file.read_text("utf-8").splitlines())
        return [(row["path"], row["label"] if row["action"] == "relabel" else row["action"])
                for row in rows]  # fmt: skip


def pets(folder: Path, n: int) -> Path:
    """Photos of cats and dogs, a copy of a cat, and a file that is no photo."""
    files = {f"{name[:3]}/{name}": data for name, data in named(n).items()}
    files["cat/copy.jpg"] = files["cat/cat.1.jpg"]
    files["dog/broken.jpg"] = b"no photo"
    return write_folder(folder / "pets", files)


@pytest.fixture(scope="module")
def review(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Review]:
    started = Review(pets(tmp_path_factory.mktemp("review"), 12))
    yield started
    started.process.send_signal(signal.SIGINT)
    assert started.process.wait(60) == 0


@pytest.fixture(scope="module")
def browser() -> Iterator[object]:
    if CHROMIUM is None:
        pytest.skip("no Chromium is installed")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox"] if os.name == "posix" else []
        )
        yield browser
        browser.close()


@pytest.fixture
def page(browser, review) -> Iterator[object]:
    context = browser.new_context(viewport={"width": 1100, "height": 700})
    context.set_default_timeout(60_000)
    page = context.new_page()
    asked: list[str] = []
    wrong: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.goto(review.url)
    page.locator(".cell").first.wait_for()
    yield page
    assert wrong == []
    assert [url for url in asked if not url.startswith((review.url, "data:"))] == []
    context.close()


def open_queue(page, name: str) -> None:
    page.locator(f"[data-queue={name}]").click()
    page.wait_for_function(
        "name => document.querySelector(`[data-queue=${name}]`).getAttribute('aria-current') "
        "=== 'true' && document.querySelector('.cell.current')", arg=name,
    )  # fmt: skip


def press(page, key: str) -> str:
    """Press a key in the large view, wait for another photo, and return its name."""
    before = page.locator("#name").inner_text()
    page.keyboard.press(key)
    page.wait_for_function(
        "name => document.querySelector('#name').textContent !== name", arg=before
    )
    return page.locator("#name").inner_text()


def test_each_decision_is_on_disk_before_the_next_photo_shows(page, review):
    open_queue(page, "random")
    page.keyboard.press("Enter")
    page.locator("#stage img.photo").wait_for()
    name = page.locator("#name").inner_text()
    for key, action in (("k", "keep"), ("1", None), ("x", "leave_out"), ("s", "skip"),
                        ("Enter", "keep")):  # fmt: skip
        following = press(page, key)
        wanted = action or ("keep" if name.startswith("cat/") else "cat")
        assert review.actions()[-1] == (name, wanted)
        name = following
    decided = review.actions()
    for path, _ in reversed(decided):
        assert press(page, "u") == path
        assert review.actions()[-1] == (path, "clear")
    for path, action in decided:
        page.keyboard.press("Control+y")
        wait_until(lambda p=path, a=action: review.actions()[-1] == (p, a), f"redone: {path}")
    found = read_decisions(review.file)
    assert [found[path].action for path, _ in decided][:1] == ["keep"]
    assert len(review.actions()) == 15  # the history is kept


def test_undo_survives_a_reload(page, review):
    open_queue(page, "all")
    page.keyboard.press("Enter")
    page.locator("#large").wait_for()
    press(page, "x")
    path, action = review.actions()[-1]
    assert action == "leave_out"
    page.reload()
    page.locator(".cell").first.wait_for()
    page.keyboard.press("u")
    wait_until(lambda: review.actions()[-1] == (path, "clear"), "the decision is undone")


def test_keys_act_on_what_has_the_focus(page, review):
    open_queue(page, "all")
    page.locator(".cell.current").focus()
    for _ in range(2):
        page.keyboard.press("Tab")
    focused = page.evaluate("document.activeElement.item.name ?? document.activeElement.title")
    assert page.evaluate("document.activeElement.classList.contains('current')"), focused
    page.keyboard.press("Enter")
    page.locator("#large").wait_for()
    page.locator("#actions button", has_text="leave out").focus()
    page.keyboard.press("Enter")
    wait_until(lambda: review.actions() and review.actions()[-1][1] == "leave_out", "it is stored")
    page.keyboard.press("u")
    wait_until(lambda: review.actions()[-1][1] == "clear", "it is undone")


def test_of_copies_one_is_kept_and_another_tab_sees_it(page, review):
    other = page.context.new_page()
    other.goto(review.url)
    page.locator("[data-queue=copies]").wait_for()
    open_queue(page, "copies")
    page.keyboard.press("Enter")
    page.locator("#stage figure").nth(1).wait_for()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    page.locator("#grid .cell.decided").first.wait_for()  # the end of the queue
    assert review.actions()[-2:] == [("cat/cat.1.jpg", "leave_out"), ("cat/copy.jpg", "keep")]
    other.locator("[data-queue=copies] .count", has_text="2 / 2").wait_for()
    other.locator("[data-queue=copies]").click()
    other.locator(".cell.decided", has_text="left out").wait_for()


def test_all_of_these_asks_first_and_is_one_step_to_undo(page, review):
    page.locator("[data-queue=unreadable]").wait_for()
    open_queue(page, "all")
    page.locator("#filter").select_option("dog")
    page.wait_for_function(
        "() => document.querySelector('.cell.current') && "
        "[...document.querySelectorAll('.cell')].every(x => x.item.label === 'dog')"
    )
    before = len(review.actions())
    page.keyboard.press("A")
    page.locator("dialog#all[open]").wait_for()
    assert len(review.actions()) == before
    page.keyboard.press("x")
    page.wait_for_function("() => [...document.querySelectorAll('.cell')].every("
                           "x => x.classList.contains('decided'))")  # fmt: skip
    added = review.actions()[before:]
    assert {action for _, action in added} == {"leave_out"}
    assert all(path.startswith("dog/") for path, _ in added)
    assert len(added) > 1
    page.keyboard.press("u")
    wait_until(lambda: len(review.actions()) == before + 2 * len(added), "all are undone")


def test_a_photo_is_found_by_name_and_its_logits_and_heat_map_are_shown(page):
    page.keyboard.press("/")
    page.locator("#words").fill("dog.2")
    page.keyboard.press("Enter")
    page.locator("#name", has_text="dog/dog.2.jpg").wait_for()
    page.locator("#model .bar").nth(1).wait_for()
    assert "logit" in page.locator("#model .bar").first.inner_text()
    page.keyboard.press("e")
    page.locator("#stage .heat").wait_for()
    page.keyboard.press("e")
    page.locator("#stage .heat").wait_for(state="detached")
    page.keyboard.press("?")
    assert "undo" in page.locator("dialog#help").inner_text()


def test_it_works_by_touch_on_a_phone(browser, review):
    context = browser.new_context(viewport={"width": 390, "height": 844}, has_touch=True)
    context.set_default_timeout(60_000)
    page = context.new_page()
    page.goto(review.url)
    page.locator("[data-queue=all]").tap()
    page.locator(".cell").nth(4).tap()
    page.locator("#stage img.photo").wait_for()
    name = page.locator("#name").inner_text()
    page.locator("#actions [data-class=dog]").tap()
    page.wait_for_function("x => document.querySelector('#name').textContent !== x", arg=name)
    assert review.actions()[-1] == (name, "dog")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    context.close()


def test_after_a_kill_the_next_review_continues(browser, tmp_path):
    review = Review(pets(tmp_path, 6))
    page = browser.new_page()
    page.goto(review.url)
    page.locator("[data-queue=random]").click()
    page.locator(".cell.current").wait_for()
    page.keyboard.press("Enter")
    page.locator("#stage figure").wait_for()
    names = [page.locator("#name").inner_text()]
    names += [press(page, key) for key in "kx"]
    review.kill()
    page.keyboard.press("k")
    page.locator("#error", has_text="Not stored").wait_for()
    assert page.locator("#name").inner_text() == names[2]  # it has not moved on
    assert review.actions() == [(names[0], "keep"), (names[1], "leave_out")]
    review.start()
    try:
        state = httpx.get(review.url + "state").json()
        assert sorted(each["action"] for each in state["changes"].values()) == ["keep", "leave_out"]
    finally:
        review.kill()
        page.close()


SERVER = """
import sys
from pathlib import Path
from catordog.photos.datasets import open_dataset
from catordog.web.listening import host_check, listen, serve_until_interrupted
from catordog.web.review import create_review_app
from catordog.web.review_session import ReviewSession
from catordog.web.review_work import ReviewWork
session = ReviewSession(open_dataset(sys.argv[1]), Path(sys.argv[2]))
listener, address = listen("127.0.0.1", 0)
print(address, flush=True)
app = create_review_app(ReviewWork(session), "token", host_check("127.0.0.1"))
serve_until_interrupted(app, listener)
"""


@pytest.mark.slow
def test_each_of_many_classes_has_keys(browser, tmp_path):
    picture = named(2)["cat.0.jpg"]
    classes = [*"0123456789", "ant lion", "Bée"]
    data = write_folder(tmp_path / "things", {f"{name}/1.jpg": picture for name in classes})
    file = tmp_path / "decisions.jsonl"
    process = subprocess.Popen(
        [sys.executable, "-c", SERVER, str(data), str(file)], stdout=subprocess.PIPE, text=True
    )
    context = browser.new_context()
    context.set_default_timeout(60_000)
    page = context.new_page()
    try:
        page.goto(process.stdout.readline().strip() + "/token/")
        page.locator("[data-queue=all]").click()
        page.locator(".cell.current").wait_for()
        page.keyboard.press("Enter")
        page.locator("#stage figure").wait_for()
        keys = page.locator("#actions [data-class] kbd").all_inner_texts()
        assert keys == list("0123456789")  # those of the names, and not of the order
        for letters in ("7", "0", "li", "bee"):
            name = page.locator("#name").inner_text()
            if len(letters) == 1:
                page.keyboard.press(letters)
            else:
                page.keyboard.press("c")
                page.keyboard.type(letters)
                page.keyboard.press("Enter")
            page.wait_for_function(
                "x => document.querySelector('#name').textContent !== x", arg=name
            )
        page.keyboard.press("c")
        page.keyboard.type("zebra")
        page.keyboard.press("Enter")  # no class of this name: the box stays open
        assert "no class has this name" in page.locator("dialog#class[open]").inner_text()
        page.keyboard.press("Escape")
        page.locator("dialog#class").wait_for(state="hidden")
        page.keyboard.press("?")
        assert "first letters of a class" in page.locator("dialog#help[open]").inner_text()
        labels = [json.loads(line)["label"] for line in file.read_text("utf-8").splitlines()]
        assert labels == ["7", "0", "ant lion", "bée"]
    finally:
        context.close()
        process.kill()
        process.wait(20)


@pytest.mark.slow
def test_three_hundred_photos_are_judged_by_keyboard(browser, tmp_path):
    files = {f"{name[:3]}/{name}": data for name, data in named(300).items()}
    review = Review(write_folder(tmp_path / "pets", files))
    page = browser.new_page()
    page.goto(review.url)
    page.locator("[data-queue=random]").click()
    page.locator(".cell.current").wait_for()
    page.keyboard.press("Enter")
    page.locator("#stage figure").wait_for()
    keys = random.Random(1)
    try:
        for _ in range(299):
            press(page, keys.choice("kk12xs"))
        page.keyboard.press("k")
        wait_until(lambda: len(review.actions()) == 300, "the last decision")
        assert len(read_decisions(review.file)) == 300
    finally:
        review.kill()
        page.close()


@pytest.mark.slow
def test_of_ten_thousand_decisions_twenty_kills_lose_none(tmp_path):
    file = tmp_path / "decisions.jsonl"
    chance = random.Random(0)
    stored: list[tuple[int, str]] = []
    answered: dict[int, str] = {}
    while len(stored) < 10_000:
        process = subprocess.Popen(
            [sys.executable, "-c", SERVER, "drawn:n=400,size=16", str(file)],
            stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        url = process.stdout.readline().strip() + "/token/"
        kill_at = len(stored) + chance.randrange(300, 500)
        killer = threading.Timer(3600, process.kill)
        with httpx.Client(timeout=60) as client:
            state = client.get(url + "state").json()["changes"]
            shown = {int(index): each and each["action"] for index, each in state.items()}
            for index, action in answered.items():
                assert shown[index] == action
            try:
                while len(stored) < 10_000:
                    if len(stored) == kill_at:  # somewhere in the next requests
                        killer = threading.Timer(chance.uniform(0, 0.05), process.kill)
                        killer.start()
                    index, action = chance.randrange(400), chance.choice(["keep", "leave_out"])
                    answered.pop(index, None)  # unknown until it is answered
                    choices = {"choices": [{"id": index, "action": action}]}
                    client.post(url + "decisions", json=choices).raise_for_status()
                    stored.append((index, action))
                    answered[index] = action
            except httpx.TransportError:
                pass
        killer.cancel()
        process.kill()
        process.wait(20)
        lines = [json.loads(x)["action"] for x in file.read_text().split("\n") if x.endswith("}")]
        assert len(stored) <= len(lines) <= len(stored) + 40
    names = sorted(read_decisions(file))
    assert len(names) == 400
