"""Drive a one-file page in Chromium."""

from __future__ import annotations

import csv
import io
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)


class OneFilePage:
    """A page that is open in a browser.

    Attributes:
        page: Playwright's page.
        asked: addresses that anything in the page has requested.
        refused: those that the page's own policy has kept it from requesting.
        wrong: errors that no code has caught.
    """

    def __init__(self, page: Any) -> None:
        self.page = page
        self.asked: list[str] = []
        self.refused: list[str] = []
        self.wrong: list[str] = []
        page.context.on("request", lambda request: self.asked.append(request.url))
        page.context.on("requestfailed", self._failed)
        session = page.context.new_cdp_session(page)
        session.send("Network.enable")
        session.on("Network.requestWillBeSent", lambda e: self.asked.append(e["request"]["url"]))
        page.on("pageerror", lambda error: self.wrong.append(str(error)))

    def _failed(self, request: Any) -> None:
        if request.failure == "csp":
            self.refused.append(request.url)

    def predict(self, photos: Sequence[Path]) -> list[dict[str, str]]:
        """The rows of the CSV file that the page saves, for all photos so far."""
        for start in range(0, len(photos), 50):
            files = [str(path) for path in photos[start : start + 50]]
            self.page.set_input_files("#files", files)
        self.settle()
        with self.page.expect_download() as download:
            self.page.click("#csv")
        text = Path(download.value.path()).read_text("utf-8")
        return list(csv.DictReader(io.StringIO(text, newline="")))

    def settle(self) -> None:
        """Wait until all photos are predicted."""
        from playwright.sync_api import expect

        expect(self.page.locator("#csv")).to_be_enabled(timeout=600_000)

    def status(self) -> str:
        """What the page says of itself, and a screen reader reads out."""
        return self.page.inner_text("#status")


@contextmanager
def opened(browser: Any, file: Path, **options: Any) -> Iterator[OneFilePage]:
    """Open a page from its file; at the end, nothing may have been requested from elsewhere."""
    context = browser.new_context(**options)
    driver = OneFilePage(context.new_page())
    driver.page.goto(file.as_uri())
    yield driver
    elsewhere = {x for x in driver.asked if not x.startswith(("blob:", "data:"))}
    assert elsewhere - {*driver.refused} == {file.as_uri()}
    assert driver.wrong == []
    context.close()
