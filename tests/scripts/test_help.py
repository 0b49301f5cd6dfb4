"""Every script explains itself at once, without loading what only its work needs."""

from __future__ import annotations

import subprocess
import sys

import pytest

from conftest import ROOT

MODULES = {"lite0", "step_clock"}  # imported by scripts or options; not programs
SCRIPTS = sorted(path for path in (ROOT / "scripts").glob("*.py") if path.stem not in MODULES)
HEAVY = {"torch", "lightning", "matplotlib", "onnxruntime", "sklearn", "scipy"}


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_help_shows_how_to_call_the_script_and_imports_no_heavy_package(script, tmp_path):
    ended = subprocess.run(
        [sys.executable, "-X", "importtime", script, "--help"],
        cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr[-2000:]
    assert f"usage: {script.name}" in ended.stdout
    assert f"python scripts/{script.name} " in ended.stdout
    imported = {line.rpartition("|")[2].strip() for line in ended.stderr.splitlines()}
    assert "argparse" in imported
    assert not imported & HEAVY
