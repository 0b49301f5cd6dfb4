"""The script for a visit to a GPU works, tried on the CPU."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile

import pytest

from conftest import ROOT

SCRIPT = ROOT / "scripts" / "gpu.py"


@pytest.mark.slow
def test_a_dry_run_passes_every_check_on_the_cpu(tmp_path):
    ended = subprocess.run(
        [sys.executable, SCRIPT, "--dry-run", "--json", tmp_path / "figures.json"],
        cwd=tmp_path, capture_output=True, text=True, timeout=1800, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stdout + ended.stderr[-2000:]
    names = [line.partition(":")[0] for line in ended.stdout.splitlines()]
    assert names == [
        "hardware", "speed", "quick recipe", "quick recipe, not compiled", "CPU and GPU agree",
        "DDP with one process", "exact resume", "best recipe", "best recipe, not compiled", "sweep",
    ]  # fmt: skip
    assert json.loads((tmp_path / "figures.json").read_text())["resume"] is True


def test_a_packed_copy_keeps_photos_classes_and_splits(tmp_path):
    out = tmp_path / "small.zip"
    subprocess.run(
        [sys.executable, SCRIPT, "--data", "drawn:n=40,size=64", "--pack", out], check=True
    )
    names = zipfile.ZipFile(out).namelist()
    assert len(names) == 40
    assert {name.split("/")[1] for name in names} == {"cat", "dog"}
    assert {name.split("/")[0] for name in names} == {"train", "val", "test"}
