"""Run the program of a Core ML package with torch: Core ML itself runs on Apple devices only."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def _padding(given: dict[str, Any]) -> list[int]:
    """What F.pad takes: the last dimension first."""
    before_after = given["pad"].tolist()
    pairs = [before_after[i : i + 2] for i in range(0, len(before_after), 2)]
    return [length for pair in reversed(pairs) for length in pair]


def _conv(given: dict[str, Any]) -> Tensor:
    assert given["pad_type"] in {"custom", "valid"}
    x = F.pad(given["x"], _padding(given)) if given["pad_type"] == "custom" else given["x"]
    strides, dilations = (given[name].tolist() for name in ("strides", "dilations"))
    return F.conv2d(x, given["weight"], given["bias"], strides, 0, dilations, int(given["groups"]))


def _avg_pool(given: dict[str, Any]) -> Tensor:
    assert given["pad_type"] in {"custom", "valid"}
    assert not any(given["pad"].tolist()) or given["pad_type"] == "valid"
    return F.avg_pool2d(
        given["x"], given["kernel_sizes"].tolist(), given["strides"].tolist(),
        ceil_mode=bool(given["ceil_mode"]),
    )  # fmt: skip


OPERATIONS: dict[str, Callable[[dict[str, Any]], Tensor]] = {
    "add": lambda given: given["x"] + given["y"],
    "avg_pool": _avg_pool,
    "clip": lambda given: given["x"].clamp(float(given["alpha"]), float(given["beta"])),
    "concat": lambda given: torch.cat(given["values"], int(given["axis"])),
    "conv": _conv,
    "linear": lambda given: F.linear(given["x"], given["weight"], given["bias"]),
    "mul": lambda given: given["x"] * given["y"],
    "pad": lambda given: F.pad(
        given["x"], _padding(given), value=float(given["constant_val"])
    ),
    "real_div": lambda given: given["x"] / given["y"],
    "reduce_mean": lambda given: given["x"].mean(
        given["axes"].tolist(), bool(given["keep_dims"])
    ),
    "relu": lambda given: given["x"].relu(),
    "relu6": lambda given: F.relu6(given["x"]),
    "reshape": lambda given: given["x"].reshape(given["shape"].tolist()),
    "reverse": lambda given: given["x"].flip(given["axes"].tolist()),
    "squeeze": lambda given: given["x"].squeeze(given["axes"].tolist()),
    "sub": lambda given: given["x"] - given["y"],
}  # fmt: skip
"""Those that the networks of the tests need."""


def run_package(package: Path, photo: Tensor) -> dict[str, Tensor]:
    """The outputs of a package for a photo, `float32 [1, 3, S, S]` in 0…255."""
    from coremltools.converters.mil.frontend.milproto.load import load
    from coremltools.models.utils import load_spec

    spec = load_spec(str(package))
    weights = package / "Data" / "com.apple.CoreML" / "weights"
    program = load(spec, spec.specificationVersion, str(weights))
    main = program.functions["main"]
    (name,) = main.inputs
    values: dict[str, Any] = {name: photo}

    def value(given: Any) -> Any:
        if isinstance(given, (list, tuple)):
            return [value(item) for item in given]
        if given is None:
            return None
        if given.name in values:
            return values[given.name]
        constant = given.val
        return constant if isinstance(constant, str) else torch.as_tensor(constant)

    for operation in main.operations:
        if operation.op_type == "const":
            continue
        given = {key: value(item) for key, item in operation.inputs.items()}
        given.setdefault("bias", None)
        (output,) = operation.outputs
        values[output.name] = OPERATIONS[operation.op_type](given)
    return {output.name: values[output.name] for output in main.outputs}
