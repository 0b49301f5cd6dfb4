"""Downloads from a local server that serves archives in the real layouts."""

from __future__ import annotations

import hashlib
import io
import re
import socket
import tarfile
import threading
from collections import Counter
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torchvision

from catordog.cli import main
from catordog.errors import CatordogError
from catordog.photos import downloads
from catordog.photos.datasets import open_dataset
from catordog.photos.downloads import Remote, fetch
from catordog.photos.splits import SplitFractions
from conftest import jpeg, write_folder, write_zip


@dataclass
class Site:
    """What the server serves, how it misbehaves, and which requests it had."""

    url: str
    files: dict[str, bytes]
    break_after: list[int] = field(default_factory=list)  # bytes, one entry per response
    ranges: bool = True
    requests: list[tuple[str, str | None]] = field(default_factory=list)


@pytest.fixture
def site(tmp_path, monkeypatch):
    monkeypatch.setenv("CATORDOG_DATA", str(tmp_path / "data"))
    monkeypatch.setattr(downloads.time, "sleep", lambda _: None)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            name, wanted = self.path.lstrip("/"), self.headers.get("Range")
            site.requests.append((name, wanted))
            data = site.files.get(name)
            if data is None:
                self.send_error(404)
                return
            start = int(re.fullmatch(r"bytes=(\d+)-", wanted)[1]) if wanted and site.ranges else 0
            if start and start >= len(data):
                self.send_error(416)
                return
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(data) - start))
            self.end_headers()
            stop = start + site.break_after.pop(0) if site.break_after else len(data)
            self.wfile.write(data[start:stop])

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    site = Site(f"http://127.0.0.1:{server.server_port}", {})
    yield site
    server.shutdown()
    server.server_close()


@pytest.fixture
def microsoft(site, tmp_path, monkeypatch):
    """Microsoft's archive, small: PetImages/Cat, PetImages/Dog, an empty photo, the licence."""
    files = {f"PetImages/{('Cat', 'Dog')[i % 2]}/{i}.jpg": jpeg(i) for i in range(40)}
    files |= {"PetImages/Cat/666.jpg": b"", "MSR-LA - 3467.docx": b"licence"}
    data = write_zip(tmp_path / "made.zip", files).read_bytes()
    remote = Remote(f"{site.url}/kagglecats.zip", "sha256", hashlib.sha256(data).hexdigest())
    monkeypatch.setattr(downloads, "MICROSOFT", remote)
    site.files["kagglecats.zip"] = data
    return tmp_path / "data" / "kagglecats.zip"


def test_a_dataset_is_downloaded_once_and_its_licence_is_shown(site, microsoft, capsys):
    found = open_dataset("microsoft")
    assert Counter(found.classes[x] for x in found.photos.labels) == {"cat": 21, "dog": 20}
    assert "licence" in capsys.readouterr().err
    assert [path.name for path in microsoft.parent.iterdir()] == [microsoft.name]
    open_dataset("microsoft")
    assert len(site.requests) == 1
    assert "licence" not in capsys.readouterr().err


def test_a_broken_download_is_resumed(site, microsoft):
    site.break_after = [5000, 7000]
    fetch("microsoft")
    assert [wanted for _, wanted in site.requests] == [None, "bytes=5000-", "bytes=12000-"]
    assert microsoft.read_bytes() == site.files["kagglecats.zip"]


def test_a_server_without_range_support_sends_everything_again(site, microsoft):
    site.break_after, site.ranges = [5000], False
    fetch("microsoft")
    assert microsoft.read_bytes() == site.files["kagglecats.zip"]


def test_after_many_breaks_the_next_call_resumes(site, microsoft):
    site.break_after = [1000] * downloads.ATTEMPTS
    with pytest.raises(CatordogError, match=r"broke off .* run the same command again"):
        fetch("microsoft")
    assert not microsoft.exists()
    fetch("microsoft")
    assert site.requests[-1][1] == f"bytes={1000 * downloads.ATTEMPTS}-"
    assert microsoft.read_bytes() == site.files["kagglecats.zip"]


def test_wrong_bytes_are_deleted_and_never_used(site, microsoft):
    site.files["kagglecats.zip"] = b"x" + site.files["kagglecats.zip"][1:]
    with pytest.raises(CatordogError, match="other bytes than published"):
        fetch("microsoft")
    assert not list(microsoft.parent.iterdir())


