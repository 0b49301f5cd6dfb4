"""The page `/teach` and its API: own classes from photos in a browser, kept in memory only."""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Callable, Iterator

import httpx
import pytest
import uvicorn

import catordog
from catordog.web.app import create_app
from catordog.web.batches import BusyError
from catordog.web.limits import Limits
from catordog.web.sessions import Sessions
from catordog.web.teaching import SESSION
from conftest import jpeg
from web.test_serve import CHROMIUM, url  # noqa: F401 - the fixture

NAMES = {"classes": {"0": "cat", "1": "dog"}}


@pytest.fixture(scope="module")
def client() -> Iterator[httpx.Client]:
    """A client of a server with low limits."""
    limits = Limits(session_photos=12, session_classes=3)
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(create_app(catordog.load(), limits), log_level="error"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    address = f"http://127.0.0.1:{listener.getsockname()[1]}"
    with httpx.Client(base_url=address, timeout=120) as client:
        yield client
    server.should_exit = True
    thread.join(60)


@pytest.fixture
def ask(client) -> Iterator[Callable[..., httpx.Response]]:
    """Requests of a new session."""
    opened = client.post("/teach/session").json()
    headers = {SESSION: opened["session"]}

    def ask(method: str, path: str, **options: object) -> httpx.Response:
        return client.request(method, f"/teach/{path}", headers=headers, **options)

    yield ask
    assert ask("DELETE", "session").status_code == 204


def form(*photos: bytes) -> list[tuple[str, tuple[str, bytes]]]:
    return [("files", (f"{index}.jpg", photo)) for index, photo in enumerate(photos)]


def add(ask: Callable[..., httpx.Response], group: int, *photos: bytes) -> list[dict]:
    answer = ask("POST", f"photos?group={group}", files=form(*photos))
    assert answer.status_code == 200, answer.text
    return answer.json()


def taught(ask: Callable[..., httpx.Response]) -> dict:
    """Four cats and four dogs, learnt."""
    for group in (0, 1):
        rows = add(ask, group, *(jpeg(2 * index + group) for index in range(4)))
        assert [row["error"] for row in rows] == [None] * 4
    answer = ask("POST", "learn", json=NAMES)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_it_learns_predicts_and_gives_the_file_that_predicts_the_same(ask, tmp_path):
    report = taught(ask)
    assert report["classes"] == {"cat": 4, "dog": 4}
    assert 0 <= report["interval"][0] <= report["accuracy"] <= report["interval"][1] <= 1
    photo = jpeg(20, size=200)
    row = ask("POST", "predict", files=form(photo)).json()[0]
    content = ask("GET", "model")
    assert content.headers["content-disposition"] == 'attachment; filename="taught.onnx"'
    (tmp_path / "taught.onnx").write_bytes(content.content)
    classifier = catordog.load(tmp_path / "taught.onnx")
    prediction = classifier.predict(photo)
    assert row["verdict"] == prediction.verdict
    # Features are rounded to 16 bits before a layer sees them.
    assert row["logits"] == pytest.approx(prediction.logits, abs=1e-2)


def test_more_photos_renamed_and_removed_classes_are_learnt_again(ask):
    taught(ask)
    ids = [row["id"] for row in add(ask, 2, *(jpeg(index, size=90) for index in range(3)))]
    names = {"classes": {"0": "cat", "1": "hound", "2": "fox"}}
    assert ask("POST", "learn", json=names).json()["classes"] == {"cat": 4, "hound": 4, "fox": 3}
    assert ask("DELETE", "photos?photo=" + ",".join(ids)).status_code == 204
    assert ask("POST", "learn", json=names).json()["classes"] == {"cat": 4, "hound": 4}


@pytest.mark.parametrize("ids", ["9" * 5000, "1," + "9" * 21, "cat", "-1", "²", "٣", ""])
def test_ids_that_are_none_are_refused_and_remove_nothing(ask, ids):
    (row,) = add(ask, 0, jpeg(0))
    assert ask("DELETE", f"photos?photo={ids}").status_code == 422
    assert ask("DELETE", "photos?photo=1").status_code == 204
    assert "in this class already" in add(ask, 0, jpeg(0))[0]["error"]
    assert ask("DELETE", f"photos?photo={row['id']}").status_code == 204
    assert add(ask, 0, jpeg(0))[0]["error"] is None


def test_one_class_is_enough(ask):
    add(ask, 0, *(jpeg(2 * index) for index in range(2)))
    answer = ask("POST", "learn", json={"classes": {"0": "cat"}})
    assert answer.status_code == 422
    assert "fewer than 3 different photos" in answer.json()["error"]
    add(ask, 0, jpeg(8))
    report = ask("POST", "learn", json={"classes": {"0": "cat"}}).json()
    assert (report["classes"], report["accuracy"]) == ({"cat": 3}, None)


def test_bad_photos_and_copies_are_named_and_affect_no_other(ask):
    rows = add(ask, 0, jpeg(0), b"no photo", jpeg(2))
    assert [row["error"] is None for row in rows] == [True, False, True]
    assert add(ask, 0, jpeg(0))[0]["error"] == "the same photo is in this class already"
    assert add(ask, 1, jpeg(0))[0]["error"] == "the same photo is in another class already"


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ({"classes": {"0": "cat", "1": "neither"}}, "is a verdict"),
        ({"classes": {"0": "cat", "1": "cat"}}, "is there twice"),
        ({"classes": {"0": " ", "1": "dog"}}, "is empty"),
        ({"classes": {"7": "cat"}}, "no class has photos"),
        ({"classes": dict.fromkeys("0123", "x")}, "at most 3 classes"),
        ({"classes": {"0": 7}}, "send {"),
        ({"classes": ["cat"]}, "send {"),
        ([], "send {"),
        ({"classes": {"0": "x" * 70_000}}, "over 64 KiB"),
    ],
)
def test_unusable_settings_are_refused_in_one_line(ask, body, reason):
    add(ask, 0, jpeg(0))
    answer = ask("POST", "learn", json=body)
    assert answer.status_code in {413, 422}
    assert reason in answer.json()["error"]


