"""`catordog serve` as a process: its API over HTTP, and its page in a real browser."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator

import httpx
import pytest

import catordog
from catordog.cli import main
from catordog.web.batches import Batches, BusyError
from catordog.web.limits import MOST_CLIENTS, Rate
from conftest import jpeg

KEYS = ["path", "label", "confidence", "confidences", "logits", "verdict", "error"]


def start(*words: str) -> tuple[subprocess.Popen[str], str]:
    """A server on a free port, and its address."""
    process = subprocess.Popen(
        [sys.executable, "-m", "catordog", "serve", "--port", "0", *words],
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    line = process.stderr.readline()
    found = re.match(r"(http://\S+)", line)
    assert found, line + process.stderr.read()
    return process, found[1]


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    process, address = start("--rate", "0")
    with httpx.Client(transport=httpx.HTTPTransport(retries=50)) as client:
        client.get(address + "/healthz")
    yield address
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == 0
    assert process.stderr.read() == ""


class TestMethods:
    @pytest.mark.parametrize("path", ["/", "/healthz", "/metrics", "/docs", "/app.js", "/app.css"])
    def test_head_is_answered_like_get_without_a_body(self, url, path):
        answer, full = httpx.head(url + path), httpx.get(url + path)
        assert answer.status_code == full.status_code == 200
        assert answer.content == b""
        assert answer.headers["content-type"] == full.headers["content-type"]

    @pytest.mark.parametrize(
        ("method", "path", "allowed"),
        [
            ("GET", "/predict", "POST"),
            ("PUT", "/", "GET, HEAD"),
            ("DELETE", "/predict", "POST"),
            ("BREW", "/", "GET, HEAD"),
        ],
    )
    def test_another_method_is_refused_in_json(self, url, method, path, allowed):
        answer = httpx.request(method, url + path)
        assert answer.status_code == 405
        assert answer.json() == {"error": f"{method} is not allowed here: use {allowed}"}
        assert answer.headers["allow"] == allowed

    def test_an_unknown_path_is_refused_in_json(self, url):
        assert httpx.get(url + "/nothing").json() == {"error": "Not Found"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--port", "99999"], "'99999' is not a port: give a number from 0 to 65535"),
        (["--port", "-1"], "'-1' is not a port"),
        (["--port", "http"], "'http' is not a port"),
        (["--rate", "-1"], "'-1' is not a rate"),
        (["--rate", "nan"], "'nan' is not a rate"),
        (["--rate", "inf"], "'inf' is not a rate"),
        (["--host", "a" * 70], "can't listen on"),
    ],
)
def test_a_port_or_rate_out_of_its_range_is_refused_in_a_line(words, message, capsys):
    assert main(["serve", *words]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert len(err.splitlines()) == 1


class TestTheAPI:
    def test_a_body_gives_an_object_with_the_prediction_of_python(self, url, tmp_path):
        photo = tmp_path / "a.jpg"
        photo.write_bytes(jpeg(0, size=200))
        answer = httpx.post(
            url + "/predict", content=photo.read_bytes(), headers={"Content-Type": "image/jpeg"}
        )
        assert answer.status_code == 200
        row = answer.json()
        assert list(row) == KEYS
        prediction = catordog.load().predict(photo)
        assert row["verdict"] == prediction.verdict
        assert row["logits"] == pytest.approx(prediction.logits, abs=1e-4)
        assert row["confidences"] == pytest.approx(prediction.confidences, abs=1e-4)

    def test_a_form_gives_a_list_and_a_bad_photo_affects_no_other(self, url):
        files = [("files", ("a.jpg", jpeg(0))), ("files", ("b.jpg", b"no photo")),
                 ("files", ("../c.jpg", jpeg(1)))]  # fmt: skip
        answer = httpx.post(url + "/predict", files=files)
        assert answer.status_code == 200
        rows = answer.json()
        assert [row["path"] for row in rows] == ["a.jpg", "b.jpg", "c.jpg"]
        assert [row["error"] is None for row in rows] == [True, False, True]

    @pytest.mark.parametrize(
        ("code", "request_"),
        [
            (422, {"content": b"no photo"}),
            (422, {"content": b""}),
            (422, {"files": {}, "data": {"x": "y"}}),
            (413, {"content": b"x" * (33 * 2**20)}),
            (413, {"files": {"files": b"x" * (65 * 2**20)}}),
            (413, {"files": {"files": b"x" * (33 * 2**20)}}),
            (400, {"files": [("files", (f"{i}.jpg", b"x")) for i in range(40)]}),
            (400, {"content": b"x", "headers": {"Content-Type": "multipart/form-data"}}),
        ],
    )
    def test_a_bad_request_gives_an_error_in_one_line(self, url, code, request_):
        answer = httpx.post(url + "/predict", **request_, timeout=60)
        assert answer.status_code == code, answer.text
        assert answer.json()["error"]
        assert "Traceback" not in answer.text
        assert httpx.get(url + "/healthz").status_code == 200

    def test_an_endless_body_is_cut_off(self, url):
        """A body of unknown length that does not end."""

        def endless() -> Iterator[bytes]:
            for _ in range(2000):
                yield b"x" * 2**20
                sent.append(1)

        sent: list[int] = []
        try:
            answer = httpx.post(url + "/predict", content=endless(), timeout=20)
        except httpx.TransportError:  # it was closed while we were still sending
            pass
        else:
            assert answer.status_code == 413
        assert len(sent) < 200

    @pytest.mark.slow
    def test_explain_draws_a_heat_map_for_any_class(self, url):
        for query in ("", "?class=cat", "?class=dog"):
            answer = httpx.post(url + "/explain" + query, content=jpeg(0), timeout=60)
            assert answer.status_code == 200
            assert answer.content.startswith(b"\x89PNG")
        assert httpx.post(url + "/explain?class=fox", content=jpeg(0)).status_code == 422
        assert httpx.post(url + "/explain", content=b"no photo").status_code == 422

    def test_health_metrics_and_docs(self, url):
        health = httpx.get(url + "/healthz").json()
        assert (health["status"], health["classes"]) == ("ok", ["cat", "dog"])
        httpx.post(url + "/predict", content=jpeg(0))
        httpx.get(url + "/a/path/of/somebody's")
        metrics = httpx.get(url + "/metrics").text
        assert re.search(r'catordog_requests_total\{code="200",route="/predict"\} [1-9]', metrics)
        assert 'route="other"' in metrics
        assert "somebody" not in metrics
        assert "catordog_batch_photos_bucket" in metrics
        schema = httpx.get(url + "/openapi.json").json()
        assert {"/predict", "/explain", "/healthz", "/metrics"} <= set(schema["paths"])
        assert "/predict" in httpx.get(url + "/docs").text

    def test_its_pages_load_nothing_from_elsewhere(self, url):
        pages = ("/", "/docs", "/app.js", "/softmax.js", "/app.css")
        for path in (*pages, "/teach", "/teach.js", "/teach.css"):
            answer = httpx.get(url + path)
            assert answer.status_code == 200
            assert not re.search(r"(?:https?:)?//\w+\.\w+", answer.text), path
            assert "default-src 'self'" in answer.headers["Content-Security-Policy"]

    def test_other_sites_cannot_reach_it_through_a_browser(self, url):
        answer = httpx.get(url + "/healthz", headers={"Host": "evil.example"})
        assert answer.status_code == 400
        answer = httpx.get(url + "/healthz", headers={"Origin": "http://evil.example"})
        assert answer.status_code == 200
        assert "Access-Control-Allow-Origin" not in answer.headers

    @pytest.mark.parametrize(
        "headers",
        [
            {"Origin": "http://evil.example"},
            {"Origin": "null"},
            {"Origin": "http://127.0.0.1:1"},
            {"Origin": "http://{host}", "Sec-Fetch-Site": "cross-site"},
            {"Origin": "http://localhost:8000", "Sec-Fetch-Site": "same-site"},
        ],
    )
    def test_requests_from_other_sites_do_no_work(self, url, headers):
        given = {key: value.format(host=url.partition("//")[2]) for key, value in headers.items()}
        for method, path in (
            ("POST", "/predict"), ("POST", "/explain"), ("POST", "/teach/session"),
            ("DELETE", "/teach/session"), ("OPTIONS", "/predict"), ("PUT", "/nothing"),
        ):  # fmt: skip
            answer = httpx.request(method, url + path, content=jpeg(0), headers=given)
            assert answer.status_code == 403, (method, path)
            assert answer.json() == {"error": "requests from other sites are refused"}

    @pytest.mark.parametrize(
        "headers",
        [
            {},
            {"Origin": "http://{host}"},
            {"Origin": "http://{host}", "Sec-Fetch-Site": "same-origin"},
            # Behind a proxy that adds TLS, or also names another host to us.
            {"Origin": "https://{host}"},
            {"Origin": "https://pets.example", "Sec-Fetch-Site": "same-origin"},
        ],
    )
    def test_its_own_pages_and_programs_are_answered(self, url, headers):
        given = {key: value.format(host=url.partition("//")[2]) for key, value in headers.items()}
        assert httpx.post(url + "/predict", content=jpeg(0), headers=given).status_code == 200

    def test_concurrent_requests_get_their_own_answers_in_shared_batches(self, url, tmp_path):
        photos = [jpeg(index, size=100) for index in range(12)]
        paths = []
        for index, data in enumerate(photos):
            paths.append(tmp_path / f"{index}.jpg")
            paths[-1].write_bytes(data)
        wanted = catordog.load().logits(paths)

        async def ask() -> list[httpx.Response]:
            async with httpx.AsyncClient(timeout=120) as client:
                return await asyncio.gather(
                    *(client.post(url + "/predict", content=photos[i % 12]) for i in range(120))
                )

        answers = asyncio.run(ask())
        for index, answer in enumerate(answers):
            logits = list(answer.json()["logits"].values())
            assert logits == pytest.approx(wanted[index % 12].tolist(), abs=1e-3)
        metrics = httpx.get(url + "/metrics").text
        batches = float(re.search(r"catordog_batch_photos_count ([\d.]+)", metrics)[1])
        photos_seen = float(re.search(r"catordog_batch_photos_sum ([\d.]+)", metrics)[1])
        assert photos_seen > 1.5 * batches  # photos share batches


class TestLimits:
    def test_each_client_has_its_own_rate(self):
        now = [0.0]
        rate = Rate(5, lambda: now[0])
        assert [rate.allows("a") for _ in range(12)] == [True] * 10 + [False] * 2
        assert rate.allows("b")
        now[0] = 1.0
        assert [rate.allows("a") for _ in range(7)] == [True] * 5 + [False] * 2

    def test_many_clients_do_not_fill_the_memory(self):
        rate = Rate(1)
        for number in range(MOST_CLIENTS + 500):
            rate.allows(str(number))
        assert len(rate._left) == MOST_CLIENTS

    def test_requests_over_the_rate_get_status_429(self):
        process, url = start("--rate", "2")
        try:
            codes = [httpx.get(url + "/healthz").status_code for _ in range(8)]
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(20)
        assert codes[0] == 200
        assert codes[-1] == 429

    def test_items_beyond_the_queue_are_refused(self):
        async def crowd() -> list[object]:
            batches: Batches[int, int] = Batches(lambda items: items, size=2, queue=4)
            asked = [asyncio.ensure_future(batches.ask(number)) for number in range(9)]
            await asyncio.sleep(0)
            batches.start()
            found = await asyncio.gather(*asked, return_exceptions=True)
            await batches.stop()
            return found

        found = asyncio.run(crowd())
        assert found[:4] == [0, 1, 2, 3]
        assert all(isinstance(each, BusyError) for each in found[4:])

    def test_an_error_reaches_its_tasks_and_the_next_batch_is_computed(self):
        def work(items: list[int]) -> list[int]:
            if 13 in items:
                raise ValueError("unlucky")
            return items

        async def ask() -> tuple[object, int]:
            batches: Batches[int, int] = Batches(work)
            batches.start()
            first = await asyncio.gather(batches.ask(13), return_exceptions=True)
            second = await batches.ask(1)
            await batches.stop()
            return first[0], second

        first, second = asyncio.run(ask())
        assert isinstance(first, ValueError)
        assert second == 1


def test_a_port_in_use_is_an_error_in_one_line(capsys):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        assert main(["serve", "--port", str(taken.getsockname()[1])]) == 2
    err = capsys.readouterr().err
    assert "can't listen on 127.0.0.1" in err
    assert len(err.splitlines()) == 1


CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")
class TestInABrowser:
    @pytest.fixture(scope="class")
    def browser(self) -> Iterator[object]:
        from playwright.sync_api import sync_playwright

        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(
                executable_path=CHROMIUM, args=["--no-sandbox"] if os.name == "posix" else []
            )
            yield browser
            browser.close()

    @pytest.fixture
    def page(self, browser, url) -> Iterator[object]:
        context = browser.new_context(
            viewport={"width": 390, "height": 844},
            permissions=["clipboard-read", "clipboard-write"],
        )
        page = context.new_page()
        asked: list[str] = []
        wrong: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.goto(url)
        yield page
        assert wrong == []
        elsewhere = [each for each in asked if not each.startswith((url, "blob:", "data:"))]
        assert elsewhere == []
        context.close()

    def settled(self, page, n: int) -> list[str]:
        """The headings of n cards, the newest first, once all are predicted."""
        from playwright.sync_api import expect

        heads = page.locator("article h2")
        expect(heads).to_have_count(n, timeout=60_000)
        expect(page.locator("article h2", has_text="predicting")).to_have_count(0, timeout=60_000)
        return heads.all_inner_texts()

    def test_a_cat_a_dog_a_text_file_and_another_photo(self, page, shared_photos, tmp_path):
        text = tmp_path / "text.jpg"
        text.write_text("a text that is called a photo")
        originals = shared_photos / "dogs-vs-cats-original-600"
        cat, dog = (sorted((originals / kind).iterdir())[3] for kind in ("cat", "dog"))
        other = sorted((shared_photos / "neither-cat-nor-dog").glob("*.jpg"))[0]
        page.set_input_files("#files", [str(each) for each in (cat, dog, other, text)])
        headings = self.settled(page, 4)
        assert headings[0].startswith("can't be read: not a photo")
        assert headings[1].startswith("neither (")
        assert headings[2].startswith("dog ")
        assert headings[3].startswith("cat ")
        assert not any("100 %" in words for words in headings)
        bars = page.locator("article").nth(3).locator(".bar")
        assert bars.count() == 2
        assert "logit" in bars.first.inner_text()

    def test_the_slider_changes_confidences_but_no_logit(self, page, tmp_path):
        (tmp_path / "a.jpg").write_bytes(jpeg(0, size=200))
        page.set_input_files("#files", str(tmp_path / "a.jpg"))
        self.settled(page, 1)

        def shown() -> tuple[list[str], list[str]]:
            bars = page.locator(".bar")
            return (
                bars.locator(".value").all_inner_texts(),
                bars.locator(".logit").all_inner_texts(),
            )

        before = shown()
        page.locator("#temperature").fill("2")
        after = shown()
        assert after[1] == before[1]
        numbers = [float(value.split()[0]) for value in after[0]]
        assert max(abs(number - 50) for number in numbers) < 3  # 100 times the temperature
        page.locator("#reset").click()
        assert shown() == before

    @pytest.mark.slow
    def test_the_heat_map_is_shown_on_demand(self, page, tmp_path):
        (tmp_path / "a.jpg").write_bytes(jpeg(0, size=200))
        page.set_input_files("#files", str(tmp_path / "a.jpg"))
        self.settled(page, 1)
        heat = page.locator(".heat")
        assert heat.is_hidden()
        page.locator(".explain").click()
        heat.wait_for(state="visible", timeout=60_000)
        photo, over = page.locator(".photo").bounding_box(), heat.bounding_box()
        assert over == pytest.approx(photo, abs=2)
        page.locator(".explain").click()
        assert heat.is_hidden()

    def test_ten_photos_at_once_and_one_of_100_megabytes(self, page, tmp_path):
        large = tmp_path / "large.jpg"
        with large.open("wb") as file:
            file.truncate(100 * 2**20)
        for index in range(10):
            (tmp_path / f"{index}.jpg").write_bytes(jpeg(index, size=120))
        page.set_input_files("#files", [str(tmp_path / f"{index}.jpg") for index in range(10)])
        page.set_input_files("#files", str(large))
        headings = self.settled(page, 11)
        assert "too large: 100 MiB" in headings[0]
        assert not any("failed" in words or "read" in words for words in headings[1:])

    def test_it_fits_a_phone(self, page, tmp_path):
        (tmp_path / ("long name " * 12 + ".jpg")).write_bytes(jpeg(0, size=300))
        page.set_input_files("#files", [str(each) for each in tmp_path.glob("*.jpg")])
        self.settled(page, 1)
        assert page.locator("main").bounding_box()["width"] <= 390
        overflow = page.locator("body").bounding_box()["width"]
        assert overflow <= 390

    def test_file_names_are_text_and_never_markup(self, page, tmp_path):
        (tmp_path / "<img src=x onerror=alert(1)>.jpg").write_bytes(jpeg(0))
        page.set_input_files("#files", [str(each) for each in tmp_path.glob("*.jpg")])
        self.settled(page, 1)
        assert "<img src=x" in page.locator(".name").inner_text()
        assert page.locator(".name img").count() == 0


def test_photos_are_not_written_anywhere(tmp_path, monkeypatch):
    """Not even into a temporary folder, where frameworks put large uploads.

    ONNX Runtime would leave a file there when its telemetry is on.
    """
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.delenv("CI", raising=False)  # where this is set, ONNX Runtime reports nothing
    monkeypatch.delenv("ORT_DISABLE_TELEMETRY", raising=False)
    process, url = start()
    try:
        large = jpeg(0, size=1000) + bytes(5 * 2**20)
        assert httpx.post(url + "/predict", files={"files": large}, timeout=60).status_code == 200
        assert list(tmp_path.iterdir()) == []
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(20)
    assert list(tmp_path.iterdir()) == []
