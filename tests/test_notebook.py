"""The notebook docs/logits.ipynb runs, and is readable without running it."""

from __future__ import annotations

import json
import re

import pytest

from conftest import ROOT

NOTEBOOK = ROOT / "docs" / "logits.ipynb"


def test_it_has_the_outputs_of_a_complete_run_and_no_path_of_a_machine():
    cells = json.loads(NOTEBOOK.read_text("utf-8"))["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    outputs = [output for cell in code for output in cell["outputs"]]
    kinds = {kind for output in outputs for kind in output.get("data", {"text": 0})}
    assert {"text", "text/html", "image/png"} <= kinds
    assert not any(output["output_type"] == "error" for output in outputs)
    texts = [text for output in outputs for text in ("".join(output.get("text", "")),
             "".join(output.get("data", {}).get("text/plain", "")))]  # fmt: skip
    assert not [text for text in texts if re.search(r"/\w+/\w+|[A-Z]:\\|\b0x[0-9a-f]{6}", text)]
    assert NOTEBOOK.stat().st_size < 300_000


@pytest.mark.slow
def test_every_cell_runs(tmp_path, monkeypatch):
    import nbformat
    from nbclient import NotebookClient

    for name in ("IPYTHONDIR", "JUPYTER_DATA_DIR", "JUPYTER_CONFIG_DIR", "JUPYTER_RUNTIME_DIR"):
        monkeypatch.setenv(name, str(tmp_path / name))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    saved = [cell.get("outputs", []) for cell in notebook.cells]
    where = {"metadata": {"path": str(tmp_path)}}
    NotebookClient(
        notebook, timeout=600, kernel_name="python3", coalesce_streams=True, resources=where
    ).execute()
    for cell, before in zip(notebook.cells, saved, strict=True):
        kinds = [output["output_type"] for output in cell.get("outputs", [])]
        assert kinds == [output["output_type"] for output in before], cell.source
