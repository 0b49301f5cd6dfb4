"""What several tests share: the real photos where they are, small data sets, one real run."""

from __future__ import annotations

import io
import json
import os
import shlex
import subprocess
import sys
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


def jpeg(index: int, *, seed: int = 7, size: int = 48) -> bytes:
    """A drawn cat (even index) or dog (odd) as the bytes of a JPEG."""
    file = io.BytesIO()
    draw(index, seed, size=size).image.save(file, "JPEG", quality=92)
    return file.getvalue()


def picture(seed: int, size: tuple[int, int] = (64, 48)) -> Image.Image:
    """A picture with shapes of its own, like no other."""
    small = np.random.default_rng(seed).integers(0, 256, (18, 24, 3), dtype=np.uint8)
    return Image.fromarray(small).resize(size, Image.Resampling.BICUBIC)


def named(n: int) -> dict[str, bytes]:
    """n photos, called as Kaggle does: cat.0.jpg, dog.0.jpg, cat.1.jpg, …"""
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


if "PYTEST_XDIST_WORKER" in os.environ:  # each on a core of its own
    os.environ["OMP_NUM_THREADS"] = "1"


@pytest.fixture(scope="session", autouse=True)
def hermetic(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep downloads, caches and relative paths out of the checkout, also for child processes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CATORDOG_DATA", str(tmp_path_factory.mktemp("data")))
        patch.chdir(tmp_path_factory.mktemp("cwd"))
        yield


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let one worker begin with the drawn run, and the others with what doesn't wait for it."""
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
    """Starts commands in a moment, as processes of their own."""
    from training.forks import Forks

    made = Forks()
    yield made
    made.close()


@pytest.fixture(scope="session")
def catordog(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Ended]:
    """Run a command as a user does: in a process of its own."""

    def run(*words: object, cwd: Path | None = None, timeout: float = 400) -> Ended:
        process = subprocess.run(
            [sys.executable, "-m", "catordog", *map(str, words)],
            cwd=cwd,
            capture_output=True,
            text=True,
            encoding="utf-8",
            timeout=timeout,
            env={**os.environ, "PYTHONPATH": str(ROOT / "scripts")},
            check=False,
        )
        return Ended(process.returncode, process.stdout, process.stderr)

    def fork(*words: object, cwd: Path | None = None, timeout: float = 400) -> Ended:
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
    """Where it was started."""
    checkpoint: Path
    ended: Ended


@pytest.fixture(scope="session")
def drawn_run(tmp_path_factory: pytest.TempPathFactory, catordog: Callable[..., Ended]) -> Run:
    """The demo's training, whole: the config that `make demo` uses, as a real process."""
    base = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent  # all workers share it
    folder, said = base / "drawn", base / "drawn.json"
    with FileLock(base / "drawn.lock"):
        if not said.exists():
            folder.mkdir(exist_ok=True)
            ended = catordog("train", "--config", "drawn.yaml", cwd=folder)
            said.write_text(json.dumps(asdict(ended)))
    ended = Ended(**json.loads(said.read_text()))
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
    """A folder of good photos and of things that are called photos."""
    whole = jpeg(1)
    return write_folder(
        tmp_path / "photos",
        {
            "a cat.jpg": jpeg(0),
            "deep/er/hund.JPEG": whole,
            "deep/page.jpg": b"<!DOCTYPE html><html><body>404</body></html>",
            "deep/half.jpg": whole[: len(whole) // 2],
            "empty.png": b"",
            "notes.txt": b"not a photo, and not called one",
            ".hidden.jpg": b"hidden",
            "Thumbs.db": b"litter",
        },
    )


def save(image: Image.Image, form: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()
