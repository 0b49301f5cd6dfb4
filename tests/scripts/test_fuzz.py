"""The decoder fuzzer on a few files per format; `python scripts/fuzz.py` runs thousands."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from conftest import ROOT


@pytest.mark.parametrize("form", ["JPEG", "PNG", "GIF", "WEBP", "AVIF", "BMP", "TIFF"])
def test_the_decoder_reads_corrupted_files_or_refuses_them_with_a_reason(form, tmp_path):
    ended = subprocess.run(
        [sys.executable, ROOT / "scripts/fuzz.py", "--each", "250", "--formats", form],
        cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    read, refused = (
        int(n.replace(",", "")) for n in re.findall(r"([\d,]+) (?:read|refused)", ended.stdout)
    )
    assert read + refused == 250
    assert refused > 10
