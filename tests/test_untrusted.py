"""Untrusted file names and archives execute nothing, open nothing and fill no memory."""

from __future__ import annotations

import csv
import struct
import sys
import zipfile
from pathlib import Path

import pytest

from catordog.cli import main
from catordog.errors import PhotoError
from catordog.photos.datasets import open_dataset
from conftest import jpeg, write_folder, write_zip

FORMULAS = ["=cmd|' .jpg", "+1.jpg", "@SUM(A1).jpg", "\t=1.jpg"]
MARKUP = ["<img src=x onerror=alert(1)>.jpg", "\"'&gt;<script>alert(2)<.jpg"]


def cells(file: Path) -> list[str]:
    with file.open(encoding="utf-8", newline="") as opened:
        return [cell for row in csv.reader(opened) for cell in row]


def formulas(file: Path) -> list[str]:
    """Cells that a spreadsheet would evaluate: those like a formula that are not numbers."""
    found = [cell for cell in cells(file) if cell.startswith(("=", "+", "-", "@", "\t", "\r"))]
    return [cell for cell in found if not cell.lstrip("+-").replace(".", "").isalnum()]


@pytest.fixture
def pets(tmp_path, monkeypatch) -> Path:
    """Photos with names like formulas and markup, and a broken one."""
    monkeypatch.chdir(tmp_path)
    names = [*FORMULAS, *([] if sys.platform == "win32" else MARKUP)]
    files = {name: jpeg(i) for i, name in enumerate(names)} | {"=broken.jpg": b"no photo"}
    write_folder(tmp_path, files)
    return tmp_path


def test_predict_writes_no_formula_and_its_paths_lead_to_the_photos(pets):
    words = ["predict", *FORMULAS, "=broken.jpg", "--format", "csv", "--out", "r.csv"]
    assert main(words) == 1
    assert formulas(Path("r.csv")) == []
    with Path("r.csv").open(encoding="utf-8", newline="") as opened:
        rows = list(csv.DictReader(opened))
    assert len(rows) == 5
    assert all(Path(row["path"]).is_file() for row in rows)
    before = Path("r.csv").read_bytes()
    assert main([*words, "--resume"]) == 1  # only the broken photo is tried again
    assert Path("r.csv").read_bytes() == before


def test_evaluate_and_audit_write_no_formula(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    files = {f"=cat/{i}.jpg": jpeg(2 * i) for i in range(6)}
    files |= {f"dog/{i}.jpg": jpeg(2 * i + 1) for i in range(6)} | {"=cat/bad.jpg": b"no photo"}
    files |= {"dog/copy.jpg": files["=cat/0.jpg"]}
    write_folder(Path("pets"), files)
    with zipfile.ZipFile("=1.zip", "w") as archive:
        for name, data in files.items():
            archive.writestr(name.replace("=cat", "cat"), data)
    words = ["evaluate", "bundled", "--data", "=1.zip", "--split", "all", "--csv", "e.csv"]
    assert main(words) == 1
    assert formulas(Path("e.csv")) == []
    assert main(["audit", "--data", "pets", "--fix-list", "fix.csv"]) == 1
    assert formulas(Path("fix.csv")) == []
    assert "'=cat" in cells(Path("fix.csv"))


def test_a_neither_folder_without_photos_is_named(pets, capsys):
    Path("empty").mkdir()
    write_folder(Path("d"), {f"{k}/{i}.jpg": jpeg(i) for k in ("cat", "dog") for i in range(3)})
    words = ["evaluate", "bundled", "--data", "d", "--split", "all", "--neither", "empty"]
    assert main(words) == 2
    assert "empty: no photos in it" in capsys.readouterr().err


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such names")
@pytest.mark.slow
def test_markup_in_a_file_name_is_text_on_every_page(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    files = {f"{kind}/{i}{name}": jpeg(2 * i + (kind == "dog"), seed=i)
             for kind in ("cat", "dog") for i, name in enumerate(MARKUP * 4)}  # fmt: skip
    write_folder(Path("pets"), files)
    data = ["--data", "pets", "--split", "all"]
    assert main(["evaluate", "bundled", *data, "--html", "e.html"]) == 0
    assert main(["compare", "bundled", "bundled", *data, "--html", "c.html"]) == 0
    assert main(["audit", "--data", "pets", "--html", "a.html"]) in (0, 1)
    assert "&lt;img src=x onerror" in Path("e.html").read_text("utf-8")
    for page in ("e.html", "c.html", "a.html"):
        text = Path(page).read_text("utf-8")
        assert "<img src=x" not in text
        assert "<script>alert" not in text


class TestArchives:
    def test_a_member_larger_than_its_header_states_is_not_read_further(self, tmp_path):
        files = {"cat.0.jpg": bytes(50_000_000), "dog.0.jpg": jpeg(1)}
        path = write_zip(tmp_path / "bomb.zip", files, zipfile.ZIP_DEFLATED)
        data = bytearray(path.read_bytes())
        assert len(data) < 100_000
        for at in (22, data.find(b"PK\x01\x02") + 24):  # both headers with its length
            data[at : at + 4] = struct.pack("<I", 1000)
        path.write_bytes(data)
        photos = open_dataset(str(path)).photos
        with pytest.raises(PhotoError, match="damaged in its archive"):
            next(photo for photo in photos if "cat" in photo.path).image()
        assert next(photo for photo in photos if "dog" in photo.path).image()

    def test_a_member_with_a_huge_size_is_refused_unread(self, tmp_path):
        files = {"cat.0.jpg": bytes(300_000_000), "dog.0.jpg": jpeg(1)}
        path = write_zip(tmp_path / "bomb.zip", files, zipfile.ZIP_DEFLATED)
        photo = next(p for p in open_dataset(str(path)).photos if "cat" in p.path)
        with pytest.raises(PhotoError, match="MiB is too large for a photo"):
            photo.image()