def test_a_session_holds_no_more_than_its_limit(ask):
    add(ask, 0, *(jpeg(index) for index in range(12)))
    (row,) = add(ask, 0, jpeg(30))
    assert "no more than 12 photos" in row["error"]


def test_nothing_is_answered_without_a_session_or_a_model(ask, client):
    assert ask("POST", "predict", files=form(jpeg(0))).status_code == 422
    assert ask("GET", "model").status_code == 422
    for method, path in (("POST", "learn"), ("GET", "model"), ("POST", "photos?group=0")):
        for headers in ({}, {SESSION: "guessed"}):
            answer = client.request(method, f"/teach/{path}", headers=headers)
            assert answer.status_code == 410
            assert "its photos are gone" in answer.json()["error"]


def test_a_closed_session_is_forgotten(client):
    token = client.post("/teach/session").json()["session"]
    client.delete("/teach/session", headers={SESSION: token})
    assert client.get("/teach/model", headers={SESSION: token}).status_code == 410


def test_sessions_are_few_and_idle_ones_are_dropped():
    now = [0.0]
    sessions = Sessions(Limits(sessions=2, idle_seconds=1000), lambda: now[0])
    first, second = sessions.new(), sessions.new()
    with pytest.raises(BusyError):
        sessions.new()
    now[0] = 100
    assert sessions.get(second)
    third = sessions.new()  # in place of the one that was idle for longest
    assert sessions.get(first) is None
    now[0] = 1050
    assert sessions.get(third)
    now[0] = 1200
    assert sessions.get(second) is None
    assert len(sessions) == 1


def test_a_session_with_photos_is_not_dropped_for_a_new_one():
    now = [0.0]
    sessions = Sessions(Limits(sessions=1, idle_seconds=1000), lambda: now[0])
    first = sessions.new()
    sessions.get(first).examples[1] = object()
    now[0] = 900
    with pytest.raises(BusyError):
        sessions.new()
    now[0] = 2000
    assert sessions.new()


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")
def test_in_a_browser_the_model_improves_with_each_photo(url, tmp_path):  # noqa: F811
    from playwright.sync_api import expect, sync_playwright

    photos = []
    for index in range(11):
        photos.append(tmp_path / f"{index}.jpg")
        photos[-1].write_bytes(jpeg(index, size=120))
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 390, "height": 844})
        page.set_default_timeout(60_000)
        wrong: list[str] = []
        asked: list[str] = []
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(url)
        page.get_by_role("link", name="Teach it your own classes").click()
        classes = page.locator("section.class")
        for group, name in enumerate(("<b>cat</b>", "dog")):
            classes.nth(group).locator(".name").fill(name)
            chosen = [str(path) for path in photos[group:8:2]]
            classes.nth(group).locator(".files").set_input_files(chosen)
            expect(classes.nth(group).locator(".count")).to_have_text("4 photos", timeout=60_000)
        title = page.locator("#accuracy")
        expect(title).to_have_text(re.compile(r"^[\d.]+ % right$"), timeout=60_000)
        page.locator("#test-files").set_input_files(str(photos[8]))
        heading = page.locator("article h2")
        expect(heading).to_have_text(re.compile("cat|dog"), timeout=60_000)
        first = page.locator("article .logit").first.inner_text()
        assert page.locator("article .class").first.inner_text() == "<b>cat</b>"
        classes.nth(0).locator(".files").set_input_files(str(photos[10]))
        # The photo that was tested is predicted again by the new model.
        expect(page.locator("article .logit").first).not_to_have_text(first, timeout=60_000)
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        with page.expect_download() as saved:
            page.locator("#download").click()
        saved.value.save_as(tmp_path / "m.onnx")
        assert catordog.load(tmp_path / "m.onnx").classes == ("<b>cat</b>", "dog")
        classes.nth(1).locator(".remove").click()
        expect(title).to_have_text("<b>cat</b>, or neither", timeout=60_000)
        assert wrong == []
        assert [each for each in asked if not each.startswith((url, "blob:", "data:"))] == []
        browser.close()
