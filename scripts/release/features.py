"""Run the frozen parts of the networks over all views once, and keep their outputs in files."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from release.networks import CUT, Branch, Trunk, pretrained
from release.sources import Sources
from release.views import View, Viewer, views_of

SMALL, MEDIUM = 96, 160
"""Input sizes of the first stage, in pixels."""

BATCH = 16


@dataclass(frozen=True, slots=True)
class Arrays:
    """Outputs for N views, memory-mapped.

    Attributes:
        middle: after the trunk of Lite2, `float16 [N, 208, 8, 8]`.
        features: of the general branch, `float16 [N, 1280]`.
        concepts: its logits of ImageNet's classes, `float16 [N, 1000]`.
        small, medium: pixels of the first stage, `uint8 [N, S, S, 3]`.
    """

    middle: npt.NDArray[np.float16]
    features: npt.NDArray[np.float16]
    concepts: npt.NDArray[np.float16]
    small: npt.NDArray[np.uint8]
    medium: npt.NDArray[np.uint8]


_SHAPES: dict[str, tuple[type, tuple[int, ...]]] = {
    "middle": (np.float16, (208, 8, 8)),
    "features": (np.float16, (1280,)),
    "concepts": (np.float16, (1000,)),
    "small": (np.uint8, (SMALL, SMALL, 3)),
    "medium": (np.uint8, (MEDIUM, MEDIUM, 3)),
}


def normalised(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Network input `float32 [N, 3, S, S]` from pixels `uint8 [N, S, S, 3]`."""
    inputs = np.ascontiguousarray(pixels.transpose(0, 3, 1, 2), dtype=np.float32)
    inputs -= 127
    inputs /= 128
    return inputs


def session(path: Path, threads: int = 1) -> Any:
    """An ONNX Runtime session."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def compute(root: Path, work: Path) -> Arrays:
    """The outputs for all views of the photos below `root`, kept in the folder `work`."""
    done = work / "features.done"
    if not done.exists():
        _export(work / "frozen.onnx")
        total = len(views_of(Sources(root).rows()))
        for name, (kind, shape) in _SHAPES.items():
            np.lib.format.open_memmap(
                work / f"{name}.npy", mode="w+", dtype=kind, shape=(total, *shape)
            )
        parts = os.cpu_count() or 1
        context = multiprocessing.get_context("spawn")
        processes = [
            context.Process(target=_compute, args=(root, work, part, parts))
            for part in range(parts)
        ]
        for process in processes:
            process.start()
        for process in processes:
            process.join()
            if process.exitcode:
                raise SystemExit(f"a process ended with {process.exitcode}")
        done.touch()
    return Arrays(**{name: np.load(work / f"{name}.npy", mmap_mode="r") for name in _SHAPES})


def _compute(root: Path, work: Path, part: int, parts: int) -> None:
    sources = Sources(root)
    rows = sources.rows()
    viewer, views = Viewer(sources, rows), views_of(rows)
    network = session(work / "frozen.onnx")
    files = {name: np.load(work / f"{name}.npy", mmap_mode="r+") for name in _SHAPES}
    for start in range(part * BATCH, len(views), parts * BATCH):
        if part == 0 and start % (500 * BATCH) == 0:
            print(f"{start:,} of {len(views):,} views", flush=True)
        chosen: Sequence[View] = views[start : start + BATCH]
        pixels = np.stack([viewer.pixels(view) for view in chosen])
        found = network.run(None, {"photos": normalised(pixels)})
        end = start + len(chosen)
        for name, values in zip(("middle", "features", "concepts"), found, strict=True):
            files[name][start:end] = values
        files["small"][start:end] = [shrunk(each, SMALL) for each in pixels]
        files["medium"][start:end] = [shrunk(each, MEDIUM) for each in pixels]


def shrunk(pixels: npt.NDArray[np.uint8], size: int) -> npt.NDArray[np.uint8]:
    """Pixels of the first stage."""
    image = Image.fromarray(pixels)
    return np.asarray(image.resize((size, size), Image.Resampling.BILINEAR))


def _export(path: Path) -> None:
    from torch import Tensor, nn

    network = pretrained(2)
    trunk, general = Trunk(network, CUT), Branch(pretrained(2), CUT, 0, fold=False)

    class Frozen(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.trunk, self.general, self.concepts = trunk, general, network._fc

        def forward(self, photos: Tensor) -> tuple[Tensor, ...]:
            middle = self.trunk(photos)
            features = self.general.map(middle).mean((2, 3))
            return middle, features, self.concepts(features)

    export(Frozen().eval(), path, 256, ["middle", "features", "concepts"])


def export(
    network: Any, path: Path, size: int, names: list[str], *, any_size: bool = False
) -> None:
    """Write a network as ONNX, for batches of any length, and on request for photos of any size."""
    import torch

    varying: dict[int, Any] = {0: torch.export.Dim("n")}
    if any_size:
        varying |= {2: torch.export.Dim.DYNAMIC, 3: torch.export.Dim.DYNAMIC}

    torch.onnx.export(
        network,
        (torch.zeros(2, 3, size, size),),
        str(path),
        input_names=["photos"],
        output_names=names,
        dynamic_shapes=(varying,),
        dynamo=True,
        external_data=False,
        verbose=False,
    )