def test_a_file_placed_by_hand_is_verified_too(site, microsoft):
    microsoft.parent.mkdir()
    microsoft.write_bytes(b"something else")
    with pytest.raises(CatordogError, match="is not the published file"):
        fetch("microsoft")
    assert microsoft.read_bytes() == b"something else"
    microsoft.write_bytes(site.files["kagglecats.zip"])
    assert fetch("microsoft") == microsoft
    assert not site.requests


def test_without_the_file_or_the_network_the_error_tells_where_to_put_the_file(
    site, microsoft, monkeypatch, capsys
):
    site.files.clear()
    assert main(["evaluate", "m.ckpt", "--data", "microsoft"]) == 2  # the model is read first
    assert "m.ckpt" in capsys.readouterr().err
    assert main(["audit", "--data", "microsoft"]) == 2
    assert f"404 Not Found: get it elsewhere, and put the file at {microsoft}" in " ".join(
        capsys.readouterr().err.split()
    )
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    gone = Remote(f"http://127.0.0.1:{port}/kagglecats.zip", "sha256", "")
    monkeypatch.setattr(downloads, "MICROSOFT", gone)
    assert main(["audit", "--data", "microsoft"]) == 2
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last.startswith("catordog: error: no network")
    assert f"put the file at {microsoft}" in last


def test_a_download_for_which_the_disk_is_too_full_is_refused_before_it_begins(
    site, microsoft, monkeypatch
):
    monkeypatch.setattr(downloads.shutil, "disk_usage", lambda _: type("D", (), {"free": 100})())
    with pytest.raises(CatordogError, match="make room"):
        fetch("microsoft")
    assert not list(microsoft.parent.iterdir())


def oxford_archives() -> dict[str, bytes]:
    """The two archives in the official layout, with four breeds."""
    breeds = {"Abyssinian": (1, 1), "beagle": (2, 2), "Birman": (3, 1), "pug": (4, 2)}
    lists: dict[str, list[str]] = {"trainval.txt": [], "test.txt": []}
    images, annotations = io.BytesIO(), io.BytesIO()
    with tarfile.open(fileobj=images, mode="w:gz") as tar:
        for breed, (number, species) in breeds.items():
            for i in range(6):
                name = f"{breed}_{i}"
                _add(tar, f"images/{name}.jpg", jpeg(2 * i + species - 1, seed=number))
                lists["trainval.txt" if i < 3 else "test.txt"].append(
                    f"{name} {number} {species} {(number + 1) // 2}"
                )
    with tarfile.open(fileobj=annotations, mode="w:gz") as tar:
        for name, lines in lists.items():
            _add(tar, f"annotations/{name}", "\n".join(lines).encode())
        _add(tar, "annotations/README", b"SPECIES: 1:Cat 2:Dog")
    return {"images.tar.gz": images.getvalue(), "annotations.tar.gz": annotations.getvalue()}


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    tar.addfile(info, io.BytesIO(data))


def test_oxford_pets_are_labelled_by_species_and_keep_their_official_split(
    site, tmp_path, monkeypatch
):
    site.files |= oxford_archives()
    site.break_after = [3000]
    resources = [
        (f"{site.url}/{name}", hashlib.md5(data).hexdigest()) for name, data in site.files.items()
    ]
    monkeypatch.setattr(torchvision.datasets.OxfordIIITPet, "_RESOURCES", tuple(resources))
    own = write_folder(tmp_path / "data" / "oxford-iiit-pet", {"images/mine.jpg": jpeg(0)})
    found = open_dataset("oxford-pets")
    assert Counter(found.classes[x] for x in found.photos.labels) == {"cat": 12, "dog": 12}
    assert Counter(found.splits(SplitFractions(0, 0.2))) == {"train": 12, "test": 12}
    assert {path.name for path in (tmp_path / "data").iterdir()} == {"oxford-pets", own.name}
    assert [path.name for path in own.rglob("*")] == ["images", "mine.jpg"]
    before = len(site.requests)
    open_dataset("oxford-pets")
    assert len(site.requests) == before


def test_without_oxford_pets_the_error_tells_where_to_put_the_files(site, tmp_path, monkeypatch):
    resources = ((f"{site.url}/images.tar.gz", "0" * 32),)
    monkeypatch.setattr(torchvision.datasets.OxfordIIITPet, "_RESOURCES", resources)
    with pytest.raises(CatordogError, match=r"put the two archives into .*oxford-iiit-pet"):
        open_dataset("oxford-pets")
