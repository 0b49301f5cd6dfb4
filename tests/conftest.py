"""What tests share: small photos and datasets, one real training run, and a hermetic session."""

from __future__ import annotations

import io
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from filelock import FileLock
from PIL import Image

from catordog.photos.synthetic import draw

if TYPE_CHECKING:
    from training.forks import Forks

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared" / "data"
CATORDOG = [sys.executable, "-m", "catordog"]

if "PYTEST_XDIST_WORKER" in os.environ:  # each worker has one core
    os.environ["OMP_NUM_THREADS"] = "1"


def jpeg(index: int, *, seed: int = 7, size: int = 48) -> bytes:
    """A synthetic cat (even index) or dog (odd) as a JPEG file."""
    return save(draw(index, seed, size=size).image, "JPEG", quality=92)


def picture(seed: int, size: tuple[int, int] = (64, 48)) -> Image.Image:
    """A picture of random blobs, a different one for each seed."""
    small = np.random.default_rng(seed).integers(0, 256, (18, 24, 3), dtype=np.uint8)
    return Image.fromarray(small).resize(size, Image.Resampling.BICUBIC)


def save(image: Image.Image, form: str, **options: object) -> bytes:
    """A picture as a file of this format."""
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def named(n: int) -> dict[str, bytes]:
    """n photos with the names of Kaggle's: cat.0.jpg, dog.0.jpg, cat.1.jpg, …"""
    return {f"{('cat', 'dog')[i % 2]}.{i // 2}.jpg": jpeg(i) for i in range(n)}


def write_zip(path: Path, files: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def write_folder(root: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        target = root / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
    return root


def wait_until(condition: Callable[[], object], what: str, seconds: float = 120) -> None:
    """Wait for an event that a test can observe, and fail after a deadline.

    Args:
        condition: returns something true after the event.
        what: the event, for the error.
        seconds: the deadline, generous: on a busy machine everything takes long.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"within {seconds:g} s: {what}"
        time.sleep(0.01)


@dataclass(frozen=True)
class Example:
    """A Python block of the README or of a page in docs/.

    Attributes:
        page: its path in the checkout.
        line: the number of its first line of code.
        code: its content.
    """

    page: str
    line: int
    code: str


def pages() -> list[Path]:
    """The README and all pages of docs/."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def examples() -> list[Example]:
    """All Python blocks of the README and of docs/."""
    block = re.compile(r"^```python\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL)
    found = []
    for page in pages():
        text = page.read_text("utf-8")
        for match in block.finditer(text):
            line = text.count("\n", 0, match.start("code")) + 1
            path = page.relative_to(ROOT).as_posix()
            found.append(Example(path, line, match["code"]))
    return found


@pytest.fixture(scope="session", autouse=True)
def hermetic(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep downloads, caches and relative paths out of the checkout, also for child processes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CATORDOG_DATA", str(tmp_path_factory.mktemp("data")))
        patch.chdir(tmp_path_factory.mktemp("cwd"))
        yield


_BEFORE = pytest.StashKey[set[str]]()


def _ignored_outputs() -> set[str]:
    """The files in the checkout's folders for outputs, which .gitignore hides from git status."""
    git = shutil.which("git")
    if git is None:
        return set()
    words = [git, "ls-files", "--others", "-z", "--", "data", "runs", "demo"]
    listed = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    return set(filter(None, listed.stdout.split("\0")))


def pytest_sessionstart(session: pytest.Session) -> None:
    if not hasattr(session.config, "workerinput"):  # once, and not in every worker
        session.config.stash[_BEFORE] = _ignored_outputs()


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail if tests have written into the checkout."""
    before = session.config.stash.get(_BEFORE, None)
    if before is not None and (gained := sorted(_ignored_outputs() - before)):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
        reporter = session.config.pluginmanager.get_plugin("terminalreporter")
        if reporter:
            shown = ", ".join(gained[:5]) + (", …" if len(gained) > 5 else "")
            reporter.write_line(f"\nERROR: tests have written into the checkout: {shown}", red=True)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let one worker start with the training run, and the others with tests that don't need it."""
    waiting = {item.path for item in items if "drawn_run" in getattr(item, "fixturenames", ())}
    first = ROOT / "tests" / "training" / "test_fit.py"
    items.sort(key=lambda item: 0 if item.path == first else 1 + (item.path in waiting))


@dataclass(frozen=True)
class Ended:
    """A process that has ended."""

    code: int
    out: str
    err: str


@pytest.fixture(scope="session")
def forks() -> Iterator[Forks]:
    """Start commands as forks of a process that has imported everything."""
    from training.forks import Forks

    started = Forks()
    yield started
    started.close()


@pytest.fixture(scope="session")
def catordog(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Ended]:
    """Run a command as a user does: in a process of its own."""

    def run(*words: object, cwd: Path | None = None, timeout: float = 900) -> Ended:
        python_path = [str(ROOT / "scripts"), *filter(None, [os.environ.get("PYTHONPATH")])]
        process = subprocess.run(
            [*CATORDOG, *map(str, words)],
            cwd=cwd,
            capture_output=True,
            text=True,
            encoding="utf-8",
            timeout=timeout,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(python_path)},
            check=False,
        )
        return Ended(process.returncode, process.stdout, process.stderr)

    def fork(*words: object, cwd: Path | None = None, timeout: float = 900) -> Ended:
        log = tmp_path_factory.mktemp("log") / "log"
        process = forks.start(*words, cwd=cwd or Path.cwd(), name=str(log), **os.environ)
        code = process.wait(timeout)
        return Ended(code, process.out, process.err)

    if sys.platform == "win32":
        return run
    forks: Forks = request.getfixturevalue("forks")
    return fork


@dataclass(frozen=True)
class Run:
    """A finished training run."""

    folder: Path
    """The folder it was started in."""
    checkpoint: Path
    ended: Ended


@pytest.fixture(scope="session")
def drawn_run(tmp_path_factory: pytest.TempPathFactory, catordog: Callable[..., Ended]) -> Run:
    """The complete training run of `catordog demo`, in a process of its own; workers share it."""
    base = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent
    folder, record = base / "drawn", base / "drawn.json"
    with FileLock(base / "drawn.lock"):
        if not record.exists():
            folder.mkdir(exist_ok=True)
            ended = catordog("train", "--config", "drawn.yaml", cwd=folder)
            record.write_text(json.dumps(asdict(ended)))
    ended = Ended(**json.loads(record.read_text()))
    assert ended.code == 0, ended.err
    words = shlex.split(ended.out)
    assert words[:2] == ["catordog", "evaluate"], ended.out
    return Run(folder, folder / words[2], ended)


@pytest.fixture(scope="session")
def shared_photos() -> Path:
    if not SHARED.is_dir():
        pytest.skip(f"the real photos are not here: {SHARED}")
    return SHARED


@pytest.fixture
def photo_folder(tmp_path: Path) -> Path:
    """A folder of two photos, three unreadable ones, and other files."""
    dog = jpeg(3)
    return write_folder(
        tmp_path / "photos",
        {
            "a cat.jpg": jpeg(2),
            "deep/er/hund.JPEG": dog,
            "deep/page.jpg": b"<!DOCTYPE html><html><body>404</body></html>",
            "deep/half.jpg": dog[: len(dog) // 2],
            "empty.png": b"",
            "notes.txt": b"not a photo, and not named like one",
            ".hidden.jpg": b"hidden",
            "Thumbs.db": b"of another program",
        },
    )
