"""Small model files for tests, made without training."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

import catordog
from catordog.model.export.onnx import to_onnx
from catordog.model.info import ModelInfo
from catordog.model.networks import build_network
from catordog.photos.preprocess import Preprocess

FORMATS = ["ckpt", "onnx"]
INFO = ModelInfo(
    ("cat", "dog"), "residual", {"widths": (8, 16), "blocks": (1, 1)}, Preprocess(32), threshold=0.7
)


def write_checkpoint(path: Path, description: dict[str, Any] | None = None, **fields: Any) -> Path:
    """A `.ckpt` with random weights.

    Args:
        path: the file.
        description: what it says of itself; default: `INFO` with `fields` replaced.
    """
    torch.manual_seed(0)
    description = description or replace(INFO, **fields).to_dict()
    network = build_network(
        description["network"], len(description["classes"]), description["network_args"], size=32
    )
    state = {f"network.{name}": value for name, value in network.state_dict().items()}
    torch.save({"catordog": description, "state_dict": state}, path)
    return path


def write_model(folder: Path, form: str, **fields: Any) -> Path:
    """A model file of one of `FORMATS`, with random weights."""
    path = write_checkpoint(folder / "small.ckpt", **fields)
    if form == "ckpt":
        return path
    exported = folder / "small.onnx"
    exported.write_bytes(to_onnx(catordog.load(path)))
    return exported
